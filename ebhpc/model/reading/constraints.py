"""What a client accepts: costs and metrics in a request bound what may be offered."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from ebhpc.model.elements import SimpleCost, SimpleMetric
from ebhpc.model.reading.findings import Findings
from ebhpc.model.sessions import Quote, Request


def check_constraints(items: Iterable[Any] | None, path: str, findings: Findings) -> None:
    """Report constraints of unknown kinds, without a type, or with a range that nothing can lie in."""
    for place, item in enumerate(items or ()):
        here = f"{path}/{place}"
        if not findings.known(item, here) or not isinstance(item, SimpleCost | SimpleMetric):
            continue
        if item.type is None:
            findings.missing(f"{here}/type", "the URI of what is counted")
        else:
            findings.line(item.type, f"{here}/type", "a URI")
        if item.min is not None and item.max is not None and item.min > item.max:
            findings.invalid(f"{here}/min", item.min, f"at most {item.max}, which {here}/max says")


def constraints_allow(request: Request, quote: Quote) -> bool:
    """Whether no quoted range lies wholly outside of what the client accepts for that type.

    The constraints are those of the request and of its compute element. A type that one side does not name,
    and an end that it leaves open, constrains nothing.
    """
    document = request.document
    compute = document.compute
    return all(
        _overlap(wanted, offered)
        for constraints, quoted in (
            (document.costs, quote.costs),
            (document.metrics, quote.metrics),
            (getattr(compute, "costs", None), quote.costs),
            (getattr(compute, "metrics", None), quote.metrics),
        )
        for wanted in constraints or ()
        for offered in quoted
    )


def _overlap(wanted: Any, offered: Any) -> bool:
    if not isinstance(wanted, SimpleCost | SimpleMetric) or not isinstance(offered, SimpleCost | SimpleMetric):
        return True
    if wanted.type is None or wanted.type != offered.type:
        return True
    return _low(wanted) <= _high(offered) and _low(offered) <= _high(wanted)


def _low(item: SimpleCost | SimpleMetric) -> float:
    return -math.inf if item.min is None else item.min


def _high(item: SimpleCost | SimpleMetric) -> float:
    return math.inf if item.max is None else item.max
