"""The forest that finds past cases like the present one."""

from __future__ import annotations

import numpy as np

from ebhpc.planning.queue.forest import Forest


def taught(cases: int, capacity: int, seed: int = 3) -> tuple[Forest, np.ndarray]:
    """A forest that has seen targets that are 10 where the first of four features is above ½, else 0."""
    random = np.random.default_rng(seed)
    forest = Forest(4, capacity, np.random.default_rng(seed))
    targets = np.zeros(capacity)
    for _ in range(cases):
        features = random.random(4)
        target = 10.0 * (features[0] > 0.5)
        targets[forest.learn(features, target)] = target
    return forest, targets


def test_weights_sum_to_one_and_fall_on_cases_that_are_alike_in_what_matters() -> None:
    forest, targets = taught(800, 1000)
    for first, expected in ((0.1, 0.0), (0.9, 10.0)):
        weights = forest.weights(np.array([first, 0.5, 0.5, 0.5]))
        assert weights.shape == (800,)
        assert np.isclose(weights.sum(), 1)
        assert abs(weights @ targets[:800] - expected) < 1


def test_with_more_cases_than_places_the_oldest_are_forgotten() -> None:
    forest, targets = taught(1500, 400)
    weights = forest.weights(np.array([0.9, 0.5, 0.5, 0.5]))
    assert weights.shape == (400,)
    assert abs(weights @ targets - 10) < 1.5


def test_a_change_is_followed_by_new_cases() -> None:
    forest, targets = taught(600, 600)
    random = np.random.default_rng(5)
    for _ in range(600):
        features = random.random(4)
        targets[forest.learn(features, 3.0)] = 3.0
    assert abs(forest.weights(np.array([0.9, 0.5, 0.5, 0.5])) @ targets - 3) < 1e-6


def test_targets_that_are_all_the_same_leave_one_leaf() -> None:
    forest = Forest(2, 100, np.random.default_rng(1))
    for index in range(100):
        forest.learn(np.array([index, 0.0]), 1.0)
    assert np.allclose(forest.weights(np.array([3.0, 0.0])), 0.01)


def test_few_cases_make_no_forest() -> None:
    forest, _ = taught(20, 100)
    assert not forest.grown
