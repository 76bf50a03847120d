"""``python -m bench.reserved``: what it costs to tell a window's harm, and what choosing cheap windows gives.

``harm``: CPU time of the harm of a window on 1,000 nodes with 10,000 waiting jobs. ``week``: weeks of a trace with a
part of the jobs turned into reserved time, in windows chosen cheaply and first-fit; a trace of the Parallel Workloads
Archive (``--trace KTH-SP2-1996-2.swf``), or one that is made up in its likeness. ``lab``: from asking over REST to a
booked reservation on a real cluster, beside a bare ``scontrol create reservation``.
"""

from __future__ import annotations

import argparse
import heapq
import random
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from bench.machines import DAY, GIB, HOUR, NOW, machine, with_queue
from bench.queue_traces import Kind, jobs_of
from ebhpc.config.firm_time import FirmRules
from ebhpc.model import Allocation, Demand, Shape, Window
from ebhpc.planning import (
    Booking,
    Node,
    RunningJob,
    Snapshot,
    Timeline,
    WaitingJob,
    bookings_of,
    planned_starts,
    windows,
)
from ebhpc.planning.firm import Asked, Holes, QueuePlan, Site, firm_windows
from ebhpc.planning.queue.swf import Trace, read_jobs

UTC = ZoneInfo("UTC")

# --- harm ------------------------------------------------------------------------------------------------------------


def harm_figures(nodes: int = 1000, jobs: int = 10_000) -> list[tuple[str, float, float]]:
    """Return what a window's harm costs: its name, milliseconds of CPU time, and the bound."""
    made = machine(nodes, 10 * nodes, days=3)
    state = with_queue(made.snapshot, jobs)
    state = replace(state, planned=planned_starts(state, made.bookings, now=NOW))
    timeline = Timeline.of(state, made.bookings, delay_queue=True)
    holes = Holes.of(state)
    print(f"harm of a window: {nodes:,} nodes, {len(state.planned):,} jobs planned of {jobs:,} waiting")
    firsts, furthers, many = [], [], []
    for count in (1, 4, 16):
        for begin in (6 * HOUR, DAY, 4 * DAY, 8 * DAY):
            demand = Demand(
                least=Shape(cores=64, memory=64 * GIB),
                duration=4 * HOUR,
                earliest=NOW + begin,
                latest=NOW + begin + 2 * DAY,
                nodes=count,
            )
            found = [one for one in windows(demand, timeline, now=NOW, limit=8) if one.label != "longest"]
            started = time.process_time()
            plan = QueuePlan(timeline, NOW)
            plan.harm(found[0], holes)
            firsts.append(time.process_time() - started)
            each = []
            for window in found[1:]:
                started = time.process_time()
                harm = plan.harm(window, holes)
                each.append(time.process_time() - started)
            furthers += each
            many += each if count == 16 else []
            print(
                f"  {count:3} nodes, from {begin / HOUR:4.0f} h on: first {firsts[-1] * 1000:6.0f} ms, further "
                f"{statistics.median(each) * 1000:5.1f} ms (most {max(each) * 1000:5.1f}); the last delays "
                f"{harm.delayed} jobs, {harm.delay / HOUR:.0f} h in sum"
            )
    return [
        ("first window, most ms", max(firsts) * 1000, 1000.0),
        ("further windows, mean ms", statistics.mean(furthers) * 1000, 50.0),
        ("further windows of 16 nodes, mean ms", statistics.mean(many) * 1000, 50.0),
    ]


# --- a week of a trace -----------------------------------------------------------------------------------------------


class Job(Struct, frozen=True, kw_only=True):
    """A job of the week: when it came (seconds from the week's begin), how many nodes, its limit and its run time."""

    number: int
    submitted: int
    nodes: int
    limit: int
    run: int


class Outcome(Struct, frozen=True, kw_only=True):
    """What became of a week: waits in hours, node-hours idle in all, and idle while somebody waited who would fit."""

    mean_wait: float
    median_wait: float
    worst_wait: float
    idle: float
    idle_while_waiting: float
    reserved: int
    reserved_delay: float


