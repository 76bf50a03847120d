"""``python -m bench.slurm_expected``: how well starts in a real queue are foreseen, beside ``squeue --start``.

A night in minutes: a second of the lab is a minute of the night. Others submit their jobs by the dozen, at times more
than the cluster can run, over the night about as many; in between somebody asks when a job of his would start, and
submits it. What was told is compared with when it began, and so is what Slurm's own scheduler says of the same job. The
evening before is learned from, and not judged.

All that ebhpc learns of the cluster is told it in the night's time, so that it plans, learns and rounds (to minutes)
as it would at a centre; nothing of it knows of the lab. Slurm lives in the lab's time: what it does every second or two
looks like every minute or two. It goes before what else the machine has to do, where we may say so.
"""

from __future__ import annotations

import contextlib
import os
import random
import statistics
import threading
import time
from datetime import datetime
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from bench.slurm import platform
from bench.slurm_starts import measured
from ebhpc.model import Demand, Shape
from ebhpc.planning import Snapshot
from ebhpc.planning.queue import Outlooks, StartEstimator, expected_windows, look
from ebhpc.planning.queue.accuracy import Start, accuracy_of_starts
from tests.lab.slurm import Cluster

PACE = 60
"""Seconds of the night that pass in one of the lab."""

SOON = 5
"""A job that begins within so many of the lab's seconds, and was told so, says nothing of how waits are foreseen."""

EVENING = 180
"""So many of the lab's seconds are learned from before anything is judged."""

BURST, BETWEEN = 16, 65.0
"""How many jobs others submit at once, and how many of the lab's seconds pass in between, both in the mean."""

SCHEDULER = "bf_interval=1,bf_window=20160,bf_resolution=1,bf_max_job_test=1000,sched_min_interval=500000"
"""Slurm's scheduler, as much in the night's pace as it goes."""


class Asked(Struct):
    """A job whose start was asked for: what we told, what squeue told, and when it began; POSIX seconds of the lab."""

    job: int
    at: float
    earliest: float
    median: float
    latest: float
    squeue: float | None = None
    started: float | None = None


class Clock(Struct, frozen=True):
    """The night's clock, which stood as the lab's at ``origin``, POSIX seconds."""

    origin: int

    def night(self, at: float) -> int:
        """Return the night's time of the lab's."""
        return self.origin + round((at - self.origin) * PACE)

    def lab(self, at: float) -> float:
        """Return the lab's time of the night's."""
        return self.origin + (at - self.origin) / PACE

    def snapshot(self, one: Snapshot) -> Snapshot:
        """Return what a snapshot of the lab says, in the night's time."""
        scheduler = one.scheduler
        if scheduler is not None:
            window = None if scheduler.window is None else scheduler.window * PACE
            scheduler = replace(scheduler, window=window, resolution=scheduler.resolution * PACE)
        return replace(
            one,
            taken=self.night(one.taken),
            partitions=tuple(replace(each, time_limit=_longer(each.time_limit)) for each in one.partitions),
            running=tuple(
                replace(job, started=self.night(job.started), ends=None if job.ends is None else self.night(job.ends))
                for job in one.running
            ),
            waiting=tuple(
                replace(
                    job,
                    time_limit=_longer(job.time_limit),
                    submitted=self.night(job.submitted),
                    begin=None if job.begin is None else self.night(job.begin),
                )
                for job in one.waiting
            ),
            finished=tuple(
                replace(
                    job,
                    time_limit=_longer(job.time_limit),
                    submitted=self.night(job.submitted),
                    started=self.night(job.started) if job.started > 0 else job.started,
                    ended=self.night(job.ended),
                )
                for job in one.finished
            ),
            scheduler=scheduler,
        )


def _longer(seconds: int | None) -> int | None:
    return None if seconds is None else seconds * PACE


def squeue_start(cluster: Cluster, job: int) -> float | None:
    """Return when Slurm's scheduler expects a job to start; None: it does not say."""
    said = cluster.run(["squeue", "--start", "--noheader", "--jobs", str(job), "--format=%S"], check=False).stdout
    try:
        return datetime.fromisoformat(said.strip()).astimezone().timestamp()
    except ValueError:
        return None


def measure(cluster: Cluster, state: Path, seconds: int, seed: int) -> list[Asked]:
    """Ask and submit for so many seconds, and wait until all has begun."""
    with cluster.configured(SchedulerParameters=SCHEDULER):
        cluster.wait_idle(120)
        return _measure(cluster, state, seconds, seed)


