"""Where a demand fits, and how much each place breaks up what is free.

A place is cheap where it leaves no hole before it or behind it that is of no use: beside a reservation, right after
what runs, in a hole that backfill cannot fill. The measure is the node-hours of holes that stay unused with the window,
less those that stay unused without it, by the time limits that jobs have here: see :class:`Holes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ebhpc.planning.firm.harm import Holes
from ebhpc.planning.firm.rules import HOUR
from ebhpc.planning.inventory import LICENCES
from ebhpc.planning.profile import FOREVER, PAST, Amounts, Integers
from ebhpc.planning.search import LAST_INSTANT, Wanted
from ebhpc.planning.timeline import Timeline

MOST_LOOKED_AT = 160
"""So many starts are compared, those that fit spread evenly where there are more."""

_SPREAD = 16
_QUARTER = 900


class Stretches(NamedTuple):
    """Stretches of time in which a share is free on a node without a break: arrays, nodes by their places."""

    starts: Integers
    ends: Integers
    owner: Integers


class Candidate(NamedTuple):
    """A start, the nodes by their places, and what it breaks up, in node-hours; negative: it fills holes.

    ``delays``: jobs may be planned there.
    """

    start: int
    places: tuple[int, ...]
    broken: float
    delays: bool = False


def stretches(timeline: Timeline, wanted: Wanted, eligible: NDArray[np.bool_]) -> Stretches:
    """Return where a share is free on the nodes of ``eligible``, which has shape ``(nodes,)``."""
    capacities = timeline.inventory.capacities
    amounts = np.array(wanted.amounts, dtype=np.int64)
    found: list[Stretches] = []
    for rows, gone in timeline.parts():
        fine = rows.counted(gone)
        fine &= eligible[rows.owner]
        if wanted.whole:
            fine &= (rows.free >= capacities.take(rows.owner, axis=1)).all(axis=0)
        else:
            for column in amounts.nonzero()[0].tolist():
                fine &= rows.free[column] >= amounts[column]
        # Separators between nodes are never fine, so a change is the begin or the end of a stretch
        changes = (fine[1:] != fine[:-1]).nonzero()[0]
        begin, last = changes[0::2] + 1, changes[1::2]
        found.append(Stretches(rows.times[begin], rows.ends[last], rows.owner[begin]))
    return Stretches(*(np.concatenate(arrays) for arrays in zip(*found, strict=True)))


def licensed(timeline: Timeline, licences: Amounts) -> list[tuple[int, int]]:
    """Return when so many licences are free."""
    profile = timeline.profile(LICENCES)
    wanted = np.array(licences, dtype=np.int64)
    fine: NDArray[np.bool_] = np.logical_and.reduce((profile.free >= wanted[:, np.newaxis])[wanted > 0])
    ends = [*profile.times[1:].tolist(), FOREVER]
    return [(begin, end) for begin, end, good in zip(profile.times.tolist(), ends, fine.tolist(), strict=True) if good]


def candidates(
    free: Stretches,
    starts: Sequence[tuple[int, int]],
    *,
    need: int,
    duration: int,
    gap: int,
    settled: int,
    now: int,
    part: float,
    holes: Holes,
    rank: Integers,
    cheap: bool,
    licences: Sequence[tuple[int, int]] | None = None,
) -> list[Candidate]:
    """Return places for ``need`` nodes at starts in one of the intervals, the earliest first.

    Args:
        free: where the share is free; nodes by their places.
        starts: intervals, both ends included.
        need: how many nodes.
        duration: seconds; ``gap`` more must be free behind. A start before ``settled`` lasts as if it were at that.
        settled: see above.
        now: POSIX seconds: no hole begins before.
        part: what part of a node the share is.
        holes: what holes are good for.
        rank: of equally good nodes those of lowest rank are taken; shape ``(nodes,)``.
        cheap: whether nodes are chosen to break up little; else by rank alone.
        licences: intervals in which the licences are free; None: none are wanted.
    """
    lasting = duration + gap
    ends = np.minimum(free.ends, LAST_INSTANT)
    long_enough = ends - np.maximum(free.starts, min((begin for begin, _ in starts), default=PAST)) >= lasting
    long_enough &= ends >= settled + lasting
    begins, ends, owner = free.starts[long_enough], ends[long_enough], free.owner[long_enough]
    if len(begins) < need:
        return []
    moments = _moments(begins, ends, starts, lasting, settled)
    until = np.maximum(moments, settled) + lasting
    count = np.sort(begins).searchsorted(moments, "right") - np.sort(ends).searchsorted(until, "left")
    good = count >= need
    if licences is not None:
        good &= _inside(licences, moments, until)
    moments = moments[good]
    if len(moments) > MOST_LOOKED_AT:
        moments = moments[np.linspace(0, len(moments) - 1, MOST_LOOKED_AT).astype(np.int64)]
    hole_begins = np.maximum(begins, now)
    before_all = holes.wasted(ends - hole_begins)
    found = []
    for start in moments.tolist():
        end = max(start, settled) + lasting
        able = ((begins <= start) & (ends >= end)).nonzero()[0]
        waste = holes.wasted(start - hole_begins[able]) + holes.wasted(ends[able] - end) - before_all[able]
        ranks = rank[owner[able]]
        order = np.lexsort((ranks, waste))[:need] if cheap else ranks.argsort(kind="stable")[:need]
        places = tuple(sorted(owner[able[order]].tolist()))
        found.append(Candidate(start, places, round(float(waste[order].sum()) * part / HOUR, 3)))
    return found


def _moments(
    begins: Integers, ends: Integers, starts: Sequence[tuple[int, int]], lasting: int, settled: int
) -> Integers:
    """Return instants worth looking at: where a stretch or an interval begins, where a block would end with a stretch.

    And some in between, on the quarter of an hour, so that there is a choice where everything is free.
    """
    found = []
    tight = ends - lasting
    tight = tight[tight >= settled]
    for first, last in starts:
        spread = np.linspace(first, last, _SPREAD).astype(np.int64) // _QUARTER * _QUARTER
        inside = [each[(each > first) & (each <= last)] for each in (begins, tight, spread)]
        found.append(np.concatenate([np.array([first], dtype=np.int64), *inside]))
    return np.unique(np.concatenate(found)) if found else np.zeros(0, dtype=np.int64)


def _inside(intervals: Sequence[tuple[int, int]], moments: Integers, until: Integers) -> NDArray[np.bool_]:
    merged: list[tuple[int, int]] = []
    for begin, end in intervals:
        if merged and merged[-1][1] >= begin:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((begin, end))
    inside = np.zeros(len(moments), dtype=bool)
    for begin, end in merged:
        inside |= (moments >= begin) & (until <= end)
    return inside
