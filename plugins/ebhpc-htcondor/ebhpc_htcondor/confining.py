"""A process confined to writing below one directory, by Linux's Landlock (landlock(7)); nothing of HTCondor's here."""

from __future__ import annotations

import ctypes
import os
import struct

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""Numbers of system calls, the same on all architectures."""

_VERSION, _PATH_BENEATH, _NO_NEW_PRIVS = 1, 1, 38

_WRITE_FILE, _TRUNCATE, _REFER = 1 << 1, 1 << 14, 1 << 13
_REMOVE_AND_MAKE = sum(1 << bit for bit in range(4, 13))
"""Removing directories and files; making devices, directories, files, sockets, pipes and links."""


class NotConfined(OSError):
    """The kernel cannot confine a process."""


def version() -> int:
    """Return the version of Landlock's interface; 0: this kernel has none, or does not use it."""
    return max(int(ctypes.CDLL(None).syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION)), 0)


def write_only_below(directory: str) -> None:
    """Give up, for this process and for good, every right to change files outside of a directory.

    Raises:
        NotConfined: the kernel cannot.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    known = version()
    if known == 0:
        raise NotConfined("this host's kernel has no Landlock, which fetching files from a pool needs")
    rights = _WRITE_FILE | _REMOVE_AND_MAKE | (_REFER if known >= 2 else 0) | (_TRUNCATE if known >= 3 else 0)
    rules = struct.pack("=Q", rights)
    ruleset = _called(libc, _CREATE_RULESET, rules, ctypes.c_size_t(len(rules)), 0)
    place = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _called(libc, _ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, place), 0)
        if libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            raise NotConfined("prctl(PR_SET_NO_NEW_PRIVS) failed")
        _called(libc, _RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(place)
        os.close(ruleset)


def _called(libc: ctypes.CDLL, number: int, *arguments: object) -> int:
    done = int(libc.syscall(number, *arguments))
    if done < 0:
        raise NotConfined(f"Landlock: {os.strerror(ctypes.get_errno())}")
    return done
