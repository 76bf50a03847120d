"""What a client accepts against what is quoted."""

from __future__ import annotations

from typing import Any

import pytest

from ebhpc.model import CostItem, Quote, SimpleCost, SimpleMetric, UnknownElement, kinds
from ebhpc.model.reading import constraints_allow
from tests.model.requests import found, full_request, reading


def allowed(constraint: dict[str, Any], quote: Quote, *, on_compute: bool = False) -> bool:
    raw = full_request() | {"costs": [], "metrics": []}
    part = raw["compute"] if on_compute else raw
    part["metrics" if constraint["kind"] == kinds.SIMPLE_METRIC else "costs"] = [constraint]
    request = reading(raw).request
    assert request is not None
    return constraints_allow(request, quote)


@pytest.mark.parametrize(
    ("wanted", "quoted", "allow"),
    [
        ({"max": 10}, {"min": 10, "max": 20}, True),
        ({"max": 10}, {"min": 10.01, "max": 20}, False),
        ({"max": 10}, {"max": 20}, True),
        ({"min": 5}, {"min": 1, "max": 4}, False),
        ({"min": 5}, {"min": 1}, True),
        ({"min": 5, "max": 6}, {"min": 1, "max": 9}, True),
        ({}, {"min": 1e300}, True),
        ({"max": 0}, {"min": 0, "max": 0}, True),
    ],
)
@pytest.mark.parametrize("on_compute", [False, True])
def test_only_a_range_wholly_outside_is_not_offered(wanted: Any, quoted: Any, allow: bool, on_compute: bool) -> None:
    cost = {"kind": kinds.SIMPLE_COST, "type": kinds.MONETARY} | wanted
    assert allowed(cost, Quote(costs=(SimpleCost(type=kinds.MONETARY, **quoted),)), on_compute=on_compute) is allow
    metric = {"kind": kinds.SIMPLE_METRIC, "type": kinds.IO_THROUGHPUT} | wanted
    quote = Quote(metrics=(SimpleMetric(type=kinds.IO_THROUGHPUT, **quoted),))
    assert allowed(metric, quote, on_compute=on_compute) is allow


def test_other_types_and_kinds_constrain_nothing() -> None:
    quote = Quote(costs=(SimpleCost(type=kinds.ENERGY, min=99), CostItem(type=kinds.MONETARY)))
    assert allowed({"kind": kinds.SIMPLE_COST, "type": kinds.MONETARY, "max": 1}, quote)
    assert allowed({"kind": kinds.ABSTRACT_COST, "type": kinds.ENERGY}, quote)
    odd = UnknownElement(kind="urn:x:y", raw={"kind": "urn:x:y"})
    assert allowed({"kind": kinds.SIMPLE_COST, "type": kinds.MONETARY, "max": 1}, Quote(costs=(odd,)))


def test_one_quoted_range_outside_is_enough() -> None:
    inside, outside = (SimpleCost(type=kinds.MONETARY, min=low, max=low) for low in (1, 9))
    constraint = {"kind": kinds.SIMPLE_COST, "type": kinds.MONETARY, "max": 5}
    assert allowed(constraint, Quote(costs=(inside,)))
    assert not allowed(constraint, Quote(costs=(inside, outside)))


def test_a_constraint_needs_a_type_and_a_range_that_holds_something() -> None:
    raw = full_request()
    raw["storage"][0]["metrics"] = [{"kind": kinds.SIMPLE_METRIC, "type": "", "min": 2.0, "max": 1.0}]
    raw["costs"] = [{"kind": kinds.SIMPLE_COST, "max": 1}]
    assert found(raw) == [
        ("urn:missing-required-value", "/costs/0/type"),
        ("urn:invalid-value", "/storage/0/metrics/0/type"),
        ("urn:invalid-value", "/storage/0/metrics/0/min"),
    ]
