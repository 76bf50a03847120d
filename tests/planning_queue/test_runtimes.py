"""Run times learned from jobs that ended."""

from __future__ import annotations

import numpy as np

from ebhpc.planning.queue.runtimes import STEPS, Asked, RunTimes, remaining


def asked(user: str = "u", size: int = 4, limit: int = 1000) -> Asked:
    return Asked(size=size, limit=limit, user=user, account="a", partition="p")


def test_on_the_first_day_run_times_lie_anywhere_below_the_limit_with_a_heap_at_it() -> None:
    quantiles = RunTimes().quantiles(asked())
    assert quantiles.shape == (STEPS,)
    assert (np.diff(quantiles) >= 0).all()
    assert 0 < quantiles[0] < 100
    assert quantiles[-1] == 1000
    assert 300 < np.median(quantiles) < 800


def test_a_few_jobs_of_the_same_kind_outweigh_the_prior() -> None:
    known = RunTimes()
    for _ in range(5):
        known.end(asked(), 100)
    assert np.median(known.quantiles(asked())) == 100
    assert known.quantiles(asked())[-1] > 100, "five jobs are no proof that none runs longer"


def test_what_a_user_does_says_little_of_another_who_has_a_history() -> None:
    known = RunTimes()
    for _ in range(30):
        known.end(asked("short"), 10)
        known.end(asked("long"), 990)
    assert np.median(known.quantiles(asked("short"))) == 10
    assert np.median(known.quantiles(asked("long"))) == 990


def test_another_limit_of_the_same_user_is_judged_by_the_share_of_the_limit() -> None:
    known = RunTimes()
    for _ in range(30):
        known.end(asked(limit=1000), 500)
    assert np.median(known.quantiles(asked(limit=200))) == 100


def test_run_times_far_above_the_limit_and_jobs_of_no_time_do_no_harm() -> None:
    known = RunTimes()
    for _ in range(30):
        known.end(asked(limit=10), 10_000)
        known.end(asked(limit=0), 5)
    assert known.quantiles(asked(limit=10))[-1] <= 11
    assert np.isfinite(known.quantiles(asked(limit=0))).all()


def test_a_job_that_has_run_for_long_ends_after_now_by_what_outlived_that() -> None:
    table = np.linspace(10, 1000, STEPS)[np.newaxis]
    uniform = (np.arange(50)[np.newaxis] + 0.5) / 50
    left = remaining(table, np.array([500.0]), uniform)
    assert left.min() >= 1
    assert left.max() <= 500
    assert 200 < left.mean() < 300


def test_the_longer_a_job_is_over_all_that_is_known_the_longer_it_is_expected_to_go_on() -> None:
    table = np.full((1, STEPS), 100.0)
    uniform = (np.arange(50)[np.newaxis] + 0.5) / 50
    soon = remaining(table, np.array([110.0]), uniform).mean()
    late = remaining(table, np.array([4000.0]), uniform).mean()
    assert 1 <= soon <= 120
    assert late > 1000
