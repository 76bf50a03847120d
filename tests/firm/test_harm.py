"""What a window does to the others: told by planning the queue with it and without it."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from msgspec.structs import replace

from ebhpc.config.firm_time import FirmRules
from ebhpc.model import Allocation, Demand, Shape, Window
from ebhpc.planning import (
    Booking,
    Node,
    Partition,
    PlannedJob,
    RunningJob,
    Scheduler,
    Snapshot,
    Timeline,
    WaitingJob,
    bookings_of,
    planned_starts,
)
from ebhpc.planning.firm import Asked, Harm, Holes, Pricing, QueuePlan, Site, firm_windows
from ebhpc.planning.firm import harm as harm_module

NOW = 1_800_000_000
HOUR = 3600


def nodes(count: int) -> tuple[Node, ...]:
    return tuple(Node(name=f"n{number}", cores=4, memory=4096) for number in range(count))


def job(id: str, count: int, hours: float, **more: object) -> WaitingJob:
    return WaitingJob(
        id=id,
        nodes=count,
        shape=Shape(cores=4, memory=0),
        time_limit=int(hours * HOUR),
        **more,  # type: ignore[arg-type]
    )


def state(count: int, waiting: Sequence[WaitingJob], running: Sequence[RunningJob] = (), **more: object) -> Snapshot:
    snapshot = Snapshot(
        platform="p",
        taken=NOW,
        nodes=nodes(count),
        running=tuple(running),
        waiting=tuple(waiting),
        **more,  # type: ignore[arg-type]
    )
    return replace(snapshot, planned=planned_starts(snapshot, now=NOW))


def window(start: float, hours: float, places: Sequence[int], cores: int = 4) -> Window:
    begin = NOW + int(start * HOUR)
    end = begin + int(hours * HOUR)
    return Window(
        start=begin,
        latest=begin,
        end=end,
        duration=end - begin,
        allocations=tuple(Allocation(node=f"n{place}", cores=cores, memory=0) for place in places),
    )


def harm_of(snapshot: Snapshot, one: Window, bookings: Sequence[Booking] = ()) -> Harm:
    return Pricing(Timeline.of(snapshot, bookings, delay_queue=True), NOW).harm(one)


def replanned(snapshot: Snapshot, one: Window) -> dict[str, PlannedJob]:
    """Plan the whole queue anew with the window booked: the long way to the truth."""
    booked = bookings_of(one, session="w", ids=range(1, 1000))
    return {each.id: each for each in planned_starts(snapshot, booked, now=NOW)}


def test_a_window_in_the_way_of_one_job_delays_it_by_what_it_waits_longer() -> None:
    # One node: a runs in the plan from now, b behind it. The window takes the first hour of b.
    snapshot = state(1, [job("a", 1, 2), job("b", 1, 3)])
    harm = harm_of(snapshot, window(2, 1, [0]))
    assert (harm.delayed, harm.delay, harm.worst) == (1, HOUR, HOUR)


def test_a_window_where_nobody_is_planned_delays_nobody() -> None:
    snapshot = state(2, [job("a", 1, 2)])
    assert harm_of(snapshot, window(0, 5, [1])) == replace(harm_of(snapshot, window(0, 5, [1])), delay=0, worst=0)
    assert harm_of(snapshot, window(2, 5, [0])).delayed == 0


def test_those_behind_a_delayed_job_are_delayed_too() -> None:
    snapshot = state(1, [job(str(number), 1, 1) for number in range(5)])
    harm = harm_of(snapshot, window(2, 1, [0]))
    assert (harm.delayed, harm.delay, harm.worst) == (3, 3 * HOUR, HOUR)


def test_a_gap_behind_windows_counts() -> None:
    snapshot = state(1, [job("a", 1, 1), job("b", 1, 1)], scheduler=Scheduler(gap=600))
    timeline = Timeline.of(snapshot, gap=600, delay_queue=True)
    assert Pricing(timeline, NOW).harm(window(0, 1, [0])).worst == HOUR + 600


def test_what_another_booking_does_is_not_told_again() -> None:
    snapshot = state(1, [job("a", 1, 2)])
    booked = bookings_of(window(0, 4, [0]), session="x", ids=[1])
    assert harm_of(snapshot, window(4, 1, [0]), booked).delayed == 0
    assert harm_of(snapshot, window(1, 1, [0]), booked).delayed == 0


def test_a_job_that_is_no_longer_planned_waits_until_the_window_has_ended() -> None:
    # With greedy backfill only what can start now is planned
    snapshot = state(1, [job("a", 1, 2)], scheduler=Scheduler(backfill="greedy"))
    assert harm_of(snapshot, window(0, 3, [0])).worst == 3 * HOUR
    # Beyond the scheduler's window nothing is planned
    short = state(1, [job("a", 1, 2), job("b", 1, 2)], scheduler=Scheduler(window=3 * HOUR))
    assert [each.id for each in short.planned] == ["a", "b"]
    harm = harm_of(short, window(0, 2, [0]))
    assert (harm.delayed, harm.worst) == (2, 2 * HOUR)


def test_with_easy_backfill_the_heads_of_the_queues_are_delayed() -> None:
    snapshot = state(1, [job("a", 1, 2), job("b", 1, 2), job("c", 1, 2)], scheduler=Scheduler(backfill="easy"))
    assert [each.id for each in snapshot.planned] == ["a", "b"]
    assert harm_of(snapshot, window(2, 1, [0])).worst == HOUR


def test_where_windows_delay_nobody_nothing_is_planned_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = state(2, [job(str(number), 1, 1) for number in range(9)])
    monkeypatch.setattr(harm_module.QueuePlan, "__init__", None)
    harm = Pricing(Timeline.of(snapshot), NOW).harm(window(6, 1, [0]))
    assert (harm.delay, harm.worst, harm.delayed) == (0, 0, 0)


def test_idle_before_the_start_is_what_is_free_without_a_break() -> None:
    running = RunningJob(id="r", allocations=(Allocation(node="n0", cores=4, memory=0),), started=NOW, ends=NOW + HOUR)
    snapshot = state(2, [], [running])
    harm = Pricing(Timeline.of(snapshot), NOW).harm(window(3, 1, [0, 1]))
    assert harm.idle_most == 2 + 3
    assert 0 < harm.idle < 5
    right_behind = Pricing(Timeline.of(snapshot), NOW).harm(window(1, 1, [0]))
    assert (right_behind.idle, right_behind.idle_most) == (0, 0)


def test_of_a_hole_that_is_unused_which_no_job_fits_any_more() -> None:
    holes = Holes([HOUR] * 10 + [3 * HOUR] * 10)
    lengths = np.array([-5, 0, HOUR // 2, HOUR, 2 * HOUR, 3 * HOUR, 2**61])
    # In the last hour nothing fits; in the two before it, half of the jobs
    assert holes.wasted(lengths).tolist() == [0, 0, HOUR // 2, HOUR, HOUR + HOUR // 2, 2 * HOUR, 2 * HOUR]


def test_the_more_jobs_there_are_to_choose_from_the_less_is_unused() -> None:
    limits = [HOUR] * 10 + [3 * HOUR] * 10
    lengths = np.array([HOUR, 3 * HOUR])
    assert Holes(limits, 2).wasted(lengths).tolist() == [HOUR, HOUR + HOUR // 2]


def random_queue(chance: random.Random, count: int, jobs: int) -> Snapshot:
    running = [
        RunningJob(
            id=f"r{place}",
            allocations=(Allocation(node=f"n{place}", cores=4, memory=0),),
            started=NOW - HOUR,
            ends=NOW + chance.randint(1, 8) * 1800,
        )
        for place in range(count)
        if chance.random() < 0.7
    ]
    waiting = [
        WaitingJob(
            id=str(number),
            nodes=chance.choice([1, 1, 1, 2, 3]),
            shape=Shape(cores=chance.choice([1, 2, 4, 4]), memory=0),
            time_limit=chance.randint(1, 12) * 1800,
            exclusive=chance.random() < 0.1,
            partitions=("a",) if chance.random() < 0.8 else ("b",),
        )
        for number in range(jobs)
    ]
    names = [f"n{number}" for number in range(count)]
    partitions = (
        Partition(name="a", nodes=tuple(names), default=True),
        Partition(name="b", nodes=tuple(names[: count // 2 + 2])),
    )
    return state(count, waiting, running, partitions=partitions)


@pytest.mark.parametrize("seed", range(25))
def test_with_a_short_queue_the_harm_is_that_of_planning_all_of_it_anew(seed: int) -> None:
    chance = random.Random(seed)
    snapshot = random_queue(chance, 8, 40)
    one = window(chance.randint(0, 12) / 2, chance.randint(1, 6) / 2, chance.sample(range(8), chance.randint(1, 4)))
    # It must not lie on what runs
    if any(
        each.allocations[0].node in {share.node for share in one.allocations} and (each.ends or 0) > one.start
        for each in snapshot.running
    ):
        one = window(5, 2, [share.node[1:] for share in one.allocations])  # type: ignore[misc]
    truth = replanned(snapshot, one)
    delays = [max(truth[each.id].start - each.start, 0) for each in snapshot.planned]
    harm = harm_of(snapshot, one)
    assert harm.delay == sum(delays)
    assert harm.worst == max(delays)
    assert harm.delayed == sum(delay > 0 for delay in delays)


@pytest.mark.parametrize("seed", range(10))
def test_with_a_long_queue_the_others_keep_their_places_and_the_plan_still_fits(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harm_module, "MOST_ANEW", 0)
    chance = random.Random(100 + seed)
    snapshot = random_queue(chance, 8, 60)
    one = window(4 + chance.randint(0, 8) / 2, 2, chance.sample(range(8), 3))
    plan = QueuePlan(Timeline.of(snapshot, delay_queue=True), NOW)
    table, anew = plan.table_with(one)
    assert all(start is not None for _, start in anew)
    for place in range(8):
        used = table.free[:, place, : int(table.count[place])]
        assert (used >= 0).all(), "no node gives more than it has"
    moved = {each.id for each, _ in anew}
    names = {share.node for share in one.allocations}
    for each in snapshot.planned:
        in_the_way = bool(names & set(each.nodes)) and each.start < one.end and each.end > one.start
        assert each.id not in moved or in_the_way


def site_of(snapshot: Snapshot, *, delay_queue: bool = True, **rules: object) -> Site:
    return Site(
        platform="p",
        rules=FirmRules(**rules),  # type: ignore[arg-type]
        zone=ZoneInfo("UTC"),
        timeline=Timeline.of(snapshot, delay_queue=delay_queue),
        now=NOW,
    )


def demand(hours: float, count: int, last: float, first: float = 0) -> Demand:
    return Demand(
        least=Shape(cores=4, memory=0),
        duration=int(hours * HOUR),
        earliest=NOW + int(first * HOUR),
        latest=NOW + int(last * HOUR),
        nodes=count,
    )


def test_windows_that_delay_others_less_are_offered_first() -> None:
    # Both nodes are planned full for four hours, then one of them for four more
    snapshot = state(2, [job("a", 2, 4), job("b", 1, 4)])
    found = firm_windows(Asked(demand=demand(2, 1, 8, first=1), lead=0), site_of(snapshot)).windows
    assert found[0].harm.delay == 0
    assert found[0].window.start == NOW + 4 * HOUR
    assert [one.burden for one in found] == sorted(one.burden for one in found)


def test_no_more_delay_than_the_site_accepts() -> None:
    snapshot = state(1, [job(str(number), 1, 2) for number in range(6)])
    asked = Asked(demand=demand(2, 1, 4, first=2))
    refused = firm_windows(asked, site_of(snapshot, most_delay_sum=3 * HOUR, most_delay=HOUR))
    assert refused.windows == ()
    assert {(item.values or {})["rule"] for item in refused.refusals} == {"most_delay", "most_delay_sum"}
    assert firm_windows(asked, site_of(snapshot, most_delay_sum=24 * HOUR)).windows


def test_the_harm_of_a_window_on_a_large_machine_takes_moments() -> None:
    chance = random.Random(7)
    waiting = [job(str(number), chance.choice([1, 1, 2, 4, 8]), chance.randint(1, 24)) for number in range(2000)]
    snapshot = state(200, waiting)
    timeline = Timeline.of(snapshot, delay_queue=True)
    begun = time.process_time()
    plan = QueuePlan(timeline, NOW)
    plan.harm(window(5, 4, [1, 2, 3, 4]), Holes.of(snapshot))
    first = time.process_time() - begun
    begun = time.process_time()
    for place in range(10):
        plan.harm(window(5 + place, 4, [1, 2, 3, 4]), Holes.of(snapshot))
    assert first < 2.0
    assert (time.process_time() - begun) / 10 < 0.2


@pytest.mark.parametrize("seed", range(3))
def test_what_was_learned_of_one_window_changes_nothing_of_what_is_told_of_another(seed: int) -> None:
    chance = random.Random(seed)
    waiting = [job(str(number), chance.choice([1, 1, 2, 4]), chance.randint(1, 9)) for number in range(200)]
    snapshot = state(12, waiting)
    timeline, holes = Timeline.of(snapshot, delay_queue=True), Holes.of(snapshot)
    shared = QueuePlan(timeline, NOW)
    for _ in range(8):
        one = window(chance.randint(1, 30), chance.randint(1, 6), sorted(chance.sample(range(12), 3)))
        harm = shared.harm(one, holes)
        assert harm == QueuePlan(timeline, NOW).harm(one, holes)
        assert harm.delayed > 0
