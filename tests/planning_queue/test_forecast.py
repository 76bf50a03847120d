"""Windows that are not guaranteed, from a snapshot's forecast."""

from __future__ import annotations

import msgspec
import pytest

from ebhpc.model import Limits
from ebhpc.model.sessions import Demand, Shape
from ebhpc.planning import Booking, FinishedJob, Node, Partition, Scheduler, Snapshot
from ebhpc.planning.queue import (
    ForecastUnreadableError,
    Outlooks,
    StartEstimator,
    decode_forecast,
    encode_forecast,
    expected_start,
    expected_windows,
    look,
    outlook_message,
    outlook_of,
    why_not_expected,
)
from tests.planning_queue.test_expected import HOUR, NOW, demand, nodes, running, snapshot, waiting

TEN = 600


def outlooks(state: Snapshot, estimator: StartEstimator | None = None, **more: object) -> Outlooks:
    """What a worker has of a snapshot: by way of the bytes in the database."""
    learned = estimator or StartEstimator()
    return Outlooks.of(decode_forecast(encode_forecast(look(learned, state, **more))), learned)  # type: ignore[arg-type]


def start_of(state: Snapshot, asked: Demand, **more: object) -> int:
    """The median start in seconds from the snapshot, at the place in the queue that the demand gets."""
    [first, *_] = expected_windows(outlooks(state), asked, now=NOW, offer_lifetime=0, **more)  # type: ignore[arg-type]
    assert first.expected is not None
    return first.expected - NOW


def test_on_an_idle_machine_a_window_begins_now_and_is_open_until_the_offer_ends() -> None:
    [window] = expected_windows(outlooks(snapshot()), demand(), now=NOW, offer_lifetime=300)
    assert not window.firm
    assert (window.start, window.expected, window.latest) == (NOW, NOW, NOW + 300)
    assert window.end == NOW + 90 * HOUR + HOUR
    assert window.confidence == 0.8
    assert [(share.node, share.cores, share.memory) for share in window.allocations] == [("", 4, 1024)]


def test_behind_a_queue_it_is_what_a_simulation_with_the_job_in_it_says() -> None:
    full = snapshot(
        nodes=nodes(4),
        running=(running("1", "n0", "n1"), running("2", "n2", "n3", ends=NOW + 9 * HOUR)),
        waiting=tuple(waiting(str(number), nodes=2) for number in range(3, 9)),
    )
    asked = demand(nodes=2, least=Shape(cores=4, memory=1024))
    [window] = expected_windows(outlooks(full), asked, now=NOW, offer_lifetime=0)
    exact = expected_start(full, asked, StartEstimator(), now=NOW)
    assert exact is not None
    assert window.expected is not None
    assert abs(window.expected - exact.median) < 0.3 * (exact.median - NOW)
    assert window.start <= window.expected <= window.latest


def test_it_starts_behind_those_that_wait_and_before_partitions_of_lower_priority() -> None:
    tiers = (
        Partition(name="low", nodes=("n0",), default=True),
        Partition(name="high", nodes=("n0",), priority=9),
        Partition(name="other", nodes=("n1",)),
    )
    state = snapshot(
        partitions=tiers,
        running=(running("1", "n0", started=NOW, ends=NOW + TEN),),
        waiting=(waiting("2", partitions=("low",), time_limit=20 * HOUR),),
    )
    soon = start_of(state, demand(partition="high"))
    assert soon <= TEN
    assert start_of(state, demand(partition="low")) > 10 * TEN
    assert start_of(state, demand()) == start_of(state, demand(partition="low"))
    assert start_of(state, demand(partition="other")) == 0


def test_where_users_have_priorities_a_new_job_stands_with_the_last_of_its_user() -> None:
    queue = tuple(
        waiting(str(number), user=user, priority=priority, submitted=NOW - age)
        for number, (user, priority, age) in enumerate(
            [
                ("favourite", 900, 10),
                ("a", 500, 900),
                ("b", 400, 800),
                ("c", 300, 700),
                ("d", 200, 600),
                ("e", 100, 500),
            ]
        )
    )
    state = snapshot(nodes=nodes(1), running=(running("r", "n0", started=NOW, ends=NOW + HOUR),), waiting=queue)
    assert start_of(state, demand(), user="favourite") < start_of(state, demand(), user="c")
    assert start_of(state, demand(), user="c") < start_of(state, demand(), user="nobody")
    assert start_of(state, demand(), user="nobody") == start_of(state, demand(), user="e")


