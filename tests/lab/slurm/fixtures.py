"""Fixtures with Slurm clusters, one of each version in a test session.

``pytest_plugins = ["tests.lab.slurm.fixtures"]`` in a test module brings them in:

- ``slurm_2605``, ``slurm_2411``: a cluster of this version;
- ``slurm``: the test runs once with each;
- ``clean_slurm``: the same, made clean before the test: nothing queued or reserved, all daemons up, all nodes idle.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.slurm import VERSIONS, Cluster, missing, slurm_cluster
from tests.labs import require


def _cluster(version: str) -> Iterator[Cluster]:
    lacking = missing()
    require(not lacking, f"the Slurm lab cannot run: {'; '.join(lacking)}")
    with slurm_cluster(version) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def slurm_2605() -> Iterator[Cluster]:
    """A cluster of Slurm 26.05, with pyslurm inside."""
    yield from _cluster("26.05")


@pytest.fixture(scope="session")
def slurm_2411() -> Iterator[Cluster]:
    """A cluster of Slurm 24.11, without pyslurm."""
    yield from _cluster("24.11")


@pytest.fixture(scope="session", params=VERSIONS)
def slurm(request: pytest.FixtureRequest) -> Cluster:
    """A cluster of each version in turn."""
    found: Cluster = request.getfixturevalue(f"slurm_{request.param.replace('.', '')}")
    return found


@pytest.fixture
def clean_slurm(slurm: Cluster) -> Cluster:
    """A cluster of each version in turn, without anything that tests before have left."""
    slurm.clean()
    return slurm
