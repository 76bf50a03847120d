"""Replaying a trace: each job's start is predicted at its submission, then compared with what happened.

At a submission the estimator is told what a batch system would tell at that instant: which jobs run since when,
which wait, and, of the past, which jobs have started and ended. Jobs wait in the order of submission.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from msgspec import Struct

from ebhpc.planning.queue.estimator import NeverStartsError, StartEstimator
from ebhpc.planning.queue.runtimes import Asked
from ebhpc.planning.queue.simulation import plan_on_limits
from ebhpc.planning.queue.state import QueueState, Runs, Waits
from ebhpc.planning.queue.swf import TracedJob

_NO_LIMIT = 86_400
"""Seconds taken for the limit of a job without one, as long as no longer job has been seen."""


class Replayed(Struct, frozen=True, kw_only=True):
    """A job's real wait and what was predicted at its submission, all in seconds."""

    number: int
    submitted: int
    wait: int
    planned: int
    earliest: int
    median: int
    latest: int


class _Live(NamedTuple):
    """A job of the trace in the estimator's terms."""

    job: TracedJob
    asked: Asked
    waits: Waits


class Replay:
    """A replay in progress: iterate to go on by one job at a time.

    ``too_large`` counts jobs that were left out because they got more processors than the machine has.
    """

    def __init__(self, jobs: Sequence[TracedJob], *, processors: int, began: int, seed: int = 0) -> None:
        """Replay ``jobs``, in the order of submission, on so many processors from ``began`` (POSIX seconds)."""
        self._jobs = jobs
        self._capacity = np.array([float(processors)])
        self._began = began
        self.estimator = StartEstimator(seed=seed)
        self.too_large = 0

    def __iter__(self) -> Iterator[Replayed | None]:
        """Yield each job's prediction and truth; None for one that was left out."""
        waiting: dict[str, _Live] = {}
        running: dict[str, _Live] = {}
        starting: list[tuple[int, int, str]] = []
        ending: list[tuple[int, int, str]] = []
        free = float(self._capacity[0])
        longest = _NO_LIMIT
        for order, job in enumerate(self._jobs):
            if job.processors > self._capacity[0]:
                self.too_large += 1
                yield None
                continue
            now = job.submitted
            # What happened until now, in the order in which it happened; of equal instants ends come first
            while (starting and starting[0][0] <= now) or (ending and ending[0][0] <= now):
                if ending and (not starting or ending[0][0] <= starting[0][0]):
                    _, _, id = heapq.heappop(ending)
                    live = running.pop(id)
                    free += live.job.processors
                    longest = max(longest, live.job.ended - live.job.started)
                    self.estimator.ended(id, live.asked, live.job.ended - live.job.started)
                else:
                    _, number, id = heapq.heappop(starting)
                    live = waiting.pop(id)
                    running[id] = live
                    free -= live.job.processors
                    self.estimator.started(id, self._began + live.job.started)
                    heapq.heappush(ending, (live.job.ended, number, id))
            self.estimator.waiting(self._began + now)
            live = self._live(job, str(order), longest)
            waiting[live.waits.id] = live
            heapq.heappush(starting, (job.started, order, live.waits.id))
            state = QueueState(
                now=self._began + now,
                capacity=self._capacity,
                free=np.array([free]),
                running=tuple(
                    Runs(id=id, asked=each.asked, started=self._began + each.job.started, takes=each.waits.takes)
                    for id, each in running.items()
                ),
                waiting=tuple(each.waits for each in waiting.values()),
            )
            try:
                answer = self.estimator.promise(state)
            except NeverStartsError:
                self.too_large += 1
                yield None
                continue
            yield Replayed(
                number=job.number,
                submitted=now,
                wait=job.wait,
                planned=round(float(plan_on_limits(state)[-1])),
                earliest=answer.earliest,
                median=answer.median,
                latest=answer.latest,
            )

    def _live(self, job: TracedJob, id: str, longest: int) -> _Live:
        asked = Asked(
            size=job.processors,
            limit=job.limit or longest,
            user=job.user,
            account=job.group,
            partition=job.queue if job.partition is None else (job.queue, job.partition),
        )
        amount = (float(job.processors),)
        return _Live(job, asked, Waits(id=id, asked=asked, submitted=job.submitted, needs=amount, takes=amount))
