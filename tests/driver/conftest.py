"""Fixtures of the driver's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.driver.world import World


@pytest.fixture
def world(ready_database_url: str) -> Iterator[World]:
    """A broker with one scripted platform, on each engine."""
    made = World(ready_database_url)
    yield made
    made.close()


@pytest.fixture
def two_platforms(ready_database_url: str) -> Iterator[World]:
    """A broker with the scripted platforms tin and zinc, on each engine."""
    made = World(ready_database_url, ("tin", "zinc"))
    yield made
    made.close()
