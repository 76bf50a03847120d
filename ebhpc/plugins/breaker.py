"""Leaving a platform alone for a while when it keeps failing."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Breaker:
    """Opens when ``failures`` calls in a row have failed within ``within`` seconds.

    While open it lets no call through, for ``first`` seconds; then one call may try. When that fails too,
    it stays open for twice as long, up to ``most`` seconds; when it succeeds, all is as before. ``clock``
    gives seconds.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        failures: int = 5,
        within: float = 60,
        first: float = 1,
        most: float = 60,
    ) -> None:
        self._clock = clock
        self._failures = failures
        self._within = within
        self._first = first
        self._most = most
        self._lock = threading.Lock()
        self._recent: list[float] = []
        self._pause = 0.0
        self._until = 0.0
        self._trying = False

    def wait(self) -> float:
        """Return 0 where a call may go ahead now, else the seconds until one may.

        A call that goes ahead while the breaker is open is the try: others wait for what becomes of it.
        """
        if not self._pause:  # the usual case needs no lock
            return 0.0
        with self._lock:
            if not self._pause:
                return 0.0
            now = self._clock()
            if now < self._until:
                return self._until - now
            self._until = now + self._pause
            self._trying = True
            return 0.0

    def succeeded(self) -> None:
        """Note that a call succeeded."""
        if self._recent or self._pause:
            with self._lock:
                self._recent.clear()
                self._pause = 0.0

    def failed(self) -> float:
        """Note that a call failed; return for how many seconds no call may go ahead."""
        with self._lock:
            now = self._clock()
            if self._pause:
                if not self._trying:  # a call that began before it opened
                    return max(0.0, self._until - now)
                self._pause = min(2 * self._pause, self._most)
            else:
                self._recent = [*(at for at in self._recent if at > now - self._within), now]
                if len(self._recent) < self._failures:
                    return 0.0
                self._pause = self._first
            self._trying = False
            self._until = now + self._pause
            return self._pause
