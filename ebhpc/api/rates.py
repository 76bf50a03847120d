"""How often somebody may ask.

The counters stand in memory that all workers of one service share: it is made before they are forked, is lost when the
service ends, and needs no lock. Each key has one number, the time at which it will have had its share ("virtual
scheduling", the generic cell rate algorithm of ITU-T I.371): two workers that write at the same instant may let one
request too many pass, never one too few. Services on several machines count each for itself.
"""

from __future__ import annotations

import hmac
import ipaddress
import mmap
import secrets
import time
from collections.abc import Callable
from math import ceil

from ebhpc.config import Rate

WAYS = 4
"""Places at which a key may stand; where all are taken, the one that is free soonest goes."""


class Counters:
    """Shared memory for the counters of ``places`` keys; 16 bytes each. Make it before the workers are forked."""

    def __init__(self, places: int = 1 << 16) -> None:
        if places & (places - 1) or places < WAYS:
            raise ValueError("the number of places must be a power of two")
        memory = mmap.mmap(-1, places * 16)
        self.tags = memoryview(memory)[: places * 8].cast("Q")
        self.times = memoryview(memory)[places * 8 :].cast("d")
        self.mask = places - WAYS
        self.secret = secrets.token_bytes(16)  # nobody can choose an address or a name to meet another's counter

    def mark(self, key: str) -> int:
        """Return a key's number, which nobody can foresee."""
        return int.from_bytes(hmac.digest(self.secret, key.encode("utf-8", "replace"), "sha256")[:8], "big") | 1

    def place(self, mark: int, now: float) -> int:
        """Return where a key stands; where it does not stand yet, a place for it."""
        first = mark & self.mask & ~(WAYS - 1)
        best = first
        for at in range(first, first + WAYS):
            if self.tags[at] == mark:
                return at
            if self.times[at] < self.times[best]:
                best = at
        self.times[best] = now
        self.tags[best] = mark
        return best


class Limiter:
    """Keeps keys to a rate; None: lets all pass. ``kind`` keeps its keys apart from other limiters' in the same memory.

    ``clock`` must be one that all processes of this machine share, as the monotonic one.
    """

    def __init__(
        self, counters: Counters, kind: str, rate: Rate | None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._counters = counters
        self._kind = kind
        self._clock = clock
        self._step = rate.seconds / rate.times if rate is not None else 0.0
        self._room = rate.seconds if rate is not None else 0.0
        self._marks: dict[str, int] = {}
        self.limits = rate is not None

    def wait(self, key: str, *, take: bool = True) -> float:
        """Return after how many seconds the key may come again: 0.0 it may now, and with ``take`` it has."""
        if not self.limits:
            return 0.0
        mark = self._marks.get(key)
        if mark is None:
            if len(self._marks) >= 10_000:
                self._marks.clear()
            mark = self._marks[key] = self._counters.mark(f"{self._kind}\0{key}")
        now = self._clock()
        place = self._counters.place(mark, now)
        due = max(self._counters.times[place], now)
        over = due + self._step - now - self._room
        if over > 1e-9:
            return over
        if take:
            self._counters.times[place] = due + self._step
        return 0.0


def retry_after(seconds: float) -> str:
    """Return the value of ``Retry-After``: whole seconds, one at least."""
    return str(max(1, ceil(seconds)))


def address_key(address: str) -> str:
    """Return what an address is counted as: of IPv6, its /64, which is what one customer has."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))
    return str(parsed)
