"""Fixtures with a pool, one in a test session: ``pytest_plugins = ["tests.lab.htcondor.fixtures"]``.

- ``htcondor``: the pool;
- ``clean_htcondor``: the same, made clean before the test: nothing queued or reserved, all daemons up.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.htcondor import Pool, htcondor_pool, missing
from tests.labs import require


def running_pool() -> Iterator[Pool]:
    """Run a pool of three machines while a fixture lasts."""
    lacking = missing()
    require(not lacking, f"the HTCondor lab cannot run: {'; '.join(lacking)}")
    with htcondor_pool() as pool:
        yield pool


@pytest.fixture(scope="session")
def htcondor() -> Iterator[Pool]:
    """A pool of three machines."""
    yield from running_pool()


@pytest.fixture
def clean_htcondor(htcondor: Pool) -> Pool:
    """The pool, without anything that tests before have left."""
    htcondor.clean()
    return htcondor
