"""UUIDs in the order of their time, with randomness by the thousand."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator

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
        self._own = threading.local()

    def __call__(self) -> str:
        """Return a UUID that nobody has had, and nobody can guess."""
        waiting: Iterator[str] = getattr(self._own, "waiting", iter(()))
        rest = next(waiting, None)
        if rest is None:
            self._own.waiting = waiting = iter(_some())
            rest = next(waiting)
        instant = f"{int(self._clock() * 1000):012x}"
        return f"{instant[:8]}-{instant[8:]}-{rest}"


def _some() -> list[str]:
    """Return what follows the time in a UUID, for many of them."""
    random = os.urandom(10 * _AT_ONCE).hex()
    found = []
    for first in range(0, len(random), 20):
        one = random[first : first + 20]
        found.append(f"7{one[1:4]}-{_VARIANT[int(one[4], 16) & 3]}{one[5:8]}-{one[8:20]}")
    return found
