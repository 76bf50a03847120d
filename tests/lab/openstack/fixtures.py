"""Fixtures with a cloud, one in a test session: ``pytest_plugins = ["tests.lab.openstack.fixtures"]``.

- ``openstack``: the cloud;
- ``clean_openstack``: the same, made clean before the test: no server, quotas as they were.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.openstack import Cloud, missing, openstack_cloud
from tests.labs import require


@pytest.fixture(scope="session")
def openstack() -> Iterator[Cloud]:
    """A cloud of three hypervisors."""
    lacking = missing()
    require(not lacking, f"the OpenStack lab cannot run: {'; '.join(lacking)}")
    with openstack_cloud() as cloud:
        yield cloud


@pytest.fixture
def clean_openstack(openstack: Cloud) -> Cloud:
    """The cloud, without anything that tests before have left."""
    openstack.clean()
    return openstack
