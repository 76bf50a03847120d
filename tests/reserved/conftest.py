"""One broker with a local platform for all tests of reserved time that need no cluster."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.broker import ADMIN, PASSWORD, RunningBroker, local_platform, running_broker

SCRIPTS = {
    "allowed": True,
    "modules": ["lab/*"],
    "module_setup": 'module() { shift; for name in "$@"; do export "LOADED_${name#lab/}=yes"; done; }',
    "directories": ["/tmp"],
}


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    """A broker on this host; offers live for a few seconds only, so that time near now is not booked for long."""
    platform = local_platform(scripts=SCRIPTS, grace="1s")
    settings = {"platforms": [platform], "api": {"workers": 1}, "offers": {"lifetime": "5s"}}
    with running_broker(tmp_path_factory.mktemp("reserved"), settings) as running:
        yield running


@pytest.fixture(scope="session")
def http(broker: RunningBroker) -> Iterator[httpx.Client]:
    """Somebody who asks it as a program would."""
    with httpx.Client(
        base_url=broker.url,
        auth=(ADMIN, PASSWORD),
        headers={"Accept": "application/json"},
        trust_env=False,
        timeout=60,
    ) as client:
        yield client
