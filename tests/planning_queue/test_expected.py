"""Expected starts from a platform's snapshots."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from ebhpc.model.sessions import Allocation, Demand, Shape
from ebhpc.planning import (
    Booking,
    FinishedJob,
    Node,
    NodeState,
    Partition,
    Reservation,
    RunningJob,
    Snapshot,
    WaitingJob,
)
from ebhpc.planning.queue import StartEstimator, expected_start, observe, pack_learned, queue_of, unpack_learned

NOW = 1_700_000_000
HOUR = 3600


def nodes(count: int, **more: object) -> tuple[Node, ...]:
    return tuple(
        msgspec.structs.replace(Node(name=f"n{index}", cores=4, memory=8192), **more) for index in range(count)
    )


def whole(*names: str, cores: int = 4, memory: int = 8192) -> tuple[Allocation, ...]:
    return tuple(Allocation(node=name, cores=cores, memory=memory) for name in names)


def running(id: str, *names: str, ends: int | None = NOW + HOUR, **more: object) -> RunningJob:
    job = RunningJob(id=id, allocations=whole(*names), started=NOW - HOUR, ends=ends, user="u")
    return msgspec.structs.replace(job, **more)


def waiting(id: str, **more: object) -> WaitingJob:
    job = WaitingJob(id=id, shape=Shape(cores=4, memory=8192), time_limit=HOUR, submitted=NOW - 60, user="u")
    return msgspec.structs.replace(job, **more)


def demand(**more: object) -> Demand:
    asked = Demand(least=Shape(cores=4, memory=1024), duration=HOUR, earliest=NOW, latest=NOW + 90 * HOUR)
    return msgspec.structs.replace(asked, **more)


def snapshot(**more: object) -> Snapshot:
    return msgspec.structs.replace(Snapshot(platform="p", taken=NOW, nodes=nodes(2)), **more)


def planned(state: Snapshot, asked: Demand, *bookings: Booking) -> int | None:
    """When the plan on limits has the demand start, in seconds from now; None: never."""
    answer = expected_start(state, asked, StartEstimator(), now=NOW, bookings=bookings)
    return None if answer is None else answer.planned - NOW


def test_on_an_idle_machine_it_starts_now() -> None:
    answer = expected_start(snapshot(), demand(), StartEstimator(), now=NOW)
    assert answer is not None
    assert (answer.earliest, answer.median, answer.latest, answer.planned) == (NOW, NOW, NOW, NOW)


def test_on_a_full_machine_it_starts_before_the_first_limit_or_then() -> None:
    full = snapshot(running=(running("1", "n0"), running("2", "n1", ends=NOW + 5 * HOUR)))
    answer = expected_start(full, demand(), StartEstimator(), now=NOW)
    assert answer is not None
    assert answer.planned == NOW + HOUR
    assert NOW <= answer.earliest <= answer.median <= answer.latest <= NOW + HOUR
    assert answer.median < NOW + HOUR


def test_waiting_jobs_come_first_and_held_ones_do_not_count() -> None:
    full = snapshot(
        running=(running("1", "n0", "n1"),), waiting=(waiting("2", nodes=2), waiting("3", nodes=2, held=True))
    )
    assert planned(full, demand()) == 2 * HOUR


def test_a_partition_of_higher_priority_goes_first_and_a_disjoint_one_does_not_matter() -> None:
    both = (
        Partition(name="low", nodes=("n0",), default=True),
        Partition(name="high", nodes=("n0",), priority=9),
        Partition(name="other", nodes=("n1",)),
    )
    full = snapshot(
        partitions=both,
        running=(running("1", "n0"),),
        waiting=(waiting("2", partitions=("low",)), waiting("3", partitions=("other",), time_limit=50 * HOUR)),
    )
    assert planned(full, demand(partition="low")) == 2 * HOUR
    assert planned(full, demand()) == 2 * HOUR
    assert planned(full, demand(partition="high")) == HOUR
    assert planned(full, demand(partition="other")) == 50 * HOUR


def test_features_and_size_of_nodes_are_respected_and_nodes_that_are_not_up_do_not_count() -> None:
    mixed = snapshot(
        nodes=(
            Node(name="n0", cores=4, memory=8192),
            Node(name="n1", cores=4, memory=8192, features=("fast",)),
            Node(name="n2", cores=64, memory=8192, state=NodeState.DRAINED),
        ),
        running=(running("1", "n1"),),
    )
    assert planned(mixed, demand()) == 0
    assert planned(mixed, demand(features=("fast",))) == HOUR
    assert planned(mixed, demand(least=Shape(cores=5, memory=1))) is None
    assert planned(mixed, demand(nodes=3)) is None
    assert planned(mixed, demand(least=Shape(cores=1, memory=1, devices={"gpu": 1}))) is None


def test_a_device_is_a_quantity_of_its_own() -> None:
    gpus = snapshot(
        nodes=(Node(name="n0", cores=4, memory=8192, devices={"gpu": 1}),),
        running=(
            RunningJob(
                id="1",
                allocations=(Allocation(node="n0", cores=1, memory=1, devices={"gpu": 1}),),
                started=NOW - 60,
                ends=NOW + 60,
            ),
        ),
    )
    assert planned(gpus, demand(least=Shape(cores=1, memory=1))) == 0
    assert planned(gpus, demand(least=Shape(cores=1, memory=1, devices={"gpu": 1}))) == 60


def test_reservations_and_bookings_are_kept_and_jobs_in_a_reservation_do_not_count_twice() -> None:
    maintenance = Reservation(
        name="m", start=NOW + 600, end=NOW + 2 * HOUR, allocations=whole("n0", "n1", cores=1), maintenance=True
    )
    assert planned(snapshot(reservations=(maintenance,)), demand()) == 2 * HOUR
    assert planned(snapshot(reservations=(maintenance,)), demand(duration=600)) == 0
    booking = Booking(id=1, session="s", node="n0", start=NOW - 5, end=NOW + 500, cores=4, memory=1)
    other = Booking(id=2, session="t", node="n1", start=NOW + 5, end=NOW + 900, cores=4, memory=1)
    assert planned(snapshot(), demand(), booking, other) == 500
    running_one = Reservation(name="r", start=NOW - 60, end=NOW + 300, allocations=whole("n0"))
    inside = snapshot(nodes=nodes(1), reservations=(running_one,), running=(running("1", "n0", reservation="r"),))
    assert planned(inside, demand()) == 300


def test_jobs_without_a_limit_past_their_limit_and_on_nodes_that_vanished_give_answers() -> None:
    strange = snapshot(
        nodes=nodes(1),
        running=(running("1", "n0", ends=None), running("2", "gone"), running("3", "n0", ends=NOW - 9000)),
        waiting=(waiting("4", time_limit=None, nodes=0), waiting("5", nodes=70)),
    )
    answer = expected_start(strange, demand(), StartEstimator(), now=NOW)
    assert answer is not None
    assert NOW <= answer.earliest <= answer.median <= answer.latest


def test_an_old_snapshot_gives_no_start_in_the_past_and_tells_its_age() -> None:
    answer = expected_start(snapshot(), demand(), StartEstimator(), now=NOW + 300)
    assert answer is not None
    assert (answer.earliest, answer.age) == (NOW + 300, 300)


def test_what_may_only_begin_later_begins_then() -> None:
    answer = expected_start(snapshot(), demand(earliest=NOW + HOUR), StartEstimator(), now=NOW)
    assert answer is not None
    assert answer.earliest == answer.latest == NOW + HOUR


def test_a_site_without_nodes_has_no_start() -> None:
    assert planned(snapshot(nodes=()), demand()) is None


def test_asking_leaves_no_trace_in_what_was_learned() -> None:
    estimator = StartEstimator()
    full = snapshot(running=(running("1", "n0", "n1"),))
    first = expected_start(full, demand(), estimator, now=NOW)
    assert expected_start(full, demand(), estimator, now=NOW) == first
    assert estimator.known == 0
    assert estimator.known_jobs() <= {"1"}


def test_overlapping_pools_take_from_one_another_in_proportion() -> None:
    state, place = queue_of(
        snapshot(
            nodes=nodes(4),
            partitions=(
                Partition(name="all", nodes=("n0", "n1", "n2", "n3"), default=True),
                Partition(name="half", nodes=("n0", "n1")),
            ),
            waiting=(waiting("1"),),
        ),
        demand(partition="half"),
    )
    assert place == 1
    cores = np.array(state.waiting[0].takes)[::2]
    assert cores.tolist() == [4.0, 2.0]


def test_snapshots_teach_it_when_jobs_start_and_how_long_they_run() -> None:
    estimator = StartEstimator(seed=4)
    clock = NOW
    # One node; each job asks for an hour, runs for five minutes; one more is always waiting behind it
    for number in range(150):
        current, following = str(number), str(number + 1)
        done = ()
        if number:
            done = (
                FinishedJob(
                    id=str(number - 1),
                    nodes=1,
                    cores=4,
                    time_limit=HOUR,
                    submitted=clock - 600,
                    started=clock - 300,
                    ended=clock,
                    user="u",
                ),
            )
        observe(
            estimator,
            snapshot(
                taken=clock,
                nodes=nodes(1),
                running=(running(current, "n0", started=clock, ends=clock + HOUR),),
                waiting=(waiting(following, submitted=clock),),
                finished=done,
            ),
        )
        clock += 300
    assert estimator.known == 149
    assert len(estimator.known_jobs()) <= 4
    busy = snapshot(taken=clock, nodes=nodes(1), running=(running("x", "n0", started=clock, ends=clock + HOUR),))
    answer = expected_start(busy, demand(earliest=clock), estimator, now=clock, user="u")
    assert answer is not None
    assert answer.planned == clock + HOUR
    assert abs(answer.median - clock - 300) <= 60
    assert answer.latest - answer.earliest <= 900


def test_a_start_before_its_simulated_one_is_learned_from_when_that_has_come() -> None:
    estimator = StartEstimator()
    full = snapshot(nodes=nodes(1), running=(running("1", "n0"),), waiting=(waiting("2"),))
    observe(estimator, full)
    promised = estimator.promised("2")
    assert promised is not None
    assert promised.median > 600
    # It starts after a minute, as its forerunner ended early
    soon = snapshot(taken=NOW + 120, nodes=nodes(1), running=(running("2", "n0", started=NOW + 60, ends=NOW + 4000),))
    observe(estimator, soon)
    assert (estimator.known, len(estimator.outcomes), len(estimator.early)) == (0, 1, 1)
    again = unpack_learned(pack_learned(estimator))
    assert again.early[0].wait == 60
    for one in (estimator, again):
        due = one.early[0].due
        assert due - NOW == pytest.approx(promised.median, abs=60)
        one.waiting(due - 1)
        assert one.known == 0
        one.waiting(due)
        assert (one.known, one.early) == (1, [])
        assert one.shift < 0


def test_many_early_starts_do_not_heap_up() -> None:
    estimator = StartEstimator()
    crowd = tuple(waiting(f"w{number}") for number in range(200))
    observe(estimator, snapshot(nodes=nodes(1), running=(running("1", "n0"),), waiting=crowd))
    one = estimator.promises["w199"]
    for number in range(3000):
        estimator.promises[f"more-{number}"] = one
        estimator.started(f"more-{number}", one.made + 60)
    assert len(estimator.early) == 2000
    assert estimator.known == 1000


def test_jobs_that_vanish_are_forgotten() -> None:
    estimator = StartEstimator()
    observe(estimator, snapshot(running=(running("1", "n0", "n1"),), waiting=(waiting("2"),)))
    assert estimator.promised("2") is not None
    observe(estimator, snapshot(taken=NOW + 60))
    assert estimator.promised("2") is None
    assert estimator.known_jobs() == set()
