"""Search: the earliest and the longest placement of a share on a timeline.

The method: the segments of a node in which the share fits merge to runs; a run allows the starts of one
interval; the earliest start at which enough nodes allow it begins one of those intervals. Runs of the
licences count like those of a node, so that one sweep answers for a node, for several at once, and for
licences. All of it is sorting and counting of arrays as long as there are segments after the first start.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappush, heappushpop

import numpy as np
from numpy.typing import NDArray

from ebhpc.planning.inventory import LICENCES
from ebhpc.planning.profile import FOREVER, PAST, Amounts, Integers
from ebhpc.planning.timeline import Timeline

LAST_INSTANT = 253_402_300_799
"""9999-12-31T23:59:59Z, the last instant that RFC 3339 can tell: nothing is planned beyond it."""


@dataclass(frozen=True, slots=True)
class Terms:
    """When a start may be: in [``first``, ``last``].

    A window's latest start is its start, but not before ``settled``: until then the user may accept it and
    the platform prepares it.
    """

    first: int
    last: int
    settled: int

    def latest(self, start: int) -> int:
        """Return the latest start of a window that starts at ``start``."""
        return max(start, self.settled)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one placement takes: ``amounts`` on each of ``nodes`` nodes, and ``licences``."""

    amounts: Amounts
    nodes: int
    licences: Amounts


@dataclass(frozen=True, slots=True)
class Placement:
    """A start, how long, and the nodes by their places."""

    start: int
    duration: int
    places: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Runs:
    """Stretches of time in which a share is free without a break; ``need`` of them must run at once."""

    starts: Integers
    ends: Integers
    owner: Integers
    need: int


