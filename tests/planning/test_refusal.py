"""What a user is told where nothing fits."""

from __future__ import annotations

from typing import Any

import pytest

from ebhpc.model import Limits, Message, MessageKind
from ebhpc.planning import Partition, Timeline, why_never, why_not, windows
from tests.planning.examples import (
    DAY,
    GIB,
    HOUR,
    NOW,
    booking,
    demand,
    job,
    node,
    reservation,
    share,
    snapshot,
)

LIMIT = MessageKind.RESOURCE_LIMIT
NONE = MessageKind.NO_WINDOW


def refused(timeline: Timeline, wanted: Any, **terms: Any) -> Message:
    assert windows(wanted, timeline, now=NOW, **terms) == []
    return why_not(wanted, timeline, now=NOW, **terms)


def figures(reason: Message) -> tuple[str | None, ...]:
    values = reason.values or {}
    return reason.kind, values.get("path"), values.get("wanted"), values.get("most")


SIZES = snapshot(node("n1", cores=8, memory=32 * GIB), node("n2", cores=4, memory=64 * GIB, gpu=2))


@pytest.mark.parametrize(
    ("wanted", "path", "asked", "most"),
    [
        (demand(cores=9), "/compute/cores/min", "9", "8"),
        (demand(cores=10**30), "/compute/cores/min", str(10**30), "8"),
        (demand(memory=65 * GIB), "/compute/memory/min", "65", "64"),
        (demand(devices={"gpu": 3}), "/compute/gpus/min", "3", "2"),
        (demand(devices={"a/b": 1}), "/compute", "1", "0"),
        (demand(nodes=3), "/compute/nodes/min", "3", "2"),
        (demand(licences={"solver": 1}), "/compute/licences/solver", "1", "0"),
        (demand(features=("ib",)), "/compute/features", "ib", None),
    ],
)
def test_what_no_node_has_is_refused_with_what_the_largest_has(
    wanted: Any, path: str, asked: str, most: str | None
) -> None:
    assert figures(refused(Timeline.of(SIZES), wanted)) == (LIMIT, path, asked, most)


def test_the_message_is_a_sentence_for_people() -> None:
    reason = refused(Timeline.of(SIZES), demand(cores=9))
    assert reason.filled == "9 cores on a node were asked for; here has 8 at most."
    assert reason.level == "ERROR"
    assert reason.time is not None
    assert reason.time.timestamp() == NOW


def test_quantities_that_no_node_has_together_are_refused() -> None:
    reason = refused(Timeline.of(SIZES), demand(cores=8, memory=64 * GIB))
    assert reason.kind == LIMIT
    assert (
        reason.filled == "No node of here has 8 cores, 64 GiB of memory together; "
        "its largest has 8 cores, 32 GiB of memory."
    )


def test_all_that_can_never_be_is_told_at_once() -> None:
    wanted = demand(cores=9, memory=65 * GIB, duration=2 * DAY, licences={"solver": 1})
    reasons = why_never(wanted, Timeline.of(SIZES), limits=Limits(duration=DAY))
    assert [(reason.values or {})["path"] for reason in reasons] == [
        "/compute/cores/min",
        "/compute/memory/min",
        "/compute/licences/solver",
        "/schedule/requested/duration",
    ]


def test_nothing_speaks_against_what_is_possible() -> None:
    assert why_never(demand(), Timeline.of(SIZES)) == []


def test_a_site_limit_is_told_as_such() -> None:
    reason = refused(Timeline.of(SIZES), demand(cores=6), limits=Limits(cores=5))
    assert figures(reason) == (LIMIT, "/compute/cores/min", "6", "5")
    assert "allows" in str(reason)


def test_a_duration_above_every_limit_is_refused_with_the_longest_possible() -> None:
    parts = (
        Partition(name="short", nodes=("n1",), time_limit=HOUR),
        Partition(name="long", nodes=("n1",), time_limit=DAY),
    )
    timeline = Timeline.of(snapshot(partitions=parts))
    reason = refused(timeline, demand(duration=2 * DAY))
    assert figures(reason) == (LIMIT, "/schedule/requested/duration", "P2D", "P1D")
    assert figures(refused(timeline, demand(duration=2 * HOUR, partition="short")))[2:] == ("PT2H", "PT1H")
    assert figures(refused(timeline, demand(duration=5 * HOUR), limits=Limits(duration=4 * HOUR)))[3] == "PT4H"


