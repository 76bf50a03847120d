"""``python -m bench.planning``: the planner's CPU time, beside a plain profile list and a published library."""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from itertools import count
from math import log
from pathlib import Path

from msgspec import Struct

from bench.growth_plot import Line, growth_picture
from bench.machines import DAY, NOW, Machine, demands, machine, whole_node_machine, whole_node_queue, with_queue
from bench.profile_list import ProfileList
from ebhpc.model import Demand, Shape
from ebhpc.planning import Timeline, bookings_of, planned_starts, windows

LIFETIME = 300


class Bound(Struct, frozen=True, kw_only=True):
    """A figure, and what it has to be below."""

    name: str
    value: float
    below: float


def cpu(work: Callable[[], object]) -> float:
    """Return the seconds of CPU time of one call."""
    begun = time.thread_time()
    work()
    return time.thread_time() - begun


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that so large a share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def timeline_of(made: Machine) -> Timeline:
    """Return the timeline of a machine."""
    return Timeline.of(made.snapshot, made.bookings)


def queries(timeline: Timeline, number: int, limit: int) -> dict[str, list[float]]:
    """Return the seconds of CPU time of each question, asked three times, by its kind."""
    taken: dict[str, list[float]] = {}
    asked = demands(number)
    for _, demand in asked[:20]:
        windows(demand, timeline, now=NOW, limit=limit, longest=30 * DAY)
    gc.collect()
    for kind, demand in asked:
        # The least of three: what else the machine does makes caches cold
        seconds = min(
            cpu(lambda demand=demand: windows(demand, timeline, now=NOW, limit=limit, longest=30 * DAY))  # type: ignore[misc]
            for _ in range(3)
        )
        taken.setdefault(kind, []).append(seconds)
    return taken


def serving(timeline: Timeline, number: int) -> list[float]:
    """Return the seconds of each question and of booking its windows, each on the timeline that the last one left."""
    ids, taken = count(10_000_000), []

    def ask(demand: Demand) -> None:
        nonlocal timeline
        found = windows(demand, timeline, now=NOW, longest=30 * DAY)
        booked = [each for one in found for each in bookings_of(one, session=f"q{next(ids)}", ids=ids)]
        timeline = timeline.with_bookings(booked)

    for _, demand in demands(number, seed=5):
        taken.append(cpu(lambda demand=demand: ask(demand)))  # type: ignore[misc]
    return taken


def memory_of_bookings(timeline: Timeline, number: int) -> float:
    """Return by how many bytes a timeline with a booking more is larger than the one before, both kept."""
    demand = Demand(least=Shape(cores=1, memory=0), duration=60, earliest=NOW, latest=NOW + 30 * DAY)
    (window,) = windows(demand, timeline, now=NOW, limit=1)
    kept = [timeline]
    gc.collect()
    tracemalloc.start()
    for id in range(number):
        kept.append(kept[-1].with_bookings(bookings_of(window, session=f"m{id}", ids=[20_000_000 + id])))
        kept[-1].parts()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return size / number


def query_figures(number: int) -> list[Bound]:
    """Measure questions on timelines of 100 and of 5,000 nodes and print them."""
    print(f"windows, ms of CPU time each, {number} questions of ten kinds")
    print(f"  {'':44}{'median':>9}{'p99':>9}{'most':>9}   the slowest kind (median)")
    bounds = []
    for nodes, allocations, below in ((100, 2000, 1.0), (5000, 100_000, 10.0)):
        for busy in (True, False):
            made = machine(nodes, allocations, busy=busy)
            timeline = timeline_of(made)
            load = "busy" if busy else "half free"
            name = f"{nodes:,} nodes, {allocations:,} allocations, {load}"
            for limit, what in ((1, "earliest"), (3, "3 windows")):
                taken = queries(timeline, number, limit)
                every = [seconds * 1000 for kind in taken.values() for seconds in kind]
                slowest = max(taken, key=lambda kind: percentile(taken[kind], 0.5))
                p99 = percentile(every, 0.99)
                print(
                    f"  {name if limit == 1 else '':34}{what:>10}{percentile(every, 0.5):>9.2f}{p99:>9.2f}"
                    f"{max(every):>9.2f}   {slowest} ({percentile(taken[slowest], 0.5) * 1000:.2f})"
                )
                bounds.append(Bound(name=f"{what}, {nodes:,} nodes, {load}, p99 ms", value=p99, below=below))
            every = [seconds * 1000 for seconds in serving(timeline, number)]
            print(
                f"  {'':29}{'and booking 3':>15}{percentile(every, 0.5):>9.2f}{percentile(every, 0.99):>9.2f}"
                f"{max(every):>9.2f}"
            )
        again = cpu(lambda made=made: timeline_of(made)) * 1000  # type: ignore[misc]
        print(
            f"  {'':24}made of a snapshot{again:>11.0f}     one more booking, kept beside the one before: "
            f"{memory_of_bookings(timeline, 50) / 1024:.0f} KiB"
        )
    return bounds


