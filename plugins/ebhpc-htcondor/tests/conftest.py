"""One pool for all tests of a session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from htcondor_lab import Place

from tests.lab.htcondor import Pool
from tests.lab.htcondor.fixtures import htcondor

__all__ = ["htcondor"]


@pytest.fixture
def place(htcondor: Pool, tmp_path: Path) -> Iterator[Place]:
    """The pool, without anything that tests before have left, and platforms on it."""
    htcondor.clean()
    here = Place(htcondor, tmp_path)
    yield here
    here.close()
