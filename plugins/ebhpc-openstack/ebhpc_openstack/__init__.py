"""Clouds of OpenStack as platforms of ebhpc: the kind ``openstack``.

``ebhpc_platform`` builds one (``ebhpc_openstack.platform.OpenStackPlatform``, or where leases of Blazar are offered
``ebhpc_openstack.leased_platform.LeasedPlatform``, with the settings
``ebhpc_openstack.settings.OpenStackSettings``). ``ebhpc_openstack.asking.LoginHost`` is how the cloud is asked, by a
program of ours on its login host (``ebhpc_openstack.agent``); ``ebhpc_openstack.guest`` makes what a server runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ebhpc.batch.ssh import SshConnection
from ebhpc.config import read_settings
from ebhpc.hookspecs import hookimpl
from ebhpc_openstack.asking import LoginHost
from ebhpc_openstack.forwarding import Forwards
from ebhpc_openstack.leased_platform import LeasedPlatform
from ebhpc_openstack.platform import OpenStackPlatform
from ebhpc_openstack.settings import OpenStackSettings


@hookimpl
def ebhpc_platform(kind: str, name: str, settings: Mapping[str, Any], state: Path) -> object | None:
    """Build a platform of the kind ``openstack``.

    Raises:
        ebhpc.config.SettingsError: a setting is wrong.
    """
    if kind != "openstack":
        return None
    read = read_settings(OpenStackSettings, settings)
    host = LoginHost(SshConnection(read.ssh), cloud=read.cloud, python=read.python, within=float(read.answer_within))
    connectors = read.connectors
    forwards = None
    if connectors.address is not None:
        forwards = Forwards(SshConnection(read.ssh), connectors.address, connectors.ports)
    leased = read.leases is not None and read.leases.offered
    built = LeasedPlatform if leased else OpenStackPlatform
    return built(name, read, state, host, forwards=forwards)


__all__ = ["OpenStackPlatform", "OpenStackSettings", "ebhpc_platform"]
