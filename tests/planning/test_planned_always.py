"""What always holds of planned starts, and of windows that keep out of their way, on small platforms."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from ebhpc.planning import Booking, Snapshot, Timeline, bookings_of, planned_starts, windows
from tests.planning import cases
from tests.planning.exhaustive import Asked, Platform
from tests.planning.exhaustive_queue import HORIZON, Waiting, taken_by


@given(cases.queues(), cases.busy_booking_lists())
@settings(deadline=None, max_examples=250)
def test_each_waiting_job_is_planned_at_its_first_possible_start_beside_those_before_it(
    queue: tuple[Snapshot, int], bookings: list[Booking]
) -> None:
    snapshot, now = queue
    planned = list(planned_starts(snapshot, bookings, now=now))
    recount = Waiting(snapshot, bookings, now)
    for job in recount.looked_at():
        ends: list[int] = []
        tasks = job.tasks if recount.scheduler.per_array is None else min(job.tasks, recount.scheduler.per_array)
        for _ in range(tasks):
            begin = max(now, now if job.begin is None else job.begin)
            if job.at_once is not None and len(ends) >= job.at_once:
                begin = max(begin, sorted(ends)[-job.at_once])
            best, where = recount.earliest(job, begin)
            mine = planned[0] if planned and planned[0].id == job.id else None
            if best == float("inf"):
                # Beyond what the recount looks at there may be a start
                assert mine is None or mine.start > HORIZON - 30
                if mine is None:
                    break
                partition = None
            else:
                assert mine is not None
                assert mine.start == best
                partition = next(name for name in job.partitions or where if name in where)
                assert mine.end - mine.start == where[partition]
                pool = next(nodes for name, nodes, _ in recount.pools(job) if name == partition)
                choices = recount.choices(job, pool, mine.start, where[partition])
                assert set(mine.nodes) in [set(choice) for choice in choices]
            planned.pop(0)
            recount.place(job, mine, partition, begin)
            ends.append(mine.end)
    assert planned == []


@given(cases.queues(), cases.busy_booking_lists(), cases.asked(), st.integers(1, 3))
@settings(deadline=None, max_examples=250)
def test_windows_are_the_best_beside_the_queue_and_no_planned_start_is_later_with_them_booked(
    queue: tuple[Snapshot, int], bookings: list[Booking], question: tuple[Asked, int, int, int], limit: int
) -> None:
    snapshot, planned_at = queue
    asked, now, lifetime, lead = question
    planned = planned_starts(snapshot, bookings, now=planned_at)
    timeline = Timeline.of(msgspec.structs.replace(snapshot, planned=planned), bookings, gap=asked.gap)
    found = windows(
        asked.demand,
        timeline,
        now=now,
        limit=limit,
        limits=asked.limits,
        offer_lifetime=lifetime,
        lead=lead,
        longest=asked.longest,
        granularity=asked.granularity,
        apart=2,
    )
    platform = Platform(
        snapshot,
        [
            msgspec.structs.replace(booking, end=booking.end + asked.gap) if booking.start < booking.end else booking
            for booking in bookings
        ],
    )
    platform.windows = [taken_by(job, snapshot) for job in planned if job.session is None]
    owned = [taken_by(job, snapshot) for job in planned if job.session is not None]
    if not owned:
        assert (found[0].start if found else None) == asked.earliest(platform)
    platform.windows += owned
    for window in found:
        for share in window.allocations:
            assert platform.holds(share.node, share, window.start, window.end + asked.gap)
        assert platform.licensed(window.licences, window.start, window.end + asked.gap)
        platform.windows.append(msgspec.structs.replace(window, end=window.end + asked.gap))
    booked = [
        booking
        for number, window in enumerate(found)
        for booking in bookings_of(window, session=f"offer {number}", ids=range(2000 + 10 * number, 9999))
    ]
    assert planned_starts(snapshot, [*bookings, *booked], now=planned_at) == planned


@given(cases.queues(), cases.busy_booking_lists(), cases.asked())
@settings(deadline=None, max_examples=200)
def test_where_windows_may_delay_the_queue_they_are_as_if_nobody_waited(
    queue: tuple[Snapshot, int], bookings: list[Booking], question: tuple[Asked, int, int, int]
) -> None:
    snapshot, planned_at = queue
    asked, now, lifetime, lead = question
    planned = planned_starts(snapshot, bookings, now=planned_at)
    delaying = Timeline.of(msgspec.structs.replace(snapshot, planned=planned), bookings, delay_queue=True)
    alone = Timeline.of(msgspec.structs.replace(snapshot, waiting=()), bookings)
    terms = {"now": now, "limits": asked.limits, "offer_lifetime": lifetime, "lead": lead}
    assert windows(asked.demand, delaying, **terms) == windows(asked.demand, alone, **terms)
    assert windows(asked.demand, delaying.with_snapshot(delaying.snapshot), **terms) == windows(
        asked.demand, alone, **terms
    )
