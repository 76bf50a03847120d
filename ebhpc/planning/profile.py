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
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Integers: TypeAlias = NDArray[np.int64]
Amounts: TypeAlias = tuple[int, ...]

PAST = -(2**61)
"""Before every instant (POSIX seconds)."""

FOREVER = 2**61
"""After every instant (POSIX seconds): the end of what has no end."""

LARGEST_AMOUNT = 2**40

_FEW_PIECES = 8
"""So many are taken one after the other; more of them at once."""


def instant(time: int) -> int:
    """Bring a time of any size into [PAST, FOREVER]."""
    return time if PAST <= time <= FOREVER else PAST if time < PAST else FOREVER


def amount(wanted: int) -> int:
    """Bring an amount into [0, 2**40]: a batch system's nonsense must free nothing and overflow nothing."""
    return wanted if 0 <= wanted <= LARGEST_AMOUNT else 0 if wanted < 0 else LARGEST_AMOUNT


class Piece(NamedTuple):
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
        if len(taken) <= _FEW_PIECES:
            profile = self
            for piece in taken:
                profile = profile._less(piece)
            return profile
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

    def _less(self, piece: Piece) -> Profile:
        """Take one piece, which is not empty: a column at most begins or goes at each of its ends."""
        times, free = self.times, self.free
        size = len(times)
        taken = np.array(piece.amounts, dtype=np.int64)
        begin = int(times.searchsorted(piece.start))
        stop = size if piece.end >= FOREVER else int(times.searchsorted(piece.end))
        cut_begin = begin == size or times[begin] != piece.start
        cut_stop = piece.end < FOREVER and (stop == size or times[stop] != piece.end)
        join_begin = not cut_begin and begin > 0 and _equal(free[:, begin] - taken, free[:, begin - 1])
        join_stop = not cut_stop and stop < size and _equal(free[:, stop - 1] - taken, free[:, stop])
        length = size + cut_begin + cut_stop - join_begin - join_stop
        longer = np.empty(length, dtype=np.int64)
        rows = np.empty((len(free), length), dtype=np.int64)
        longer[:begin] = times[:begin]
        rows[:, :begin] = free[:, :begin]
        place = begin
        if cut_begin:
            longer[place] = piece.start
            rows[:, place] = free[:, begin - 1]
            place += 1
        after = place + stop - (begin + join_begin)
        longer[place:after] = times[begin + join_begin : stop]
        rows[:, place:after] = free[:, begin + join_begin : stop]
        rows[:, begin:after] -= taken[:, np.newaxis]
        if cut_stop:
            longer[after] = piece.end
            rows[:, after] = free[:, stop - 1]
            after += 1
        longer[after:] = times[stop + join_stop :]
        rows[:, after:] = free[:, stop + join_stop :]
        return frozen(longer, rows)


def _equal(one: Integers, other: Integers) -> bool:
    """Compare short arrays: as lists, because that is faster."""
    return bool(one.tolist() == other.tolist())


def taking_everywhere(profiles: Sequence[Profile], piece: Piece) -> list[Profile]:
    """Return each of the profiles with the piece taken, as ``taking`` does of one; many at once cost little more."""
    if piece.start >= piece.end or not any(piece.amounts):
        return list(profiles)
    lengths = np.array([len(profile.times) for profile in profiles])
    times = np.concatenate([profile.times for profile in profiles])
    ends = np.concatenate([times[1:], [FOREVER]])
    ends[np.cumsum(lengths) - 1] = FOREVER
    # A segment falls into two, or three, where the piece begins or ends inside of it
    begins = (times < piece.start) & (piece.start < ends)
    stops = (times < piece.end) & (piece.end < ends)
    copies = 1 + begins + stops
    source = np.repeat(np.arange(len(times)), copies)
    number = np.arange(len(source)) - np.repeat(np.cumsum(copies) - copies, copies)
    cut = np.where(begins[source] & (number == 1), piece.start, piece.end)
    longer = np.where(number == 0, times[source], cut)
    free = np.concatenate([profile.free for profile in profiles], axis=1)[:, source]
    inside = (longer >= piece.start) & (longer < piece.end)
    free -= np.array(piece.amounts)[:, np.newaxis] * inside
    owner = np.repeat(np.arange(len(profiles)), lengths)[source]
    differs = np.ones(len(longer), dtype=bool)
    differs[1:] = (owner[1:] != owner[:-1]) | (free[:, 1:] != free[:, :-1]).any(axis=0)
    longer, free = longer[differs], free[:, differs]
    bounds = [0, *np.cumsum(np.bincount(owner[differs], minlength=len(profiles))).tolist()]
    longer.setflags(write=False)
    free.setflags(write=False)
    return [Profile(longer[a:b], free[:, a:b]) for a, b in pairwise(bounds)]


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


class Pieces(NamedTuple):
    """Many pieces as arrays: places, starts and ends of shape ``(pieces,)``, amounts ``(pieces, quantities)``."""

    places: Integers
    starts: Integers
    ends: Integers
    amounts: Integers


def in_arrays(places: Sequence[int], pieces: Sequence[Piece], quantities: int) -> Pieces:
    """Put pieces, each at its place, into arrays."""
    return Pieces(
        np.array(places, dtype=np.int64),
        np.array([piece.start for piece in pieces], dtype=np.int64),
        np.array([piece.end for piece in pieces], dtype=np.int64),
        np.array([piece.amounts for piece in pieces], dtype=np.int64).reshape(len(pieces), quantities),
    )


def steps(capacities: Integers, pieces: Sequence[Pieces]) -> tuple[Integers, Integers, Integers]:
    """Return the steps of the profiles of all places at once: whose they are, their instants, what is free.

    ``capacities`` has shape ``(quantities, places)``. The steps are in the order of the places, and of time; each
    place's first is at PAST.
    """
    quantities, count = capacities.shape
    where, starts, ends, taken = (np.concatenate(arrays) for arrays in zip(*pieces, strict=True))
    lasting = starts < ends
    where, starts, ends, taken = where[lasting], starts[lasting], ends[lasting], taken[lasting]
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
    return owner[differs], time[differs], np.ascontiguousarray(free[:, differs])


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
