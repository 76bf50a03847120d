"""Calls of the Linux kernel that Python 3.11 has no function for.

Sources: prctl(2), unshare(2), setns(2), mount(2), mallopt(3). Imported by the supervisor: the standard library only.
"""

from __future__ import annotations

import ctypes
import os

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_M_ARENA_MAX = -8

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000

_MS_RDONLY = 0x1
_MS_REMOUNT = 0x20
_MS_BIND = 0x1000
_MS_REC = 0x4000
_MS_PRIVATE = 0x40000

_libc = ctypes.CDLL(None, use_errno=True)


def _succeed(result: int, what: str) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")


def die_with_parent(signal: int, parent: int) -> None:
    """Have the kernel send ``signal`` to this process when the thread that made it ends.

    ``parent`` is the parent's PID, seen before the fork: where it is gone already, the process ends now.
    """
    _succeed(_libc.prctl(_PR_SET_PDEATHSIG, signal, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        os.kill(os.getpid(), signal)


def few_heaps() -> None:
    """Let all threads of this process share two heaps of glibc's; elsewhere do nothing.

    Otherwise each thread gets one of its own, up to eight for each processor, and what is freed in one is not used by
    the others: a worker with many threads grows for a long time. Call it before there are threads.
    """
    mallopt = getattr(_libc, "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 2)


def adopt_orphans() -> None:
    """Make this process the parent of descendants whose own parent ends."""
    _succeed(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl(PR_SET_CHILD_SUBREAPER)")


def enter_namespace(path: str, kind: int) -> None:
    """Move this thread into the namespace that ``path`` (as /proc/PID/ns/net) names.

    Raises:
        OSError: not permitted, or the process is gone.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _succeed(_libc.setns(descriptor, kind), f"setns({path})")
    finally:
        os.close(descriptor)


def leave_mounts() -> None:
    """Give this process a mount namespace of its own: what it mounts, nobody else sees, and it ends with it."""
    _succeed(_libc.unshare(CLONE_NEWNS), "unshare(CLONE_NEWNS)")
    _succeed(_libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None), "mount(MS_PRIVATE)")


def bind(source: str, target: str, *, read_only: bool) -> None:
    """Show the directory or file ``source`` at ``target``, which exists, in this mount namespace."""
    place = os.fsencode(target)
    _succeed(_libc.mount(os.fsencode(source), place, None, _MS_BIND, None), f"mount({target})")
    if read_only:
        flags = _MS_BIND | _MS_REMOUNT | _MS_RDONLY
        _succeed(_libc.mount(b"none", place, None, flags, None), f"mount({target}, read-only)")
