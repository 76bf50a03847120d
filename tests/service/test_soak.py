"""A few seconds of ``make soak``: many users, and processes that are killed, on PostgreSQL."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from bench.soak import growth, soak
from ebhpc.model import FINAL


@pytest.mark.postgresql
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_under_load_and_kills_nothing_is_sold_twice_lost_or_run_twice(tmp_path: Path):
    outcome = soak(tmp_path, seconds=16, users=12, calm=2, pause=2.5, think=4, seed=7)
    assert len(outcome.killed) == 4, "each kind of process was killed"
    assert outcome.ended, "nobody got through"
    assert set(outcome.ended.values()) <= FINAL
    assert outcome.load.deeds["let expire"] > 0
    assert {status for status in outcome.load.statuses if status.isdecimal()} <= {"200", "303", "409", "503"}


def test_growth_is_seen_within_the_lives_of_processes_and_not_from_one_to_the_next():
    chance = random.Random(3)

    def life(level: float, slope: float, until: int) -> list[tuple[float, float]]:
        return [(age, 1e6 * (level + slope * age / 60 + chance.gauss(0, 0.05))) for age in range(60, until, 2)]

    # Younger processes are larger here: a line through all of them together would fall
    flat = growth([life(80, 0, 240), life(90, 0, 120), life(70, 0, 500)])
    grows = growth([life(80, 1.5, 240), life(90, 1.5, 120), life(70, 1.5, 500)])
    assert flat is not None
    assert grows is not None
    assert abs(flat.slope) < 0.05
    assert flat.error < 0.05
    assert abs(grows.slope - 1.5) < 0.05
    assert (flat.processes, round(flat.oldest)) == (3, 498)
    # A staircase is no line: its neighbours are alike, and the interval says so
    steps = growth([[(age, 80e6 + 4e6 * (age // 60 % 2)) for age in range(60, 500, 2)]])
    assert steps is not None
    assert steps.error > abs(steps.slope)
    assert growth([]) is None