def week_of(path: Path | None, week: int, seed: int) -> tuple[int, list[Job]]:
    """Return the nodes of a machine and the jobs of one of its weeks."""
    if path is None:
        kind = Kind(processors=100, load=0.75, limits="loose", tail=1.6)
        made = jobs_of(kind, 650, np.random.default_rng(seed))
        jobs = [
            Job(number=one.number, submitted=one.submitted, nodes=one.size, limit=one.limit, run=max(one.run, 1))
            for one in made
        ]
        return kind.processors, [one for one in jobs if one.submitted < 7 * DAY]
    trace = Trace()
    read = list(read_jobs(path, trace))
    processors = trace.processors or max(one.processors for one in read)
    begin = week * 7 * DAY
    return processors, [
        Job(
            number=one.number,
            submitted=one.submitted - begin,
            nodes=min(one.processors, processors),
            limit=max(one.limit or DAY, one.ended - one.started, 60),
            run=max(one.ended - one.started, 1),
        )
        for one in read
        if begin <= one.submitted < begin + 7 * DAY
    ]


def simulated(
    processors: int, jobs: Sequence[Job], reserved: frozenset[int], *, cheap: bool, delay: bool = False
) -> Outcome:
    """Run a week: conservative backfill on limits, planned anew at each event; some jobs book their time ahead.

    Who books does so when it comes, for its limit, to start between one hour and two days later, and uses all of it.
    ``delay``: windows may lie where waiting jobs are planned, as reservations that are made by hand do.
    """
    nodes = tuple(Node(name=f"k{number:03}", cores=1, memory=0) for number in range(processors))
    coming = sorted(jobs, key=lambda one: one.submitted)
    events: list[tuple[int, int]] = []
    waiting: list[Job] = []
    running: dict[int, tuple[Job, int, tuple[str, ...]]] = {}
    bookings: list[Booking] = []
    waits: list[int] = []
    late: list[int] = []
    idle = idle_waiting = 0.0
    last, place = 0, 0
    horizon = max(one.submitted for one in coming)
    by_number = {one.number: one for one in coming}
    while place < len(coming) or events:
        now = min(coming[place].submitted if place < len(coming) else 2**60, events[0][0] if events else 2**60)
        used = sum(len(names) for _, _, names in running.values())
        used += sum(1 for each in bookings if each.start <= last < each.end)
        if last < horizon:
            span = (min(now, horizon) - last) / HOUR
            idle += (processors - used) * span
            if any(one.nodes <= processors - used for one in waiting):
                idle_waiting += (processors - used) * span
        last = now
        while events and events[0][0] <= now:
            _, number = heapq.heappop(events)
            if number in running and running[number][1] + running[number][0].run <= now:
                del running[number]
        bookings = [each for each in bookings if each.end > now]
        arrived = []
        while place < len(coming) and coming[place].submitted <= now:
            arrived.append(coming[place])
            place += 1
        waiting += [one for one in arrived if one.number not in reserved]
        state = _snapshot(nodes, running, waiting, now)
        for one in arrived:
            if one.number in reserved:
                window = _booked(state, bookings, one, now, cheap, delay)
                if window is None:
                    waiting.append(one)
                    continue
                made = bookings_of(window, session=f"r{one.number}", ids=range(one.number * 1000, 2**60))
                bookings += made
                late.append(window.start - now)
                for moment in (window.start, window.end):
                    heapq.heappush(events, (moment, -one.number))
        if arrived:
            state = _snapshot(nodes, running, waiting, now)
        for planned in planned_starts(state, bookings, now=now):
            if planned.start > now:
                continue
            one = by_number[int(planned.id)]
            waiting.remove(one)
            running[one.number] = (one, now, planned.nodes)
            waits.append(now - one.submitted)
            heapq.heappush(events, (now + one.run, one.number))
    hours = [wait / HOUR for wait in waits]
    return Outcome(
        mean_wait=statistics.mean(hours),
        median_wait=statistics.median(hours),
        worst_wait=max(hours),
        idle=idle,
        idle_while_waiting=idle_waiting,
        reserved=len(late),
        reserved_delay=statistics.mean(late) / HOUR if late else 0.0,
    )


def _snapshot(
    nodes: tuple[Node, ...], running: dict[int, tuple[Job, int, tuple[str, ...]]], waiting: Sequence[Job], now: int
) -> Snapshot:
    return Snapshot(
        platform="week",
        taken=now,
        nodes=nodes,
        running=tuple(
            RunningJob(
                id=str(number),
                allocations=tuple(Allocation(node=name, cores=1, memory=0) for name in names),
                started=begun,
                ends=begun + one.limit,
            )
            for number, (one, begun, names) in running.items()
        ),
        waiting=tuple(
            WaitingJob(id=str(one.number), nodes=one.nodes, shape=Shape(cores=1, memory=0), time_limit=one.limit)
            for one in waiting
        ),
    )


