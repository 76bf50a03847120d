"""Backfill for many samples at once on a grid of instants: what a queue of thousands needs.

:mod:`~ebhpc.planning.queue.placement` is exact and costs as the square of the number of jobs. Here time is cut into
steps, of half a minute at first and of 2 % of the time from now later on, so that a job costs the same wherever it
stands. An end between two instants goes to one of them by chance, nearer ones more probably: over the samples a
short job takes as much as it really does.

Each job starts at the first instant from which all that it needs is free for as long as its limit, given the
jobs before it, and occupies its place for its run time. Rules of a scheduler that looks at some of its jobs only are
told as groups: a job is not looked at before it stands among the first ``depth`` that wait of each group of its own.
What such rules keep nothing free for, later jobs may push back: where a profile knows of any, it has a second one
without it, and jobs that start soon go by that.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ebhpc.planning.queue.placement import NEVER, Changes, Floats, Integers

_STEP = 30.0
_GROWTH = 0.02
_HORIZON = 400 * 86_400.0


def _instants() -> Floats:
    instants = [0.0]
    while instants[-1] < _HORIZON:
        instants.append(instants[-1] + max(_STEP, _GROWTH * instants[-1]))
    return np.array(instants)


GRID = _instants()
"""The instants, in seconds from now; the first is now."""

Bools = NDArray[np.bool_]
GroupName = tuple[str, str]
"""A kind of group, and which of the kind."""

Group = tuple[GroupName, int]
"""A group of jobs, and how many of those that wait are looked at."""


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """What a job needs and takes: rows of the profile, and how much of each."""

    need_rows: Integers
    needs: Floats
    take_rows: Integers
    takes: Floats
    limit: float
    begin: float = 0.0
    groups: tuple[Group, ...] = ()
    head_of: Hashable = None
    reserved: bool = True

    @classmethod
    def of(
        cls,
        needs: Floats,
        takes: Floats,
        limit: float,
        *,
        begin: float = 0.0,
        groups: tuple[Group, ...] = (),
        head_of: Hashable = None,
        reserved: bool = True,
    ) -> Place:
        """Make one from amounts of all quantities. Not ``reserved``: nothing is kept free for it before it starts."""
        wanted, taken = np.flatnonzero(needs), np.flatnonzero(takes)
        return cls(wanted, needs[wanted], taken, takes[taken], limit, begin, groups, head_of, reserved)


@dataclass(slots=True, eq=False)
class Profile:
    """What is free from each instant of the grid to the next: ``left`` has shape ``(quantities, samples, instants)``.

    ``kept`` is what is free beside all that something is kept free for, where that is less than all that was placed;
    else it is None. A job may start by it at the first ``reach`` instants. ``heads``: nothing is kept free for a job
    that cannot start at once, unless it is the first of its partition, by sample. ``started`` has for each group its
    jobs' starts so far.
    """

    left: Floats
    reach: int = len(GRID)
    kept: Floats | None = None
    heads: dict[Hashable, Bools] | None = None
    started: dict[GroupName, list[Floats]] = field(default_factory=dict)
    bounds: dict[Group, tuple[int, Floats]] = field(default_factory=dict)

    @property
    def samples(self) -> int:
        return int(self.left.shape[1])

    def bound(self, group: GroupName, depth: int) -> Floats | None:
        """Return when the next job of a group is looked at first, in seconds from now, by sample; None: at once."""
        known = self.bounds.get((group, depth))
        starts = self.started.get(group)
        if starts is None:
            return None if known is None else known[1]
        if len(starts) < depth:
            return None
        # As the queue grows the bound moves little by little: it is found again for each hundredth of it
        if known is None or len(starts) >= known[0] + max(known[0] // 100, 1):
            rank = len(starts) - depth
            known = len(starts), np.partition(np.array(starts), rank, axis=0)[rank]
            self.bounds[(group, depth)] = known
        return known[1]


def profile(
    free: Floats,
    changes: Changes,
    uniform: Floats | None,
    *,
    samples: int,
    backfill: str = "conservative",
    window: float | None = None,
) -> Profile:
    """Return the profile of what runs: ``free`` now, of shape ``(quantities,)``, and its ``changes``.

    ``backfill`` and ``window`` (seconds) are those of :class:`~ebhpc.planning.snapshot.Scheduler`.

    ``uniform`` in [0, 1), of the shape of the changes' times, decides where an end between two instants goes; where
    it is None, or the change takes something away, the later instant for ends, the earlier for what is taken.
    """
    times = np.maximum(np.broadcast_to(changes.times, (samples, changes.times.shape[1])), 0.0)
    left = np.empty((len(free), samples, len(GRID)))
    left[:] = free[:, np.newaxis, np.newaxis]
    if times.shape[1]:
        at = rounded(times, uniform)
        early = GRID.searchsorted(times, side="right") - 1
        at = np.where((changes.amounts < 0).any(axis=1), early, at)
        shift = (np.arange(samples) * (len(GRID) + 1))[:, np.newaxis]
        for quantity in range(len(free)):
            some = np.flatnonzero(changes.amounts[:, quantity])
            if len(some):
                weights = np.broadcast_to(changes.amounts[some, quantity], (samples, len(some)))
                summed = np.bincount(
                    (at[:, some] + shift).ravel(), weights.ravel(), minlength=samples * (len(GRID) + 1)
                ).reshape(samples, -1)
                left[quantity] += summed[:, :-1].cumsum(axis=1)
    if backfill in ("easy", "greedy"):
        return Profile(left, 1, left.copy(), {} if backfill == "easy" else None)
    return Profile(left, reach_of(window))


def reach_of(window: float | None) -> int:
    """Return at how many instants of the grid a scheduler plans starts that looks ``window`` seconds ahead."""
    return len(GRID) if window is None else max(int(GRID.searchsorted(window, side="right")), 1)


def rounded(times: Floats, uniform: Floats | None) -> Integers:
    """Return the number of the grid's instant for each time: by chance the one before or after, else the one after."""
    after = GRID.searchsorted(np.minimum(times, NEVER))
    if uniform is None:
        return after
    before = np.maximum(after - 1, 0)
    inside = after < len(GRID)
    upper = GRID[np.minimum(after, len(GRID) - 1)]
    gap = np.where(inside, upper - GRID[before], 1.0)
    share = np.where(inside, (times - GRID[before]) / np.maximum(gap, 1.0), 1.0)
    return np.where(uniform < share, after, before)


