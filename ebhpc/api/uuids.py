"""Random UUIDs by the thousand."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from uuid import UUID

_AT_ONCE = 256


class RandomUuids:
    """Gives random UUIDs (RFC 9562, version 4) as text. Safe for threads; not to be carried over a fork.

    Each question to the system for randomness gives up the interpreter, which a thread that plans for others must wait
    for again: so each thread asks for that of many UUIDs.
    """

    def __init__(self) -> None:
        self._own = threading.local()

    def __call__(self) -> str:
        """Return a UUID that nobody has had, and nobody can guess."""
        waiting: Iterator[str] = getattr(self._own, "waiting", iter(()))
        for uuid in waiting:
            return uuid
        self._own.waiting = waiting = iter(_some())
        return next(waiting)


def _some() -> list[str]:
    random = os.urandom(16 * _AT_ONCE)
    return [str(UUID(bytes=random[first : first + 16], version=4)) for first in range(0, len(random), 16)]
