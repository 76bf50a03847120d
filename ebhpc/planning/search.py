"""Search: the earliest and the longest placement of a share on a timeline.

The method: the segments of a node in which the share fits merge to runs; a run allows the starts of one
interval. Runs of the licences count like those of a node. No start is earlier than the instant at which enough runs
have begun; those that have ended by then do not count, which makes the instant a later one, and so on until
enough of them run. Finding the runs is one pass over arrays as long as there are segments, and costs the most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappush, heappushpop
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ebhpc.planning.inventory import LICENCES
from ebhpc.planning.profile import FOREVER, PAST, Amounts, Integers, Profile
from ebhpc.planning.rows import Booleans, Rows
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
    """What one placement takes: ``amounts`` on each of ``nodes`` nodes, and ``licences``.

    ``whole``: all that each node has, whatever ``amounts`` says.
    """

    amounts: Amounts
    nodes: int
    licences: Amounts
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Placement:
    """A start, how long, and the nodes by their places."""

    start: int
    duration: int
    places: tuple[int, ...]


_Starts: TypeAlias = tuple[Integers, Integers, int]
"""Intervals of starts, both ends included (two arrays), and how many of them must hold a start."""

_ROUNDS, _FEW = 8, 1000
"""So often a bound is raised before all instants are looked at in one sweep; that is done at once if they are few."""


_SHORT = 4096
"""So few segments are not worth picking out those that matter."""


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """Segments to look at: those in ``kept``. ``following`` are the instants of the segments but the first's."""

    following: Integers
    ends: Integers
    owner: Integers
    free: Integers
    kept: Booleans


@dataclass(frozen=True, slots=True, eq=False)
class _Runs:
    """Stretches of time in which a share is free without a break, and whose: nodes by their places."""

    starts: Integers
    ends: Integers
    owner: Integers


