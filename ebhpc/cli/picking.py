"""Which offer is meant, on the command line."""

from __future__ import annotations

from typing import Any

import click


class Pick(click.ParamType[str | int]):
    """One of ``words``, or the number of an offer from 1."""

    name = "pick"

    def __init__(self, *words: str) -> None:
        self.words = words

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """Return what the help shows."""
        return "|".join((*self.words, "N"))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str | int:
        """Return the word in small letters, or the number."""
        text = str(value).lower()
        if text in self.words:
            return text
        if text.isdecimal() and int(text) > 0:
            return int(text)
        raise click.BadParameter(f"{value!r} is none of {', '.join(self.words)} and no number from 1.", ctx, param)
