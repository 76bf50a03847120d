"""Control groups, version 1 and 2: limits on memory, processor time and processes that the kernel keeps.

A group is made below the one that this process is in, where that is permitted; in a unit of systemd with a subgroup for
its processes (``DelegateSubgroup=``), beside that. Sources: cgroups(7), the kernel's
``admin-guide/cgroup-v1/memory.rst`` and ``admin-guide/cgroup-v2.rst``, systemd's ``CGROUP_DELEGATION.md``. Imported by
the supervisor: the standard library only.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

_PERIOD = 100_000
"""Microseconds over which processor time is counted."""


class Group:
    """One control group: a directory in each hierarchy that has a controller which we use."""

    def __init__(self, name: str, directories: dict[str, Path]) -> None:
        self.name = name
        self.directories = directories

    @property
    def counts_memory(self) -> bool:
        """Whether the kernel keeps the memory limit of this group."""
        return "memory" in self.directories

    def enter(self) -> None:
        """Move the calling process into the group."""
        for directory in set(self.directories.values()):
            (directory / "cgroup.procs").write_text(str(os.getpid()))

    def processes(self) -> set[int]:
        """Return the PIDs of the group's processes."""
        found: set[int] = set()
        for directory in set(self.directories.values()):
            with contextlib.suppress(FileNotFoundError):
                found.update(int(pid) for pid in (directory / "cgroup.procs").read_text().split())
        return found

    def memory_peak(self) -> int | None:
        """Return the most memory that the group has used, in bytes; None where the kernel does not say."""
        for name in ("memory.max_usage_in_bytes", "memory.peak"):
            value = self._number("memory", name)
            if value is not None:
                return value
        return None

    def memory_kills(self) -> int:
        """Return how many of its processes the kernel has ended for want of memory."""
        directory = self.directories.get("memory")
        if directory is None:
            return 0
        for name in ("memory.oom_control", "memory.events"):
            with contextlib.suppress(OSError):
                for line in (directory / name).read_text().splitlines():
                    if line.startswith("oom_kill "):
                        return int(line.split()[1])
        return 0

    def remove(self, patience: float = 2.0) -> bool:
        """Remove the group; its processes have been ended before. False if it is still busy after ``patience`` s."""
        until = time.monotonic() + patience
        for directory in set(self.directories.values()):
            while True:
                try:
                    directory.rmdir()
                except FileNotFoundError:
                    break
                except OSError:
                    if time.monotonic() > until:
                        return False
                    time.sleep(0.02)
                else:
                    break
        return True

    def _number(self, controller: str, name: str) -> int | None:
        directory = self.directories.get(controller)
        if directory is None:
            return None
        try:
            return int((directory / name).read_text())
        except (OSError, ValueError):
            return None


def make(name: str, *, cores: int, memory: int, processes: int) -> Group | None:
    """Make a group with limits of ``cores``, ``memory`` (bytes, no swap) and ``processes``.

    Returns None where no hierarchy lets us make one; a controller that is not there is left out.
    """
    directories: dict[str, Path] = {}
    for controller, parent in _parents():
        directory = parent / name
        try:
            directory.mkdir(exist_ok=True)
            if _limit(directory, controller, cores, memory, processes):
                directories[controller] = directory
            elif directory not in directories.values():
                directory.rmdir()
        except OSError:
            if directory not in directories.values():
                with contextlib.suppress(OSError):
                    directory.rmdir()
    return Group(name, directories) if directories else None


def find(name: str) -> Group | None:
    """Return the group of that name below ours; None if there is none."""
    found = {controller: parent / name for controller, parent in _parents() if (parent / name).is_dir()}
    return Group(name, found) if found else None


def around(pid: int) -> Group:
    """Return the groups that a process is in, as a container's first one: to look at, not to change."""
    return Group(f"of process {pid}", dict(_groups_of(pid)))


def memory_bound() -> int | None:
    """Return the smallest memory limit (bytes) of the groups that this process is in; None: no limit."""
    bounds = []
    for controller, directory in _places("self"):
        if controller == "memory":
            for place in (directory, *directory.parents):
                for name in ("memory.limit_in_bytes", "memory.max"):
                    with contextlib.suppress(OSError, ValueError):
                        bounds.append(int((place / name).read_text()))
    # Version 1 says "no limit" as the largest multiple of the page size
    return min((bound for bound in bounds if bound < 1 << 60), default=None)


