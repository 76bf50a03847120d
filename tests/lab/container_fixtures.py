"""Fixtures of the lab's containers, for every test that runs some."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab import containers
from tests.labs import require


@pytest.fixture(scope="session")
def registry() -> Iterator[containers.Registry]:
    """A registry with the lab's image."""
    lacking = containers.missing()
    require(not lacking, "; ".join(lacking))
    with containers.registry() as made:
        yield made


@pytest.fixture(scope="session")
def podman(registry: containers.Registry) -> Iterator[containers.Podman]:
    """podman with storage of the lab's own."""
    with containers.podman(registry.registries) as made:
        yield made
