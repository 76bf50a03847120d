"""Moments as people write them: 'tomorrow 08:00', 'friday 18:00', 'in 2 hours', '2026-11-27 18:00'."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import click

_WORDS = re.compile(r"[^\W\d_]|\d.*[-:./].*\d")
"""A text without a word, and without a date or a clock time, is a bare number: nobody knows of what."""


def moment_of(text: str, now: datetime) -> datetime:
    """Return the moment that is meant, in UTC; without a date it is the next such time, without a zone the user's own.

    Raises:
        click.UsageError: nothing is known that it could mean.
    """
    import dateparser

    found: datetime | None = None
    if _WORDS.search(text):
        local = now.astimezone().replace(tzinfo=None)
        found = dateparser.parse(
            text, languages=["en"], settings={"RELATIVE_BASE": local, "PREFER_DATES_FROM": "future"}
        )
    if found is None:
        raise click.UsageError(
            f"{text!r} is no time that is understood: write it as 'tomorrow 08:00', 'friday 18:00', 'in 2 hours' or"
            " '2026-11-27 18:00'."
        )
    return found.astimezone(UTC)