class Search:
    """A timeline as one search sees it: only the nodes of ``eligible``, from ``terms.first`` on.

    ``eligible`` has shape ``(nodes,)``; ``rank`` too: of nodes that all would do, those of lowest rank are
    taken.
    """

    __slots__ = ("_edges", "_ends", "_free", "_licences", "_owner", "_rank", "_terms", "_times")

    def __init__(
        self,
        timeline: Timeline,
        eligible: NDArray[np.bool_],
        rank: Integers,
        terms: Terms,
    ) -> None:
        rows = timeline.rows()
        self._terms = terms
        self._rank = rank
        seen = rows.ends > terms.first
        if not eligible.all():
            seen &= eligible[rows.owner]
        if len(seen) and seen.all():
            self._times, self._ends, self._owner, self._free = rows.times, rows.ends, rows.owner, rows.free
        else:
            self._times, self._ends, self._owner = rows.times[seen], rows.ends[seen], rows.owner[seen]
            self._free = rows.free.compress(seen, axis=1)
        self._edges = self._owner[1:] != self._owner[:-1]
        self._licences = timeline.profile(LICENCES)

    def earliest(self, wanted: Wanted, duration: int) -> Placement | None:
        """Find the earliest start at which ``wanted`` is free for ``duration`` seconds, or None."""
        requirements = self._requirements(wanted)
        allowed = []
        for runs in requirements:
            opens = np.maximum(runs.starts, self._terms.first)
            closes = np.minimum(runs.ends, LAST_INSTANT) - duration
            possible = (closes >= self._terms.settled) & (opens <= closes) & (opens <= self._terms.last)
            if np.count_nonzero(possible) < runs.need:
                return None
            allowed.append((np.sort(opens[possible]), np.sort(closes[possible]), runs.need))
        candidates = np.unique(np.concatenate([opens for opens, _, _ in allowed]))
        good = np.ones(len(candidates), dtype=bool)
        for opens, closes, need in allowed:
            running = opens.searchsorted(candidates, "right") - closes.searchsorted(candidates, "left")
            good &= running >= need
        if not good.any():
            return None
        start = int(candidates[good.argmax()])
        return self._placed(requirements[0], start, duration)

    def longest(self, wanted: Wanted, least: int, most: int | None, step: int) -> Placement | None:
        """Find the longest placement of ``least`` to ``most`` seconds, a multiple of ``step``.

        Of equally long ones the earliest. None where there is none, and where one could last for ever and
        ``most`` is None: there is no longest then.
        """
        requirements = self._requirements(wanted)
        reaches = []
        for runs in requirements:
            possible = (runs.starts <= self._terms.last) & (runs.ends > self._terms.first)
            if np.count_nonzero(possible) < runs.need:
                return None
            opens = np.maximum(runs.starts[possible], self._terms.first)
            order = opens.argsort(kind="stable")
            ends = runs.ends[possible][order]
            reaches.append((opens[order], _nth_largest_so_far(ends, runs.need), runs.need))
        candidates = np.unique(np.concatenate([opens for opens, _, _ in reaches]))
        end = np.full(len(candidates), FOREVER)
        for opens, reach, _ in reaches:
            begun = opens.searchsorted(candidates, "right")
            end = np.where(begun > 0, np.minimum(end, reach[begun - 1]), candidates)
        if most is None and (end >= FOREVER).any():
            return None
        lasting = np.minimum(end, LAST_INSTANT) - np.maximum(candidates, self._terms.settled)
        if most is not None:
            lasting = np.minimum(lasting, most)
        lasting -= lasting % step
        best = int(lasting.argmax())
        if lasting[best] < least:
            return None
        return self._placed(requirements[0], int(candidates[best]), int(lasting[best]))

    def _requirements(self, wanted: Wanted) -> list[_Runs]:
        fine = np.ones(len(self._times), dtype=bool)
        for quantity, amount in enumerate(wanted.amounts):
            if amount:
                fine &= self._free[quantity] >= amount
        begins = fine.copy()
        begins[1:] &= ~fine[:-1] | self._edges
        stops = fine.copy()
        stops[:-1] &= ~fine[1:] | self._edges
        first = begins.nonzero()[0]
        last = stops.nonzero()[0]
        requirements = [_Runs(self._times[first], self._ends[last], self._owner[first], wanted.nodes)]
        if any(wanted.licences):
            requirements.append(self._licence_runs(wanted.licences))
        return requirements

    def _licence_runs(self, licences: Amounts) -> _Runs:
        times, free = self._licences.times, self._licences.free
        fine = (free >= np.array(licences, dtype=np.int64)[:, np.newaxis])[np.array(licences) > 0].all(axis=0)
        steps = np.diff(np.concatenate([[0], fine.astype(np.int8), [0]]))
        starts = times[(steps == 1).nonzero()[0]]
        ends = np.append(times, FOREVER)[(steps == -1).nonzero()[0]]
        return _Runs(starts, ends, np.zeros(len(starts), dtype=np.int64), 1)

    def _placed(self, runs: _Runs, start: int, duration: int) -> Placement:
        """Choose the nodes of lowest rank among those that are free from ``start`` on."""
        end = self._terms.latest(start) + duration
        able = runs.owner[(runs.starts <= start) & (runs.ends >= end)]
        chosen = able[self._rank[able].argsort(kind="stable")][: runs.need]
        return Placement(start, duration, tuple(sorted(chosen.tolist())))


def _nth_largest_so_far(values: Integers, count: int) -> Integers:
    """Return for each index the ``count``-th largest of the values up to there; PAST if fewer.

    Of runs in the order of their starts, and the values their ends, that is until when ``count`` of them run:
    a node's earlier run has ended, so a result that is still to come belongs to as many nodes.
    """
    if count == 1:
        return np.maximum.accumulate(values)
    heap: list[int] = []
    result = np.full(len(values), PAST)
    for index, value in enumerate(values.tolist()):
        if len(heap) < count:
            heappush(heap, value)
        else:
            heappushpop(heap, value)
        if len(heap) == count:
            result[index] = heap[0]
    return result
