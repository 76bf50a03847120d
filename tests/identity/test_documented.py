"""The pages for operators tell of every setting of issuers and rules; SECURITY.md names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ebhpc.config import Issuer
from ebhpc.config.rules import ContentRule, LimitRule, OthersRule, SitePolicy, Who

REPOSITORY = Path(__file__).parents[2]
PAGES = REPOSITORY / "docs" / "operators"


@pytest.mark.parametrize(
    ("page", "structs"),
    [("identity", (Issuer,)), ("policy", (SitePolicy, Who, LimitRule, ContentRule, OthersRule))],
)
def test_a_page_tells_of_every_setting(page: str, structs: tuple[type, ...]) -> None:
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    for struct in structs:
        for name in struct.__struct_fields__:  # type: ignore[attr-defined]
            assert re.search(rf"\b{name}\b", text), f"{struct.__name__}.{name}"


def test_tests_that_are_named_are_there() -> None:
    text = (REPOSITORY / "SECURITY.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(tests/[\w/.]+)`", text))
    assert len(named) > 10
    for name in named:
        assert (REPOSITORY / name).exists(), name