def plan_once(nodes: int, jobs: int) -> None:
    """Plan a queue in this process, and print its seconds of CPU time, peak memory in MiB, and planned jobs."""
    made = machine(nodes, 10 * nodes, days=3)
    state = with_queue(made.snapshot, jobs)
    begun = time.process_time()
    planned = planned_starts(state, made.bookings, now=NOW)
    seconds = time.process_time() - begun
    # Not ru_maxrss: that of a new process begins with its parent's
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peak = int(status["VmHWM"].split()[0]) / 1024
    print(json.dumps([seconds, peak, len(planned), sum(len(job.nodes) for job in planned)]))


def planned(nodes: int, jobs: int) -> tuple[float, float, int, int]:
    """Return what :func:`plan_once` prints, from a process of its own: peak memory has to be its alone."""
    command = [sys.executable, "-m", "bench.planning", "--plan", str(nodes), str(jobs)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, peak, starts, shares = json.loads(answer.stdout)
    return seconds, peak, starts, shares


def slope(line: Line) -> float:
    """Return the exponent with which a line grows, by least squares of the logarithms."""
    points = [(log(x), log(y)) for x, y in line.points]
    x_mean, y_mean = (sum(values) / len(points) for values in zip(*points, strict=True))
    return sum((x - x_mean) * (y - y_mean) for x, y in points) / sum((x - x_mean) ** 2 for x, _ in points)


def growth(folder: Path, number: int) -> list[Bound]:
    """Measure how the figures grow with nodes and jobs, print them and draw them."""
    by_nodes: dict[str, list[tuple[float, float]]] = {"earliest, median": [], "3 windows, p99": [], "made anew": []}
    for nodes in (250, 500, 1000, 2000, 4000, 8000):
        made = machine(nodes, 20 * nodes, busy=False)
        timeline = timeline_of(made)
        one = [seconds for kind in queries(timeline, number, 1).values() for seconds in kind]
        three = [seconds for kind in queries(timeline, number, 3).values() for seconds in kind]
        by_nodes["earliest, median"].append((nodes, percentile(one, 0.5) * 1000))
        by_nodes["3 windows, p99"].append((nodes, percentile(three, 0.99) * 1000))
        by_nodes["made anew"].append((nodes, min(cpu(lambda: timeline_of(made)) for _ in range(3)) * 1000))  # noqa: B023
    plans = {jobs: planned(1000, jobs) for jobs in (1250, 2500, 5000, 10_000, 20_000)}
    wide = {nodes: planned(nodes, 5000) for nodes in (250, 500, 1000, 2000, 4000)}
    seconds, peak, starts, shares = plans[10_000]
    print(f"10,000 waiting jobs on 1,000 nodes: {starts:,} starts on {shares:,} nodes in all")
    lines = [Line(f"{name}, by nodes", points) for name, points in by_nodes.items()]
    lines.append(Line("queue planned, by jobs (1,000 nodes)", [(jobs, one[0] * 1000) for jobs, one in plans.items()]))
    lines.append(Line("queue planned, by nodes (5,000 jobs)", [(nodes, one[0] * 1000) for nodes, one in wide.items()]))
    print("growth (1: linear), ms of CPU time")
    for line in lines:
        shown = ", ".join(f"{x:,.0f}: {y:.3g}" for x, y in line.points)
        print(f"  {line.name:40}{slope(line):>6.2f}   {shown}")
    file = folder / "planning.svg"
    file.write_text(growth_picture(lines, "What the planner costs", "nodes, or waiting jobs", "ms of CPU time"))
    print(f"  drawn in {file}")
    return [
        Bound(name="planning 10,000 jobs on 1,000 nodes, s", value=seconds, below=5.0),
        Bound(name="its peak memory, MiB", value=peak, below=500.0),
        *(Bound(name=f"growth: {line.name}", value=slope(line), below=1.3) for line in lines),
    ]


def beside_profile_list(number: int) -> None:
    """Ask the same questions of a plain profile list: equal answers, and how many times slower."""
    print("beside a plain profile list in Python (bench/profile_list.py), earliest start, mean ms of CPU time")
    for nodes, allocations in ((100, 2000), (1000, 20_000), (5000, 100_000)):
        made = machine(nodes, allocations, busy=False)
        timeline, plain = timeline_of(made), ProfileList(made.snapshot, made.bookings)
        ours = theirs = 0.0
        for _, demand in demands(number, seed=7):
            begun = time.thread_time()
            found = windows(demand, timeline, now=NOW, limit=1, offer_lifetime=LIFETIME)
            between = time.thread_time()
            start = plain.earliest(demand, NOW, LIFETIME)
            theirs += time.thread_time() - between
            ours += between - begun
            assert (found[0].start if found else None) == start, demand
        print(
            f"  {nodes:>6,} nodes, {allocations:>7,} allocations{ours / number * 1000:>10.2f}"
            f"{theirs / number * 1000:>10.2f}   {theirs / ours:>6.0f} times"
        )


def beside_a_library() -> None:
    """Plan whole nodes with the library ``availability-profile``, too: equal starts, and how many times slower.

    It keeps sets of interchangeable things over time (nodes, or cores), one quantity, and finds a first start and takes
    it. It knows no memory, devices, features, partitions or licences, gives no node a part, and finds no latest start,
    longest or largest window; so only whole nodes that are all equal can be compared.
    """
    try:
        from availability.profile import DiscreteProfile
    except ImportError:
        print("availability-profile is not installed (pip install availability-profile): no comparison with it")
        return
    print("beside availability-profile 0.0.1, whole nodes that are all equal, ms of CPU time")
    print(f"  {'':40}{'ours':>10}{'its':>10}")
    for nodes, bookings, jobs in ((25, 100, 50), (50, 200, 100), (100, 400, 100)):
        made = whole_node_machine(nodes, bookings)
        state = whole_node_queue(made.snapshot, jobs)
        profile = DiscreteProfile(max_capacity=nodes)
        place = {node.name: number for number, node in enumerate(made.snapshot.nodes)}
        for booking in made.bookings:
            taken = profile.check_availability(quantity=0, start_time=0, duration=1).resources
            taken = type(taken)([_one(taken, place[booking.node])])
            profile.allocate_resources(taken, start_time=booking.start - NOW, end_time=booking.end - NOW)
        asked = [(nodes_wanted, hours * 3600) for nodes_wanted in (1, 2, 8, nodes // 2) for hours in (1, 5, 24)]
        timeline = timeline_of(made)
        ours = theirs = 0.0
        for wanted, lasting in asked:
            demand = Demand(
                least=Shape(cores=64, memory=0), nodes=wanted, duration=lasting, earliest=NOW, latest=NOW + 400 * DAY
            )
            begun = time.thread_time()
            found = windows(demand, timeline, now=NOW, limit=1, offer_lifetime=0)
            between = time.thread_time()
            slot = profile.find_start_time(quantity=wanted, ready_time=0, duration=lasting)
            theirs += time.thread_time() - between
            ours += between - begun
            assert found[0].start - NOW == slot.period.lower, (wanted, lasting)
        name = f"{nodes} nodes, {bookings} bookings"
        each = 1000 / len(asked)
        print(
            f"  {name + ': earliest start':40}{ours * each:>10.2f}{theirs * each:>10.2f}   {theirs / ours:>6.0f} times"
        )
        starts = []

        def place_all() -> None:
            for job in state.waiting:  # noqa: B023
                assert job.time_limit is not None
                slot = profile.find_start_time(quantity=job.nodes, ready_time=0, duration=job.time_limit)  # noqa: B023
                chosen = profile.select_slot_resources(slot, job.nodes)  # noqa: B023
                begin = slot.period.lower
                profile.allocate_resources(chosen, start_time=begin, end_time=begin + job.time_limit)  # noqa: B023
                starts.append(begin)  # noqa: B023

        theirs = cpu(place_all)
        begun = time.thread_time()
        mine = planned_starts(state, made.bookings, now=NOW)
        ours = time.thread_time() - begun
        assert [job.start - NOW for job in mine] == starts
        name = f"{jobs} waiting jobs planned"
        print(f"  {name:40}{ours * 1000:>10.0f}{theirs * 1000:>10.0f}   {theirs / ours:>6.0f} times")


def _one(resources: object, number: int) -> object:
    """Return the library's range of one thing."""
    from availability.sets import DiscreteRange

    del resources
    return DiscreteRange(number, number + 1)


def measure(folder: Path, number: int = 500) -> list[Bound]:
    """Measure and print everything; return the figures that have bounds."""
    bounds = query_figures(number)
    beside_profile_list(min(number, 60))
    beside_a_library()
    return bounds + growth(folder, min(number, 200))


def show(bounds: Sequence[Bound]) -> None:
    """Print which bounds are met."""
    for bound in bounds:
        met = "met" if bound.value < bound.below else "NOT MET"
        print(f"  {bound.name:52}{bound.value:>9.2f}   wanted < {bound.below:g}   {met}")


def main() -> None:
    """Run the benchmarks of the planner."""
    parser = argparse.ArgumentParser(prog="python -m bench.planning", description=__doc__)
    parser.add_argument(
        "--questions", type=int, default=500, help="questions of each measurement (default %(default)s)"
    )
    parser.add_argument("--plan", type=int, nargs=2, metavar=("NODES", "JOBS"), help="only plan one queue; prints JSON")
    wanted = parser.parse_args()
    if wanted.plan:
        plan_once(*wanted.plan)
        return
    folder = Path("build")
    folder.mkdir(exist_ok=True)
    show(measure(folder, wanted.questions))


if __name__ == "__main__":
    main()
