"""`ebhpc calendar`: the coming days of a platform, drawn in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

import click
import msgspec
import numpy as np
from numpy.typing import NDArray

from ebhpc.cli import screen, times
from ebhpc.cli.choices import choices_of, connect, for_all_commands
from ebhpc.cli.exits import Exit
from ebhpc.client import BadAnswer
from ebhpc.model.times import duration_text

CELL = 1800
"""Seconds of one letter; a day is 48 of them."""

_HEIGHTS = " ▁▂▃▄▅▆▇█"
_COLOURS = {"free": "green", "promised": "yellow", "yours": "cyan", "maintenance": "red"}
_RUNNING, _WAITING, _RESERVATION, _MAINTENANCE, _PROMISE, _OFFER = range(6)


class What(StrEnum):
    """What a line of a day tells."""

    FREE = "free"
    PROMISED = "promised"
    MINE = "yours"
    MAINTENANCE = "maintenance"


class Shares(NamedTuple):
    """Shares of a platform's cores in [0, 1], by what they are, for each cell from ``start`` on (POSIX seconds)."""

    start: int
    shares: dict[What, NDArray[np.float64]]


@click.command(short_help="Draw a platform's coming days: free, promised, yours, maintenance.")
@click.argument("platform", required=False)
@click.option("--days", type=click.IntRange(1, 31), default=7, show_default=True, help="How many days.")
@for_all_commands
@click.pass_context
def calendar(context: click.Context, platform: str | None, days: int) -> None:
    """Draw the coming days of PLATFORM: what is free, promised, yours, in maintenance.

    Each letter is half an hour; the higher it is the more of the platform's cores. Without PLATFORM, all platforms that
    can be used now. Times are those of your time zone.
    """
    broker = connect(context)
    names = [platform] if platform is not None else [each["name"] for each in broker.platforms() if each["available"]]
    if not names:
        screen.tell("No platform can be used now.")
        raise click.exceptions.Exit(Exit.NO)
    pictures = {name: broker.picture(name, duration_text(days * 86_400)) for name in names}
    if choices_of(context).json:
        screen.result(msgspec.json.encode(pictures[names[0]] if platform is not None else pictures).decode())
        return
    now = datetime.now(UTC)
    for place, (name, picture) in enumerate(pictures.items()):
        if place:
            screen.result()
        for line in drawn(name, picture, days, now):
            screen.result(line)


def drawn(name: str, picture: dict[str, Any], days: int, now: datetime) -> Iterator[str]:
    """Yield the lines that draw a picture."""
    shares = shares_of(picture, days, now)
    margin = 14
    as_of = f"as of {_clock(picture['taken'])} ({times.zone_name(now)})"
    yield f"{screen.clean(name)}, {len(picture['nodes'])} nodes, {as_of}"
    yield " " * margin + "".join(f"{hour:02}".ljust(6) for hour in range(0, 24, 3))
    first = datetime.fromtimestamp(shares.start, UTC).astimezone()
    for day in range(days + 1):
        begin = _midnight(first, day)
        label = begin.strftime("%a %d %b")
        for what in What:
            row = _row(shares, what, begin)
            if what is not What.FREE and not row.strip():
                continue
            colour = _COLOURS[what.value] if screen.on_terminal() else None
            text = f"{label:<{margin}}" + (click.style(row, fg=colour) if colour else row) + f" {what.value}"
            yield text.rstrip()
            label = ""


def _midnight(first: datetime, day: int) -> datetime:
    naive = first.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None) + timedelta(days=day)
    return naive.astimezone()


def _row(shares: Shares, what: What, begin: datetime) -> str:
    """Return a day's letters; a day on which clocks are moved has the letters of its 24 clock hours."""
    offset = (int(begin.timestamp()) - shares.start) // CELL
    values = shares.shares[what]
    cells = [values[place] if 0 <= place < len(values) else None for place in range(offset, offset + 86_400 // CELL)]
    return "".join(" " if value is None else _letter(float(value)) for value in cells)


def _letter(share: float) -> str:
    """Something is never drawn as nothing."""
    if share <= 1e-9:
        return _HEIGHTS[0]
    return _HEIGHTS[min(max(round(share * (len(_HEIGHTS) - 1)), 1), len(_HEIGHTS) - 1)]


def _clock(text: str) -> str:
    return datetime.fromisoformat(text).astimezone().strftime("%H:%M")


def shares_of(picture: dict[str, Any], days: int, now: datetime) -> Shares:
    """Return what share of a platform's cores is free, promised, the reader's own and in maintenance, from now on.

    Raises:
        BadAnswer: it is no picture of a platform.
    """
    try:
        return _shares_of(picture, days, now)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise BadAnswer(f"the broker sent no calendar: {error!r}") from error


def _shares_of(picture: dict[str, Any], days: int, now: datetime) -> Shares:
    start = int(now.timestamp()) // CELL * CELL
    cells = days * 86_400 // CELL
    begin = int(datetime.fromisoformat(picture["start"]).timestamp())
    cores = np.array(picture["cores"], dtype=float)
    states = picture.get("states") or ["UP"] * len(cores)
    taken = np.zeros((len(cores), cells))
    found: dict[What, NDArray[np.float64]] = {
        what: np.zeros((len(cores), cells)) for what in What if what is not What.FREE
    }
    spans = picture["spans"]
    firsts = np.cumsum(spans["first"])
    mine: Sequence[int] = spans.get("session") or [0] * len(firsts)
    names = picture.get("sessions") or [""]
    for place, first in enumerate(firsts.tolist()):
        nodes = slice(first, first + spans["count"][place])
        kind, own = spans["kind"][place], bool(names[mine[place]])
        from_, until = (
            begin + spans["start"][place] - start,
            begin + spans["start"][place] + spans["length"][place] - start,
        )
        weights = _overlap(from_, until, cells)
        share = np.minimum(spans["cores"][place] / np.maximum(cores[nodes], 1.0), 1.0)[:, np.newaxis] * weights
        if kind == _MAINTENANCE:
            share = np.broadcast_to(weights, share.shape)
        taken[nodes] += share
        what = _what(kind, own)
        if what is not None:
            found[what][nodes] += share
    taken[[state != "UP" for state in states]] = 1.0
    total = max(float(cores.sum()), 1.0)
    shares: dict[What, NDArray[np.float64]] = {
        what: (cores @ np.minimum(each, 1.0)) / total for what, each in found.items()
    }
    shares[What.FREE] = (cores @ np.maximum(1.0 - taken, 0.0)) / total
    return Shares(start, shares)


def _what(kind: int, own: bool) -> What | None:
    if kind == _MAINTENANCE:
        return What.MAINTENANCE
    if kind in (_PROMISE, _OFFER, _RESERVATION):
        return What.MINE if own else What.PROMISED
    return None


def _overlap(begin: int, end: int, cells: int) -> NDArray[np.float64]:
    """Return what part of each cell lies in [``begin``, ``end``), seconds from the first cell's begin."""
    edges = np.arange(cells) * float(CELL)
    found: NDArray[np.float64] = np.clip((np.minimum(edges + CELL, end) - np.maximum(edges, begin)) / CELL, 0.0, 1.0)
    return found