def test_partitions_that_are_unknown_or_closed_are_named() -> None:
    parts = (Partition(name="main", nodes=("n1",)), Partition(name="old", nodes=("n1",), open=False))
    timeline = Timeline.of(snapshot(partitions=parts))
    unknown = refused(timeline, demand(partition="gpu"))
    assert unknown.kind == MessageKind.RESOURCE_NOT_FOUND
    assert unknown.filled == "here has no partition gpu; it has: main, old."
    closed = refused(timeline, demand(partition="old"))
    assert (closed.kind, closed.filled) == (NONE, "Partition old of here takes no work now.")
    shut = refused(Timeline.of(snapshot(partitions=parts[1:])), demand())
    assert (shut.kind, shut.filled) == (NONE, "No partition of here takes work now.")


def test_a_demand_that_contradicts_itself_is_an_invalid_value() -> None:
    assert refused(Timeline.of(SIZES), demand(cores=4, most_cores=2)).kind == MessageKind.INVALID_VALUE
    assert refused(Timeline.of(SIZES), demand(nodes=0)).kind == MessageKind.INVALID_VALUE


def test_nodes_that_are_down_may_come_back_so_it_is_no_limit() -> None:
    reason = refused(Timeline.of(snapshot(node("n1"), node("n2", cores=99, state="DOWN"))), demand(cores=50))
    assert (reason.kind, reason.filled) == (NONE, "The nodes of here that could run this are down or drained.")


def test_where_the_interval_is_the_trouble_the_earliest_start_is_told() -> None:
    timeline = Timeline.of(snapshot(running=(job(5 * HOUR, share(cores=6)),)))
    reason = refused(timeline, demand(cores=4, latest=HOUR))
    assert reason.kind == NONE
    assert reason.values is not None
    assert reason.values["start"] == "2027-01-15T13:00:00Z"
    assert reason.filled == (
        "For a start between 2027-01-15T08:00:00Z and 2027-01-15T09:00:00Z, here has too few cores free for PT1H. "
        "The earliest start would be 2027-01-15T13:00:00Z."
    )


def test_the_obstacle_is_named_with_all_that_is_in_the_way_alone() -> None:
    held = Timeline.of(
        snapshot(
            node(gpu=1), licences={"solver": 1}, running=(job(DAY, share(cores=0, gpu=1), licences={"solver": 1}),)
        )
    )
    assert "too few gpu free" in str(refused(held, demand(devices={"gpu": 1})))
    assert "too few licences free" in str(refused(held, demand(licences={"solver": 1})))
    assert "too little free" in str(refused(held, demand(devices={"gpu": 1}, licences={"solver": 1})))


def test_a_job_without_a_limit_gives_no_earliest_start() -> None:
    reason = refused(Timeline.of(snapshot(running=(job(None),))), demand())
    assert str(reason).endswith("It is not known when that changes.")


def test_maintenance_in_the_way_is_told() -> None:
    timeline = Timeline.of(snapshot(reservations=(reservation(0, 12 * HOUR, maintenance=True),)))
    reason = refused(timeline, demand())
    assert "maintenance from 2027-01-15T08:00:00Z to 2027-01-15T20:00:00Z is in the way" in str(reason)
    assert "The earliest start would be 2027-01-15T20:00:00Z." in str(reason)


def test_an_interval_too_near_or_beyond_the_horizon_is_told() -> None:
    timeline = Timeline.of(snapshot())
    near = refused(timeline, demand(latest=10), lead=60)
    assert str(near).startswith("The start interval ends at 2027-01-15T08:00:10Z; here can start nothing before")
    far = refused(timeline, demand(earliest=DAY, latest=2 * DAY), limits=Limits(horizon=HOUR))
    assert str(far) == "On here nothing can be planned to start after 2027-01-15T09:00:00Z."


def test_a_platform_without_nodes_says_so() -> None:
    empty = Timeline.of(snapshot().__class__(platform="here", taken=NOW, nodes=()))
    assert str(refused(empty, demand())) == "here has no nodes."


def test_asked_on_a_newer_timeline_where_it_fits_the_answer_says_so() -> None:
    older = Timeline.of(snapshot(), [booking(1, 0, DAY)])
    assert windows(demand(), older, now=NOW) == []
    reason = why_not(demand(), older.with_bookings(removed=[1]), now=NOW)
    assert "could start this at 2027-01-15T08:00:00Z after all" in str(reason)
