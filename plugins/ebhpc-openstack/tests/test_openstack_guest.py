"""User data in a real guest: Debian with its own kernel, systemd, cloud-init and podman, under software emulation."""

from __future__ import annotations

import pytest

from tests.lab.openstack import guest
from tests.labs import require


@pytest.mark.timeout(guest.SECONDS + 300)
def test_a_real_guest_runs_the_container_tells_its_console_and_powers_off() -> None:
    lacking = guest.missing()
    require(not lacking, f"a real guest cannot be booted: {'; '.join(lacking)}")
    # Its container's words, environment and name are hostile; its exit code is 3
    assert guest.wrong(guest.booted()) == []
