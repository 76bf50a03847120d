"""Slurm clusters as platforms of ebhpc: the kind ``slurm``.

``ebhpc_platform`` builds one (``ebhpc_slurm.platform.SlurmPlatform``, with the settings
``ebhpc_slurm.settings.SlurmSettings``). ``ebhpc_slurm.transport.Slurm`` is what is asked of Slurm, in two ways:
``ebhpc_slurm.commands`` by its commands, ``ebhpc_slurm.pyslurm_client`` through pyslurm.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ebhpc.config import SettingsError, SettingsProblem, read_settings
from ebhpc.hookspecs import hookimpl
from ebhpc_slurm.commands import Commands
from ebhpc_slurm.identities import Becoming
from ebhpc_slurm.platform import SlurmPlatform
from ebhpc_slurm.processes import OverSsh, Programs, ThisHost
from ebhpc_slurm.pyslurm_client import Pyslurm, Worker
from ebhpc_slurm.settings import SlurmSettings
from ebhpc_slurm.transport import Slurm


@hookimpl
def ebhpc_platform(kind: str, name: str, settings: Mapping[str, Any], state: Path) -> object | None:
    """Build a platform of the kind ``slurm``.

    Raises:
        ebhpc.config.SettingsError: a setting is wrong.
    """
    if kind != "slurm":
        return None
    read = read_settings(SlurmSettings, settings)
    return SlurmPlatform(name, read, state, transport(read))


def transport(settings: SlurmSettings) -> Slurm:
    """Return the way to ask Slurm that the settings name; nothing is asked yet.

    Raises:
        ebhpc.config.SettingsError: paramiko, which ``ssh`` needs, is not installed.
    """
    environment = {"SLURM_CONF": str(settings.slurm_conf)} if settings.slurm_conf is not None else {}
    becoming = Becoming(how=settings.run_as, sudo=settings.sudo, token_command=settings.token_command)
    within = float(settings.answer_within)
    here = ThisHost(settings.command_prefix, environment)
    programs: Programs = here
    if settings.ssh is not None:
        try:
            import paramiko  # noqa: F401
        except ImportError:
            text = "ssh needs paramiko: install ebhpc-slurm[ssh]"
            raise SettingsError(SettingsProblem(path=("settings", "ssh"), text=text)) from None
        programs = OverSsh(settings.ssh, environment)
    commands = Commands(programs, becoming, within=within)
    if settings.transport == "commands":
        return commands
    return Pyslurm(Worker(here, settings.pyslurm, within=within), commands, own=settings.run_as == "self")


__all__ = ["SlurmPlatform", "SlurmSettings", "ebhpc_platform", "transport"]
