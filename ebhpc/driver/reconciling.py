"""Each platform compared with the sessions that it should have, now and then, so that nothing of ours stays there."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ebhpc.faults import point
from ebhpc.model.registry import Kinds
from ebhpc.plugins import Platform, PlatformUnavailable
from ebhpc.store import BrokenDocument, Store, as_session, unfinished_sessions

log = logging.getLogger("ebhpc.driver")

EVERY = 300.0
"""Seconds between two comparisons of a platform."""

SOONER = 30.0
"""Seconds until the next try where the platform did not answer."""


class Reconciling:
    """Has one platform compare itself. ``due`` (POSIX seconds) is when to do it next: at once, after a start."""

    def __init__(self, store: Store, platform: Platform, kinds: Kinds, *, clock: Callable[[], float]) -> None:
        self._store = store
        self._platform = platform
        self._kinds = kinds
        self._clock = clock
        self._trouble: str | None = None
        self.due = 0.0 if platform.implements("ebhpc_reconcile") else float("inf")

    def run(self) -> None:
        """Tell the platform of all its sessions that are not done with."""
        name = self._platform.name
        self.due = self._clock() + EVERY
        try:
            sessions = [as_session(record, self._kinds) for record in unfinished_sessions(self._store, name)]
        except BrokenDocument as error:
            # Its job, which the platform would take for nobody's, goes on
            log.warning("platform %s is not compared with its sessions: %s", name, error)
            return
        try:
            point("driver.reconcile.before", name)
            self._platform.call("ebhpc_reconcile", sessions=sessions)
            point("driver.reconcile.after", name)
        except PlatformUnavailable as error:
            if self._trouble != error.reason:
                log.warning("platform %s could not be compared with its sessions: %s", name, error.reason)
            self._trouble = error.reason
            self.due = self._clock() + SOONER
        else:
            self._trouble = None
