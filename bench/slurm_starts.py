"""``python -m bench.slurm_starts``: whether sessions start when they were promised to, on a cluster that others use.

Others submit jobs all the while; sessions come in between, are planned, reserved, and submitted as the driver would.
How late each one's job began is told by Slurm.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from bench.slurm import platform
from ebhpc import batch
from ebhpc.model import (
    Demand,
    Executable,
    Identity,
    Phase,
    Session,
    Shape,
    SimpleCompute,
    SimpleStorage,
    Window,
)
from ebhpc.planning import Booking, Timeline, bookings_of, windows
from ebhpc.plugins import SessionFailed
from ebhpc_slurm.platform import SlurmPlatform
from ebhpc_slurm.transport import SlurmFault
from tests.lab.slurm import Cluster, missing, slurm_cluster

T = TypeVar("T")
GAP = 120
ON_TIME = 10
"""Seconds after the promised start within which a job is on time: the scheduler itself takes up to four."""


class Command(Executable, tag="https://example.org/kinds/executable/command.yaml"):
    """What the sessions run."""


class Tally(Struct):
    """What became of the sessions: how late each started (seconds), and how many could not be planned or reserved."""

    late: list[float]
    unplanned: int = 0
    refused: int = 0


def others(cluster: Cluster, until: float, chance: random.Random) -> None:
    """Submit jobs of other users, one every second or so, that end long before their limits."""
    while time.time() < until:
        limit = chance.choice((1, 2, 3, 5))
        options = ("-n", str(chance.choice((1, 2, 4, 8))), "-t", str(limit), "-o", "/dev/null")
        cluster.submit(f"sleep {chance.randint(5, 40)}\n", *options, user=chance.choice(("alice", "bob")))
        time.sleep(chance.expovariate(1.0))


def plan(one: SlurmPlatform, booked: list[Booking], chance: random.Random) -> Window | None:
    """Find a window for a session that anybody may ask for now."""
    now = int(time.time())
    demand = Demand(
        least=Shape(cores=chance.choice((1, 2, 4)), memory=200),
        duration=30,
        earliest=now + chance.randint(5, 60),
        latest=now + 400,
    )
    timeline = Timeline.of(one.ebhpc_snapshot(now), booked, gap=GAP, delay_queue=True)
    found = windows(demand, timeline, now=now, limit=1, offer_lifetime=1)
    return found[0] if found else None


def session_of(window: Window) -> Session:
    """Make the session of a window, as if it had been accepted."""
    return Session(
        uuid=str(uuid.uuid4()),
        name=None,
        owner=Identity(uuid=str(uuid.uuid4()), username="ada"),
        platform="large",
        phase=Phase.ACCEPTED,
        executable=Command(),
        compute=SimpleCompute(),
        storage=(SimpleStorage(),),
        allocations=window.allocations,
        start=window.start,
        latest=window.latest,
        end=window.end,
        duration=window.duration,
    )


def live(one: SlurmPlatform, session: Session, tally: Tally) -> None:
    """Submit a session at its start, see when it began, and clean up after it."""
    account = batch.Account(name="alice", uid=2001)
    batch.prepare(session, one.settings.jobs, account, node_variable="SLURMD_NODENAME", command=["/bin/sleep", "5"])
    time.sleep(max(session.start - time.time(), 0))
    one.ebhpc_submit(replace(session, phase=Phase.AVAILABLE))
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for job in one.slurm.jobs(f"ebhpc-{session.uuid}"):
            if job.started and job.state in ("RUNNING", "COMPLETING", "COMPLETED"):
                tally.late.append(job.started - session.latest)
                one.ebhpc_cancel(session)
                return
        time.sleep(1)
    tally.late.append(float("inf"))


def measure(cluster: Cluster, state: Path, seconds: int, seed: int) -> Tally:
    """Let sessions come for so many seconds; return what became of them."""
    chance = random.Random(seed)
    one = platform(cluster, "pyslurm", state)
    until = time.time() + seconds
    tally = Tally(late=[])
    threads = [threading.Thread(target=others, args=(cluster, until + 60, random.Random(seed + 1)))]
    threads[0].start()
    booked: list[Booking] = []
    while time.time() < until:
        window = plan(one, booked, chance)
        if window is None:
            tally.unplanned += 1
        else:
            session = session_of(window)
            try:
                one.ebhpc_hold(session)
            except (SessionFailed, SlurmFault):  # what another user's job has taken since the plan was made
                tally.refused += 1
            else:
                numbers = range(len(booked), len(booked) + len(window.allocations))
                booked += bookings_of(window, session=session.uuid, ids=numbers, expires=None)
                threads.append(threading.Thread(target=live, args=(one, replace(session, held="yes"), tally)))
                threads[-1].start()
        time.sleep(chance.expovariate(1 / 5))
    for thread in threads:
        thread.join()
    one.slurm.close()
    return tally


def measured(name: str, about: str | None, measure: Callable[[Cluster, Path, int, int], T], seconds: int) -> T:
    """Read the arguments of a measurement of so many ``seconds``, and carry it out on a cluster of its own."""
    parser = argparse.ArgumentParser(prog=f"python -m {name}", description=about)
    parser.add_argument("--seconds", type=int, default=seconds, help="how long it goes on (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    wanted = parser.parse_args()
    lacking = missing()
    if lacking:
        raise SystemExit(f"the Slurm lab cannot run: {'; '.join(lacking)}")
    with tempfile.TemporaryDirectory(prefix="ebhpc-bench-") as folder, slurm_cluster("26.05") as cluster:
        return measure(cluster, Path(folder), wanted.seconds, wanted.seed)


def main() -> None:
    """Measure, and print the figures."""
    tally = measured("bench.slurm_starts", __doc__, measure, 300)
    kept = sum(late <= ON_TIME for late in tally.late)
    print(
        f"{len(tally.late)} sessions were reserved; {tally.refused} were refused, for {tally.unplanned} was no window"
    )
    if tally.late:
        worst, middle = max(tally.late), statistics.median(tally.late)
        print(f"  started within {ON_TIME} s of the promised time: {kept / len(tally.late):.0%}   wanted 100 %")
        print(f"  seconds late: {middle:.0f} in the median, {worst:.0f} at most")


if __name__ == "__main__":
    main()
