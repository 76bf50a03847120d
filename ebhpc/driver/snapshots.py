"""Each platform's state, asked for and published for the API's workers."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ebhpc.driver.learner import LearnerGone, Learns
from ebhpc.driver.learning import SHARE, Plan, Planned
from ebhpc.driver.notices import notice
from ebhpc.faults import point
from ebhpc.model import MessageKind
from ebhpc.planning import Snapshot, encode_snapshot
from ebhpc.plugins import Platform, PlatformUnavailable
from ebhpc.store import Store, booking_of, get_platforms, live_bookings, publish_snapshot, publish_trouble

log = logging.getLogger("ebhpc.driver")


class Snapshots:
    """Refreshes the snapshot of one platform. ``due`` (POSIX seconds) is when to do it next."""

    def __init__(
        self,
        store: Store,
        platform: Platform,
        learner: Learns,
        *,
        clock: Callable[[], float],
        published: Callable[[Snapshot, bytes], None] = lambda snapshot, packed: None,
    ) -> None:
        """``learner`` plans the queue; ``published`` is told of each snapshot that was, with its encoded form."""
        self._store = store
        self._platform = platform
        self._learner = learner
        self._clock = clock
        self._published = published
        self._trouble: str | None = None
        self.due = 0.0
        self.seconds: float | None = None
        """how long the platform took to tell its newest state, and the plan of its queue with it"""

    def refresh(self) -> None:
        """Publish a new snapshot, or why there is none; nothing where another driver did so just now."""
        name, every = self._platform.name, self._platform.config.refresh
        now = self._clock()
        self.due = now + every
        present = get_platforms(self._store).get(name)
        if present is not None and present.looked is not None and 0 <= now - present.looked < every / 2:
            self.due = present.looked + every
            return
        try:
            point("driver.snapshot.before", name)
            snapshot = self._platform.call("ebhpc_snapshot", now=int(now))
            point("driver.snapshot.after", name)
            packed = self._planned(snapshot, int(now))
            self.seconds = max(0.0, self._clock() - now)
        except PlatformUnavailable as error:
            self._publish_trouble(error)
        else:
            if self._trouble is not None:
                log.info("platform %s answers again", name)
                self._trouble = None
            publish_snapshot(self._store, name, packed, taken=snapshot.taken, now=self._clock())
            self._published(snapshot, packed)
        self.due = max(self.due, self._clock())

    def _planned(self, snapshot: Snapshot, now: int) -> bytes:
        """Return a snapshot encoded, with the planned starts of what waits where reservations must respect them.

        Raises:
            PlatformUnavailable: they cannot be planned; without them, a reservation might push others back.
        """
        packed = encode_snapshot(snapshot)
        config = self._platform.config
        # Under rules for firm time it is told how long windows delay the queue, even where they may
        unplanned = config.delay_queue and config.firm is None
        if not snapshot.waiting or unplanned or "reservation" not in self._platform.promises:
            return packed
        with self._store.read() as tx:
            bookings = tuple(booking_of(row) for row in live_bookings(tx, self._platform.name))
        try:
            planned = self._learner.plan(Plan(snapshot=packed, bookings=bookings, now=now))
        except LearnerGone as error:
            planned = Planned(failure=str(error))
        if planned.failure is not None:
            reason = f"its queue cannot be planned: {planned.failure}"
            raise PlatformUnavailable(self._platform.name, "ebhpc_snapshot", reason)
        # A long queue takes seconds: no more than a share of a processor, as long as the snapshot does not get stale
        pause = min(planned.seconds * (1 / SHARE - 1), config.stale / 4)
        self.due = max(self.due, self._clock() + pause)
        return planned.snapshot

    def _publish_trouble(self, error: PlatformUnavailable) -> None:
        name = self._platform.name
        if self._trouble != error.reason:
            log.warning("platform %s gives no snapshot: %s", name, error.reason)
            self._trouble = error.reason
        now = self._clock()
        trouble = notice(
            now,
            MessageKind.PLATFORM_UNAVAILABLE,
            "WARN",
            "{platform} does not answer: {reason}",
            platform=name,
            reason=error.reason,
        )
        publish_trouble(self._store, name, trouble, now=now)
