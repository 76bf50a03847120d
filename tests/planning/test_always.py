"""What always holds of the planner, on small platforms against the exhaustive planner."""

from __future__ import annotations

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ebhpc.model import MessageKind
from ebhpc.planning import (
    Booking,
    NodeState,
    Snapshot,
    Timeline,
    bookings_of,
    decode_snapshot,
    encode_snapshot,
    fits,
    occupancy,
    why_not,
    windows,
)
from ebhpc.planning.inventory import LICENCES
from ebhpc.planning.profile import FOREVER, PAST, Piece, Profile, taking_everywhere
from tests.planning import cases
from tests.planning.exhaustive import Asked, Platform, amount, quantities


def same(one: Timeline, other: Timeline) -> bool:
    places = [*range(len(one.inventory.nodes)), LICENCES]
    return all(
        np.array_equal(one.profile(place).times, other.profile(place).times)
        and np.array_equal(one.profile(place).free, other.profile(place).free)
        for place in places
    ) and {booking.id: booking for booking in one.bookings()} == {booking.id: booking for booking in other.bookings()}


def longer(bookings: list[Booking], gap: int) -> list[Booking]:
    """The bookings with the gap behind them."""
    return [
        msgspec.structs.replace(booking, end=booking.end + gap) if booking.start < booking.end else booking
        for booking in bookings
    ]


@given(cases.snapshots, cases.booking_lists)
@settings(deadline=None, max_examples=300)
def test_a_timeline_is_free_at_every_second_where_a_recount_says_so(
    snapshot: Snapshot, bookings: list[Booking]
) -> None:
    timeline, recount = Timeline.of(snapshot, bookings), Platform(snapshot, bookings)
    for node in snapshot.nodes:
        for time in (*range(-12, cases.LATEST_EVENT + 2), 125, 10_000_000):
            free = timeline.free(node.name, time, time + 1)
            for quantity in quantities(snapshot):
                assert amount(free, quantity) == max(recount.free(node.name, time, quantity), 0)


@given(
    cases.snapshots,
    cases.booking_lists,
    st.lists(st.tuples(st.lists(cases.bookings(st.integers(0, 20)), max_size=3), st.sets(st.integers(0, 20)))),
    st.sampled_from([0, 3]),
)
@settings(deadline=None, max_examples=300)
def test_changing_bookings_gives_the_timeline_that_building_it_anew_gives(
    snapshot: Snapshot,
    bookings: list[Booking],
    changes: list[tuple[list[Booking], set[int]]],
    gap: int,
) -> None:
    timeline = Timeline.of(snapshot, bookings, gap=gap)
    live = {booking.id: booking for booking in bookings}
    for added, removed in changes:
        before, kept = timeline, {booking.id: booking for booking in timeline.bookings()}
        timeline = timeline.with_bookings(added, removed)
        live = {number: booking for number, booking in live.items() if number not in removed}
        live |= {booking.id: booking for booking in added}
        assert same(timeline, Timeline.of(snapshot, live.values(), gap=gap))
        assert same(before, Timeline.of(snapshot, kept.values(), gap=gap))
    assert same(timeline.with_snapshot(snapshot), timeline)


