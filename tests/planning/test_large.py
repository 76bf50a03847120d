"""What small platforms do not show: many nodes, many segments, timelines that have come a long way."""

from __future__ import annotations

import random

import msgspec
import numpy as np
import pytest

from bench.machines import DAY, NOW, Machine, demands, machine, with_queue
from bench.profile_list import ProfileList
from ebhpc.planning import Timeline, bookings_of, fits, planned_starts, windows
from ebhpc.planning.rows import Rows


@pytest.fixture(scope="module")
def full() -> Machine:
    return machine(120, 4800, days=5)


@pytest.fixture(scope="module")
def half() -> Machine:
    return machine(400, 8000, days=5, busy=False)


@pytest.mark.parametrize("load", ["full", "half"])
def test_windows_start_where_a_plain_profile_list_says(load: str, request: pytest.FixtureRequest) -> None:
    made: Machine = request.getfixturevalue(load)
    timeline, plain = Timeline.of(made.snapshot, made.bookings), ProfileList(made.snapshot, made.bookings)
    later = 0
    for kind, demand in demands(100):
        found = windows(demand, timeline, now=NOW, longest=30 * DAY)
        assert (found[0].start if found else None) == plain.earliest(demand, NOW, 300), kind
        assert fits(timeline, found)
        later += bool(found) and found[0].start > demand.earliest
    assert later > (30 if load == "full" else 0)


def segments(timeline: Timeline) -> list[tuple[int, int, int, tuple[int, ...]]]:
    """All segments, whichever part of the timeline they are in."""
    found = []
    for rows, gone in timeline.parts():
        index = rows.counted(gone).nonzero()[0]
        columns = (rows.owner[index], rows.times[index], rows.ends[index], *rows.free[:, index])
        found += [(owner, begin, end, tuple(free)) for owner, begin, end, *free in np.array(columns).T.tolist()]
    return sorted(found)


def test_a_timeline_after_many_changes_is_the_one_that_building_it_anew_gives(full: Machine) -> None:
    chance = random.Random(4)
    timeline = Timeline.of(full.snapshot, full.bookings)
    live = {booking.id: booking for booking in full.bookings}
    rows: list[Rows] = []
    for step in range(60):
        gone = chance.sample(sorted(live), 4)
        come = [
            msgspec.structs.replace(live[chance.choice(sorted(live))], id=100_000 + step * 9 + number, session="x")
            for number in range(4)
        ]
        timeline = timeline.with_bookings(come, gone)
        live = {number: booking for number, booking in live.items() if number not in gone}
        live |= {booking.id: booking for booking in come}
        if not any(timeline.parts()[-1][0] is one for one in rows):
            rows.append(timeline.parts()[-1][0])
    assert len(rows) > 3, "new rows were made now and then"
    assert segments(timeline) == segments(Timeline.of(full.snapshot, live.values()))


def test_windows_keep_out_of_the_way_of_a_long_queue(full: Machine) -> None:
    state = with_queue(full.snapshot, 600)
    planned = planned_starts(state, full.bookings, now=NOW)
    assert len(planned) > 400
    timeline = Timeline.of(msgspec.structs.replace(state, planned=planned), full.bookings)
    # Nothing is overbooked by the plan
    for rows, gone in timeline.parts():
        assert (rows.free[:, rows.counted(gone)] >= 0).all()
    booked = []
    for number, (_, demand) in enumerate(demands(30)):
        for window in windows(demand, timeline, now=NOW, limit=2):
            ids = iter(range(200_000 + 1000 * number, 300_000))
            booked += bookings_of(window, session=f"new {number}", ids=ids)
            timeline = timeline.with_windows([window])
    assert len(booked) > 20
    assert planned_starts(state, [*full.bookings, *booked], now=NOW) == planned
