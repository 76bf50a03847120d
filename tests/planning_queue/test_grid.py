"""Placement on the grid of instants, against the exact one."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ebhpc.planning.queue.grid import GRID, Place, fit, profile, put, rounded
from ebhpc.planning.queue.placement import NEVER, Changes, Queue, starts

STEP = 30
amounts = st.tuples(st.integers(0, 4), st.integers(0, 4))
job = st.tuples(amounts, st.integers(1, 5), st.integers(1, 5), st.sampled_from([0, 0, 3]))
cases = st.tuples(
    st.tuples(st.integers(-1, 5), st.integers(-1, 5)),
    st.lists(st.tuples(st.integers(0, 12), amounts), max_size=5),
    st.lists(job, min_size=1, max_size=6),
)


def place(needs: tuple[int, ...], limit: float, **more: object) -> Place:
    wanted = np.array(needs, dtype=float)
    return Place.of(wanted, wanted, limit, **more)  # type: ignore[arg-type]


def nothing(quantities: int = 1) -> Changes:
    return Changes(np.zeros((1, 0)), np.zeros((0, quantities)))


@settings(max_examples=150, deadline=None)
@given(cases)
def test_where_all_happens_at_its_instants_it_finds_what_the_exact_placement_finds(case) -> None:
    free, releases, jobs = case
    # All within the part of the grid that has equal steps
    limits = [limit * STEP for _, limit, _, _ in jobs]
    runs = [min(run, limit) * STEP for _, limit, run, _ in jobs]
    times = np.array([[float(at * STEP) for at, _ in releases]]).reshape(1, len(releases))
    changes = Changes(times, np.array([amount for _, amount in releases], dtype=float).reshape(len(releases), 2))
    needs = np.array([each for each, _, _, _ in jobs], dtype=float)
    begins = np.array([float(begin * STEP) for _, _, _, begin in jobs])
    queue = Queue(needs, needs, np.array(limits, dtype=float), np.array([runs], dtype=float), begins)
    expected = starts(np.array(free, dtype=float), changes, queue)[0]
    current = profile(np.array(free, dtype=float), changes, None, samples=1)
    for number, (each, _, _, begin) in enumerate(jobs):
        asked = place(each, float(limits[number]), begin=float(begin * STEP))
        assert fit(current, asked)[0] == expected[number]
        assert put(current, asked, np.array([float(runs[number])]), None)[0] == expected[number]


def test_the_grid_has_half_minutes_at_first_and_grows_by_a_fiftieth_to_more_than_a_year() -> None:
    steps = np.diff(GRID)
    assert GRID[0] == 0
    assert steps[:50].tolist() == [30.0] * 50
    assert (steps[60:] / GRID[60:-1] < 0.0201).all()
    assert GRID[-1] >= 366 * 86_400
    assert len(GRID) < 700


def test_ends_between_two_instants_take_as_much_in_the_mean_as_they_last() -> None:
    random = np.random.default_rng(5)
    found = GRID[rounded(np.full(20_000, 10.0), random.random(20_000))]
    assert set(found.tolist()) == {0.0, 30.0}
    assert abs(found.mean() - 10.0) < 0.5
    assert GRID[rounded(np.full(3, 10.0), None)].tolist() == [30.0] * 3


def test_what_never_fits_never_starts_and_is_in_nobodys_way() -> None:
    current = profile(np.array([4.0]), nothing(), None, samples=1)
    assert put(current, place((5,), 60.0), np.array([60.0]), None).tolist() == [NEVER]
    assert put(current, place((4,), 60.0), np.array([60.0]), None).tolist() == [0.0]
    assert fit(current, place((1,), 60.0)).tolist() == [60.0]


def test_a_scheduler_that_looks_at_two_jobs_leaves_a_small_one_behind_them_until_one_has_started() -> None:
    everybody = ((("all", ""), 2),)
    current = profile(np.array([4.0]), nothing(), None, samples=1)
    found = [put(current, place((4,), 60.0, groups=everybody), np.array([60.0]), None)[0] for _ in range(3)]
    assert found == [0.0, 60.0, 120.0]
    free = profile(np.array([4.0]), Changes(np.array([[300.0]]), np.array([[4.0]])), None, samples=1)
    assert put(free, place((5,), 60.0, groups=everybody), np.array([60.0]), None)[0] == 300.0
    assert put(free, place((5,), 60.0, groups=everybody), np.array([60.0]), None)[0] == 360.0
    # One core is free all the time, but two wait before it until the first starts
    assert fit(free, place((1,), 60.0, groups=everybody))[0] == 300.0
    assert fit(free, place((1,), 60.0))[0] == 0.0


def test_without_backfill_nothing_starts_before_what_stands_before_it() -> None:
    order = ((("order", "p"), 1),)
    current = profile(np.array([4.0]), Changes(np.array([[300.0]]), np.array([[4.0]])), None, samples=1)
    assert put(current, place((6,), 60.0, groups=order), np.array([60.0]), None)[0] == 300.0
    assert fit(current, place((1,), 60.0, groups=order))[0] == 300.0
    assert fit(current, place((1,), 60.0, groups=((("order", "q"), 1),)))[0] == 0.0


def test_with_easy_backfill_a_job_may_push_back_all_but_the_first_that_waits() -> None:
    changes = Changes(np.array([[300.0, 600.0]]), np.array([[2.0], [2.0]]))

    def queue(backfill: str) -> float:
        current = profile(np.array([4.0]), changes, None, samples=1, backfill=backfill)
        # The head waits for 6 of 8 until 300 s; the second for 8 until then and longer
        put(current, place((6,), 60.0, head_of="p"), np.array([60.0]), None)
        put(current, place((8,), 900.0, head_of="p"), np.array([900.0]), None)
        return float(fit(current, place((2,), 1500.0, head_of="p"))[0])

    assert queue("conservative") > 0.0
    changes = Changes(np.array([[300.0, 600.0]]), np.array([[4.0], [2.0]]))
    assert queue("easy") == 0.0
    assert queue("conservative") > 0.0


def test_greedy_a_job_may_push_back_the_first_too() -> None:
    changes = Changes(np.array([[300.0]]), np.array([[2.0]]))

    def queue(backfill: str) -> float:
        current = profile(np.array([4.0]), changes, None, samples=1, backfill=backfill)
        assert put(current, place((6,), 60.0, head_of="p"), np.array([60.0]), None)[0] == 300.0
        return float(fit(current, place((2,), 1500.0, head_of="p"))[0])

    assert queue("easy") == 360.0
    assert queue("greedy") == 0.0


def test_what_starts_beyond_the_window_may_be_pushed_back_by_what_starts_within_it() -> None:
    changes = Changes(np.array([[1200.0]]), np.array([[2.0]]))

    def queue(window: float | None) -> tuple[float, float]:
        current = profile(np.array([4.0]), changes, None, samples=1, window=window)
        assert put(current, place((6,), 60.0), np.array([60.0]), None)[0] == 1200.0
        small = fit(current, place((2,), 3000.0))[0]
        # As large as the first: it stays behind it all the same
        return float(small), float(fit(current, place((6,), 60.0))[0])

    assert queue(None) == (1260.0, 1260.0)
    assert queue(1200.0) == (1260.0, 1260.0)
    assert queue(600.0) == (0.0, 1260.0)


def test_nothing_is_kept_free_for_tasks_beyond_those_that_are_planned() -> None:
    changes = Changes(np.array([[300.0]]), np.array([[2.0]]))

    def queue(reserved: bool) -> float:
        current = profile(np.array([4.0]), changes, None, samples=1)
        put(current, place((6,), 60.0), np.array([60.0]), None)
        assert put(current, place((6,), 60.0, reserved=reserved), np.array([60.0]), None)[0] == 360.0
        return float(fit(current, place((6,), 60.0))[0])

    assert queue(True) == 420.0
    assert queue(False) == 360.0
    # What starts at once takes what it takes, planned or not
    current = profile(np.array([4.0]), nothing(), None, samples=1)
    assert put(current, place((4,), 60.0, reserved=False), np.array([60.0]), None)[0] == 0.0
    assert fit(current, place((4,), 60.0))[0] == 60.0
