"""Rows: the profiles of many places one behind the other in a few arrays, as a search reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ebhpc.planning.profile import FOREVER, PAST, Integers, Piece, Pieces, Profile, frozen, in_arrays, steps

Booleans = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Segment ``k``, of the place ``owner[k]``, lasts from ``times[k]`` to ``ends[k]``.

    A place's segments are neighbours, in the order of time. Before the first place and behind each stands a
    separator of no length, False in ``real``, so that what is true of segments changes at every place's border.
    ``times``, ``ends``, ``owner``, ``real`` have shape ``(K,)``, ``free`` has ``(quantities, K)``; place ``p`` has
    the segments from ``first[p]`` on, ``count[p]`` of them (none: it is not here).
    """

    times: Integers
    ends: Integers
    owner: Integers
    real: Booleans
    free: Integers
    first: Integers
    count: Integers

    def profile(self, place: int) -> Profile:
        """Return the profile of a place, as views of these arrays."""
        begin = int(self.first[place])
        stop = begin + int(self.count[place])
        return Profile(self.times[begin:stop], self.free[:, begin:stop])

    def counted(self, gone: Sequence[int], first: int = PAST) -> Booleans:
        """Return which segments are real, not of the places ``gone``, and end after ``first``."""
        counted: Booleans = self.ends > first
        counted &= self.real
        if gone:
            begins = self.first[list(gone)]
            for begin, stop in zip(begins.tolist(), (begins + self.count[list(gone)]).tolist(), strict=True):
                counted[begin:stop] = False
        return counted

    def spliced(self, profiles: Mapping[int, Profile]) -> Rows:
        """Return rows in which those profiles stand for their places."""
        kept = self.counted(list(profiles))
        # Each place's separator goes with it
        kept[self.first + self.count] = True
        kept[(self.first + self.count)[list(profiles)]] = False
        kept[0] = True
        added = rows_of_profiles(profiles, len(self.free))
        before = int(np.count_nonzero(kept))
        first, count = (np.cumsum(kept) - 1)[self.first], self.count.copy()
        first[list(profiles)], count[list(profiles)] = added.first + (before - 1), added.count
        return _sealed(
            np.concatenate([self.times[kept], added.times[1:]]),
            np.concatenate([self.ends[kept], added.ends[1:]]),
            np.concatenate([self.owner[kept], added.owner[1:]]),
            np.concatenate([self.real[kept], added.real[1:]]),
            np.concatenate([self.free.compress(kept, axis=1), added.free[:, 1:]], axis=1),
            first,
            count,
        )


def _sealed(
    times: Integers,
    ends: Integers,
    owner: Integers,
    real: Booleans,
    free: Integers,
    first: Integers,
    count: Integers,
) -> Rows:
    for array in (times, ends, owner, real, free, first, count):
        array.setflags(write=False)
    return Rows(times, ends, owner, real, free, first, count)


def rows_of(capacities: Integers, pieces: Sequence[Pieces]) -> Rows:
    """Build the rows of all places at once; ``capacities`` has shape ``(quantities, places)``."""
    quantities, nodes = capacities.shape
    owner, times, free = steps(capacities, pieces)
    count = np.bincount(owner, minlength=nodes)
    length = len(owner) + nodes + 1
    # One separator in front of all, and one behind each place
    at = np.arange(len(owner)) + owner + 1
    all_times = np.full(length, FOREVER)
    all_times[at] = times
    all_ends = np.full(length, FOREVER)
    all_ends[:-1] = all_times[1:]
    all_owner = np.zeros(length, dtype=np.int64)
    all_owner[at] = owner
    real = np.zeros(length, dtype=bool)
    real[at] = True
    all_free = np.zeros((quantities, length), dtype=np.int64)
    all_free[:, at] = free
    first = np.cumsum(count) - count + np.arange(nodes) + 1
    return _sealed(all_times, all_ends, all_owner, real, all_free, first, count)


def rows_of_profiles(profiles: Mapping[int, Profile], quantities: int) -> Rows:
    """Put profiles, by place, into rows; their ``first`` and ``count`` are of these profiles alone, in this order."""
    count = np.array([len(profile.times) for profile in profiles.values()], dtype=np.int64)
    first = np.cumsum(count + 1) - count
    length = int(count.sum()) + len(count) + 1
    times = np.full(length, FOREVER)
    owner = np.zeros(length, dtype=np.int64)
    real = np.zeros(length, dtype=bool)
    free = np.zeros((quantities, length), dtype=np.int64)
    for (place, profile), begin, size in zip(profiles.items(), first.tolist(), count.tolist(), strict=True):
        stop = begin + size
        times[begin:stop] = profile.times
        owner[begin:stop] = place
        real[begin:stop] = True
        free[:, begin:stop] = profile.free
    ends = np.full(length, FOREVER)
    ends[:-1] = times[1:]
    return _sealed(times, ends, owner, real, free, first, count)


def licences_of(totals: Sequence[int], pieces: Sequence[Piece]) -> Profile:
    """Build the one profile of the licences from how many there are and what is taken."""
    capacities = np.array([totals], dtype=np.int64).T
    _, times, free = steps(capacities, [in_arrays([0] * len(pieces), pieces, len(totals))])
    return frozen(times, free)
