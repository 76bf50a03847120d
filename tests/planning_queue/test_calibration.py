"""Levels that correct themselves."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ebhpc.planning.queue.calibration import TAIL, Levels


def test_a_distribution_that_is_much_too_narrow_is_corrected_to_the_promised_share() -> None:
    random = np.random.default_rng(1)
    levels = Levels()
    believed = np.sort(random.normal(0, 1, 10_000))
    outside = []
    for _ in range(3000):
        low, high = believed[[int(levels.before * 9999), int((1 - levels.after) * 9999)]]
        real = random.normal(0.5, 1.5)
        outside.append((real < low, real > high))
        levels = levels.learn(early=real < low, late=real > high)
    early, late = np.array(outside[500:]).mean(axis=0)
    assert abs(early - TAIL) < 0.02
    assert abs(late - TAIL) < 0.02


@given(st.lists(st.sampled_from(["early", "late", "inside"]), max_size=300))
def test_levels_stay_levels_whatever_happens(outcomes: list[str]) -> None:
    levels = Levels()
    for outcome in outcomes:
        levels = levels.learn(early=outcome == "early", late=outcome == "late")
    assert 0 < levels.before < 0.5
    assert 0 < levels.after < 0.5
    assert levels.known == len(outcomes)
