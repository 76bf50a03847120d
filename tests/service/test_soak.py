"""A few seconds of ``make soak``: many users, and processes that are killed, on PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.soak import soak
from ebhpc.model import FINAL


@pytest.mark.postgresql
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_under_load_and_kills_nothing_is_sold_twice_lost_or_run_twice(tmp_path: Path):
    outcome = soak(tmp_path, seconds=16, users=12, calm=2, pause=2.5, think=4, seed=7)
    assert len(outcome.killed) == 4, "each kind of process was killed"
    assert outcome.ended, "nobody got through"
    assert set(outcome.ended.values()) <= FINAL
    assert outcome.load.deeds["let expire"] > 0
    assert {status for status in outcome.load.statuses if status.isdecimal()} <= {"200", "303", "409", "503"}