@given(cases.platforms, cases.busy_booking_lists(), cases.asked(), st.integers(1, 6))
@settings(deadline=None, max_examples=800)
def test_windows_keep_to_the_demand_fit_together_and_are_the_best(
    snapshot: Snapshot, bookings: list[Booking], question: tuple[Asked, int, int, int], limit: int
) -> None:
    asked, now, lifetime, lead = question
    demand = asked.demand
    timeline = Timeline.of(snapshot, bookings, gap=asked.gap)
    found = windows(
        demand,
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
    assert len(found) <= limit
    platform = Platform(snapshot, longer(bookings, asked.gap))
    earliest = asked.earliest(platform)
    assert (found[0].start if found else None) == earliest
    seen = set()
    for window in found:
        assert now + lead <= window.start <= window.latest <= demand.latest
        assert demand.earliest <= window.start <= asked.last
        assert window.latest == asked.latest(window.start)
        assert window.end == window.latest + window.duration
        assert window.duration >= max(demand.duration, 1)
        assert window.duration % asked.granularity == 0
        names = tuple(allocation.node for allocation in window.allocations)
        assert len(set(names)) == len(names) == demand.nodes
        assert window.firm
        assert window.licences == {name: count for name, count in demand.licences.items() if count}
        shape = window.allocations[0]
        for allocation in window.allocations:
            for quantity in quantities(snapshot):
                share = amount(allocation, quantity)
                assert amount(demand.least, quantity) <= share <= asked.upper(snapshot, quantity)
                assert share == amount(shape, quantity)
            assert platform.holds(allocation.node, shape, window.start, window.end + asked.gap)
        assert platform.licensed(window.licences, window.start, window.end + asked.gap)
        assert any(
            set(names) <= set(members) and (cap is None or window.duration <= cap)
            for members, cap in asked.pools(snapshot)
        )
        key = (window.start, window.latest, window.duration, window.allocations)
        assert repr(key) not in seen
        seen.add(repr(key))
        if window.label == "later":
            assert window.start >= found[0].start + 2
        if window.label == "longest":
            assert window.duration == asked.longest_duration(platform, 1000)
        else:
            assert window.duration == asked.duration
        if window.label == "largest":
            best = asked.largest(platform)
            assert best is not None
            assert all(amount(shape, quantity) == amount(best[0], quantity) for quantity in quantities(snapshot))
            assert window.start == best[1]
        platform.windows.append(msgspec.structs.replace(window, end=window.end + asked.gap))
    assert fits(timeline, found)
    if found and limit >= 3:
        taken = platform.windows
        platform.windows = taken[:1]
        labels = [window.label for window in found]
        assert ("longest" in labels) == (asked.longest_duration(platform, 1000) is not None)
        platform.windows = [window for window in taken if window.label in ("earliest", "longest")]
        assert ("largest" in labels) == (asked.largest(platform) is not None)
    booked = [
        booking
        for number, window in enumerate(found)
        for booking in bookings_of(window, session=f"offer {number}", ids=range(2000 + 10 * number, 9999))
    ]
    for place in (*range(len(timeline.inventory.nodes)), LICENCES):
        taken, offered = timeline.with_bookings(booked).profile(place), timeline.with_windows(found).profile(place)
        assert np.array_equal(taken.free, offered.free)


@given(cases.platforms, cases.busy_booking_lists(), cases.asked())
@settings(deadline=None, max_examples=300)
def test_where_there_is_no_window_the_reason_holds(
    snapshot: Snapshot, bookings: list[Booking], question: tuple[Asked, int, int, int]
) -> None:
    asked, now, lifetime, lead = question
    timeline = Timeline.of(snapshot, bookings, gap=asked.gap)
    known = {"now": now, "offer_lifetime": lifetime, "lead": lead, "granularity": asked.granularity}
    if windows(asked.demand, timeline, limits=asked.limits, **known):
        return
    reason = why_not(asked.demand, timeline, limits=asked.limits, **known)
    assert reason.filled
    assert "{" not in reason.filled
    assert reason.values is not None
    assert reason.values["path"].startswith("/")
    nodes = tuple(msgspec.structs.replace(node, state=NodeState.UP) for node in snapshot.nodes)
    idle = Platform(msgspec.structs.replace(snapshot, nodes=nodes, running=(), reservations=()), [])
    whenever = Asked(asked.demand, now, asked.limits, 0, 0, None, asked.granularity)
    whenever.first = whenever.last = 0
    never = whenever.earliest(idle) is None
    if reason.kind == MessageKind.NO_WINDOW and "takes" not in reason.filled:
        assert not never
    else:
        assert never


@given(cases.snapshots, cases.booking_lists, cases.times, cases.times)
@settings(deadline=None, max_examples=200)
def test_occupancy_shows_what_is_free_at_every_second(
    snapshot: Snapshot, bookings: list[Booking], start: int, end: int
) -> None:
    timeline = Timeline.of(snapshot, bookings)
    shown = occupancy(timeline, start, end)
    recount = Platform(snapshot, bookings)
    for time in range(start, end):
        total = dict.fromkeys(quantities(snapshot), 0)
        for node in shown.nodes:
            now = [step for step in node.steps if step.start <= time][-1]
            for quantity in quantities(snapshot):
                assert amount(now, quantity) == max(recount.free(node.name, time, quantity), 0)
                total[quantity] += amount(now, quantity)
        together = [step for step in shown.total if step.start <= time][-1]
        assert total == {quantity: amount(together, quantity) for quantity in quantities(snapshot)}
    assert bool(shown.total) is (start < end)


@given(cases.snapshots)
@settings(deadline=None, max_examples=100)
def test_a_snapshot_comes_back_from_its_compact_form(snapshot: Snapshot) -> None:
    assert decode_snapshot(encode_snapshot(snapshot)) == snapshot


spans = st.tuples(
    st.sampled_from([PAST, 0, 1, 2, 3, 5, 8]),
    st.sampled_from([1, 2, 3, 4, 8, 9, FOREVER]),
    st.tuples(st.integers(-2, 2), st.integers(0, 1)),
).map(lambda span: Piece(*span))


@given(st.lists(st.lists(spans, max_size=12), min_size=1, max_size=9), spans)
@settings(deadline=None, max_examples=300)
def test_a_piece_taken_of_many_profiles_at_once_is_taken_of_each(many: list[list[Piece]], piece: Piece) -> None:
    idle = Profile(np.array([PAST]), np.array([[4], [2]]))
    profiles = []
    for pieces in many:
        profile, alone = idle.taking(pieces), idle
        for one in pieces:
            alone = alone.taking([one])
        assert np.array_equal(profile.times, alone.times)
        assert np.array_equal(profile.free, alone.free)
        profiles.append(profile)
    for before, after in zip(profiles, taking_everywhere(profiles, piece), strict=True):
        expected = before.taking([piece])
        assert np.array_equal(after.times, expected.times)
        assert np.array_equal(after.free, expected.free)
