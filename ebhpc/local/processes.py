"""Finding and ending the processes of a session.

A process belongs to a session when it descends from the session's supervisor, is in its control group, or carries
its UUID in the environment variable EBHPC_SESSION, which children inherit. Imported by the supervisor: the standard
library and psutil.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable

import psutil

_CHILDREN_ARE_LISTED = os.path.exists(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
"""Whether this kernel has the list of children of proc(5): a look at one process, not at all of the host's."""

MARK = "EBHPC_SESSION"
"""The environment variable that carries the session's UUID."""


def descendants(pid: int) -> list[psutil.Process]:
    """Return all processes below ``pid``, zombies left out."""
    if not _CHILDREN_ARE_LISTED:
        try:
            return [child for child in psutil.Process(pid).children(recursive=True) if _lives(child)]
        except psutil.NoSuchProcess:
            return []
    found, waiting = [], [pid]
    while waiting:
        children = _children(waiting.pop())
        waiting += children
        found += children
    return of_pids(found)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as children:
                found += map(int, children.read().split())
    return found


def marked(uuid: str) -> list[psutil.Process]:
    """Return all processes whose environment carries the session's UUID, this one left out."""
    entry = f"{MARK}={uuid}".encode()
    found = []
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        try:
            with open(f"/proc/{process.pid}/environ", "rb") as environment:
                if entry in environment.read().split(b"\0"):
                    found.append(process)
        except OSError:  # it ended, or belongs to someone else
            continue
    return found


def of_pids(pids: Iterable[int]) -> list[psutil.Process]:
    """Return the processes with these PIDs that live."""
    found = []
    for pid in pids:
        try:
            process = psutil.Process(pid)
        except psutil.NoSuchProcess:
            continue
        if _lives(process):
            found.append(process)
    return found


def memory_used(members: Iterable[psutil.Process], limit: int) -> int:
    """Return the bytes of memory that the processes use together.

    Resident sizes count shared pages once for each process; only where their sum is above ``limit`` is the exact,
    slow figure (proportional set sizes) asked for.
    """
    members = list(members)
    resident = sum(_size(member, exact=False) for member in members)
    if resident <= limit or len(members) < 2:
        return resident
    return sum(_size(member, exact=True) for member in members)


def end_all(find: Callable[[], Iterable[psutil.Process]], patience: float = 5.0) -> bool:
    """Kill what ``find`` finds until it finds nothing; False if something is left after ``patience`` seconds."""
    until = time.monotonic() + patience
    while True:
        left = list(find())
        if not left:
            return True
        for process in left:
            signal_process(process, 9)
        if time.monotonic() > until:
            return False
        time.sleep(0.02)


def signal_process(process: psutil.Process, signal: int) -> None:
    """Send a signal to a process, unless it has ended or its PID has been given to another."""
    try:
        process.send_signal(signal)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return


def _size(process: psutil.Process, *, exact: bool) -> int:
    try:
        return int(process.memory_full_info().pss if exact else process.memory_info().rss)
    except psutil.AccessDenied:
        return _size(process, exact=False) if exact else 0
    except psutil.NoSuchProcess:
        return 0


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