class Search:
    """A timeline as one search sees it: only the nodes of ``eligible``, from ``terms.first`` on.

    ``eligible`` has shape ``(nodes,)``; ``rank`` too: of nodes that all would do, those of lowest rank are
    taken. ``until``: nothing is looked for that would end later (POSIX seconds); None: anything is.
    """

    __slots__ = ("_capacities", "_gap", "_licences", "_parts", "_rank", "_terms")

    def __init__(
        self,
        timeline: Timeline,
        eligible: NDArray[np.bool_],
        rank: Integers,
        terms: Terms,
        until: int | None = None,
    ) -> None:
        self._terms = terms
        self._rank = rank
        self._gap = timeline.gap
        self._capacities = timeline.inventory.capacities
        self._licences = timeline.profile(LICENCES)
        some = None if eligible.all() else eligible
        self._parts = [
            _part(rows, rows.counted(gone, terms.first), some, None if until is None else until + timeline.gap)
            for rows, gone in timeline.parts()
        ]

    def earliest(self, wanted: Wanted, duration: int) -> Placement | None:
        """Find the earliest start at which ``wanted`` is free for ``duration`` seconds, or None."""
        runs = self._runs(wanted)
        allowed = self._allowed(runs, wanted, duration)
        start = None if allowed is None else _first_common(allowed, self._terms.first)
        return None if start is None else self._placed(runs, wanted.nodes, start, duration)

    def longest(self, wanted: Wanted, least: int, most: int | None, step: int) -> Placement | None:
        """Find the longest placement of ``least`` to ``most`` seconds, both multiples of ``step``.

        Of equally long ones the earliest. None where there is none, and where one could last for ever and
        ``most`` is None: there is no longest then.
        """
        runs = self._runs(wanted)
        terms = self._terms
        bound = LAST_INSTANT if most is None else most
        endless = most is None
        reaches: list[tuple[Integers, Integers, int]] = []
        for found, need in self._requirements(runs, wanted):
            possible = (found.starts <= terms.last) & (found.ends > terms.first)
            opens, ends = np.maximum(found.starts[possible], terms.first), found.ends[possible]
            endless = endless and int(np.count_nonzero(ends >= FOREVER)) >= need
            ends = np.minimum(ends, LAST_INSTANT + self._gap) - self._gap
            lasting = ends - np.maximum(opens, terms.settled)
            enough = lasting >= least
            if np.count_nonzero(enough) < need:
                return None
            bound = min(bound, _nth_largest(lasting[enough], need))
            reaches.append((opens[enough], ends[enough], need))
        bound -= bound % step
        if endless or bound < least:
            return None
        # Mostly the bound is reached
        allowed = self._allowed(runs, wanted, bound)
        start = None if allowed is None else _first_common(allowed, terms.first)
        if start is not None:
            return self._placed(runs, wanted.nodes, start, bound)
        start, duration = _longest_common(reaches, terms.settled, bound, step)
        return self._placed(runs, wanted.nodes, start, duration) if duration >= least else None

    def fitting(self, wanted: Wanted, duration: int) -> Search | None:
        """Return a search that finds what this one does of shares no smaller than ``wanted``; None if nothing."""
        runs, places = self._runs_and_places(wanted)
        allowed = self._allowed(runs, wanted, duration)
        if allowed is None or _first_common(allowed, self._terms.first) is None:
            return None
        return self._narrowed(runs, places, duration)

    def most_free(self, column: int) -> int:
        """Return the most of a quantity that is free on some node at some time."""
        return max(int(part.free[column].max(where=part.kept, initial=0)) for part in self._parts)

    def _runs(self, wanted: Wanted) -> _Runs:
        return self._runs_and_places(wanted)[0]

    def _runs_and_places(self, wanted: Wanted) -> tuple[_Runs, list[tuple[Integers, Integers]]]:
        """Return the runs, and of each part the segments at which they begin (less one) and end."""
        columns = [(column, amount) for column, amount in enumerate(wanted.amounts) if amount and not wanted.whole]
        starts, ends, owner, places = [], [], [], []
        for part in self._parts:
            fine = part.kept
            for column, amount in columns:
                fine = fine & (part.free[column] >= amount)
            if wanted.whole:
                fine = fine & (part.free >= self._capacities.take(part.owner, axis=1)).all(axis=0)
            changes = (fine[1:] != fine[:-1]).nonzero()[0]
            begin, last = changes[0::2], changes[1::2]
            places.append((begin, last))
            starts.append(part.following[begin])
            ends.append(part.ends[last])
            owner.append(part.owner[last])
        if len(places) == 1:
            return _Runs(starts[0], ends[0], owner[0]), places
        return _Runs(np.concatenate(starts), np.concatenate(ends), np.concatenate(owner)), places

    def _requirements(self, runs: _Runs, wanted: Wanted) -> list[tuple[_Runs, int]]:
        if any(wanted.licences):
            return [(runs, wanted.nodes), (_licence_runs(self._licences, wanted.licences), 1)]
        return [(runs, wanted.nodes)]

    def _allowed(self, runs: _Runs, wanted: Wanted, duration: int) -> list[_Starts] | None:
        """Return the intervals of starts that each requirement allows; None where too few are."""
        allowed = []
        for found, need in self._requirements(runs, wanted):
            opens, closes = self._starts(found, duration)
            possible = self._possible(opens, closes)
            if np.count_nonzero(possible) < need:
                return None
            allowed.append((opens[possible], closes[possible], need))
        return allowed

    def _starts(self, runs: _Runs, duration: int) -> tuple[Integers, Integers]:
        opens = np.maximum(runs.starts, self._terms.first)
        closes = np.minimum(runs.ends, LAST_INSTANT + self._gap) - (duration + self._gap)
        return opens, closes

    def _possible(self, opens: Integers, closes: Integers) -> Booleans:
        possible: Booleans = closes >= np.maximum(opens, self._terms.settled)
        possible &= opens <= self._terms.last
        return possible

    def _narrowed(self, runs: _Runs, places: Sequence[tuple[Integers, Integers]], duration: int) -> Search:
        """Return a search of those segments only in which a start is possible, if that spares the work."""
        possible = self._possible(*self._starts(runs, duration))
        parts = []
        done = 0
        for part, (begins, lasts) in zip(self._parts, places, strict=True):
            able = possible[done : done + len(begins)].nonzero()[0]
            done += len(begins)
            begin, length = begins[able] + 1, lasts[able] - begins[able]
            total = int(length.sum())
            if not total:
                continue
            if total < len(part.kept) // 2:
                # Each run's segments, and the one behind them, which is none of theirs
                ahead = np.cumsum(length + 1) - (length + 1)
                index = np.arange(total + len(able)) + np.repeat(begin - ahead, length + 1)
                kept = np.ones(len(index) + 1, dtype=bool)
                kept[0] = False
                kept[ahead + length + 1] = False
                part = _gathered(part, index, kept)
            parts.append(part)
        search = Search.__new__(Search)
        search._terms, search._rank, search._gap, search._licences = self._terms, self._rank, self._gap, self._licences
        search._capacities = self._capacities
        search._parts = parts
        return search

    def _placed(self, runs: _Runs, need: int, start: int, duration: int) -> Placement:
        """Choose the nodes of lowest rank among those that are free from ``start`` on."""
        end = self._terms.latest(start) + duration + self._gap
        able = runs.owner[(runs.starts <= start) & (runs.ends >= end)]
        chosen = able[self._rank[able].argsort(kind="stable")][:need]
        return Placement(start, duration, tuple(sorted(chosen.tolist())))


