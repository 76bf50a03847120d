"""Profiles: what is free at one place (a node, or the platform's licences) over all of time, in steps.

A profile is a sorted array of instants and a row of free amounts for each quantity: column ``k`` holds from
``times[k]`` until ``times[k + 1]``, the last one for ever, and no two columns that follow one another are
equal. Amounts may be negative: what is taken can exceed what there is, when a batch system overcommits or a
reservation lies over running jobs. Profiles are never changed: what takes or gives back makes a new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Integers: TypeAlias = NDArray[np.int64]
Amounts: TypeAlias = tuple[int, ...]

PAST = -(2**61)
"""Before every instant (POSIX seconds)."""

FOREVER = 2**61
"""After every instant (POSIX seconds): the end of what has no end."""

_LARGEST_AMOUNT = 2**40


def instant(time: int) -> int:
    """Bring a time of any size into [PAST, FOREVER]."""
    return min(max(time, PAST), FOREVER)


def amount(wanted: int) -> int:
    """Bring an amount into [0, 2**40]: a batch system's nonsense must free nothing and overflow nothing."""
    return min(max(wanted, 0), _LARGEST_AMOUNT)


@dataclass(frozen=True, slots=True)
class Piece:
    """Amounts taken (negative: given back) from ``start`` to ``end``, half open."""

    start: int
    end: int
    amounts: Amounts

    def reverted(self) -> Piece:
        """Return what undoes this piece."""
        return Piece(self.start, self.end, tuple(-taken for taken in self.amounts))


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """Instants (shape ``(K,)``, the first is PAST) and free amounts (shape ``(quantities, K)``)."""

    times: Integers
    free: Integers

    def segments(self, start: int, end: int) -> slice:
        """Return the columns that overlap [``start``, ``end``); none when it is empty."""
        if start >= end:
            return slice(0, 0)
        first = int(self.times.searchsorted(instant(start), "right")) - 1
        return slice(max(first, 0), int(self.times.searchsorted(instant(end), "left")))

    def least(self, start: int, end: int) -> Amounts:
        """Return the least free in [``start``, ``end``), which must not be empty, for each quantity."""
        lowest = self.free[:, self.segments(start, end)].min(axis=1)
        return tuple(int(free) for free in lowest)

    def taking(self, pieces: Iterable[Piece]) -> Profile:
        """Return this profile with the pieces taken."""
        taken = [piece for piece in pieces if piece.start < piece.end and any(piece.amounts)]
        if not taken:
            return self
        cuts = np.unique(np.array([cut for piece in taken for cut in (piece.start, piece.end)], dtype=np.int64))
        cuts = cuts[(cuts > PAST) & (cuts < FOREVER)]
        times, free = _cut(self.times, self.free, cuts)
        for piece in taken:
            begin = int(times.searchsorted(piece.start, "left"))
            stop = len(times) if piece.end >= FOREVER else int(times.searchsorted(piece.end, "left"))
            for quantity, wanted in enumerate(piece.amounts):
                if wanted:
                    free[quantity, begin:stop] -= wanted
        times, free = _joined(times, free, times.searchsorted(cuts, "left"))
        return frozen(times, free)


def frozen(times: Integers, free: Integers) -> Profile:
    """Make a profile of arrays that nobody writes to from now on."""
    times.setflags(write=False)
    free.setflags(write=False)
    return Profile(times, free)


def _cut(times: Integers, free: Integers, cuts: Integers) -> tuple[Integers, Integers]:
    """Copy with a column beginning at each cut. By slices: np.insert is several times slower."""
    places = times.searchsorted(cuts, "left")
    known = np.zeros(len(cuts), dtype=bool)
    inside = places < len(times)
    known[inside] = times[places[inside]] == cuts[inside]
    places, cuts = places[~known], cuts[~known]
    longer = np.empty(len(times) + len(cuts), dtype=np.int64)
    rows = np.empty((len(free), len(longer)), dtype=np.int64)
    done = 0
    for index, (place, cut) in enumerate(zip(places.tolist(), cuts.tolist(), strict=True)):
        longer[done + index : place + index] = times[done:place]
        rows[:, done + index : place + index] = free[:, done:place]
        longer[place + index] = cut
        rows[:, place + index] = free[:, place - 1]
        done = place
    longer[done + len(cuts) :] = times[done:]
    rows[:, done + len(cuts) :] = free[:, done:]
    return longer, rows


