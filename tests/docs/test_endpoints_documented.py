"""docs/users/endpoints.md shows every endpoint, parameter and kind of message, docs/operators/api.md every measure."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client.metrics import MetricWrapperBase

from ebhpc.api.metrics import Measures
from ebhpc.api.openapi import OPERATIONS, Operation
from ebhpc.model import MessageKind
from ebhpc.store import Store, upgrade

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "users" / "endpoints.md").read_text(encoding="utf-8")
OPERATORS = (DOCS / "operators" / "api.md").read_text(encoding="utf-8")

SECTIONS = dict(re.findall(r"^### (.+)\n((?:(?!^##).*\n)*)", PAGE, re.MULTILINE))


def title(operation: Operation) -> str:
    return f"{operation.method.upper()} {operation.path}"


@pytest.mark.parametrize("operation", OPERATIONS, ids=title)
def test_an_endpoint_has_a_section_that_says_something(operation: Operation) -> None:
    assert len(SECTIONS[title(operation)].strip()) > 20
    for name, _, _ in operation.query:
        assert f"| `{name}` |" in SECTIONS[title(operation)]


def test_the_page_has_no_endpoint_that_is_not_there() -> None:
    assert SECTIONS.keys() == {title(operation) for operation in OPERATIONS}


def test_every_kind_of_message_is_explained() -> None:
    explained = set(re.findall(r"^\| `(urn:[a-z-]+)` \|", PAGE, re.MULTILINE))
    assert explained == set(MessageKind)


def test_every_measure_is_explained(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'ebhpc.sqlite3'}")
    upgrade(store)
    measures = Measures(store, lambda: 0.0)
    text, _ = measures.text()
    store.close()
    counted = {
        value._name + ("_total" if value._type == "counter" else "")
        for value in vars(measures).values()
        if isinstance(value, MetricWrapperBase)
    }
    figures = set(re.findall(r"^# TYPE (ebhpc_\w+) (?:gauge|counter)", text.decode(), re.MULTILINE))
    explained = set(re.findall(r"^\| `(ebhpc_\w+)` \|", OPERATORS, re.MULTILINE))
    assert explained == counted | figures
