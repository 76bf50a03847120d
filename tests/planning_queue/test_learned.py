"""What was learned, kept as bytes and taken up again."""

from __future__ import annotations

import numpy as np
import pytest

from ebhpc.planning import FinishedJob, Snapshot
from ebhpc.planning.queue import (
    LearnedUnreadableError,
    StartEstimator,
    accuracy,
    accuracy_of_starts,
    look,
    pack_learned,
    unpack_learned,
)
from ebhpc.planning.queue.accuracy import Start
from ebhpc.planning.queue.runtimes import Asked
from tests.planning_queue.test_expected import HOUR, NOW, nodes, running, snapshot, waiting


def day(number: int, clock: int) -> Snapshot:
    """One node, always one running and two waiting; jobs ask for an hour and run for five minutes."""
    done = ()
    if number:
        done = (
            FinishedJob(
                id=str(number - 1),
                nodes=1,
                cores=4,
                time_limit=HOUR,
                submitted=clock - 900,
                started=clock - 300,
                ended=clock,
                user=f"u{number % 3}",
                account="a",
            ),
        )
    return snapshot(
        taken=clock,
        nodes=nodes(1),
        running=(running(str(number), "n0", started=clock, ends=clock + HOUR),),
        waiting=tuple(waiting(str(number + more), submitted=clock, user=f"u{number % 3}") for more in (1, 2)),
        finished=done,
    )


@pytest.fixture(scope="module")
def taught() -> StartEstimator:
    estimator = StartEstimator(seed=3)
    for number in range(130):
        look(estimator, day(number, NOW + 300 * number))
    return estimator


def test_one_that_goes_on_answers_as_the_one_before_would(taught: StartEstimator) -> None:
    packed = pack_learned(taught)
    again = unpack_learned(packed)
    assert again.known == taught.known == 129
    assert again.levels == taught.levels
    assert again.promises.keys() == taught.promises.keys()
    assert again.finished == taught.finished
    assert list(again.outcomes) == list(taught.outcomes)
    simulated, situation = np.sort(np.linspace(100.0, 5000.0, 49)), tuple(float(each) for each in range(11))
    one, _ = taught.foresee(simulated, 7000.0, situation, "u1")
    other, _ = again.foresee(simulated, 7000.0, situation, "u1")
    assert other == one
    asked = Asked(size=4, limit=HOUR, user="u1", account=None, partition=None)
    assert np.allclose(again.run_times.quantiles(asked), taught.run_times.quantiles(asked), rtol=2e-3)
    # And it goes on learning
    look(again, day(130, NOW + 300 * 130))
    assert again.known == 130


def test_one_that_only_answers_needs_no_run_times_but_their_means(taught: StartEstimator) -> None:
    reader = unpack_learned(pack_learned(taught), to_learn=False)
    assert reader.known == taught.known
    assert reader.promises == {}
    assert reader.run_times.mean_ratio("u1") == pytest.approx(taught.run_times.mean_ratio("u1"), rel=1e-2)
    assert reader.run_times.mean_ratio("unknown") == pytest.approx(300 / HOUR, rel=1e-2)


def test_after_a_day_of_such_jobs_starts_are_foreseen_better_than_by_the_plan(taught: StartEstimator) -> None:
    found = accuracy(taught.outcomes)
    assert found.starts > 100
    assert found.planned_error is not None
    assert found.median_error < found.planned_error / 5
    assert found.inside > 0.7
    assert found.inside + found.early + found.late == pytest.approx(1.0)


@pytest.mark.parametrize(
    "damage", [lambda it: b"", lambda it: it[:-9], lambda it: b"L0" + it[2:], lambda it: it[:60] + it[70:]]
)
def test_what_is_damaged_or_of_another_version_says_so(taught: StartEstimator, damage) -> None:
    with pytest.raises(LearnedUnreadableError):
        unpack_learned(damage(pack_learned(taught)))


def test_however_many_kinds_users_and_jobs_come_it_stays_small() -> None:
    estimator = StartEstimator()
    for number in range(30_000):
        estimator.run_times.end(Asked(size=number, limit=60 + number, user=f"user-{number}"), 30.0)
    crowd = snapshot(
        finished=tuple(
            FinishedJob(
                id=f"job-{number}", nodes=1, cores=1, time_limit=60, submitted=NOW - 9, started=NOW - 8, ended=NOW - 1
            )
            for number in range(15_000)
        ),
        waiting=tuple(waiting(f"waits-{number}", user=f"user-{number}") for number in range(5000)),
    )
    for round in range(15):
        look(
            estimator,
            Snapshot(platform="p", taken=NOW + round, nodes=nodes(2), waiting=crowd.waiting, finished=crowd.finished),
        )
    assert len(estimator.finished) <= 10_000
    assert len(estimator.promises) <= 2000
    assert len(estimator.run_times.known) <= 12_000
    assert len(pack_learned(estimator)) < 4_000_000
    assert unpack_learned(pack_learned(estimator)).promises.keys() == estimator.promises.keys()


def test_starts_of_sessions_are_compared_with_their_promises() -> None:
    found = accuracy_of_starts(
        [
            Start(earliest=100, latest=200, expected=150, started=160.7),
            Start(earliest=100, latest=200, expected=150, started=90.0),
            Start(earliest=100, latest=200, expected=150, started=250.0),
            Start(earliest=100, latest=300, expected=150, started=None),
        ]
    )
    assert (found.starts, found.inside, found.early, found.late) == (4, 0.25, 0.25, 0.5)
    assert found.mean_error == pytest.approx((10 + 60 + 100) / 3)
    assert found.width == 125
    assert accuracy_of_starts([]).starts == 0
    assert accuracy([]).starts == 0
