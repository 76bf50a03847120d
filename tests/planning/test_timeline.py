"""What a timeline says is free."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from ebhpc.planning import Timeline
from ebhpc.planning.profile import FOREVER
from tests.planning.examples import (
    DAY,
    GIB,
    HOUR,
    MINUTE,
    NOW,
    booking,
    job,
    node,
    reservation,
    share,
    snapshot,
)


def cores(timeline: Timeline, *instants: int, name: str = "n1") -> list[int]:
    """The free cores at instants told in seconds from NOW."""
    return [timeline.free(name, NOW + instant, NOW + instant + 1).cores for instant in instants]


def test_an_idle_node_is_free_for_ever() -> None:
    timeline = Timeline.of(snapshot(node(cores=8, memory=4 * GIB, gpu=2)))
    free = timeline.free("n1", NOW, FOREVER)
    assert (free.cores, free.memory, free.devices) == (8, 4 * GIB, {"gpu": 2})


def test_a_running_job_holds_its_share_until_its_limit() -> None:
    timeline = Timeline.of(snapshot(running=(job(HOUR, share(cores=3)),)))
    assert cores(timeline, -DAY, 0, HOUR - 1, HOUR) == [5, 5, 5, 8]


def test_a_job_without_a_limit_holds_its_share_for_ever() -> None:
    timeline = Timeline.of(snapshot(running=(job(None, share(cores=3)),)))
    assert cores(timeline, 0, 1000 * DAY) == [5, 5]


def test_a_job_past_its_limit_holds_its_share_for_two_minutes_at_least() -> None:
    timeline = Timeline.of(snapshot(running=(job(-5),)))
    assert cores(timeline, 0, 119, 120) == [0, 0, 8]


def test_a_job_long_past_its_limit_is_thought_to_take_as_long_again() -> None:
    timeline = Timeline.of(snapshot(running=(job(-HOUR),)))
    assert cores(timeline, HOUR - 1, HOUR) == [0, 8]


def test_a_limit_that_passed_since_an_old_snapshot_is_believed() -> None:
    timeline = Timeline.of(snapshot(taken=-10 * MINUTE, running=(job(-MINUTE),)))
    assert cores(timeline, -2 * MINUTE, 0) == [0, 8]


def test_reservations_and_bookings_add_up_with_jobs() -> None:
    timeline = Timeline.of(
        snapshot(running=(job(HOUR, share(cores=2)),), reservations=(reservation(0, 2 * HOUR, share(cores=3)),)),
        [booking(1, 0, 3 * HOUR, cores=1)],
    )
    assert cores(timeline, 0, HOUR, 2 * HOUR, 3 * HOUR) == [2, 4, 7, 8]


def test_maintenance_takes_the_whole_node_whatever_share_is_named() -> None:
    timeline = Timeline.of(snapshot(reservations=(reservation(HOUR, DAY, share(cores=1), maintenance=True),)))
    assert cores(timeline, 0, HOUR, DAY) == [8, 0, 8]
    assert timeline.free("n1", NOW + HOUR, NOW + DAY).memory == 0


@pytest.mark.parametrize("state", ["DRAINED", "DOWN"])
def test_a_node_that_is_not_up_has_nothing_free(state: str) -> None:
    assert cores(Timeline.of(snapshot(node(state=state))), 0, DAY) == [0, 0]


def test_a_node_that_is_overcommitted_has_nothing_free_until_enough_has_ended() -> None:
    timeline = Timeline.of(snapshot(running=(job(HOUR, share(cores=8)), job(2 * HOUR, share(cores=6)))))
    assert cores(timeline, 0, HOUR, 2 * HOUR) == [0, 2, 8]


def test_a_job_of_the_brokers_own_is_not_added_to_its_booking() -> None:
    own = job(HOUR, share(cores=3), session="A")
    timeline = Timeline.of(snapshot(running=(own,)), [booking(1, 0, 2 * HOUR, cores=4, session="A")])
    assert cores(timeline, 0, HOUR, 2 * HOUR) == [4, 4, 8]


def test_a_job_of_the_brokers_own_that_takes_more_than_was_booked_counts_with_what_it_takes() -> None:
    own = job(HOUR, share(cores=6), session="A")
    timeline = Timeline.of(snapshot(running=(own,)), [booking(1, 0, 2 * HOUR, cores=4, session="A")])
    assert cores(timeline, 0, HOUR) == [2, 4]


def test_a_job_of_the_brokers_own_on_another_node_than_booked_counts_on_both() -> None:
    own = job(HOUR, share("n2", cores=4), session="A")
    timeline = Timeline.of(
        snapshot(node("n1"), node("n2"), running=(own,)), [booking(1, 0, 2 * HOUR, cores=4, session="A")]
    )
    assert cores(timeline, 0, name="n1") == [4]
    assert cores(timeline, 0, HOUR, name="n2") == [4, 8]


def test_booking_reservation_and_job_of_one_session_count_once() -> None:
    timeline = Timeline.of(
        snapshot(
            running=(job(HOUR, share(cores=4), session="A"),),
            reservations=(reservation(-HOUR, HOUR, share(cores=4), session="A"),),
        ),
        [booking(1, -HOUR, HOUR, cores=4, session="A")],
    )
    assert cores(timeline, 0, HOUR) == [4, 8]


def test_a_job_of_a_session_that_has_no_booking_any_more_still_counts() -> None:
    timeline = Timeline.of(
        snapshot(running=(job(HOUR, share(cores=4), session="A"),)), [booking(1, 0, HOUR, session="A", cores=4)]
    ).with_bookings(removed=[1])
    assert cores(timeline, 0, HOUR) == [4, 8]


def test_a_job_of_the_brokers_own_without_a_limit_ends_with_its_booking() -> None:
    timeline = Timeline.of(
        snapshot(running=(job(None, share(cores=4), session="A"),)), [booking(1, 0, HOUR, session="A", cores=4)]
    )
    assert cores(timeline, 0, HOUR) == [4, 8]


def test_a_job_in_someones_reservation_is_not_added_to_it() -> None:
    held = reservation(-HOUR, 2 * HOUR, share(cores=4))
    inside = job(HOUR, share(cores=3), reservation=held.name)
    assert cores(Timeline.of(snapshot(running=(inside,), reservations=(held,))), 0, HOUR, 2 * HOUR) == [4, 4, 8]


def test_an_offer_past_its_expiry_counts_until_the_store_has_removed_its_booking() -> None:
    timeline = Timeline.of(snapshot(), [booking(1, 0, HOUR, expires=NOW - HOUR)])
    assert cores(timeline, 0) == [0]


def test_jobs_on_unknown_nodes_and_bookings_of_vanished_nodes_are_ignored() -> None:
    timeline = Timeline.of(
        snapshot(running=(job(HOUR, share("gone")),), reservations=(reservation(0, HOUR, share("gone")),)),
        [booking(1, 0, HOUR, node="gone")],
    )
    assert cores(timeline, 0) == [8]


def test_a_booking_of_a_node_that_vanished_counts_again_when_the_node_is_back() -> None:
    away = Timeline.of(snapshot(node("n2")), [booking(1, 0, HOUR)])
    assert cores(away.with_snapshot(snapshot(node("n1"), node("n2"))), 0, HOUR) == [0, 8]


def test_things_of_no_length_or_that_end_before_they_start_take_nothing() -> None:
    timeline = Timeline.of(
        snapshot(reservations=(reservation(HOUR, HOUR), reservation(2 * HOUR, HOUR))),
        [booking(1, 5, 5), booking(2, 9, 3)],
    )
    assert timeline.free("n1", NOW - DAY, NOW + DAY).cores == 8


def test_nonsense_amounts_free_nothing_and_break_nothing() -> None:
    timeline = Timeline.of(
        snapshot(running=(job(HOUR, share(cores=-5)), job(2 * HOUR, share(cores=1, memory=10**30)))),
        [booking(1, -(10**30), 10**30, cores=2)],
    )
    assert cores(timeline, 0, 2 * HOUR) == [5, 6]
    assert timeline.free("n1", NOW, NOW + 1).memory == 0


def test_a_platform_without_nodes_has_a_timeline() -> None:
    empty = Timeline.of(snapshot().__class__(platform="here", taken=NOW, nodes=()), [booking(1, 0, HOUR)])
    with pytest.raises(KeyError):
        empty.free("n1", NOW, NOW + 1)
    assert [each.id for each in empty.with_bookings([booking(2, 0, 1)], [1]).bookings()] == [2]


def test_of_two_nodes_with_one_name_the_first_counts() -> None:
    timeline = Timeline.of(snapshot(node(cores=8), node(cores=16)))
    assert cores(timeline, 0) == [8]
    assert len(timeline.inventory.nodes) == 1


def test_changing_bookings_leaves_the_timeline_before_as_it_was() -> None:
    before = Timeline.of(snapshot(node("n1"), node("n2")), [booking(1, 0, HOUR, cores=2)])
    after = before.with_bookings([booking(2, 0, HOUR, cores=5)], [1])
    assert cores(before, 0) == [6]
    assert cores(after, 0) == [3]
    assert np.shares_memory(after.profile(1).free, before.profile(1).free)


def test_removing_an_unknown_booking_changes_nothing() -> None:
    before = Timeline.of(snapshot(), [booking(1, 0, HOUR)])
    assert before.with_bookings(removed=[77]).parts()[0][0] is before.parts()[0][0]


def test_accepting_an_offer_changes_its_booking_and_not_what_is_free() -> None:
    before = Timeline.of(snapshot(), [booking(1, 0, HOUR, expires=NOW + 300)])
    after = before.with_bookings([booking(1, 0, HOUR)])
    assert after.parts()[0][0] is before.parts()[0][0]
    assert [each.expires for each in after.bookings()] == [None]


def test_readers_on_other_threads_see_a_timeline_that_does_not_change() -> None:
    timeline = Timeline.of(snapshot(), [booking(number, number, HOUR + number, cores=1) for number in range(8)])
    seen: set[int] = set()
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.add(timeline.free("n1", NOW + 100, NOW + 200).cores)
            ((rows, _),) = timeline.parts()
            assert rows.real.sum() == len(timeline.profile(0).times) == len(rows.times) - 2

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    changed = timeline
    for number in range(300):
        changed = changed.with_bookings([booking(100 + number, 0, HOUR)], [number % 8])
    stop.set()
    for reader in readers:
        reader.join()
    assert seen == {0}
    with pytest.raises(ValueError, match="read-only"):
        timeline.profile(0).free[0, 0] = 99