def _joined(times: Integers, free: Integers, places: Integers) -> tuple[Integers, Integers]:
    """Drop those of the columns at ``places`` (sorted, none is the first) that equal the column before."""
    same = places[(free[:, places] == free[:, places - 1]).all(axis=0)]
    if not len(same):
        return times, free
    shorter = np.empty(len(times) - len(same), dtype=np.int64)
    rows = np.empty((len(free), len(shorter)), dtype=np.int64)
    done = 0
    for index, place in enumerate(same.tolist()):
        shorter[done - index : place - index] = times[done:place]
        rows[:, done - index : place - index] = free[:, done:place]
        done = place + 1
    shorter[done - len(same) :] = times[done:]
    rows[:, done - len(same) :] = free[:, done:]
    return shorter, rows


def built(capacities: Integers, places: Sequence[int], pieces: Sequence[Piece]) -> list[Profile]:
    """Build the profiles of all places at once.

    ``capacities`` has shape ``(quantities, places)``; ``pieces[i]`` is taken at ``places[i]``. The profiles
    share one pair of arrays.
    """
    quantities, count = capacities.shape
    kept = [index for index, piece in enumerate(pieces) if piece.start < piece.end]
    where = np.array([places[index] for index in kept], dtype=np.int64)
    starts = np.array([pieces[index].start for index in kept], dtype=np.int64)
    ends = np.array([pieces[index].end for index in kept], dtype=np.int64)
    taken = np.array([pieces[index].amounts for index in kept], dtype=np.int64).reshape(len(kept), quantities)
    # Each place gets an event at PAST, so that each has a first column; each piece gives back at its end what
    # it took, so that the running sum is zero again where the next place begins.
    owner = np.concatenate([np.arange(count), where, where])
    time = np.concatenate([np.full(count, PAST), starts, ends])
    change = np.concatenate([np.zeros((count, quantities), dtype=np.int64), -taken, taken])
    order = np.lexsort((time, owner))
    owner, time = owner[order], time[order]
    free = np.cumsum(change[order], axis=0).T + capacities[:, owner]
    last = np.ones(len(owner), dtype=bool)
    last[:-1] = (owner[1:] != owner[:-1]) | (time[1:] != time[:-1])
    last &= time < FOREVER
    owner, time, free = owner[last], time[last], free[:, last]
    differs = np.ones(len(owner), dtype=bool)
    differs[1:] = (owner[1:] != owner[:-1]) | (free[:, 1:] != free[:, :-1]).any(axis=0)
    owner, time, free = owner[differs], time[differs], np.ascontiguousarray(free[:, differs])
    time.setflags(write=False)
    free.setflags(write=False)
    bounds = [*owner.searchsorted(np.arange(count)).tolist(), len(owner)]
    return [Profile(time[a:b], free[:, a:b]) for a, b in pairwise(bounds)]


def united(layers: Sequence[Sequence[Piece]]) -> list[Piece]:
    """Return pieces for the greatest of several layers, quantity by quantity and at each instant.

    A layer is the sum of its pieces: what a session's bookings take, or its reservations, or its jobs.
    """
    filled = [layer for layer in layers if layer]
    if len(filled) <= 1:
        return list(filled[0]) if filled else []
    cuts = sorted({cut for layer in filled for piece in layer for cut in (piece.start, piece.end)})
    greatest = []
    for start, end in pairwise(cuts):
        sums = [
            [sum(column) for column in zip(*covering, strict=True)]
            for layer in filled
            if (covering := [piece.amounts for piece in layer if piece.start <= start and end <= piece.end])
        ]
        if sums:
            greatest.append(Piece(start, end, tuple(max(column) for column in zip(*sums, strict=True))))
    return greatest
