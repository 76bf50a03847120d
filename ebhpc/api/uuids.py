"""UUIDs in the order of their time, with randomness by the thousand."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

_AT_ONCE = 256
_VARIANT = "89ab"
"""The digits whose two upper bits are those of RFC 9562's variant."""


class TimeOrderedUuids:
    """Gives UUIDs (RFC 9562, version 7) as text. Safe for threads; not to be carried over a fork.

    They begin with the time, so that rows written together lie together in every index that they are in: on random
    ones each row changes a page of its own. 74 bits are random.
    Each question to the system for randomness gives up the interpreter, which a thread that plans for others must wait
    for again: so each thread asks for that of many UUIDs.

    ``clock`` gives POSIX seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._own = _Own()

    def __call__(self) -> str:
        """Return a UUID that nobody has had, and nobody can guess."""
        own = self._own
        if not own.waiting:
            own.waiting = _some()
        instant = int(self._clock() * 1000)
        if instant != own.instant:
            digits = f"{instant:012x}"
            own.instant, own.first = instant, f"{digits[:8]}-{digits[8:]}-"
        return own.first + own.waiting.pop()


class _Own(threading.local):
    """A thread's own: what is left of its randomness, and how the UUIDs of a millisecond begin."""

    def __init__(self) -> None:
        self.waiting: list[str] = []
        self.instant = -1
        self.first = ""


def _some() -> list[str]:
    """Return what follows the time in a UUID, for many of them."""
    random = os.urandom(10 * _AT_ONCE).hex()
    found = []
    for first in range(0, len(random), 20):
        one = random[first : first + 20]
        found.append(f"7{one[1:4]}-{_VARIANT[int(one[4], 16) & 3]}{one[5:8]}-{one[8:20]}")
    return found
