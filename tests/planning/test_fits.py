"""Whether windows still fit, as asked inside the transaction that books them."""

from __future__ import annotations

import pytest

from ebhpc.planning import Timeline, bookings_of, fits
from tests.planning.examples import (
    GIB,
    HOUR,
    NOW,
    booking,
    job,
    node,
    reservation,
    share,
    snapshot,
    window,
)


def test_a_window_fits_where_nothing_came_in_between() -> None:
    timeline = Timeline.of(snapshot())
    assert fits(timeline, [window(0, HOUR)])
    assert not fits(timeline.with_bookings([booking(1, HOUR - 1, 2 * HOUR, cores=1)]), [window(0, HOUR)])
    assert fits(timeline.with_bookings([booking(1, HOUR, 2 * HOUR, cores=1)]), [window(0, HOUR)])


def test_windows_are_counted_together() -> None:
    timeline = Timeline.of(snapshot())
    half = share(cores=4)
    assert fits(timeline, [window(0, HOUR, half), window(0, HOUR, half)])
    assert not fits(timeline, [window(0, HOUR, half), window(0, HOUR, half), window(10, 20, share(cores=1))])
    assert fits(timeline, [window(0, HOUR), window(HOUR, 2 * HOUR)])


def test_windows_on_different_nodes_do_not_meet() -> None:
    timeline = Timeline.of(snapshot(node("n1"), node("n2")))
    assert fits(timeline, [window(0, HOUR, share("n1")), window(0, HOUR, share("n2"))])
    assert not fits(timeline, [window(0, HOUR, share("n1"), share("n2")), window(0, HOUR, share("n2", cores=1))])


def test_a_node_that_is_overcommitted_in_memory_takes_work_without_memory() -> None:
    timeline = Timeline.of(snapshot(running=(job(HOUR, share(cores=1, memory=99 * GIB)),)))
    assert fits(timeline, [window(0, HOUR, share(cores=1)), window(0, HOUR, share(cores=2))])
    assert not fits(timeline, [window(0, HOUR, share(cores=1, memory=1)), window(0, HOUR, share(cores=2))])


@pytest.mark.parametrize(
    "now",
    [
        snapshot(node("n2")),
        snapshot(node(state="DRAINED")),
        snapshot(node(state="DOWN")),
        snapshot(node(cores=7)),
        snapshot(reservations=(reservation(0, HOUR, share(cores=1), maintenance=True),)),
    ],
    ids=["vanished", "drained", "down", "smaller", "maintenance"],
)
def test_a_window_on_a_node_that_is_no_longer_as_it_was_does_not_fit(now: object) -> None:
    timeline = Timeline.of(snapshot())
    assert fits(timeline, [window(0, HOUR)])
    assert not fits(timeline.with_snapshot(now), [window(0, HOUR)])  # type: ignore[arg-type]


def test_devices_and_licences_that_the_platform_has_not_do_not_fit() -> None:
    timeline = Timeline.of(snapshot(node(gpu=1), licences={"solver": 1}))
    assert fits(timeline, [window(0, HOUR, share(gpu=1), licences={"solver": 1})])
    assert not fits(timeline, [window(0, HOUR, share(gpu=2))])
    assert not fits(timeline, [window(0, HOUR, share(fpga=1))])
    assert not fits(timeline, [window(0, HOUR, licences={"solver": 2})])
    assert not fits(timeline, [window(0, HOUR, licences={"other": 1})])
    licensed = window(0, HOUR, share(cores=1), licences={"solver": 1})
    assert not fits(timeline, [licensed, licensed])


def test_nothing_fits_always_and_a_window_of_no_length_takes_nothing() -> None:
    timeline = Timeline.of(snapshot(), [booking(1, 0, HOUR)])
    assert fits(timeline, [])
    assert fits(timeline, [window(10, 10)])


def test_a_window_is_booked_node_by_node_with_its_licences_once() -> None:
    several = window(0, HOUR, share("n1", gpu=1), share("n2", gpu=1), licences={"solver": 2})
    first, second = bookings_of(several, session="A", ids=iter(range(7, 100)), expires=NOW + 300)
    assert (first.id, first.node, first.licences) == (7, "n1", {"solver": 2})
    assert (second.id, second.node, second.licences) == (8, "n2", {})
    assert {(each.session, each.start, each.end, each.expires) for each in (first, second)} == {
        ("A", NOW, NOW + HOUR, NOW + 300)
    }
    assert first.devices == second.devices == {"gpu": 1}
    with pytest.raises(ValueError, match="argument"):
        bookings_of(several, session="A", ids=[1])
