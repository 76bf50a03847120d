"""One question to the queue: where would its jobs start, on their limits and as they really run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from copy import deepcopy
from dataclasses import dataclass, field

import numpy as np

from ebhpc.planning.queue.grid import Place, Profile, profile, put
from ebhpc.planning.queue.placement import Changes, Floats, Queue, starts
from ebhpc.planning.queue.runtimes import STEPS, remaining
from ebhpc.planning.queue.state import QueueState, Waits

_PORTION = 4096

_SHORT = 250
"""Up to so many jobs that run and wait, the exact placement is the faster one."""


@dataclass(frozen=True, slots=True, eq=False)
class Simulated:
    """When the waiting jobs start, in seconds from now.

    ``planned`` (shape ``(jobs,)``) is the plan on limits, ``simulated`` (``(samples, jobs)``, each column
    ascending) with run times as learned. ``running`` and ``waiting`` (shape ``(jobs,)``) are the work that lies
    ahead, in seconds in which the whole machine would do it: what runs, and what waits up to and with each job.
    ``profiles`` have, by the number of jobs placed before, what is left; their first sample is the plan's.
    """

    planned: Floats
    simulated: Floats
    running: float
    waiting: Floats
    profiles: dict[int, Profile] = field(default_factory=dict)


def plan_on_limits(state: QueueState) -> Floats:
    """Return when each waiting job starts, in seconds from now, if each job uses all of its limit."""
    limits = np.array([[float(job.asked.limit) for job in state.waiting]])
    found: Floats = starts(state.free, _changes(state, _limit_ends(state)[np.newaxis]), _queue(state, limits))[0]
    return found


def look_out(
    state: QueueState,
    quantiles: Mapping[str, Floats],
    samples: int,
    random: np.random.Generator,
    *,
    marks: Collection[int] = (),
) -> Simulated:
    """Plan once on limits and ``samples`` times with run times drawn from each job's ``quantiles`` (by its id).

    The draws are stratified: each job runs once in each of ``samples`` equally probable ranges of its run time.
    ``marks`` are numbers of waiting jobs behind which the profiles are kept.
    """
    running, waiting = len(state.running), len(state.waiting)
    uniform = np.empty((running + waiting, samples))
    # By portions, so that a hundred thousand jobs need no more room than a few thousand
    for begin in range(0, len(uniform), _PORTION):
        some = uniform[begin : begin + _PORTION]
        strata = random.random(some.shape).argsort(axis=1)
        some[:] = (strata + random.random(some.shape)) / samples
    ends = np.empty((samples + 1, running))
    ends[0] = _limit_ends(state)
    work_running = 0.0
    if running:
        elapsed = np.maximum(np.array([float(state.now - job.started) for job in state.running]), 0.0)
        for begin in range(0, running, _PORTION):
            jobs = slice(begin, begin + _PORTION)
            tables = np.array([quantiles[job.id] for job in state.running[jobs]])
            ends[1:, jobs] = remaining(tables, elapsed[jobs], uniform[:running][jobs]).T
        shares = _shares(state, [job.takes for job in state.running])
        work_running = float(shares @ ends[1:].mean(axis=0))
    runs = np.empty((samples + 1, waiting))
    runs[0] = [job.asked.limit for job in state.waiting]
    if waiting:
        tables = np.array([quantiles[job.id] for job in state.waiting])
        runs[1:] = np.take_along_axis(tables, (uniform[running:] * STEPS).astype(np.int64), axis=1).T
    np.maximum(runs, 1.0, out=runs)
    work_waiting = (_shares(state, [job.takes for job in state.waiting]) * runs[1:].mean(axis=0)).cumsum()
    profiles: dict[int, Profile] = {}
    if marks or running + waiting > _SHORT or not state.plain:
        found, profiles = _on_grid(state, ends, runs, random, marks)
    else:
        found = starts(state.free, _changes(state, ends), _queue(state, runs))
    return Simulated(found[0], np.sort(found[1:], axis=0), work_running, work_waiting, profiles)


def _on_grid(
    state: QueueState, ends: Floats, runs: Floats, random: np.random.Generator, marks: Collection[int]
) -> tuple[Floats, dict[int, Profile]]:
    """Place all jobs; return their starts by sample, and the profiles behind ``marks`` jobs."""
    samples, waiting = runs.shape
    changes = _changes(state, ends)
    uniform = random.random(changes.times.shape)
    uniform[0] = 0.0  # the plan on limits is exact: an end is the instant after it
    uniform[:, ends.shape[1] :] = 0.0  # and so are reservations
    current = profile(state.free, changes, uniform, samples=samples, backfill=state.backfill, window=state.window)
    chances = random.random((waiting, samples))
    chances[:, 0] = 0.0
    found = np.empty((samples, waiting))
    profiles = {}
    for index, job in enumerate(state.waiting):
        if index in marks:
            profiles[index] = deepcopy(current)
        place = place_of(job, state.now)
        found[:, index] = put(current, place, runs[:, index], chances[index])
    if waiting in marks:
        profiles[waiting] = current
    return found, profiles


def place_of(job: Waits, now: int) -> Place:
    """Return what a waiting job needs and takes, for the grid."""
    return Place.of(
        np.array(job.needs),
        np.array(job.takes),
        float(job.asked.limit),
        begin=max(float((job.begin or 0) - now), 0.0),
        groups=job.groups,
        head_of=job.head_of,
        reserved=job.reserved,
    )


def _limit_ends(state: QueueState) -> Floats:
    """When running jobs reach their limits, in seconds from now; those past it, in the next second."""
    return np.array([max(float(job.started + job.asked.limit - state.now), 1.0) for job in state.running])


def _changes(state: QueueState, ends: Floats) -> Changes:
    quantities = len(state.capacity)
    amounts = np.array([job.takes for job in state.running], dtype=float).reshape(len(state.running), quantities)
    if not len(state.known_times):
        return Changes(ends, amounts)
    known = np.broadcast_to(state.known_times, (len(ends), len(state.known_times)))
    return Changes(np.concatenate([ends, known], axis=1), np.concatenate([amounts, state.known_amounts]))


def _queue(state: QueueState, runs: Floats) -> Queue:
    begins = None
    if any(job.begin is not None and job.begin > state.now for job in state.waiting):
        begins = np.array([max(float((job.begin or 0) - state.now), 0.0) for job in state.waiting])
    return Queue(
        needs=np.array([job.needs for job in state.waiting], dtype=float),
        takes=np.array([job.takes for job in state.waiting], dtype=float),
        limits=np.array([float(job.asked.limit) for job in state.waiting]),
        runs=runs,
        begins=begins,
    )


def _shares(state: QueueState, takes: list[tuple[float, ...]]) -> Floats:
    """Return which share of the machine each job takes: of its scarcest quantity."""
    if not takes:
        return np.zeros(0)
    held = np.array(takes, dtype=float) / np.maximum(state.capacity, 1.0)
    return held[:, 0] if held.shape[1] == 1 else held.max(axis=1)
