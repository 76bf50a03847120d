"""Each platform's state, asked for and published for the API's workers."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ebhpc.driver.notices import notice
from ebhpc.faults import point
from ebhpc.model import MessageKind
from ebhpc.planning import encode_snapshot
from ebhpc.plugins import Platform, PlatformUnavailable
from ebhpc.store import Store, get_platforms, publish_snapshot, publish_trouble

log = logging.getLogger("ebhpc.driver")


class Snapshots:
    """Refreshes the snapshot of one platform. ``due`` (POSIX seconds) is when to do it next."""

    def __init__(self, store: Store, platform: Platform, *, clock: Callable[[], float]) -> None:
        self._store = store
        self._platform = platform
        self._clock = clock
        self._trouble: str | None = None
        self.due = 0.0

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
        except PlatformUnavailable as error:
            self._publish_trouble(error)
        else:
            if self._trouble is not None:
                log.info("platform %s answers again", name)
                self._trouble = None
            publish_snapshot(self._store, name, encode_snapshot(snapshot), taken=snapshot.taken, now=self._clock())
        self.due = max(self.due, self._clock())

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
