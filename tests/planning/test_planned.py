"""When waiting jobs are planned to start, and windows that keep out of their way."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ebhpc.model import Shape
from ebhpc.planning import (
    Booking,
    Partition,
    PlannedJob,
    Scheduler,
    Snapshot,
    Timeline,
    WaitingJob,
    decode_snapshot,
    encode_snapshot,
    planned_starts,
    windows,
)
from tests.planning.examples import (
    DAY,
    GIB,
    HOUR,
    MINUTE,
    NOW,
    booking,
    demand,
    job,
    node,
    reservation,
    share,
    snapshot,
)

THREE = (node("n1"), node("n2"), node("n3"))


def waits(
    name: str, nodes: int = 1, cores: int = 8, limit: int | None = HOUR, memory: int = 0, **more: Any
) -> WaitingJob:
    devices = more.pop("devices", {})
    shape = Shape(cores=cores, memory=memory, devices=devices)
    return WaitingJob(id=name, nodes=nodes, shape=shape, time_limit=limit, **more)


def starts(state: Snapshot, *bookings: Booking, now: int = NOW) -> dict[str, int]:
    """When jobs start, in seconds from NOW; several of one id: the last."""
    return {each.id: each.start - NOW for each in planned_starts(state, bookings, now=now)}


def behind(state: Snapshot, *bookings: Booking) -> Timeline:
    planned = planned_starts(state, bookings, now=NOW)
    return Timeline.of(msgspec.structs.replace(state, planned=planned), bookings)


def test_jobs_start_in_their_order_as_early_as_they_fit() -> None:
    state = snapshot(*THREE, running=(job(HOUR, share("n1")),), waiting=(waits("wide", 3), waits("small")))
    assert starts(state) == {"wide": HOUR, "small": 0}


def test_a_short_job_fills_the_gap_before_a_wide_one_and_a_longer_one_does_not() -> None:
    state = snapshot(
        *THREE,
        running=(job(HOUR, share("n1")),),
        waiting=(waits("wide", 3), waits("longer", limit=HOUR + 1), waits("short", limit=HOUR)),
    )
    assert starts(state) == {"wide": HOUR, "longer": 2 * HOUR, "short": 0}


def test_a_firm_window_does_not_take_what_a_waiting_job_is_planned_to_take() -> None:
    state = snapshot(running=(job(HOUR),), waiting=(waits("first", limit=2 * HOUR),))
    wanted = demand(cores=8, latest=DAY)
    assert windows(wanted, behind(state), now=NOW, limit=1)[0].start == NOW + 3 * HOUR
    delaying = Timeline.of(behind(state).snapshot, delay_queue=True)
    assert windows(wanted, delaying, now=NOW, limit=1)[0].start == NOW + HOUR


def test_a_firm_window_fits_into_a_gap_that_no_waiting_job_needs() -> None:
    state = snapshot(*THREE, running=(job(2 * HOUR, share("n1")),), waiting=(waits("wide", 3, limit=DAY),))
    timeline = behind(state)
    short = windows(demand(cores=8), timeline, now=NOW, limit=1, offer_lifetime=0)
    assert (short[0].start, short[0].allocations[0].node) == (NOW, "n2")
    assert windows(demand(cores=8, duration=3 * HOUR), timeline, now=NOW, limit=1) == []


def test_with_easy_backfill_only_the_first_of_each_partition_has_a_planned_start() -> None:
    state = snapshot(
        *THREE,
        partitions=(Partition(name="a", nodes=("n1", "n2"), default=True), Partition(name="b", nodes=("n3",))),
        running=(job(HOUR, share("n1")), job(2 * HOUR, share("n3"))),
        waiting=(
            waits("head of a", 2),
            waits("second of a", 2),
            waits("fills a"),
            waits("head of b", partitions=("b",)),
            waits("second of b", partitions=("b",)),
        ),
        scheduler=Scheduler(backfill="easy"),
    )
    assert starts(state) == {"head of a": HOUR, "fills a": 0, "head of b": 2 * HOUR}


def test_without_backfill_nobody_starts_before_those_in_front_of_him_in_his_partition() -> None:
    state = snapshot(
        *THREE,
        partitions=(Partition(name="a", nodes=("n1", "n2"), default=True), Partition(name="b", nodes=("n3",))),
        running=(job(HOUR, share("n1")),),
        waiting=(waits("wide", 2), waits("small", limit=MINUTE), waits("other", partitions=("b",))),
        scheduler=Scheduler(backfill="none"),
    )
    assert starts(state) == {"wide": HOUR, "small": 2 * HOUR, "other": 0}


@pytest.mark.parametrize(
    ("limits", "planned"),
    [
        (Scheduler(), ["a1", "a2", "b1", "b2"]),
        (Scheduler(depth=2), ["a1", "a2"]),
        (Scheduler(per_user=1), ["a1", "b1"]),
        (Scheduler(per_partition=3), ["a1", "a2", "b1"]),
        (Scheduler(window=HOUR), ["a1", "a2"]),
        (Scheduler(window=HOUR - 1), ["a1"]),
    ],
)
def test_jobs_that_the_scheduler_does_not_look_at_have_no_planned_start(limits: Scheduler, planned: list[str]) -> None:
    waiting = tuple(waits(name, user=name[0]) for name in ("a1", "a2", "b1", "b2"))
    assert list(starts(snapshot(waiting=waiting, scheduler=limits))) == planned


def test_later_starts_are_multiples_of_the_schedulers_resolution() -> None:
    state = snapshot(
        *THREE,
        running=(job(HOUR + 7, share("n1")), job(HOUR, share("n2")), job(HOUR, share("n3"))),
        waiting=(waits("a"), waits("b"), waits("c")),
        scheduler=Scheduler(resolution=60),
    )
    assert NOW % 60 == 0
    assert starts(state) == {"a": HOUR, "b": HOUR, "c": HOUR + MINUTE}
    assert starts(snapshot(waiting=(waits("a"),), scheduler=Scheduler(resolution=60)), now=NOW + 7) == {"a": 7}


def test_held_and_dependent_jobs_are_in_nobodys_way() -> None:
    state = snapshot(waiting=(waits("held", held=True), waits("depends", dependent=True), waits("ready")))
    assert starts(state) == {"ready": 0}


def test_a_job_that_runs_inside_a_reservation_takes_nothing_beside_it() -> None:
    kept = reservation(HOUR, 2 * HOUR, share(cores=8))
    state = snapshot(
        reservations=(kept,), waiting=(waits("inside", reservation=kept.name), waits("outside", limit=2 * HOUR))
    )
    assert starts(state) == {"outside": 2 * HOUR}


def test_a_job_of_a_session_that_is_booked_counts_once_and_one_that_is_not_waits_like_others() -> None:
    state = snapshot(waiting=(waits("own", session="A"), waits("queued", session="B"), waits("other")))
    assert starts(state, booking(1, 0, HOUR, session="A")) == {"queued": HOUR, "other": 2 * HOUR}
    held = msgspec.structs.replace(state, reservations=(reservation(0, HOUR, session="A"),))
    assert starts(held) == {"queued": HOUR, "other": 2 * HOUR}


def test_a_booking_made_for_a_session_whose_job_was_planned_is_not_added_to_the_plan() -> None:
    state = snapshot(waiting=(waits("own", cores=4, session="A"),))
    timeline = behind(state).with_bookings([booking(1, 0, HOUR, cores=4, session="A")])
    assert timeline.free("n1", NOW, NOW + HOUR).cores == 4


def test_a_job_starts_not_before_its_begin_and_lets_others_pass() -> None:
    waiting = (waits("later", begin=NOW + HOUR), waits("long", limit=2 * HOUR), waits("short"))
    assert starts(snapshot(waiting=waiting)) == {"later": HOUR, "long": 2 * HOUR, "short": 0}
    easy = Scheduler(backfill="easy")
    assert starts(snapshot(waiting=waiting, scheduler=easy)) == {"long": 0, "short": 2 * HOUR}
    strict = Scheduler(backfill="none")
    assert starts(snapshot(waiting=waiting, scheduler=strict)) == {"later": HOUR, "long": 2 * HOUR, "short": 4 * HOUR}
    past = waits("due", begin=NOW - DAY)
    assert starts(snapshot(waiting=(past,))) == {"due": 0}


def test_a_job_for_several_partitions_starts_in_the_one_that_is_first() -> None:
    state = snapshot(
        node("n1"),
        node("n2"),
        partitions=(Partition(name="a", nodes=("n1",), default=True), Partition(name="b", nodes=("n2",))),
        running=(job(HOUR, share("n1")), job(MINUTE, share("n2"))),
        waiting=(waits("either", partitions=("a", "b")), waits("default")),
    )
    planned = planned_starts(state, now=NOW)
    assert [(each.id, each.start - NOW, each.nodes) for each in planned] == [
        ("either", MINUTE, ("n2",)),
        ("default", HOUR, ("n1",)),
    ]


def test_features_devices_and_licences_are_waited_for() -> None:
    state = snapshot(
        msgspec.structs.replace(node("n1"), features=("ib",)),
        node("n2", gpu=2),
        licences={"solver": 1},
        running=(
            job(HOUR, share("n1")),
            job(2 * HOUR, share("n2", cores=1, gpu=1)),
            job(3 * HOUR, share("n2", cores=0), licences={"solver": 1}),
        ),
        waiting=(
            waits("feature", cores=1, features=("ib",)),
            waits("device", cores=1, devices={"gpu": 2}),
            waits("licence", cores=1, licences={"solver": 1}),
            waits("second licence", cores=1, licences={"solver": 1}),
        ),
    )
    assert starts(state) == {"feature": HOUR, "device": 2 * HOUR, "licence": 3 * HOUR, "second licence": 4 * HOUR}


@pytest.mark.parametrize(
    "impossible",
    [
        waits("never", nodes=4),
        waits("never", cores=9),
        waits("never", memory=33 * GIB),
        waits("never", devices={"gpu": 1}),
        waits("never", features=("none such",)),
        waits("never", partitions=("none such",)),
        waits("never", partitions=("closed",)),
        waits("never", partitions=("short",), limit=HOUR + 1),
        waits("never", licences={"solver": 3}),
        waits("never", licences={"none such": 1}),
        waits("never", required=("none such",)),
        waits("never", required=("n1",), excluded=("n1",)),
        waits("never", nodes=3, excluded=("n1",)),
        waits("never", cores=10**30, nodes=10**9),
    ],
)
@pytest.mark.parametrize("backfill", ["conservative", "easy", "greedy", "none"])
def test_a_job_that_can_never_run_is_in_nobodys_way(impossible: WaitingJob, backfill: Any) -> None:
    state = snapshot(
        *THREE,
        partitions=(
            Partition(name="all", nodes=("n1", "n2", "n3"), default=True),
            Partition(name="short", nodes=("n1", "n2", "n3"), time_limit=HOUR),
            Partition(name="closed", nodes=("n1",), open=False),
        ),
        licences={"solver": 2},
        waiting=(impossible, waits("next", 3)),
        scheduler=Scheduler(backfill=backfill),
    )
    assert starts(state) == {"next": 0}


def test_drained_and_downed_nodes_take_no_waiting_job() -> None:
    state = snapshot(
        node("n1", state="DRAINED"), node("n2", state="DOWN"), node("n3"), waiting=(waits("a"), waits("b"))
    )
    assert {each.nodes for each in planned_starts(state, now=NOW)} == {("n3",)}
    assert starts(state) == {"a": 0, "b": HOUR}


def test_required_nodes_are_among_those_taken_and_excluded_ones_are_not() -> None:
    state = snapshot(
        *THREE,
        running=(job(HOUR, share("n3")),),
        waiting=(waits("required", 2, required=("n3",)), waits("excluded", excluded=("n1",)), waits("any")),
    )
    assert [(each.id, each.start - NOW, each.nodes) for each in planned_starts(state, now=NOW)] == [
        ("required", HOUR, ("n1", "n3")),
        ("excluded", 0, ("n2",)),
        ("any", 0, ("n1",)),
    ]


def test_an_exclusive_job_waits_for_whole_nodes_and_takes_them() -> None:
    state = snapshot(
        node("n1", cores=8),
        node("n2", cores=16),
        running=(job(HOUR, share("n1", cores=1)),),
        waiting=(waits("exclusive", 2, cores=1, exclusive=True), waits("small", cores=1, limit=2 * HOUR)),
    )
    assert starts(state) == {"exclusive": HOUR, "small": 2 * HOUR}
    assert behind(state).free("n2", NOW + HOUR, NOW + 2 * HOUR).cores == 0


def test_each_task_of_an_array_waits_like_a_job() -> None:
    several = planned_starts(snapshot(waiting=(waits("array", tasks=3), waits("next"))), now=NOW)
    assert [(each.id, each.start - NOW) for each in several] == [
        ("array", 0),
        ("array", HOUR),
        ("array", 2 * HOUR),
        ("next", 3 * HOUR),
    ]
    few = snapshot(waiting=(waits("array", tasks=10**9), waits("next")), scheduler=Scheduler(per_array=2))
    assert len(planned_starts(few, now=NOW)) == 3


def test_of_an_array_no_more_tasks_run_at_once_than_it_says() -> None:
    state = snapshot(*THREE, waiting=(waits("array", tasks=4, at_once=2), waits("next")))
    planned = planned_starts(state, now=NOW)
    assert [each.start - NOW for each in planned] == [0, 0, HOUR, HOUR, 0]


def test_an_array_of_any_size_is_planned_up_to_a_bound() -> None:
    state = snapshot(waiting=(waits("array", tasks=10**12, limit=1), waits("next")), scheduler=Scheduler(window=99))
    assert len(planned_starts(state, now=NOW)) == 100


def test_a_job_without_a_limit_has_its_partitions_else_a_year() -> None:
    pools = (Partition(name="a", nodes=("n1",), time_limit=HOUR), Partition(name="b", nodes=("n2",)))
    state = snapshot(
        node("n1"),
        node("n2"),
        partitions=pools,
        waiting=tuple(waits(f"{name}{place}", limit=None, partitions=(name,)) for name in "ab" for place in (1, 2)),
    )
    assert starts(state) == {"a1": 0, "a2": HOUR, "b1": 0, "b2": 365 * DAY}


def test_a_waiting_job_of_no_length_lasts_a_second() -> None:
    assert starts(snapshot(waiting=(waits("a", limit=0), waits("b", limit=-5)))) == {"a": 0, "b": 1}


def test_behind_a_job_that_never_ends_nothing_is_planned_and_beside_it_is() -> None:
    state = snapshot(
        node("n1"), node("n2"), running=(job(None, share("n1")),), waiting=(waits("wide", 2), waits("small"))
    )
    assert starts(state) == {"small": 0}


def test_behind_a_job_past_its_limit_the_next_is_planned_after_a_grace() -> None:
    assert starts(snapshot(running=(job(-5),), waiting=(waits("next"),))) == {"next": 120}


@pytest.mark.parametrize("leap", [-DAY, -5 * MINUTE, 5 * MINUTE, DAY])
def test_when_the_clock_leaps_jobs_are_planned_from_what_it_says_now(leap: int) -> None:
    state = snapshot(running=(job(HOUR),), waiting=(waits("next"),))
    assert starts(state, now=NOW + leap) == {"next": max(HOUR, leap)}


def test_a_planned_job_on_a_node_that_has_vanished_since_takes_only_of_the_others() -> None:
    planned = PlannedJob(id="a", start=NOW, end=NOW + HOUR, shape=Shape(cores=8, memory=0), nodes=("n1", "gone"))
    timeline = Timeline.of(snapshot(planned=(planned,)))
    assert timeline.free("n1", NOW, NOW + HOUR).cores == 0


def test_bookings_and_reservations_are_in_the_way_of_waiting_jobs() -> None:
    state = snapshot(
        reservations=(reservation(2 * HOUR, 3 * HOUR, maintenance=True),), waiting=(waits("a", limit=2 * HOUR),)
    )
    assert starts(state, booking(1, HOUR, 2 * HOUR)) == {"a": 3 * HOUR}


def test_no_jobs_no_nodes_nothing_planned() -> None:
    assert planned_starts(snapshot(), now=NOW) == ()
    nothing = snapshot(waiting=(waits("a"),)).__class__(platform="here", taken=NOW, nodes=(), waiting=(waits("a"),))
    assert planned_starts(nothing, now=NOW) == ()


def test_the_plan_is_kept_with_the_snapshot_and_made_anew_from_the_jobs() -> None:
    state = snapshot(*THREE, waiting=(waits("a", 3), waits("b", exclusive=True)))
    planned = planned_starts(state, now=NOW)
    kept = decode_snapshot(encode_snapshot(msgspec.structs.replace(state, planned=planned)))
    assert kept.planned == planned
    assert planned_starts(kept, now=NOW) == planned


def test_the_plan_does_not_hang_on_what_others_of_the_same_kind_were_planned_before() -> None:
    """Kinds of jobs are remembered with bounds for their starts; a wish for less must not inherit those of more."""
    waiting = (
        waits("large", 3, limit=2 * HOUR),
        waits("again", 3, limit=2 * HOUR),
        waits("smaller", 3, cores=1),
        waits("begins", 1, cores=1, begin=NOW + 5 * HOUR),
        waits("same, now", 1, cores=1),
    )
    state = snapshot(*THREE, running=(job(HOUR, share("n1", cores=7)),), waiting=waiting)
    assert starts(state) == {"large": HOUR, "again": 3 * HOUR, "smaller": 0, "begins": 5 * HOUR, "same, now": 0}
