"""What a worker would have answered at each submission of a trace, against what happened then."""

from __future__ import annotations

import heapq
from pathlib import Path

import numpy as np
import pytest

from ebhpc.model.sessions import Allocation, Demand, Shape
from ebhpc.planning import FinishedJob, Node, RunningJob, Snapshot, WaitingJob
from ebhpc.planning.queue import (
    Outlooks,
    StartEstimator,
    decode_forecast,
    encode_forecast,
    expected_windows,
    look,
)
from ebhpc.planning.queue.swf import TracedJob
from tests.planning_queue.traces import jobs_in, write_trace

EVER = 10**8


class Cluster:
    """A machine on which a trace happens: what a batch system would tell of it at each instant."""

    def __init__(self, processors: int) -> None:
        self.nodes = (Node(name="all", cores=processors, memory=2**30),)
        self.waiting: dict[str, TracedJob] = {}
        self.running: dict[str, TracedJob] = {}
        self._starting: list[tuple[int, str]] = []
        self._ending: list[tuple[int, str]] = []

    def submit(self, id: str, job: TracedJob) -> None:
        self.waiting[id] = job
        heapq.heappush(self._starting, (job.started, id))

    def at(self, now: int) -> Snapshot:
        """Let time pass and take a snapshot."""
        finished = []
        while (self._starting and self._starting[0][0] <= now) or (self._ending and self._ending[0][0] <= now):
            if self._ending and (not self._starting or self._ending[0][0] <= self._starting[0][0]):
                id = heapq.heappop(self._ending)[1]
                finished.append(self._finished(id, self.running.pop(id)))
            else:
                id = heapq.heappop(self._starting)[1]
                self.running[id] = self.waiting.pop(id)
                heapq.heappush(self._ending, (self.running[id].ended, id))
        return Snapshot(
            platform="p",
            taken=now,
            nodes=self.nodes,
            running=tuple(self._running(id, job) for id, job in self.running.items()),
            waiting=tuple(self._waiting(id, job) for id, job in self.waiting.items()),
            finished=tuple(finished),
        )

    def _finished(self, id: str, job: TracedJob) -> FinishedJob:
        return FinishedJob(
            id=id,
            nodes=1,
            cores=job.processors,
            time_limit=job.limit,
            submitted=job.submitted,
            started=job.started,
            ended=job.ended,
            user=str(job.user),
        )

    def _running(self, id: str, job: TracedJob) -> RunningJob:
        share = Allocation(node="all", cores=job.processors, memory=1)
        ends = job.started + (job.limit or EVER)
        return RunningJob(id=id, allocations=(share,), started=job.started, ends=ends, user=str(job.user))

    def _waiting(self, id: str, job: TracedJob) -> WaitingJob:
        shape = Shape(cores=job.processors, memory=1)
        return WaitingJob(id=id, shape=shape, time_limit=job.limit, submitted=job.submitted, user=str(job.user))


@pytest.mark.slow
def test_answers_along_a_trace_are_about_as_sure_as_they_say_also_for_jobs_that_start_at_once(tmp_path: Path) -> None:
    trace, jobs = jobs_in(write_trace(tmp_path / "t.swf", "priorities", 1100))
    assert trace.processors is not None
    cluster, estimator, known = Cluster(trace.processors), StartEstimator(), None
    answers = []
    for number, job in enumerate(jobs):
        forecast = look(estimator, cluster.at(job.submitted), before=known)
        known = Outlooks.of(decode_forecast(encode_forecast(forecast)), estimator)
        now = job.submitted
        asked = Demand(
            least=Shape(cores=job.processors, memory=1), duration=job.limit or EVER, earliest=now, latest=now + EVER
        )
        [window] = expected_windows(known, asked, now=now, limit=1, offer_lifetime=0, user=str(job.user))
        answers.append((job.wait, window.start - now, (window.expected or 0) - now, window.latest - now))
        cluster.submit(str(number), job)
    wait, earliest, expected, latest = np.array(answers[100:], dtype=float).T
    inside = (earliest <= wait) & (wait <= latest)
    waited = (wait > 60) | (expected > 60)
    assert 0.7 <= inside[waited].mean() <= 0.9
    at_once = wait == 0
    assert at_once.sum() > 50
    assert inside[at_once].mean() > 0.8
    # Nearly all of them were learned from: those that no snapshot has shown waiting, too
    assert estimator.known > 0.9 * (len(jobs) - len(cluster.waiting))
