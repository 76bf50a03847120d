"""Control groups of version 1 for the lab's Slurm: by them it finds and limits all that a job has started."""

from __future__ import annotations

from pathlib import Path

CONTROLLERS = ("freezer", "memory")
"""``freezer`` to track processes, ``memory`` to limit what jobs take."""

CONF = """CgroupPlugin=cgroup/v1
CgroupMountpoint={mountpoint}
ConstrainRAMSpace={limited}
"""
"""cgroup.conf. ``limited``, yes or no, says something where TaskPlugin is task/cgroup only."""


def groups(name: str) -> dict[str, Path]:
    """Return control groups of that name by their controller, which are yet to be made: those that can be."""
    wanted = {controller: mount / name for controller, mount in mounted().items() if controller in CONTROLLERS}
    return {controller: group for controller, group in wanted.items() if _can_be_made(group)}


def _can_be_made(group: Path) -> bool:
    """Say whether a group can be made, by making it: some containers show them as writable that are not."""
    if group.exists():
        return True
    try:
        group.mkdir()
    except OSError:
        return False
    group.rmdir()
    return True


def mounted() -> dict[str, Path]:
    """Return where this machine has the controllers of version 1."""
    found = {}
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, options, *_ = line.split()
        if kind == "cgroup":
            found.update({option: Path(place) for option in options.split(",") if option in CONTROLLERS})
    return found
