"""How much a session keeps on disk, counted a little at a time so that counting never keeps anything waiting.

Imported by the supervisor: the standard library only.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

BLOCK = 512
"""Bytes of one ``st_blocks`` (stat(2))."""


class Meter:
    """Counts the bytes that a file or directory tree takes, again and again, ``budget`` seconds at a time."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.bytes = 0
        self._steps = _count(path)

    def advance(self, budget: float) -> bool:
        """Go on counting for at most ``budget`` seconds; True when a count is complete and ``bytes`` is new."""
        until = time.monotonic() + budget
        for total in self._steps:
            if total is not None:
                self.bytes = total
                self._steps = _count(self.path)
                return True
            if time.monotonic() > until:
                return False
        return False


def size(path: str) -> int:
    """Return the bytes that a file or directory tree takes on disk; a file with several names counts once."""
    return next(total for total in _count(path) if total is not None)


def _count(path: str) -> Iterator[int | None]:
    """Yield None after each entry, and at last the sum."""
    total, seen = 0, set()
    try:
        total += os.lstat(path).st_blocks * BLOCK
    except OSError:
        yield 0
        return
    waiting = [path]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    try:
                        found = entry.stat(follow_symlinks=False)
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(entry.path)
                    except OSError:  # it went while we looked
                        continue
                    if found.st_nlink == 1 or (found.st_dev, found.st_ino) not in seen:
                        total += found.st_blocks * BLOCK
                    if found.st_nlink > 1:
                        seen.add((found.st_dev, found.st_ino))
                    yield None
        except OSError:  # no directory, gone, or not ours to read
            continue
    yield total