def cores_bound() -> float | None:
    """Return the smallest processor limit (cores) of the groups that this process is in; None: no limit."""
    bounds = []
    for controller, directory in _places("self"):
        if controller == "cpu":
            for place in (directory, *directory.parents):
                with contextlib.suppress(OSError, ValueError):
                    quota = int((place / "cpu.cfs_quota_us").read_text())
                    if quota > 0:
                        bounds.append(quota / int((place / "cpu.cfs_period_us").read_text()))
                with contextlib.suppress(OSError, ValueError):
                    quota_text, period = (place / "cpu.max").read_text().split()
                    if quota_text != "max":
                        bounds.append(int(quota_text) / int(period))
    return min(bounds, default=None)


def _limit(directory: Path, controller: str, cores: int, memory: int, processes: int) -> bool:
    """Write the limits of one controller; False if the directory does not have it."""

    def write(name: str, value: object) -> bool:
        if not (directory / name).exists():
            return False
        (directory / name).write_text(str(value))
        return True

    if controller == "memory":
        if write("memory.limit_in_bytes", memory):
            with contextlib.suppress(OSError):  # a kernel that does not account swap
                write("memory.memsw.limit_in_bytes", memory)
            return True
        if write("memory.max", memory):
            write("memory.swap.max", 0)
            return True
        return False
    if controller == "cpu":
        if write("cpu.cfs_quota_us", cores * _PERIOD):
            return True
        return write("cpu.max", f"{cores * _PERIOD} {_PERIOD}")
    return write("pids.max", processes)


def _places(process: int | str) -> Iterator[tuple[str, Path]]:
    """Yield (controller, directory) for the groups that a process is in, which need not have that controller."""
    mounts = _mounts()
    try:
        lines = Path(f"/proc/{process}/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(",") if controllers else ("memory", "cpu", "pids"):
            root = mounts.get(controller if controllers else "")
            if root is None or controller not in ("memory", "cpu", "pids"):
                continue
            inside, where = root
            relative = os.path.relpath(path, inside)
            if not relative.startswith("..") and (where / relative).is_dir():
                yield controller, where / relative


def _groups_of(process: int | str) -> Iterator[tuple[str, Path]]:
    """Yield (controller, directory) for the groups that a process is in."""
    for controller, directory in _places(process):
        if not _unified(directory) or controller in _handed_down(directory):
            yield controller, directory


def _unified(directory: Path) -> bool:
    return (directory / "cgroup.controllers").exists()


def _handed_down(directory: Path) -> list[str]:
    """Return the controllers that a group of version 2 has; on a hybrid host version 1 has the others."""
    try:
        return (directory / "cgroup.controllers").read_text().split()
    except OSError:
        return []


def home_beside(directory: Path) -> Path:
    """Return the group of version 2 below which groups are made, for processes in ``directory``.

    A group with processes hands no controller down. Where systemd has given us the group above, and keeps the unit's
    processes in a subgroup, it is that; it says so by the attribute ``user.delegate``.
    """
    above = directory.parent
    try:
        ours = os.getxattr(above, "user.delegate") == b"1" and not (above / "cgroup.procs").read_text().strip()
    except OSError:
        return directory
    return above if ours else directory


def _parents() -> Iterator[tuple[str, Path]]:
    """Yield (controller, directory) where a group may be made."""
    for controller, own in _places("self"):
        if not _unified(own):
            if os.access(own, os.W_OK):
                yield controller, own
            continue
        directory = home_beside(own)
        if controller not in _handed_down(directory) or not os.access(directory, os.W_OK):
            continue
        # A group of version 2 hands a controller down only when told to, and only while it has no processes
        control = directory / "cgroup.subtree_control"
        with contextlib.suppress(OSError):
            if controller not in control.read_text().split():
                control.write_text(f"+{controller}")
            if controller in control.read_text().split():
                yield controller, directory


def _mounts() -> dict[str, tuple[str, Path]]:
    """Return for each controller ("" for version 2) the group at the root of its mount, and where it is mounted."""
    found: dict[str, tuple[str, Path]] = {}
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if kind[0] == "cgroup2":
            found[""] = (fields[3], Path(fields[4]))
        elif kind[0] == "cgroup":
            for option in kind[2].split(","):
                found[option] = (fields[3], Path(fields[4]))
    return found
