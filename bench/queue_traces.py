"""Traces of machines that never were, in the Standard Workload Format: to see that nothing is tuned to one real trace.

Jobs come in a daily rhythm, from users who each have their own sizes and habits, and are run by an event-driven
EASY scheduler (D. Lifka, "The ANL/IBM SP Scheduling System", JSSPP 1995): the first waiting job gets a start on
limits, others may start before it if they do not delay it.

    python -m bench.queue_traces exact --jobs 5000 > exact.swf
"""

from __future__ import annotations

import argparse
import heapq
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Kind:
    """A machine and its users: ``load`` is the work that comes over what the machine can do."""

    processors: int
    load: float
    limits: str
    priorities: bool = False
    tail: float = 1.3


KINDS = {
    "exact": Kind(processors=64, load=0.9, limits="exact"),
    "heavy": Kind(processors=512, load=0.85, limits="loose", tail=2.2),
    "idle": Kind(processors=256, load=0.3, limits="loose"),
    "overloaded": Kind(processors=128, load=1.05, limits="loose"),
    "unknown": Kind(processors=128, load=0.85, limits="none"),
    "priorities": Kind(processors=128, load=0.9, limits="loose", priorities=True),
}


@dataclass
class Job:
    number: int
    submitted: int
    run: int
    size: int
    limit: int
    user: int
    rank: int = 0
    started: int = -1


def jobs_of(kind: Kind, count: int, random: np.random.Generator) -> list[Job]:
    """Return jobs in the order of submission, not yet started."""
    users = 40
    shares = random.dirichlet(np.full(users, 0.3))
    typical_size = 2.0 ** random.integers(0, max(int(np.log2(kind.processors)) - 1, 1), users)
    typical_run = np.exp(random.normal(np.log(2400), kind.tail, users))
    asks = random.uniform(1.2, 12, users)
    found = []
    work = 0.0
    for number in range(1, count + 1):
        user = int(random.choice(users, p=shares))
        size = int(min(max(typical_size[user] * 2.0 ** random.integers(-2, 3), 1), kind.processors))
        run = int(min(max(typical_run[user] * np.exp(random.normal(0, 0.8)), 5), 5 * 86_400))
        if kind.limits == "exact":
            limit = run
        else:
            limit = max(int(-(-typical_run[user] * asks[user] // 600) * 600), 600)
            run = min(run, limit)
        found.append(Job(number, 0, run, size, limit, user, rank=user % 4 if kind.priorities else 0))
        work += run * size
    span = work / kind.processors / kind.load
    # A day's rhythm: twice as many jobs at noon as on average, hardly any at night
    moments = np.sort(random.uniform(0, span, count * 3))
    kept = random.uniform(0, 2, len(moments)) < 1 + 0.9 * np.sin(moments / 86_400 * 2 * np.pi)
    moments = np.sort(random.choice(moments[kept], count, replace=False))
    for job, moment in zip(found, moments.tolist(), strict=True):
        job.submitted = int(moment)
    return found


def run_easy(jobs: list[Job], processors: int) -> None:
    """Start the jobs, by rank and then in the order of submission, with EASY backfill."""
    free = processors
    waiting: list[Job] = []
    ends: list[tuple[int, int, Job]] = []
    arriving = iter(jobs)
    coming = next(arriving, None)
    while coming is not None or ends:
        now = min(coming.submitted if coming else sys.maxsize, ends[0][0] if ends else sys.maxsize)
        while ends and ends[0][0] <= now:
            free += heapq.heappop(ends)[2].size
        while coming is not None and coming.submitted <= now:
            waiting.append(coming)
            coming = next(arriving, None)
        waiting.sort(key=lambda job: (job.rank, job.number))
        shadow, spare = sys.maxsize, 0
        left = []
        for job in waiting:
            fits = job.size <= free
            if left and fits:
                fits = now + job.limit <= shadow or job.size <= spare
                if fits and now + job.limit > shadow:
                    spare -= job.size
            if fits:
                job.started = now
                free -= job.size
                heapq.heappush(ends, (now + job.run, job.number, job))
                continue
            if not left:
                shadow, spare = _shadow(job, free, now, [each for _, _, each in ends])
            left.append(job)
        waiting = left


def _shadow(head: Job, free: int, now: int, running: list[Job]) -> tuple[int, int]:
    for job in sorted(running, key=lambda job: job.started + job.limit):
        free += job.size
        if free >= head.size:
            return max(job.started + job.limit, now), free - head.size
    raise AssertionError("a job larger than the machine")


def lines(kind: Kind, jobs: list[Job]) -> Iterator[str]:
    """Yield the trace's lines."""
    yield f"; Version: 2.2\n; MaxProcs: {kind.processors}\n; UnixStartTime: 1700000000\n"
    for job in jobs:
        limit = -1 if kind.limits == "none" else job.limit
        yield (
            f"{job.number} {job.submitted} {job.started - job.submitted} {job.run} {job.size} -1 -1 {job.size} {limit} "
            f"-1 1 {job.user} 1 -1 1 -1 -1 -1\n"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a trace to stdout.")
    parser.add_argument("kind", choices=sorted(KINDS))
    parser.add_argument("--jobs", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    kind = KINDS[chosen.kind]
    jobs = jobs_of(kind, chosen.jobs, np.random.default_rng(chosen.seed))
    run_easy(jobs, kind.processors)
    sys.stdout.writelines(lines(kind, jobs))


if __name__ == "__main__":
    main()
