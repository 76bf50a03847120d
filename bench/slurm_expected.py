"""``python -m bench.slurm_expected``: how well starts in a real queue are foreseen, beside ``squeue --start``.

Others submit more than the cluster can run. In between somebody asks when a job of his would start, and submits it:
what was told is compared with when it began, and so is what Slurm's own scheduler says of the same job.

Intervals are told in whole minutes, outwards, and a lab's waits are a few minutes long: so more starts lie inside than
four in five. Where that comes from is told beside it, by the starts that would lie in the interval less its rounding.
"""

from __future__ import annotations

import random
import statistics
import threading
import time
from datetime import datetime
from pathlib import Path

from msgspec import Struct

from bench.slurm import platform
from bench.slurm_starts import measured, others
from ebhpc.model import Demand, Shape
from ebhpc.planning.queue.accuracy import Start, accuracy_of_starts
from ebhpc.planning.queue.estimator import MINUTE, StartEstimator
from ebhpc.planning.queue.expected import expected_start, observe
from tests.lab.slurm import Cluster

SOON = 5
"""A job that begins within so many seconds has not waited, and says nothing of how well waits are foreseen."""


class Asked(Struct):
    """A job whose start was asked for: what we told, what squeue told (POSIX seconds), and when it began."""

    job: int
    at: int
    earliest: int
    median: int
    latest: int
    squeue: float | None = None
    started: float | None = None


def squeue_start(cluster: Cluster, job: int) -> float | None:
    """Return when Slurm's scheduler expects a job to start; None: it does not say."""
    said = cluster.run(["squeue", "--start", "--noheader", "--jobs", str(job), "--format=%S"], check=False).stdout
    try:
        return datetime.fromisoformat(said.strip()).astimezone().timestamp()
    except ValueError:
        return None


def measure(cluster: Cluster, state: Path, seconds: int, seed: int) -> list[Asked]:
    """Ask and submit for so many seconds, and wait until all has begun."""
    chance = random.Random(seed)
    one = platform(cluster, "pyslurm", state, partitions=["batch"])
    until = time.time() + seconds
    crowd = threading.Thread(target=others, args=(cluster, until, random.Random(seed + 1)))
    crowd.start()
    estimator = StartEstimator(seed=seed)
    asked: list[Asked] = []
    begun = time.time()
    while True:
        now = int(time.time())
        snapshot = one.ebhpc_snapshot(now)
        observe(estimator, snapshot)
        for each in asked:
            if each.squeue is None and each.started is None and now - each.at >= SOON:
                each.squeue = squeue_start(cluster, each.job)
        starts = {job.id: job.started for job in one.slurm.jobs() if job.started and job.state != "PENDING"}
        for each in asked:
            each.started = each.started or starts.get(each.job)
        if now >= until and all(each.started for each in asked):
            break
        if now > until + 600:
            break
        # The first minute is for the queue to grow
        if begun + 60 < now < until:
            cores, minutes = chance.choice((1, 2, 4, 8)), chance.choice((1, 2, 3, 5))
            demand = Demand(
                least=Shape(cores=cores, memory=100 * cores), duration=60 * minutes, earliest=now, latest=now + 86400
            )
            told = expected_start(snapshot, demand, estimator, now=now)
            if told is not None:
                run = f"sleep {chance.randint(5, 40)}\n"
                job = cluster.submit(run, "-n", str(cores), "-t", str(minutes), "-o", "/dev/null")
                asked.append(Asked(job=job, at=now, earliest=told.earliest, median=told.median, latest=told.latest))
        time.sleep(chance.uniform(1, 4))
    crowd.join()
    one.slurm.close()
    return asked


def main() -> None:
    """Measure, and print the figures."""
    asked = measured("bench.slurm_expected", __doc__, measure, 420)
    waited = [one for one in asked if one.started is None or one.started - one.at > SOON]
    ours = [Start(earliest=o.earliest, latest=o.latest, expected=o.median, started=o.started) for o in waited]
    found = accuracy_of_starts(ours)
    print(f"{len(asked)} jobs were asked for, {len(waited)} of them waited")
    if not waited:
        return
    print(f"  begun inside the interval that was told: {found.inside:.0%}   wanted 80 %")
    inner = [
        Start(earliest=o.earliest + MINUTE // 2, latest=o.latest - MINUTE // 2, expected=o.median, started=o.started)
        for o in waited
    ]
    print(
        f"  inside it less half a minute at each end, by which it was rounded: {accuracy_of_starts(inner).inside:.0%}"
    )
    print(f"  before it {found.early:.0%}, after it {found.late:.0%}; its width {found.width:.0f} s in the mean")
    both = [one for one in waited if one.squeue is not None and one.started is not None]
    if both:
        mine = statistics.median(abs(one.median - (one.started or 0)) for one in both)
        its = statistics.median(abs((one.squeue or 0) - (one.started or 0)) for one in both)
        print(f"  off by, in the median of {len(both)}: what we told {mine:.0f} s, squeue --start {its:.0f} s")


if __name__ == "__main__":
    main()
