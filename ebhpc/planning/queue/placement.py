"""Conservative backfill for many samples at once: when does each waiting job start, in the order of the queue.

Each job is placed at the first instant from which all that it needs is free for as long as its limit, given
the jobs before it. What sets the samples apart is how long jobs really run: a job occupies its place for its
run time only. With run times equal to the limits, it is the plan of a scheduler with conservative backfill
(A. Mu'alem and D. Feitelson, "Utilization, Predictability, Workloads, and User Runtime Estimates in
Scheduling the IBM SP2 with Backfilling", IEEE TPDS 12(6), 2001).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]

NEVER = np.inf
"""The start of a job that can never start."""


@dataclass(frozen=True, slots=True, eq=False)
class Changes:
    """What becomes free (negative: taken) and when.

    ``times`` seconds from now, of shape ``(samples, changes)``; ``amounts`` of shape ``(changes, quantities)``.
    """

    times: Floats
    amounts: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Queue:
    """The waiting jobs in order.

    ``needs`` and ``takes`` have shape ``(jobs, quantities)``: what must be free for a job to start, and what
    it then occupies. ``limits`` has shape ``(jobs,)``, ``runs`` ``(samples, jobs)``, both in seconds; ``begins``
    has ``(jobs,)``: not before so many seconds from now.
    """

    needs: Floats
    takes: Floats
    limits: Floats
    runs: Floats
    begins: Floats | None = None


def starts(free: Floats, changes: Changes, queue: Queue) -> Floats:
    """Return when each job starts, in seconds from now, NEVER included; shape ``(samples, jobs)``.

    ``free`` is what is free now, of shape ``(quantities,)``; it may be negative.
    """
    samples, jobs = queue.runs.shape
    times, left = _profile(free, changes, queue, samples)
    found = np.empty((samples, jobs))
    row = np.arange(samples)
    column = np.arange(times.shape[1] + jobs)
    for job in range(jobs):
        width = times.shape[1]
        bad = _lacking(left, queue.needs[job])
        # The next instant at which too little is free: a window that begins here must end before it
        blocked = np.where(bad, times, NEVER)
        blocked = np.minimum.accumulate(blocked[:, ::-1], axis=1)[:, ::-1]
        good = blocked >= times + queue.limits[job]
        good &= ~bad
        if queue.begins is not None:
            good &= times >= queue.begins[job]
        first = good.argmax(axis=1)
        placed = good[row, first]
        start = np.where(placed, times[row, first], NEVER)
        found[:, job] = start
        end = start + queue.runs[:, job]
        if not np.isfinite(end).all():
            end = np.where(np.isfinite(end), end, NEVER)
        # One more column, at the job's end, so that all samples keep the same width
        place = (times <= end[:, np.newaxis]).sum(axis=1)
        before = column[: width + 1] < place[:, np.newaxis]
        source = column[: width + 1] - ~before
        times = times[row[:, np.newaxis], source]
        times[row, np.minimum(place, width)] = np.where(placed, end, NEVER)
        left = left[:, row[:, np.newaxis], source]
        held = (times < end[:, np.newaxis]) & (column[: width + 1] >= first[:, np.newaxis]) & placed[:, np.newaxis]
        for quantity, taken in enumerate(queue.takes[job].tolist()):
            if taken:
                left[quantity] -= held * taken
    return found


def _profile(free: Floats, changes: Changes, queue: Queue, samples: int) -> tuple[Floats, Floats]:
    """Return instants ``(samples, K)`` and what is free from each to the next ``(quantities, samples, K)``."""
    quantities = len(free)
    moments = np.maximum(np.broadcast_to(changes.times, (samples, changes.times.shape[1])), 0.0)
    amounts = changes.amounts
    if queue.begins is not None:
        later = np.unique(queue.begins[queue.begins > 0])
        moments = np.concatenate([moments, np.broadcast_to(later, (samples, len(later)))], axis=1)
        amounts = np.concatenate([amounts, np.zeros((len(later), quantities))])
    order = moments.argsort(axis=1, kind="stable")
    times = np.zeros((samples, moments.shape[1] + 1))
    times[:, 1:] = moments[np.arange(samples)[:, np.newaxis], order]
    left = np.empty((quantities, samples, times.shape[1]))
    for quantity in range(quantities):
        left[quantity, :, 0] = free[quantity]
        left[quantity, :, 1:] = free[quantity] + amounts[order, quantity].cumsum(axis=1)
    # Of several changes at one instant all but the last hold for no time at all
    same = np.zeros(times.shape, dtype=bool)
    same[:, :-1] = times[:, 1:] == times[:, :-1]
    if same.any():
        for index in range(times.shape[1] - 2, -1, -1):
            rows = same[:, index]
            left[:, rows, index] = left[:, rows, index + 1]
    return times, left


def _lacking(left: Floats, needs: Floats) -> NDArray[np.bool_]:
    bad: NDArray[np.bool_] | None = None
    for quantity in np.flatnonzero(needs).tolist():
        lacks = left[quantity] < needs[quantity]
        bad = lacks if bad is None else bad | lacks
    return np.zeros(left.shape[1:], dtype=bool) if bad is None else bad
