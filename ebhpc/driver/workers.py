"""Threads that work off a queue, and do not keep the process from ending when one of them hangs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Protocol

log = logging.getLogger("ebhpc.driver")

Work = Callable[[], None]


class Workers(Protocol):
    """Where the driver has work done."""

    size: int

    @property
    def load(self) -> int:
        """How much work was given and is not done."""

    @property
    def running(self) -> int:
        """How much of it was begun."""

    def submit(self, work: Work) -> None:
        """Have ``work`` done soon."""

    def close(self) -> None:
        """Take no more work; what waits is not begun."""


class Threads:
    """Up to ``size`` daemon threads, started when they are first needed."""

    def __init__(self, name: str, size: int) -> None:
        self.size = size
        self._name = name
        self._queue: SimpleQueue[Work | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._load = 0
        self._running = 0
        self._started = 0
        self._closed = False

    @property
    def load(self) -> int:
        return self._load

    @property
    def running(self) -> int:
        return self._running

    def submit(self, work: Work) -> None:
        with self._lock:
            if self._closed:
                return
            self._load += 1
            if self._load > self._started and self._started < self.size:
                self._started += 1
                name = f"{self._name}-{self._started}"
                threading.Thread(target=self._run, name=name, daemon=True).start()
        self._queue.put(work)

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            with self._lock:
                if self._closed:
                    self._load -= 1
                    continue
                self._running += 1
            try:
                work()
            except Exception:  # a bug of ours: the thread has to live for the sessions that come
                log.exception("an error in %s", self._name)
            finally:
                with self._lock:
                    self._load -= 1
                    self._running -= 1

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for _ in range(self._started):
                self._queue.put(None)


class AtOnce:
    """Does all work in the caller's thread, before ``submit`` returns: for tests that go step by step."""

    def __init__(self, name: str, size: int) -> None:
        self.size = size
        self.load = self.running = 0

    def submit(self, work: Work) -> None:
        """Do the work."""
        work()

    def close(self) -> None:
        """Nothing to end."""
