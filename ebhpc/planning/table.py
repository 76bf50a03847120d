"""Table: the profiles of all nodes in one matrix that is written to, for placing many jobs one after the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ebhpc.planning.inventory import LICENCES
from ebhpc.planning.profile import FOREVER, PAST, Amounts, Integers, Piece, Profile
from ebhpc.planning.timeline import Timeline

NEVER = FOREVER
"""The start of what never starts."""

_ROOM = 16
"""Columns added at least when a node has no more room for a step."""


class Table:
    """What is free on each node: row ``n`` has ``count[n]`` segments, of which ``k`` begins at ``times[n, k]``.

    ``times`` has shape ``(nodes, K)``, ``free`` ``(quantities, nodes, K)``, ``count`` ``(nodes,)``. Behind a row's last
    segment ``times`` are FOREVER, and there is room for one such instant at least.
    """

    __slots__ = ("count", "free", "licences", "times")

    def __init__(self, timeline: Timeline) -> None:
        known = timeline.inventory
        profiles = [timeline.profile(place) for place in range(len(known.nodes))]
        width = max((len(profile.times) for profile in profiles), default=1) + _ROOM
        self.times: Integers = np.full((len(profiles), width), FOREVER)
        least = min((int(profile.free.min(initial=0)) for profile in profiles), default=0)
        small = max(int(known.capacities.max(initial=0)), -least) < 2**30
        self.free = np.zeros((len(known.capacities), len(profiles), width), dtype=np.int32 if small else np.int64)
        self.count: Integers = np.array([len(profile.times) for profile in profiles], dtype=np.int64)
        for place, profile in enumerate(profiles):
            self.times[place, : len(profile.times)] = profile.times
            self.free[:, place, : len(profile.times)] = profile.free
        self.licences: Profile = timeline.profile(LICENCES)

    def earliest(self, places: Integers, wanted: Integers, lasting: int, first: int) -> tuple[Integers, Integers]:
        """Return for each node the first interval of starts, from ``first`` on, at which ``wanted`` is free.

        Both its ends are NEVER if there is none. ``wanted`` has shape ``(quantities, 1)``, or ``(quantities, places)``
        where nodes are to give different shares.
        """
        width = int(self.count[places].max()) + 1
        times = self.times[places, :width]
        # Each row with something before it that is not free, and something behind all
        flat = np.zeros(times.size + 1, dtype=bool)
        fine = flat[:-1].reshape(times.shape)[:, 1:]
        np.greater(times[:, 1:], first, out=fine)
        for free, amounts in zip(self.free, wanted[:, :, np.newaxis], strict=True):
            if amounts.any():
                fine &= free[places, : width - 1] >= amounts.astype(free.dtype)
        changes = (flat[1:] != flat[:-1]).nonzero()[0]
        begins = changes[0::2]
        instants = times.ravel()
        starts = np.maximum(instants[begins], first)
        ends = instants[changes[1::2]] - lasting
        enough = (ends >= starts).nonzero()[0]
        rows = begins[enough] // width
        each = np.ones(len(rows), dtype=bool)
        each[1:] = rows[1:] != rows[:-1]
        rows, found = rows[each], enough[each]
        opens, closes = np.full(len(places), NEVER), np.full(len(places), FOREVER)
        opens[rows], closes[rows] = starts[found], ends[found]
        return opens, closes

    def licensed(self, wanted: Amounts, lasting: int, first: int) -> int:
        """Return the first instant from ``first`` on from which so many licences are free; NEVER if there is none."""
        start: int | None = None
        ends = [*self.licences.times[1:].tolist(), FOREVER]
        for begin, end, free in zip(self.licences.times.tolist(), ends, self.licences.free.T.tolist(), strict=True):
            if end <= first:
                continue
            if any(count and there < count for there, count in zip(free, wanted, strict=True)):
                start = None
                continue
            start = max(begin, first) if start is None else start
            if end - start >= lasting:
                return start
        return NEVER

    def take(self, places: Sequence[int], wanted: Integers, licences: Amounts, start: int, end: int) -> None:
        """Take a share, of the shape that :meth:`earliest` has, of each node, and licences."""
        for order, place in enumerate(places):
            begin, stop = self._cut(place, start), self._cut(place, end)
            self.free[:, place, begin:stop] -= wanted[:, order if wanted.shape[1] > 1 else 0, np.newaxis]
        if any(licences):
            self.licences = self.licences.taking([Piece(start, end, licences)])

    def _cut(self, place: int, time: int) -> int:
        """Return the column that begins at an instant, made if there is none yet."""
        count = int(self.count[place])
        column = int(self.times[place, :count].searchsorted(time))
        if time >= FOREVER or (column < count and self.times[place, column] == time):
            return column
        if count + 1 == self.times.shape[1]:
            self._widen()
        self.times[place, column + 1 : count + 1] = self.times[place, column:count]
        self.times[place, column] = time
        self.free[:, place, column + 1 : count + 1] = self.free[:, place, column:count]
        self.free[:, place, column] = self.free[:, place, column - 1]
        self.count[place] = count + 1
        return column

    def _widen(self) -> None:
        width = self.times.shape[1]
        more = max(width // 2, _ROOM)
        self.times = np.concatenate([self.times, np.full((len(self.times), more), FOREVER)], axis=1)
        room = np.zeros((*self.free.shape[:2], more), dtype=self.free.dtype)
        self.free = np.concatenate([self.free, room], axis=2)


class Kind:
    """Jobs that want the same, and what is known of their starts while more and more is taken.

    Nothing of this kind starts before ``first``; node ``places[i]`` has room for it at ``bounds[i]`` at the earliest.
    Both only grow: who comes later finds less.
    """

    __slots__ = ("bounds", "first", "lasting", "licences", "need", "places", "required", "wanted")

    def __init__(
        self,
        places: Integers,
        required: NDArray[np.bool_],
        wanted: Integers,
        need: int,
        licences: Amounts,
        lasting: int,
        first: int,
        bounds: Integers | None = None,
    ) -> None:
        """``places`` in the order in which nodes are preferred; ``required`` tells which of them there must be."""
        self.places = places
        self.required = required
        self.wanted = wanted
        self.need = need
        self.licences = licences
        self.lasting = lasting
        self.first = first
        self.bounds = np.full(len(places), first) if bounds is None else bounds

    def share(self, chosen: Integers) -> Integers:
        """Return what is wanted of those of ``places``, with the shape that :meth:`Table.earliest` takes."""
        return self.wanted if self.wanted.shape[1] == 1 else self.wanted[:, chosen]


_BATCH = 16
"""So many nodes are looked at first; then twice as many each time."""


def find(table: Table, kind: Kind, *, begin: int, last: int, now: int, resolution: int) -> tuple[int, Integers] | None:
    """Find the first start of a job of a kind, and which of ``kind.places``; None: there is none up to ``last``.

    A start after ``now`` is a multiple of ``resolution`` (seconds). Of several nodes that would do those that stand
    first are taken.
    """
    start = max(begin, kind.first)
    opens = np.maximum(kind.bounds, start)
    # Until when a node's first interval of starts lasts, once it is known
    closes = np.full(len(opens), PAST)
    batch = max(_BATCH, 2 * kind.need)
    must = bool(kind.required.any())
    found = None
    while True:
        bound = int(np.partition(opens, kind.need - 1)[kind.need - 1])
        if must:
            bound = max(bound, int(opens[kind.required].max()))
        start = _on_grid(max(start, bound), now, resolution)
        if any(kind.licences):
            start = _licensed(table, kind, start, now, resolution)
        if start > last or start >= NEVER:
            break
        known = closes >= start
        begun = opens <= start
        chosen = _chosen(kind, known & begun)
        look = (begun > known).nonzero()[0]
        if chosen is not None:
            # Whoever stands before one that is chosen would be taken instead
            free_choice = chosen if not must else chosen[~kind.required[chosen]]
            look = look[look < free_choice[-1]] if len(free_choice) else look[:0]
            if not len(look):
                found = start, chosen
                break
        if len(look) > batch:
            look = look[:batch]
        elif chosen is None:
            # Those next in turn, too: one look at many costs little more than one at few
            look = _first_of(np.where(known, NEVER, opens), batch)
            look = look[~known[look]]
        batch *= 2
        opens[look], closes[look] = table.earliest(kind.places[look], kind.share(look), kind.lasting, start)
    if begin <= kind.first:
        kind.first, kind.bounds = start, opens
    return found


def _first_of(values: Integers, count: int) -> Integers:
    return np.arange(len(values)) if count >= len(values) else np.argpartition(values, count)[:count]


def _chosen(kind: Kind, ready: NDArray[np.bool_]) -> Integers | None:
    """Return the first so many of those that are ready, all that must be there among them; None: too few are."""
    if not kind.required.any():
        able = ready.nonzero()[0]
        return able[: kind.need] if len(able) >= kind.need else None
    if not ready[kind.required].all():
        return None
    musts, others = kind.required.nonzero()[0], (ready & ~kind.required).nonzero()[0]
    if len(musts) + len(others) < kind.need:
        return None
    return np.sort(np.concatenate([musts, others[: max(kind.need - len(musts), 0)]]))


def _on_grid(start: int, now: int, resolution: int) -> int:
    return start if start <= now or start >= NEVER else -(-start // resolution) * resolution


def _licensed(table: Table, kind: Kind, start: int, now: int, resolution: int) -> int:
    while start < NEVER:
        later = _on_grid(table.licensed(kind.licences, kind.lasting, start), now, resolution)
        if later == start:
            break
        start = later
    return start
