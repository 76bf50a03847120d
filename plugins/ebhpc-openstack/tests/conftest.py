"""One cloud for all tests of a session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from openstack_lab import Place

from tests.lab.openstack import Cloud
from tests.lab.openstack.fixtures import openstack

__all__ = ["openstack"]


@pytest.fixture
def place(openstack: Cloud, tmp_path: Path) -> Iterator[Place]:
    """The cloud, without anything that tests before have left, and platforms on it."""
    openstack.clean()
    here = Place(openstack, tmp_path)
    yield here
    here.close()