def _booked(
    state: Snapshot, bookings: Sequence[Booking], one: Job, now: int, cheap: bool, delay: bool
) -> Window | None:
    state = replace(state, planned=planned_starts(state, bookings, now=now))
    site = Site(
        platform="week",
        rules=FirmRules(),
        zone=UTC,
        timeline=Timeline.of(state, bookings, delay_queue=delay),
        now=now,
        prefer_cheap=cheap,
    )
    demand = Demand(
        least=Shape(cores=1, memory=0),
        duration=one.limit,
        earliest=now + HOUR,
        latest=now + 2 * DAY,
        nodes=one.nodes,
    )
    found = firm_windows(Asked(demand=demand, limit=1, offer_lifetime=0), site).windows
    return found[0].window if found else None


_WAYS: dict[str, dict[str, bool]] = {
    "none": {},
    "by hand": {"cheap": False, "delay": True},
    "first-fit": {"cheap": False},
    "cheap": {"cheap": True},
}


def week_figures(
    path: Path | None, weeks: Sequence[int], part: float, folder: Path, names: Sequence[str] = tuple(_WAYS)
) -> list[tuple[str, dict[str, Outcome]]]:
    """Run weeks without any reserved time, and with it in windows that are the first free ones whatever waits, as when
    they are made by hand, the first beside the queue's plan, and the cheapest there; print a table, draw a picture.
    """
    rows = []
    where = "a trace made up in the likeness of KTH SP2" if path is None else path.name
    print(f"{where}: {part:.0%} of the jobs reserve their time; waits are the others', in hours")
    print(
        f"  {'week':>5} {'windows':12}{'mean wait':>10}{'median':>8}{'worst':>8}{'idle node-h':>13}"
        f"{'while waiting':>15}{'booked':>8}{'h ahead':>9}"
    )
    for week in weeks:
        processors, jobs = week_of(path, week, week)
        chance = random.Random(week)
        reserved = frozenset(one.number for one in jobs if chance.random() < part)
        others = [one for one in jobs if one.number not in reserved]
        ways = {name: simulated(processors, jobs, reserved, **_WAYS[name]) for name in names if name != "none"}
        if "none" in names:
            ways = {"none": simulated(processors, others, frozenset(), cheap=False), **ways}
        for name, one in ways.items():
            print(
                f"  {week:>5} {name:12}{one.mean_wait:>10.2f}{one.median_wait:>8.2f}{one.worst_wait:>8.1f}"
                f"{one.idle:>13.0f}{one.idle_while_waiting:>15.0f}{one.reserved:>8}{one.reserved_delay:>9.1f}",
                flush=True,
            )
        rows.append((str(week), ways))
    for name in rows[0][1]:
        mean = statistics.mean(ways[name].mean_wait for _, ways in rows)
        stuck = statistics.mean(ways[name].idle_while_waiting for _, ways in rows)
        print(f"   mean {name:12}{mean:>10.2f}{'':29}{stuck:>15.0f}")
    if {"first-fit", "cheap"} <= rows[0][1].keys():
        less = [ways["first-fit"].mean_wait - ways["cheap"].mean_wait for _, ways in rows]
        print(
            f"  the others wait less with cheap windows than with first-fit ones in {sum(one > 0 for one in less)} of"
        )
        print(f"  {len(rows)} weeks, by {statistics.mean(less):.3f} h in the mean", end="")
        print(f" (standard error {statistics.stdev(less) / len(less) ** 0.5:.3f})" if len(less) > 1 else "")
    picture = folder / "reserved-weeks.svg"
    many = len(rows) > _FEW and {"first-fit", "cheap"} <= rows[0][1].keys()
    picture.write_text(gains(rows) if many else bars(rows), encoding="utf-8")
    print(f"  drawn in {picture}")
    return rows


_FEW = 8
"""So many weeks are drawn with all their ways; of more only what cheap windows change."""


