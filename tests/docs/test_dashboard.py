"""The Grafana dashboard is one that Grafana's own model reads, and asks Prometheus for figures that there are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import promql_parser
import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

DOCS = Path(__file__).parents[2] / "docs" / "operators"
TEXT = (DOCS / "grafana-dashboard.json").read_text(encoding="utf-8")
DOCUMENTED = {
    name
    for page in ("api.md", "monitoring.md")
    for name in re.findall(r"`((?:ebhpc|process)_\w+)`", (DOCS / page).read_text(encoding="utf-8"))
}
EXPRESSIONS = [
    (panel["title"], target["expr"]) for panel in json.loads(TEXT)["panels"] for target in panel.get("targets", ())
]


def test_grafanas_model_reads_it_and_every_panel_has_its_place():
    read = Dashboard.from_json(json.loads(TEXT))
    assert read.title == "ebhpc"
    panels = read.panels or []
    assert len({panel.id_val for panel in panels}) == len(panels) > 10
    places = [panel.grid_pos for panel in panels]
    cells = [(x, y) for at in places for x in range(at.x, at.x + at.w) for y in range(at.y, at.y + at.h)]
    assert len(cells) == len(set(cells)), "panels overlap"
    assert max(x for x, _ in cells) < 24


def test_grafanas_model_knows_every_word_of_it():
    register_default_plugins()  # the models of panels and of Prometheus' queries
    written = json.loads(JSONEncoder().encode(Dashboard.from_json(json.loads(TEXT))))
    assert list(lost(json.loads(TEXT), written)) == []


def lost(before: object, after: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Yield what of one document is not, or is otherwise, in another that may have more."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name, value in before.items():
            if name in after:
                yield from lost(value, after[name], f"{path}/{name}")
            else:
                yield f"{path}/{name}", value
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for at, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from lost(one, other, f"{path}/{at}")
    elif before != after:
        yield path, before


@pytest.mark.parametrize(("title", "expression"), EXPRESSIONS)
def test_an_expression_is_promql_about_figures_that_are_documented(title: str, expression: str):
    promql_parser.parse(expression.replace("$__rate_interval", "5m"))
    names = set(re.findall(r"\b((?:ebhpc|process)_[a-z_]+)", expression))
    assert names, title
    assert {re.sub(r"_bucket$", "", name) for name in names} <= DOCUMENTED