def fit(profile: Profile, job: Place) -> Floats:
    """Return when a job would start behind all that the profile holds, by sample; seconds from now, NEVER included."""
    return _first(profile, job)[1]


def put(profile: Profile, job: Place, runs: Floats, uniform: Floats | None) -> Floats:
    """Place a job that runs for ``runs`` seconds (by sample), and return its starts as :func:`fit` does."""
    first, start = _first(profile, job)
    placed = np.isfinite(start)
    end = rounded(start + runs, uniform)
    column = np.arange(len(GRID))
    held = (column >= first[:, np.newaxis]) & (column < end[:, np.newaxis]) & placed[:, np.newaxis]
    taken = job.takes[:, np.newaxis, np.newaxis] * held
    profile.left[job.take_rows] -= taken
    keeps = _keeps(profile, job, first, placed)
    if profile.kept is None and not keeps[placed].all():
        profile.kept = profile.left.copy()
        profile.kept[job.take_rows] += taken
    if profile.kept is not None:
        profile.kept[job.take_rows] -= taken * keeps[:, np.newaxis]
    for group, _ in job.groups:
        profile.started.setdefault(group, []).append(start)
    return start


def _keeps(profile: Profile, job: Place, first: Integers, placed: Bools) -> Bools:
    """Return in which samples the scheduler keeps free what a job will take from the instant ``first`` on."""
    now: Bools = placed & (first == 0)
    if profile.reach > 1:
        return np.logical_or(now, placed & (first < profile.reach) & job.reserved)
    if profile.heads is None:
        return now
    before = profile.heads.get(job.head_of, np.zeros(len(now), dtype=bool))
    head = placed & ~now & ~before
    profile.heads[job.head_of] = before | head
    return np.logical_or(now, head)


def _first(profile: Profile, job: Place) -> tuple[Integers, Floats]:
    """Return the number of the instant at which a job starts, and its start in seconds, NEVER included."""
    good = _good(profile.left, job)
    if profile.kept is not None:
        good[:, : profile.reach] |= _good(profile.kept, job)[:, : profile.reach]
    free = good
    bound = job.begin
    bounds = [found for group, depth in job.groups if (found := profile.bound(group, depth)) is not None]
    if bound > 0:
        good = good & (bound <= GRID)
    for found in bounds:
        good = good & (found[:, np.newaxis] <= GRID)
    first = good.argmax(axis=1)
    row = np.arange(len(first))
    start: Floats = np.where(good[row, first], GRID[first], NEVER)
    if bound > 0 and not bounds:
        # What may begin between two instants need not wait for the next one where the place is free before
        start = np.where(free[row, np.maximum(first - 1, 0)] & np.isfinite(start), np.minimum(start, bound), start)
    return first, start


def _good(left: Floats, job: Place) -> Bools:
    """Return from which instants on all that the job needs is free for its limit, by sample."""
    if not len(job.need_rows):
        return np.ones(left.shape[1:], dtype=bool)
    bad = left[job.need_rows[0]] < job.needs[0]
    for row, amount in zip(job.need_rows[1:].tolist(), job.needs[1:].tolist(), strict=True):
        bad |= left[row] < amount
    # The next instant at which too little is free: a window that begins before must end until then
    blocked = np.where(bad, GRID, NEVER)
    blocked = np.minimum.accumulate(blocked[:, ::-1], axis=1)[:, ::-1]
    good: Bools = blocked >= GRID + job.limit
    good &= ~bad
    return good
