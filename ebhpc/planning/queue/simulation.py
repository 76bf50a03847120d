"""One question to the queue: where would its jobs start, on their limits and as they really run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ebhpc.planning.queue.placement import Changes, Floats, Queue, starts
from ebhpc.planning.queue.runtimes import STEPS, remaining
from ebhpc.planning.queue.state import QueueState


@dataclass(frozen=True, slots=True, eq=False)
class Outlook:
    """When the waiting jobs start, in seconds from now.

    ``planned`` (shape ``(jobs,)``) is the plan on limits, ``simulated`` (``(samples, jobs)``, each column
    ascending) with run times as learned. ``running`` and ``waiting`` (shape ``(jobs,)``) are the work that lies
    ahead, in seconds in which the whole machine would do it: what runs, and what waits up to and with each job.
    """

    planned: Floats
    simulated: Floats
    running: float
    waiting: Floats


def plan_on_limits(state: QueueState) -> Floats:
    """Return when each waiting job starts, in seconds from now, if each job uses all of its limit."""
    limits = np.array([[float(job.asked.limit) for job in state.waiting]])
    found: Floats = starts(state.free, _changes(state, _limit_ends(state)[np.newaxis]), _queue(state, limits))[0]
    return found


def look_out(state: QueueState, quantiles: Mapping[str, Floats], samples: int, random: np.random.Generator) -> Outlook:
    """Plan once on limits and ``samples`` times with run times drawn from each job's ``quantiles`` (by its id).

    The draws are stratified: each job runs once in each of ``samples`` equally probable ranges of its run time.
    """
    running, waiting = len(state.running), len(state.waiting)
    strata = random.random((running + waiting, samples)).argsort(axis=1)
    uniform = (strata + random.random((running + waiting, samples))) / samples
    ends = np.empty((samples + 1, running))
    ends[0] = _limit_ends(state)
    work_running = 0.0
    if running:
        elapsed = np.array([float(state.now - job.started) for job in state.running])
        tables = np.array([quantiles[job.id] for job in state.running])
        ends[1:] = remaining(tables, np.maximum(elapsed, 0.0), uniform[:running]).T
        shares = _shares(state, [job.takes for job in state.running])
        work_running = float(shares @ ends[1:].mean(axis=0))
    runs = np.empty((samples + 1, waiting))
    runs[0] = [job.asked.limit for job in state.waiting]
    tables = np.array([quantiles[job.id] for job in state.waiting])
    runs[1:] = np.take_along_axis(tables, (uniform[running:] * STEPS).astype(np.int64), axis=1).T
    np.maximum(runs, 1.0, out=runs)
    work_waiting = (_shares(state, [job.takes for job in state.waiting]) * runs[1:].mean(axis=0)).cumsum()
    found = starts(state.free, _changes(state, ends), _queue(state, runs))
    return Outlook(found[0], np.sort(found[1:], axis=0), work_running, work_waiting)


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
    held = np.array(takes, dtype=float) / np.maximum(state.capacity, 1.0)
    return held[:, 0] if held.shape[1] == 1 else held.max(axis=1)