def test_a_scheduler_of_little_depth_and_one_in_strict_order_let_nothing_slip_past_the_queue() -> None:
    # A small job would fit beside what runs, were it looked at
    queue = tuple(waiting(str(number), nodes=2) for number in range(6))
    state = snapshot(running=(running("r", "n0", started=NOW, ends=NOW + HOUR),), waiting=queue)
    asked = demand(duration=60, least=Shape(cores=1, memory=16))
    assert start_of(state, asked) == 0
    for scheduler in (Scheduler(depth=3), Scheduler(backfill="none"), Scheduler(per_partition=2)):
        assert start_of(msgspec.structs.replace(state, scheduler=scheduler), asked) > 0
    for backfill in ("easy", "greedy"):
        assert start_of(msgspec.structs.replace(state, scheduler=Scheduler(backfill=backfill)), asked) == 0


def test_of_a_long_array_places_are_kept_for_as_many_tasks_as_the_scheduler_plans() -> None:
    queue = (waiting("array", nodes=2, tasks=5),)
    state = snapshot(running=(running("r", "n0", started=NOW, ends=NOW + HOUR),), waiting=queue)
    asked = demand(duration=5 * HOUR, least=Shape(cores=1, memory=16))
    behind_all = start_of(state, asked)
    some = start_of(msgspec.structs.replace(state, scheduler=Scheduler(per_array=1)), asked)
    assert 0 < some < behind_all


