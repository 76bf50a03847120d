"""What this host has, and what of it the platform offers."""

from __future__ import annotations

import os
import platform
import socket

import psutil
from msgspec import Struct

from ebhpc.config import SettingsError, SettingsProblem
from ebhpc.local import cgroups
from ebhpc.local.settings import Local
from ebhpc.model import Shape
from ebhpc.staging.files import MEBI

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


class Host(Struct, frozen=True, kw_only=True):
    """What there is: ``cores`` by number, ``memory`` in MiB, as this process may use it."""

    name: str
    cores: tuple[int, ...]
    memory: int
    architecture: str
    system: str


def this_host() -> Host:
    """Look at this host, with the limits that this process is under (affinity, control groups)."""
    cores = sorted(os.sched_getaffinity(0))
    quota = cgroups.cores_bound()
    if quota is not None:
        cores = cores[: max(1, int(quota))]
    memory = min(psutil.virtual_memory().total, cgroups.memory_bound() or 1 << 62)
    machine = platform.machine()
    return Host(
        name=socket.gethostname(),
        cores=tuple(cores),
        memory=memory // MEBI,
        architecture=_ARCHITECTURES.get(machine, machine),
        system=platform.system().lower(),
    )


def capacity(settings: Local, host: Host) -> Shape:
    """Return what the platform offers.

    Raises:
        SettingsError: more than the host has, without ``overcommit``.
    """
    problems = []
    cores = settings.cores if settings.cores is not None else len(host.cores)
    if cores > len(host.cores) and not settings.overcommit:
        problems.append(_too_much("cores", cores, len(host.cores), ""))
    reserve = min(settings.reserve_gib * 1024, host.memory / 4)
    memory = int(host.memory - reserve) if settings.memory_gib is None else int(settings.memory_gib * 1024)
    if memory > host.memory and not settings.overcommit:
        problems.append(_too_much("memory_gib", settings.memory_gib, round(host.memory / 1024, 2), " GiB"))
    if problems:
        raise SettingsError(*problems)
    return Shape(cores=cores, memory=memory, devices=dict(settings.devices))


def _too_much(key: str, wanted: object, there: object, unit: str) -> SettingsProblem:
    return SettingsProblem(
        path=("settings", key),
        text=f"this host has {there}{unit}, not {wanted}; offer less, or set overcommit: true to test with more",
    )
