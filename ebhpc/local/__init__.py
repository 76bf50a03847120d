"""The built-in platform ``local``: runs notebooks and containers on this host.

``ebhpc_platform`` builds it (``ebhpc.local.platform.LocalPlatform``, with the settings ``ebhpc.local.settings.Local``).
Each job has a supervisor, a small process of its own (``ebhpc.local.supervisor``), which needs neither the driver nor
the database: whoever ends the broker ends no job.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ebhpc.hookspecs import hookimpl


@hookimpl
def ebhpc_platform(kind: str, name: str, settings: Mapping[str, Any], state: Path) -> object | None:
    """Build a platform of the kind ``local``.

    Raises:
        ebhpc.config.SettingsError: a setting is wrong, or offers more than this host has.
    """
    if kind != "local":
        return None
    # Here, not above: the supervisor imports this package, and is to stay small
    from ebhpc.config import read_settings
    from ebhpc.local.platform import LocalPlatform
    from ebhpc.local.settings import Local

    return LocalPlatform(name, read_settings(Local, settings), state)


__all__ = ["ebhpc_platform"]
