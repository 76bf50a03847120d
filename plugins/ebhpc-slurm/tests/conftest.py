"""One cluster of each version for all tests, asked in every way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_lab import Place

from tests.lab.slurm import Cluster
from tests.lab.slurm.fixtures import slurm_2411, slurm_2605

__all__ = ["slurm_2411", "slurm_2605"]

PLACES = ("26.05 commands", "26.05 pyslurm", "26.05 ssh", "24.11 commands")


def _place(request: pytest.FixtureRequest, name: str, tmp_path: Path) -> Iterator[Place]:
    version, transport = name.split()
    cluster: Cluster = request.getfixturevalue(f"slurm_{version.replace('.', '')}")
    cluster.clean()
    yield Place(cluster, transport, tmp_path)


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Each version, asked in each way that it has."""
    yield from _place(request, request.param, tmp_path)


@pytest.fixture(params=("26.05 commands", "26.05 pyslurm"))
def newest(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """The newest version, by its commands and by pyslurm."""
    yield from _place(request, request.param, tmp_path)


@pytest.fixture
def here(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """The newest version, by its commands."""
    yield from _place(request, "26.05 commands", tmp_path)