def gains(rows: Sequence[tuple[str, dict[str, Outcome]]]) -> str:
    """Return an SVG image: by how much longer or less the others wait in each week with cheap windows."""
    changes = [ways["cheap"].mean_wait - ways["first-fit"].mean_wait for _, ways in rows]
    most = max(map(abs, changes)) or 1.0
    width, middle = 60 + 16 * len(rows), 160
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} 300" font-family="sans-serif" font-size="10">',
        f'<rect width="{width}" height="300" fill="white"/>',
        '<text x="20" y="20" font-size="14" font-weight="bold">Mean wait of the others with cheap windows, against '
        "first-fit ones, hours</text>",
        f'<line x1="30" y1="{middle}" x2="{width - 20}" y2="{middle}" stroke="#444444"/>',
    ]
    for place, ((week, _), change) in enumerate(zip(rows, changes, strict=True)):
        tall = abs(change) / most * 110
        top = middle - tall if change > 0 else middle
        colour = "#b0562c" if change > 0 else "#1668b4"
        x = 34 + 16 * place
        parts.append(f'<rect x="{x}" y="{top:.1f}" width="12" height="{tall:.1f}" fill="{colour}"/>')
        parts.append(f'<text x="{x + 6}" y="290" text-anchor="middle" font-size="9">{week}</text>')
    parts += [f'<text x="2" y="{middle - at * 110}" font-size="9">{at * most:+.1f}</text>' for at in (1, -1)]
    return "\n".join([*parts, "</svg>\n"])


def bars(rows: Sequence[tuple[str, dict[str, Outcome]]]) -> str:
    """Return an SVG image: the mean wait of the others in each week, by how windows were chosen."""
    colours = {"none": "#999999", "by hand": "#7a4fb0", "first-fit": "#b0562c", "cheap": "#1668b4"}
    highest = max(one.mean_wait for _, ways in rows for one in ways.values()) or 1.0
    width, height, base = max(90 + 140 * len(rows), 500), 320, 260
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        '<text x="20" y="24" font-size="15" font-weight="bold">Mean wait of the others, hours</text>',
    ]
    for place, (week, ways) in enumerate(rows):
        left = 40 + 140 * place
        for number, (name, one) in enumerate(ways.items()):
            tall = one.mean_wait / highest * 200
            x = left + 30 * number
            parts.append(
                f'<rect x="{x}" y="{base - tall:.1f}" width="26" height="{tall:.1f}" fill="{colours[name]}"/>'
                f'<text x="{x + 13}" y="{base - tall - 4:.1f}" text-anchor="middle" font-size="10">'
                f"{one.mean_wait:.2f}</text>"
            )
        parts.append(f'<text x="{left + 58}" y="{base + 16}" text-anchor="middle">week {week}</text>')
    for number, (name, colour) in enumerate(colours.items()):
        parts.append(f'<rect x="{40 + 110 * number}" y="292" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{57 + 110 * number}" y="303">{name}</text>')
    return "\n".join([*parts, "</svg>\n"])


def main() -> None:
    """Run what is asked for; harm and a few weeks where nothing is."""
    parser = argparse.ArgumentParser(prog="python -m bench.reserved", description=__doc__)
    parser.add_argument("what", nargs="*", choices=["harm", "week", "lab", []], default=[])
    parser.add_argument("--trace", type=Path, help="a trace in the Standard Workload Format")
    parser.add_argument("--weeks", type=int, nargs="*", default=[3, 4, 5], help="which weeks (default 3 4 5)")
    parser.add_argument("--ways", nargs="*", choices=list(_WAYS), default=list(_WAYS), help="which windows (all)")
    parser.add_argument("--part", type=float, default=0.1, help="the part of jobs that reserve (default 0.1)")
    wanted = parser.parse_args()
    what = wanted.what or ["harm", "week"]
    folder = Path.cwd() / "build"
    folder.mkdir(exist_ok=True)
    if "harm" in what:
        show(harm_figures())
    if "week" in what:
        week_figures(wanted.trace, wanted.weeks, wanted.part, folder, wanted.ways)
    if "lab" in what:
        from bench.reserved_lab import lab_figures

        show(lab_figures())


def show(bounds: Sequence[tuple[str, float, float]]) -> None:
    """Print figures with their bounds."""
    for name, value, bound in bounds:
        print(f"  {name:44}{value:>9.1f}   wanted < {bound:g}   {'met' if value < bound else 'NOT MET'}")


if __name__ == "__main__":
    main()