def bursts(cluster: Cluster, until: float, chance: random.Random) -> None:
    """Submit jobs of other users, many at once, that end long before their limits."""
    count = 3 * BURST
    while time.time() < until:
        user = chance.choice(("alice", "bob"))
        for _ in range(count):
            cores, limit = chance.choice((1, 2, 4, 8)), chance.choice((1, 2, 3, 5))
            run = f"sleep {chance.randint(5, 40)}\n"
            cluster.submit(run, "-n", str(cores), "-t", str(limit), "-o", "/dev/null", user=user)
        pause, count = chance.expovariate(1 / BETWEEN), chance.randint(1, 2 * BURST - 1)
        time.sleep(max(min(pause, until - time.time()), 0))


def _measure(cluster: Cluster, state: Path, seconds: int, seed: int) -> list[Asked]:
    chance = random.Random(seed)
    one = platform(cluster, "pyslurm", state, partitions=["batch"], look="0s")
    begun = time.time()
    until, clock = begun + EVENING + seconds, Clock(int(begun))
    crowd = threading.Thread(target=bursts, args=(cluster, until, random.Random(seed + 1)))
    crowd.start()
    estimator = StartEstimator(seed=seed)
    outlooks: Outlooks | None = None
    asked: list[Asked] = []
    while True:
        one.follower.look([])
        told = clock.snapshot(one.ebhpc_snapshot(int(time.time())))
        outlooks = Outlooks.of(look(estimator, told, before=outlooks), estimator)
        now = time.time()
        for each in asked:
            if each.squeue is None and each.started is None and now - each.at >= SOON:
                each.squeue = squeue_start(cluster, each.job)
        starts = {job.id: job.started for job in one.slurm.jobs() if job.started and job.state != "PENDING"}
        for each in asked:
            each.started = each.started or starts.get(each.job)
        if now >= until and (now > until + 600 or all(each.started for each in asked)):
            break
        if now < until:
            found = _ask(cluster, outlooks, clock, chance)
            asked += [] if found is None else [found]
        time.sleep(chance.uniform(1, 3))
    crowd.join()
    one.slurm.close()
    return [each for each in asked if each.at >= begun + EVENING]


def _ask(cluster: Cluster, outlooks: Outlooks, clock: Clock, chance: random.Random) -> Asked | None:
    """Ask when a job would start, as a request does, and submit it."""
    cores, minutes = chance.choice((1, 2, 4, 8)), chance.choice((1, 2, 3, 5))
    at = time.time()
    now = clock.night(at)
    demand = Demand(
        least=Shape(cores=cores, memory=100 * cores),
        duration=60 * minutes * PACE,
        earliest=now,
        latest=now + 86400 * PACE,
    )
    windows = expected_windows(outlooks, demand, now=now, limit=1, offer_lifetime=0, user="alice", account="phys")
    if not windows:
        return None
    told = windows[0]
    run = f"sleep {chance.randint(5, 40)}\n"
    job = cluster.submit(run, "-n", str(cores), "-t", str(minutes), "-o", "/dev/null")
    expected = told.start if told.expected is None else told.expected
    return Asked(
        job=job, at=at, earliest=clock.lab(told.start), median=clock.lab(expected), latest=clock.lab(told.latest)
    )


def main() -> None:
    """Measure, and print the figures."""
    # The lab's daemons inherit it: a busy machine is none of the night's doing
    with contextlib.suppress(PermissionError):
        os.nice(-5)
    asked = measured("bench.slurm_expected", __doc__, measure, 480)
    waited = [one for one in asked if max(one.started or one.latest, one.median) - one.at > SOON]
    # Slurm tells starts in whole seconds, the second in which the start was
    ours = [
        Start(
            earliest=round(one.earliest * PACE),
            latest=round(one.latest * PACE),
            expected=round(one.median * PACE),
            started=None if one.started is None else (one.started + 0.5) * PACE,
        )
        for one in waited
    ]
    found = accuracy_of_starts(ours)
    print(
        f"{len(asked)} jobs were asked for, {len(waited)} of them waited or were to; a second is a minute of the night"
    )
    if not waited:
        return
    waits = [one.started - one.at for one in waited if one.started is not None]
    print(f"  waited {statistics.median(waits):.0f} min in the median, {max(waits):.0f} at most")
    print(f"  begun inside the interval that was told: {found.inside:.0%}   wanted 80 %")
    print(
        f"  before it {found.early:.0%}, after it {found.late:.0%}; its width {found.width / PACE:.0f} min in the mean"
    )
    both = [one for one in waited if one.squeue is not None and one.started is not None]
    if both:
        mine = statistics.median(abs(one.median - (one.started or 0)) for one in both)
        its = statistics.median(abs((one.squeue or 0) - (one.started or 0)) for one in both)
        print(f"  off by, in the median of {len(both)}: what we told {mine:.0f} min, squeue --start {its:.0f} min")
    third = -(-len(waited) // 3)
    for part in range(0, len(ours), third):
        share = accuracy_of_starts(ours[part : part + third])
        print(f"  of {share.starts} in their order: inside {share.inside:.0%}, width {share.width / PACE:.0f} min")


if __name__ == "__main__":
    main()