def test_beyond_the_window_of_a_scheduler_a_long_job_may_start_before_what_waits() -> None:
    queue = tuple(waiting(str(number), nodes=2) for number in range(3))
    state = snapshot(running=(running("r", "n0", started=NOW, ends=NOW + HOUR),), waiting=queue)
    asked = demand(duration=9 * HOUR, least=Shape(cores=1, memory=16))
    assert start_of(msgspec.structs.replace(state, scheduler=Scheduler(window=HOUR // 2)), asked) == 0
    assert start_of(state, asked) > 0


def test_per_user_limits_hold_for_the_user_alone() -> None:
    queue = tuple(waiting(str(number), nodes=2, user="busy") for number in range(4))
    state = snapshot(
        running=(running("r", "n0", started=NOW, ends=NOW + HOUR),), waiting=queue, scheduler=Scheduler(per_user=2)
    )
    asked = demand(duration=60, least=Shape(cores=1, memory=16))
    assert start_of(state, asked, user="busy") > 0
    assert start_of(state, asked, user="other") == 0


def test_ranges_give_a_second_window_with_the_most_that_a_node_has() -> None:
    asked = demand(least=Shape(cores=1, memory=1024), most_cores=64, most_memory=4096)
    first, second = expected_windows(outlooks(snapshot()), asked, now=NOW, limit=3)
    assert (first.label, first.allocations[0].cores) == ("expected", 1)
    assert (second.label, second.allocations[0].cores, second.allocations[0].memory) == ("largest", 4, 4096)
    [only] = expected_windows(outlooks(snapshot()), asked, now=NOW, limit=1)
    assert only == first
    kept = expected_windows(outlooks(snapshot()), asked, now=NOW, limits=Limits(cores=2))
    assert [window.allocations[0].cores for window in kept] == [1, 2]


def test_a_request_that_must_start_too_soon_gets_no_window_and_is_told_when_it_would_start() -> None:
    full = snapshot(
        nodes=nodes(1),
        running=(running("1", "n0", started=NOW, ends=NOW + HOUR),),
        waiting=tuple(waiting(str(number)) for number in range(2, 30)),
    )
    known = outlooks(full)
    soon = demand(latest=NOW + 300)
    assert expected_windows(known, soon, now=NOW) == []
    reason = why_not_expected(known, soon, now=NOW)
    assert reason.kind == "urn:no-window"
    assert reason.values is not None
    assert reason.values["chance"] == "0%"
    assert expected_windows(known, demand(), now=NOW) != []


def test_an_interval_that_ends_after_the_latest_start_is_cut_and_says_less_confidence() -> None:
    full = snapshot(nodes=nodes(1), running=(running("1", "n0", started=NOW, ends=NOW + 10 * HOUR),))
    known = outlooks(full)
    [whole] = expected_windows(known, demand(), now=NOW, offer_lifetime=0)
    assert whole.expected is not None
    assert whole.latest > whole.expected + 60
    cut_at = (whole.expected + whole.latest) // 2
    [cut] = expected_windows(known, demand(latest=cut_at), now=NOW, offer_lifetime=0)
    assert cut.latest == cut_at
    assert cut.end == cut_at + HOUR
    assert cut.confidence is not None
    assert 0.4 <= cut.confidence < 0.8


@pytest.mark.parametrize(
    "asked",
    [
        demand(least=Shape(cores=5, memory=1)),
        demand(nodes=3),
        demand(least=Shape(cores=1, memory=1, devices={"gpu": 1})),
        demand(features=("fast",)),
        demand(partition="nowhere"),
    ],
)
def test_what_no_node_has_gets_no_window(asked: Demand) -> None:
    known = outlooks(snapshot())
    assert expected_windows(known, asked, now=NOW) == []
    assert "never start" in str(why_not_expected(known, asked, now=NOW))


def test_what_may_only_begin_later_and_what_takes_long_to_prepare_begins_then() -> None:
    known = outlooks(snapshot())
    [later] = expected_windows(known, demand(earliest=NOW + HOUR), now=NOW, offer_lifetime=0)
    assert later.start == later.latest == NOW + HOUR
    [prepared] = expected_windows(known, demand(), now=NOW, lead=120, offer_lifetime=0)
    assert prepared.start == NOW + 120


def test_a_pool_that_nobody_waits_for_is_seen_as_its_part_of_the_one_around_it() -> None:
    mixed = (
        *(Node(name=f"n{index}", cores=4, memory=8192) for index in range(8)),
        *(Node(name=f"f{index}", cores=4, memory=8192, features=("fast",)) for index in range(2)),
    )
    full = snapshot(nodes=mixed, running=(running("1", *(node.name for node in mixed)),))
    [window] = expected_windows(outlooks(full), demand(features=("fast",), nodes=2), now=NOW)
    assert window.expected is not None
    assert NOW < window.expected <= NOW + HOUR
    assert expected_windows(outlooks(full), demand(features=("fast",), nodes=3), now=NOW) == []


def test_bookings_of_the_broker_are_in_the_way_until_the_batch_system_knows_them() -> None:
    booking = Booking(id=1, session="s", node="n0", start=NOW - 5, end=NOW + HOUR, cores=4, memory=1)
    known = outlooks(snapshot(nodes=nodes(1)), bookings=(booking,))
    [window] = expected_windows(known, demand(), now=NOW)
    assert window.expected is not None
    assert NOW + HOUR <= window.expected <= NOW + 1.02 * HOUR


def test_the_message_says_how_sure_it_is_and_how_old_what_it_builds_on_is() -> None:
    known = outlooks(snapshot(running=(running("1", "n0", "n1"),)))
    [window] = expected_windows(known, demand(), now=NOW + 90)
    told = outlook_message(known, window, now=NOW + 90)
    assert told.level == "INFO"
    assert "8 of 10 such jobs start between 20" in str(told)
    assert "most likely around 20" in str(told)
    assert "PT1M30S ago" in str(told)
    promised = outlook_of(window, now=NOW + 90)
    assert (promised.start, promised.latest, promised.expected) == (window.start, window.latest, window.expected)
    assert promised.said == NOW + 90


def test_sessions_that_wait_have_an_expected_start_in_the_forecast() -> None:
    state = snapshot(
        nodes=nodes(1),
        running=(running("1", "n0", started=NOW, ends=NOW + HOUR),),
        waiting=(waiting("2"), waiting("3", session="ours")),
    )
    forecast = look(StartEstimator(), state)
    assert set(forecast.sessions) == {"ours"}
    assert NOW < forecast.sessions["ours"].earliest <= forecast.sessions["ours"].median


def test_jobs_that_wait_for_others_or_inside_a_reservation_are_in_nobodys_way_and_arrays_count_each_task() -> None:
    busy = (running("1", "n0", started=NOW, ends=NOW + HOUR),)
    still = snapshot(
        nodes=nodes(1), running=busy, waiting=(waiting("2", dependent=True), waiting("3", reservation="r"))
    )
    alone = start_of(snapshot(nodes=nodes(1), running=busy), demand())
    assert abs(start_of(still, demand()) - alone) <= 300
    array = snapshot(nodes=nodes(1), running=busy, waiting=(waiting("2", tasks=20),))
    some = snapshot(nodes=nodes(1), running=busy, waiting=(waiting("2", tasks=20, at_once=1),))
    assert start_of(array, demand()) > 5 * start_of(some, demand()) > 0


def test_a_job_that_is_told_twice_to_have_ended_is_learned_from_once() -> None:
    estimator = StartEstimator()
    done = FinishedJob(
        id="9", nodes=1, cores=4, time_limit=HOUR, submitted=NOW - 60, started=NOW - 50, ended=NOW - 10, user="u"
    )
    look(estimator, snapshot(finished=(done,)), ended=(done,))
    look(estimator, snapshot(taken=NOW + 10, finished=(done,)))
    assert estimator.run_times.ended == 1


@pytest.mark.parametrize("packed", [b"", b"F1", b"F1\x00rubbish", b"F2" + b"x" * 9, b"S1"])
def test_bytes_that_are_no_forecast_say_so(packed: bytes) -> None:
    with pytest.raises(ForecastUnreadableError):
        decode_forecast(packed)


def test_a_forecast_whose_parts_do_not_fit_together_says_so() -> None:
    forecast = look(StartEstimator(), snapshot())
    with pytest.raises(ForecastUnreadableError, match="do not fit"):
        Outlooks.of(msgspec.structs.replace(forecast, samples=forecast.samples + 1), StartEstimator())
