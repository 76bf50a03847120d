"""Where the command's words go: results to stdout, all else to stderr; colours and boxes on a terminal only.

A broker's texts are shown without their control characters: they cannot move the cursor or change the
terminal.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click


def clean(text: object) -> str:
    """Return a text without control characters, for one line on a terminal."""
    return "".join(letter if letter.isprintable() else " " if letter in "\t\r\n" else "�" for letter in str(text))


def result(text: str = "") -> None:
    """Write a line of the result to stdout."""
    click.echo(text)


def tell(text: str) -> None:
    """Write a line about progress or an error to stderr."""
    click.echo(text, err=True)


def on_terminal(*, err: bool = False) -> bool:
    """Whether stdout (``err``: stderr) is a terminal."""
    return (sys.stderr if err else sys.stdout).isatty()


def can_ask() -> bool:
    """Whether there is a terminal to ask the user on."""
    return on_terminal(err=True) and sys.stdin is not None and sys.stdin.isatty()


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> None:
    """Write a table to stdout: with rich on a terminal, else as columns of plain text.

    Columns without an entry are left out, and so are the headings where there is no row. ``right`` lists the indices
    of columns of numbers.
    """
    if not rows:
        return
    cells = [[clean(cell) for cell in row] for row in rows]
    kept = [index for index in range(len(headings)) if any(row[index] for row in cells)]
    if on_terminal():
        _rich_table(headings, cells, kept, right)
        return
    widths = {index: max(len(headings[index]), *(len(row[index]) for row in cells)) for index in kept}
    for row in [list(headings), *cells]:
        line = "  ".join(
            row[index].rjust(widths[index]) if index in right else row[index].ljust(widths[index]) for index in kept
        )
        result(line.rstrip())


def _rich_table(
    headings: Sequence[str], cells: Sequence[Sequence[str]], kept: Sequence[int], right: Sequence[int]
) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True, header_style="bold")
    for index in kept:
        grid.add_column(Text(headings[index]), justify="right" if index in right else "left", overflow="fold")
    for row in cells:
        grid.add_row(*(Text(row[index]) for index in kept))
    Console().print(grid)
