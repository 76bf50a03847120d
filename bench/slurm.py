"""``python -m bench.slurm``: what asking a large Slurm cluster costs us, and what it costs its controller.

A real controller with real node daemons, and a queue that it cannot serve. CPU seconds of all processes that take
part.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from msgspec import Struct

from ebhpc.model import Allocation, Identity, JupyterNotebook, Phase, Session, SimpleCompute
from ebhpc_slurm import ebhpc_platform
from ebhpc_slurm.looking import MOST
from ebhpc_slurm.platform import SlurmPlatform
from ebhpc_slurm.pyslurm_client import Pyslurm
from tests.lab.slurm import Cluster, missing, slurm_cluster

FILL = """\
for stream in 1 2 3; do
  (for number in $(seq {each}); do
    sbatch -Q -o /dev/null -J job$stream-$number -t $((30 + number % 600)) -n $((1 + number % 64)) --wrap true || exit 1
  done) &
done
wait
"""


LOOKS = 12
"""Looks of which the requests are counted: more than it takes until everything was asked for once."""


class Cost(Struct, frozen=True, kw_only=True):
    """What one way of asking costs: seconds of the wall, CPU seconds of ours and of the controller; bytes or items."""

    way: str
    wall: float
    ours: float
    controller: float
    told: str


def fill(cluster: Cluster, jobs: int, nodes: int) -> None:
    """Make a queue: one job that holds every node, and others that wait behind it."""
    cluster.submit("sleep 3600\n", f"-N{nodes}", "--exclusive", "-t", "60", "-o", "/dev/null")
    cluster.until(lambda: "RUNNING" in cluster.run(["squeue", "-h", "-o", "%T"]).stdout)
    cluster.run(["sh", "-c", FILL.format(each=-(-jobs // 3))], user="alice", timeout=1200)


def platform(cluster: Cluster, transport: str, state: Path, **more: Any) -> SlurmPlatform:
    """Build a platform on the cluster."""
    settings = {
        "jobs": {"root": str(cluster.shared / "sessions"), "runtime": {"kind": "none"}},
        "command_prefix": cluster.enter_argv("ebhpc"),
        "transport": transport,
        "pyslurm": [cluster.python],
        "identities": {"ada": {"user": "alice", "account": "phys", "uid": 2001}},
        "answer_within": "60s",
        **more,
    }
    built = ebhpc_platform("slurm", "large", settings, state)
    assert isinstance(built, SlurmPlatform)
    return built


def _spent(workers: Sequence[psutil.Process]) -> float:
    """CPU seconds of this process, of those that it has waited for, and of workers that go on."""
    total = sum(
        used.ru_utime + used.ru_stime
        for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )
    return total + sum(sum(worker.cpu_times()[:2]) for worker in workers)


def workers_of(one: SlurmPlatform) -> list[psutil.Process]:
    """Return the processes with pyslurm that a platform has started."""
    process = one.slurm.worker._process if isinstance(one.slurm, Pyslurm) else None
    if process is None:
        return []
    first = psutil.Process(process.pid)
    return [first, *first.children(recursive=True)]


def cost(
    cluster: Cluster,
    way: str,
    ask: Callable[[], object],
    told: Callable[[Any], str],
    workers: Sequence[psutil.Process],
    *,
    dearest: bool = False,
) -> Cost:
    """Ask five times; return the cost of the median of them, or of the dearest."""
    found = []
    for _ in range(5):
        ours, controller, begun = _spent(workers), cluster.controller.cpu_seconds(), time.perf_counter()
        answer = ask()
        wall = time.perf_counter() - begun
        found.append((_spent(workers) - ours, wall, cluster.controller.cpu_seconds() - controller, told(answer)))
    ours, wall, controller, words = sorted(found)[-1 if dearest else 2]
    return Cost(way=way, wall=wall, ours=ours, controller=controller, told=words)


def snapshots(cluster: Cluster, state: Path) -> Iterator[Cost]:
    """Measure what looks at the cluster cost, each way, and what ``squeue --json`` alone would."""
    for transport in ("commands", "pyslurm"):
        # Each snapshot is a look of its own, and the jobs are asked for at one of two at least
        one = platform(cluster, transport, state, look="0s")
        one.ebhpc_snapshot(int(time.time()))
        found = workers_of(one)
        yield cost(
            cluster,
            f"snapshot at its dearest, {transport}",
            lambda one=one: one.ebhpc_snapshot(int(time.time())),  # type: ignore[misc]
            lambda snapshot: f"{len(snapshot.waiting)} waiting, {len(snapshot.nodes)} nodes",
            found,
            dearest=True,
        )
        yield cost(
            cluster,
            f"one look at our jobs, {transport}",
            lambda one=one: list(one.slurm.jobs("ebhpc-")),  # type: ignore[misc]
            lambda jobs: f"{len(jobs)} of ours",
            found,
        )
        one.slurm.close()
    yield cost(
        cluster,
        "squeue --json",
        lambda: cluster.run(["squeue", "--json"], timeout=120).stdout,
        lambda text: f"{len(text) / 1e6:.0f} MB",
        [],
    )


def calls(cluster: Cluster, state: Path) -> Iterator[tuple[str, float, int]]:
    """Count what slurmctld is asked, by sdiag: on average, and at most, at a look."""
    for transport in ("commands", "pyslurm"):
        for way, followed in (("a snapshot alone", False), ("a snapshot, and jobs are followed", True)):
            one = platform(cluster, transport, state, look="1s")
            one.ebhpc_snapshot(int(time.time()))
            found = []
            for _ in range(LOOKS):
                time.sleep(1.1)
                before = one.cluster._looks
                asked = cluster.requests(lambda: _look(one, followed))  # noqa: B023
                # On a busy machine the second of the two comes late enough to be a look of its own
                found += [asked] if one.cluster._looks == before + 1 else []
            one.slurm.close()
            yield f"{way}, {transport}", statistics.mean(found), max(found)


def _look(one: SlurmPlatform, followed: bool) -> None:
    if followed:
        one.follower.look([])
    one.ebhpc_snapshot(int(time.time()))


def sessions(count: int, nodes: Sequence[str]) -> list[Session]:
    """Make sessions for as many reservations, in two days, one after another on each of some nodes."""
    begin = int(time.time()) + 2 * 86400
    return [
        Session(
            uuid=str(uuid.uuid4()),
            name=None,
            owner=Identity(uuid=str(uuid.uuid4()), username="ada"),
            platform="large",
            phase=Phase.ACCEPTED,
            executable=JupyterNotebook(),
            compute=SimpleCompute(),
            allocations=(Allocation(node=nodes[number % len(nodes)], cores=4, memory=1000),),
            start=begin + number * 3600,
            latest=begin + number * 3600,
            end=begin + number * 3600 + 600,
            duration=600,
        )
        for number in range(count)
    ]


def holds(cluster: Cluster, state: Path, count: int = 20) -> Iterator[tuple[str, float]]:
    """Measure how long it takes from the decision to the reservation, and how long the same command takes by itself."""
    nodes = [node.name for node in cluster.nodes[:50]]
    for transport in ("commands", "pyslurm"):
        one = platform(cluster, transport, state)
        one.ebhpc_snapshot(int(time.time()))
        wanted = sessions(count, nodes)
        yield f"hold, {transport}", statistics.median(_timed(lambda it=it: one.ebhpc_hold(it)) for it in wanted)  # type: ignore[misc] # noqa: B023
        for it in wanted:
            one.ebhpc_release(it)
        one.slurm.close()
    start = int(time.time()) + 4 * 86400
    words = [*("scontrol", "create", "reservation", "users=alice", "nodes=" + nodes[0], "tres=cpu=4"), "duration=10"]
    plain = [
        _timed(
            lambda number=number: cluster.run(  # type: ignore[misc]
                [*words, f"reservationname=plain{number}", f"starttime=uts{start + number * 3600}"]
            )
        )
        for number in range(count)
    ]
    yield "scontrol create reservation", statistics.median(plain)


def _timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


@contextmanager
def large(nodes: int, jobs: int) -> Iterator[Cluster]:
    """A cluster with a queue."""
    with slurm_cluster("26.05", nodes=nodes) as cluster:
        cluster.until(lambda: len(set(cluster.node_states())) == nodes, timeout=120)
        cluster.wait_idle(120)
        fill(cluster, jobs, nodes)
        yield cluster


def main() -> None:
    """Measure, and print the figures with their bounds."""
    parser = argparse.ArgumentParser(prog="python -m bench.slurm", description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=10_000)
    wanted = parser.parse_args()
    lacking = missing()
    if lacking:
        raise SystemExit(f"the Slurm lab cannot run: {'; '.join(lacking)}")
    with tempfile.TemporaryDirectory(prefix="ebhpc-bench-") as folder, large(wanted.nodes, wanted.jobs) as cluster:
        print(f"{wanted.jobs} jobs wait on {wanted.nodes} nodes; CPU seconds")
        print(f"  {'':34}{'wall':>9}{'ours':>9}{'slurmctld':>11}")
        costs = {}
        for one in snapshots(cluster, Path(folder)):
            costs[one.way] = one
            print(f"  {one.way:34}{one.wall:>9.2f}{one.ours:>9.2f}{one.controller:>11.2f}   {one.told}")
        print("  requests to slurmctld")
        largest_look = 0
        for way, mean, largest in calls(cluster, Path(folder)):
            largest_look = max(largest_look, largest)
            print(f"  {way:52}{mean:>6.1f} on average, {largest} at most")
        times = dict(holds(cluster, Path(folder)))
        for way, seconds in times.items():
            print(f"  {way:34}{seconds * 1000:>9.1f} ms")
    bounds = [
        ("requests of a look to slurmctld, at most", float(largest_look), MOST + 1.0),
        ("a snapshot over pyslurm, our CPU seconds", costs["snapshot at its dearest, pyslurm"].ours, 1.0),
        (
            "hold beside the command itself, ms",
            (times["hold, commands"] - times["scontrol create reservation"]) * 1000,
            50.0,
        ),
    ]
    for name, value, bound in bounds:
        print(f"  {name:44}{value:>9.2f}   wanted < {bound:g}   {'met' if value < bound else 'NOT MET'}")


if __name__ == "__main__":
    main()
