"""HTCondor pools as platforms of ebhpc: the kind ``htcondor``.

``ebhpc_platform`` builds one (``ebhpc_htcondor.platform.HTCondorPlatform``, with the settings
``ebhpc_htcondor.settings.HTCondorSettings``). ``ebhpc_htcondor.asking.Pool`` is what is asked of HTCondor, through a
process of its own (``ebhpc_htcondor.worker``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ebhpc.config import SettingsError, SettingsProblem, read_settings
from ebhpc.hookspecs import hookimpl
from ebhpc_htcondor.asking import Pool
from ebhpc_htcondor.platform import HTCondorPlatform
from ebhpc_htcondor.settings import HTCondorSettings


@hookimpl
def ebhpc_platform(kind: str, name: str, settings: Mapping[str, Any], state: Path, lead: float) -> object | None:
    """Build a platform of the kind ``htcondor``.

    Raises:
        ebhpc.config.SettingsError: a setting is wrong; or jobs would be submitted, ``lead`` seconds before their start,
            when they should have their claims already.
    """
    if kind != "htcondor":
        return None
    read = read_settings(HTCondorSettings, settings)
    if read.start_expression and lead <= read.early:
        text = f"expected more than settings.early ({read.early:g} s), which jobs have for their claims; got {lead:g} s"
        raise SettingsError(SettingsProblem(path=("lead",), text=text))
    return HTCondorPlatform(name, read, state, Pool(read))


__all__ = ["HTCondorPlatform", "HTCondorSettings", "ebhpc_platform"]
