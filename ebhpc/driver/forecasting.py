"""Each platform's queue learned and forecast from its snapshots, where that is this driver's to do."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from msgspec import Struct

from ebhpc.driver.learner import LearnerGone, Learns
from ebhpc.driver.learning import SHARE, Task, ended_since
from ebhpc.faults import point
from ebhpc.planning import Booking, FinishedJob, Snapshot
from ebhpc.plugins import Platform
from ebhpc.store import (
    Store,
    booking_of,
    get_learned,
    lease_learning,
    live_bookings,
    publish_forecast,
)

log = logging.getLogger("ebhpc.driver")

LEASE = 90.0
"""Seconds for which a driver stays the one that learns of a platform. It is leased to the driver's name: a process that
takes over the name of one that died goes on at once.
"""

KEEP = 300.0
"""Seconds after which what was learned is stored, however little it is; a crash loses no more."""

_MOST_ENDED = 20_000
_AGAIN = 60.0
"""Seconds until the next try after a failure."""


class _Seen(Struct, frozen=True):
    """A snapshot to learn from, encoded, and the jobs that ended since the last one that was learned from."""

    packed: bytes
    ended: tuple[FinishedJob, ...]


class Forecasting:
    """Learns of one platform's queue. ``due`` (POSIX seconds) is when it may do so next."""

    def __init__(
        self, store: Store, platform: Platform, driver: str, learner: Learns, *, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._platform = platform.name
        self._promises = platform.promises
        self._driver = driver
        self._learner = learner
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: _Seen | None = None
        self._revision = -1
        self._token = ""
        self._kept = clock()
        self._trouble: str | None = None
        self.due = 0.0

    @property
    def waits(self) -> bool:
        """Whether there is a snapshot to learn from."""
        return self._seen is not None

    def offer(self, snapshot: Snapshot, packed: bytes) -> None:
        """Take a new snapshot, with its encoded form; one that was not learned from yet gives way to it.

        A platform that promises nothing of its queue, and tells of nothing in it, is left alone.
        """
        promised = "queue" in self._promises or snapshot.scheduler is not None
        if not promised and not snapshot.waiting and not snapshot.finished and self._seen is None:
            return
        with self._lock:
            pending = self._seen.ended if self._seen is not None else ()
            self._seen = _Seen(packed, ended_since(pending, snapshot.finished, _MOST_ENDED))

    def run(self) -> None:
        """Learn from the newest snapshot and publish the forecast, unless another driver does."""
        with self._lock:
            seen, self._seen = self._seen, None
        if seen is None:
            return
        now = self._clock()
        revision = lease_learning(self._store, self._platform, self._driver, now=now, lease=LEASE)
        if revision is None:
            self._token = ""
            self.due = now + LEASE / 4
            return
        try:
            self._learn(seen, revision, now)
        except LearnerGone as error:
            self._token = ""
            self._put_off(seen, str(error))
        self.due = max(self.due, now)

    def _learn(self, seen: _Seen, revision: int, now: float) -> None:
        name = self._platform
        task = Task(
            platform=name,
            snapshot=seen.packed,
            ended=seen.ended,
            bookings=self._bookings(),
            token=self._token if revision == self._revision else "",
            keep=now - self._kept >= KEEP,
        )
        point("driver.forecast.before", name)
        result = self._learner.do(task)
        if result.unknown:
            stored = get_learned(self._store, name)
            state = stored.state if stored is not None else None
            revision = stored.revision if stored is not None else revision
            result = self._learner.do(replace_state(task, state))
        point("driver.forecast.after", name)
        if result.dropped is not None:
            log.warning("platform %s: what was learned of its queue is dropped: %s", name, result.dropped)
        self.due = self._clock() + result.seconds * (1 / SHARE - 1)
        if result.failure is not None:
            self._token = ""
            self._put_off(None, result.failure)
            return
        published = publish_forecast(
            self._store,
            name,
            self._driver,
            forecast=result.forecast,
            taken=result.taken,
            seconds=result.seconds,
            accuracy=result.accuracy,
            starts=result.starts,
            revision=revision,
            state=result.state,
        )
        if published is None:
            self._token = ""
            return
        if self._trouble is not None:
            log.info("platform %s: its queue is forecast again", name)
            self._trouble = None
        self._revision, self._token = published, result.token
        if result.state is not None:
            self._kept = now

    def _bookings(self) -> tuple[Booking, ...]:
        with self._store.read() as tx:
            return tuple(booking_of(row) for row in live_bookings(tx, self._platform))

    def _put_off(self, seen: _Seen | None, reason: str) -> None:
        if self._trouble != reason:
            log.warning("platform %s: its queue is not forecast: %s", self._platform, reason)
            self._trouble = reason
        self.due = self._clock() + _AGAIN
        if seen is not None:
            with self._lock:
                newer = self._seen
                self._seen = _Seen(
                    newer.packed if newer else seen.packed,
                    ended_since(seen.ended, newer.ended if newer else (), _MOST_ENDED),
                )


def replace_state(task: Task, state: bytes | None) -> Task:
    """Return a task that brings the stored state with it; None: there is none."""
    return Task(
        platform=task.platform,
        snapshot=task.snapshot,
        ended=task.ended,
        bookings=task.bookings,
        state=state,
        fresh=state is None,
        keep=task.keep,
    )
