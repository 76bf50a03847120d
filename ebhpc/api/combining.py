"""Work of several threads, done by one of them for all that wait.

"Flat combining": D. Hendler, I. Incze, N. Shavit, M. Tzafrir, SPAA 2010.
"""

from __future__ import annotations

from collections import deque
from threading import Lock
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Combining(Generic[Item]):
    """A queue whose first thread to come serves what all bring, until another takes over. Safe for threads.

    A thread calls ``leads`` with what it brings. True: it calls ``take``, as often as it likes, does what it was given,
    and calls ``leave`` in any case. False: another thread has done it.
    """

    def __init__(self) -> None:
        self._guard = Lock()
        self._waiting: deque[_Place[Item]] = deque()
        self._taken: list[_Place[Item]] = []
        self._leader: _Place[Item] | None = None

    def __len__(self) -> int:
        """Return how many wait and were not taken."""
        return len(self._waiting)

    def leads(self, item: Item) -> bool:
        """Queue; return once it is done (False), or when it is this thread's turn to do what waits (True)."""
        mine = _Place(item)
        with self._guard:
            self._waiting.append(mine)
            if self._leader is None:
                self._leader = mine
                return True
        mine.called.acquire()
        return self._leader is mine

    def take(self) -> list[Item]:
        """Return what waits, in the order in which it came: the first time with what this thread has brought."""
        found = [self._waiting.popleft() for _ in range(len(self._waiting))]
        self._taken += found
        return [place.item for place in found]

    def leave(self) -> None:
        """Let the first of those that came meanwhile lead, and all go on whose work is done."""
        done, self._taken = self._taken, []
        with self._guard:
            if self._leader is not None and self._leader in self._waiting:
                self._waiting.remove(self._leader)  # it has failed before it took anything
            self._leader = self._waiting[0] if self._waiting else None
            if self._leader is not None:
                self._leader.called.release()
        for place in done:
            place.called.release()


class _Place(Generic[Item]):
    """One thread's place: what it brings, and a lock that is free once the thread is called."""

    __slots__ = ("called", "item")

    def __init__(self, item: Item) -> None:
        self.item = item
        self.called = Lock()
        self.called.acquire()