def _part(rows: Rows, kept: Booleans, eligible: Booleans | None, until: int | None) -> _Part:
    if until is not None:
        kept &= rows.times < until
    if eligible is not None:
        kept &= eligible[rows.owner]
    part = _Part(rows.times[1:], rows.ends, rows.owner, rows.free, kept)
    if len(kept) < _SHORT or np.count_nonzero(kept) * 4 > len(kept):
        return part
    # With each segment that is kept the one behind it: a border, if it is not kept itself
    bordered = kept.copy()
    bordered[1:] |= kept[:-1]
    index = bordered.nonzero()[0]
    return _gathered(part, index, np.concatenate([[False], kept[index]]))


def _gathered(part: _Part, index: Integers, kept: Booleans) -> _Part:
    """Return the segments of ``index``; ``kept`` tells of each, and of one before all, whether it is looked at."""
    before = np.concatenate([[0], index])
    return _Part(part.following[index - 1], part.ends[before], part.owner[before], part.free.take(before, axis=1), kept)


def _licence_runs(profile: Profile, licences: Amounts) -> _Runs:
    times, free = profile.times, profile.free
    fine = (free >= np.array(licences, dtype=np.int64)[:, np.newaxis])[np.array(licences) > 0].all(axis=0)
    changes = np.diff(np.concatenate([[0], fine.astype(np.int8), [0]]))
    starts = times[(changes == 1).nonzero()[0]]
    ends = np.append(times, FOREVER)[(changes == -1).nonzero()[0]]
    return _Runs(starts, ends, np.zeros(len(starts), dtype=np.int64))


def _first_common(allowed: Sequence[_Starts], first: int) -> int | None:
    """Return the first instant from ``first`` on that lies in as many intervals of each kind as it must."""
    if len(allowed) == 1 and allowed[0][2] == 1:
        return int(allowed[0][0].min())
    left = list(allowed)
    start = first
    for _ in range(_ROUNDS):
        if sum(len(opens) for opens, _, _ in left) <= _FEW:
            break
        before = start
        for kind, (opens, closes, need) in enumerate(left):
            alive = closes >= start
            if not alive.all():
                opens, closes = opens[alive], closes[alive]
                left[kind] = opens, closes, need
            if len(opens) < need:
                return None
            start = max(start, int(np.partition(opens, need - 1)[need - 1]))
        if start == before:
            return start
    return _swept(left)


def _swept(allowed: Sequence[_Starts]) -> int | None:
    """Count at each instant at which an interval begins how many there are."""
    if len(allowed) == 1:
        opens, closes, need = allowed[0]
        opens, closes = np.sort(opens), np.sort(closes)
        good = np.arange(1, len(opens) + 1) - closes.searchsorted(opens, "left") >= need
        best = int(good.argmax())
        return int(opens[best]) if good[best] else None
    candidates = np.unique(np.concatenate([opens for opens, _, _ in allowed]))
    good = np.ones(len(candidates), dtype=bool)
    for opens, closes, need in allowed:
        begun, ended = (
            np.sort(opens).searchsorted(candidates, "right"),
            np.sort(closes).searchsorted(candidates, "left"),
        )
        good &= begun - ended >= need
    return int(candidates[good.argmax()]) if good.any() else None


def _longest_common(
    reaches: Sequence[tuple[Integers, Integers, int]], settled: int, most: int, step: int
) -> tuple[int, int]:
    """Return the start of what can last longest, and how long: a multiple of ``step``, ``most`` at most.

    ``reaches`` are for each requirement when its runs begin and end, and how many of them must run.
    """
    candidates = np.unique(np.concatenate([opens for opens, _, _ in reaches]))
    end = np.full(len(candidates), FOREVER)
    for opens, ends, need in reaches:
        order = opens.argsort(kind="stable")
        begun = opens[order].searchsorted(candidates, "right")
        reach = _nth_largest_so_far(ends[order], need)
        end = np.where(begun > 0, np.minimum(end, reach[begun - 1]), candidates)
    lasting = np.minimum(end - np.maximum(candidates, settled), most)
    lasting -= lasting % step
    best = int(lasting.argmax())
    return int(candidates[best]), int(lasting[best])


def _nth_largest_so_far(values: Integers, count: int) -> Integers:
    """Return for each index the ``count``-th largest of the values up to there; PAST if fewer.

    Of runs in the order of their starts, and the values their ends, that is until when ``count`` of them run:
    a node's earlier run has ended, so a result that is still to come belongs to as many nodes.
    """
    if count == 1:
        return np.maximum.accumulate(values)
    heap: list[int] = []
    result = []
    for value in values.tolist():
        if len(heap) < count:
            heappush(heap, value)
        else:
            heappushpop(heap, value)
        result.append(heap[0] if len(heap) == count else PAST)
    return np.array(result, dtype=np.int64)


def _nth_largest(values: Integers, count: int) -> int:
    return int(values.max()) if count == 1 else int(np.partition(values, len(values) - count)[len(values) - count])
