"""Placement against a scheduler that looks at every second."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ebhpc.planning.queue.placement import NEVER, Changes, Queue, starts

QUANTITIES = 2
HORIZON = 160
"""After this second nothing changes in any case."""


@dataclass
class Job:
    needs: tuple[int, ...]
    takes: tuple[int, ...]
    limit: int
    runs: tuple[int, ...]
    begin: int


@dataclass
class Case:
    free: tuple[int, ...]
    changes: list[tuple[tuple[int, ...], tuple[int, ...]]]
    jobs: list[Job]


SAMPLES = 2
amounts = st.tuples(*[st.integers(0, 4)] * QUANTITIES)


@st.composite
def jobs(draw: st.DrawFn) -> Job:
    limit = draw(st.integers(1, 12))
    needs = draw(amounts)
    return Job(
        needs=needs,
        takes=draw(st.sampled_from([needs, tuple(amount // 2 for amount in needs)])),
        limit=limit,
        runs=draw(st.tuples(*[st.integers(0, limit)] * SAMPLES)),
        begin=draw(st.sampled_from([0, 0, 0, 7])),
    )


cases = st.builds(
    Case,
    free=st.tuples(*[st.integers(-2, 5)] * QUANTITIES),
    changes=st.lists(
        st.tuples(st.tuples(*[st.integers(-3, 20)] * SAMPLES), st.tuples(*[st.integers(-2, 4)] * QUANTITIES)),
        max_size=5,
    ),
    jobs=st.lists(jobs(), min_size=1, max_size=6),
)


def second_by_second(case: Case, sample: int) -> list[float]:
    """Try every second in turn, looking at every second of the window."""
    free = [list(case.free) for _ in range(HORIZON)]
    for moments, change in case.changes:
        for second in range(max(moments[sample], 0), HORIZON):
            for quantity in range(QUANTITIES):
                free[second][quantity] += change[quantity]
    found = []
    for job in case.jobs:
        start = next(
            (
                second
                for second in range(job.begin, HORIZON - 12)
                if all(
                    free[each][quantity] >= job.needs[quantity]
                    for each in range(second, second + job.limit)
                    for quantity in range(QUANTITIES)
                    if job.needs[quantity]
                )
            ),
            None,
        )
        found.append(NEVER if start is None else float(start))
        if start is not None:
            for second in range(start, start + job.runs[sample]):
                for quantity in range(QUANTITIES):
                    free[second][quantity] -= job.takes[quantity]
    return found


def placed(case: Case) -> list[list[float]]:
    found = starts(
        np.array(case.free, dtype=float),
        Changes(
            np.array([moments for moments, _ in case.changes], dtype=float).reshape(-1, SAMPLES).T,
            np.array([change for _, change in case.changes], dtype=float).reshape(-1, QUANTITIES),
        ),
        Queue(
            needs=np.array([job.needs for job in case.jobs], dtype=float),
            takes=np.array([job.takes for job in case.jobs], dtype=float),
            limits=np.array([job.limit for job in case.jobs], dtype=float),
            runs=np.array([job.runs for job in case.jobs], dtype=float).T,
            begins=np.array([job.begin for job in case.jobs], dtype=float),
        ),
    )
    return [[float(start) for start in row] for row in found]


@settings(max_examples=400, deadline=None)
@given(cases)
def test_each_job_starts_at_the_first_second_at_which_all_that_it_needs_is_free_for_its_limit(case: Case) -> None:
    assert placed(case) == [second_by_second(case, sample) for sample in range(SAMPLES)]


def test_a_short_job_fills_a_gap_that_harms_nobody() -> None:
    case = Case(
        free=(1, 0),
        changes=[((10, 10), (3, 0))],
        jobs=[
            Job(needs=(4, 0), takes=(4, 0), limit=5, runs=(5, 5), begin=0),
            Job(needs=(1, 0), takes=(1, 0), limit=10, runs=(2, 10), begin=0),
            Job(needs=(1, 0), takes=(1, 0), limit=11, runs=(1, 1), begin=0),
        ],
    )
    # The last job's limit of 11 s fits before nothing, its run of 1 s does not matter
    assert placed(case) == [[10.0, 0.0, 15.0], [10.0, 0.0, 15.0]]


def test_a_job_larger_than_all_there_will_be_never_starts_and_holds_nobody_up() -> None:
    case = Case(
        free=(2, 0),
        changes=[],
        jobs=[
            Job(needs=(3, 0), takes=(3, 0), limit=5, runs=(5, 5), begin=0),
            Job(needs=(2, 0), takes=(2, 0), limit=5, runs=(5, 5), begin=0),
        ],
    )
    assert placed(case) == [[NEVER, 0.0], [NEVER, 0.0]]
