"""The timelines that a worker keeps in memory, brought up to date before each use."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping

from msgspec import Struct

from ebhpc.model.times import instant_text
from ebhpc.planning import SnapshotUnreadableError, Timeline, decode_snapshot
from ebhpc.plugins import Platform, PlatformUnavailable
from ebhpc.store import (
    PlatformRecord,
    Store,
    changes_since,
    expire_offers,
    get_platforms,
    get_snapshot,
)

_HOOK = "ebhpc_snapshot"


class Known(Struct, frozen=True, kw_only=True):
    """A timeline, and what it is made of: the snapshot's ``version``, the bookings up to ``revision``."""

    version: int
    revision: int
    timeline: Timeline


class Timelines:
    """One timeline for each platform. Safe for threads; one object for each worker process."""

    def __init__(self, store: Store, platforms: Mapping[str, Platform]) -> None:
        self._store = store
        self._platforms = platforms
        self._known: dict[str, Known] = {}
        self._locks = {name: threading.Lock() for name in platforms}

    def current(self, now: float) -> dict[str, Known | PlatformUnavailable]:
        """Return each platform's timeline as the database has it now, or why there is none to offer from."""
        records = get_platforms(self._store)
        return {name: self._of(name, records.get(name), now) for name in self._platforms}

    def one(self, name: str, now: float) -> Known | PlatformUnavailable:
        """Return the timeline of one platform, as ``current`` does."""
        return self._of(name, get_platforms(self._store).get(name), now)

    def without_expired(self, names: Iterable[str], now: float) -> dict[str, Known | PlatformUnavailable]:
        """Free the offers that are due on those platforms, and return their timelines anew where there were any."""
        freed = [name for name in names if expire_offers(self._store, name, now=now)]
        if not freed:
            return {}
        records = get_platforms(self._store)
        return {name: self._of(name, records.get(name), now) for name in freed}

    def _of(self, name: str, record: PlatformRecord | None, now: float) -> Known | PlatformUnavailable:
        reason = self.why_unavailable(name, record, now)
        if record is None or reason is not None:
            return PlatformUnavailable(name, _HOOK, reason or "it is not in the database")
        known = self._known.get(name)
        if known is not None and known.version == record.version and known.revision >= record.revision:
            return known
        try:
            with self._locks[name]:
                self._known[name] = known = self._updated(name, record)
        except SnapshotUnreadableError as error:
            return PlatformUnavailable(name, _HOOK, f"its stored state cannot be read: {error}")
        return known

    def why_unavailable(self, name: str, record: PlatformRecord | None, now: float) -> str | None:
        """Say why nothing can be offered from a platform; None: something can."""
        if record is None or (record.taken is None and record.trouble is None):
            return "no driver has asked it for its state yet"
        if record.trouble is not None:
            return str(record.trouble)
        assert record.taken is not None
        if now - record.taken > self._platforms[name].config.stale:
            return f"its state is known of {instant_text(int(record.taken))} only: does a driver run?"
        return None

    def _updated(self, name: str, record: PlatformRecord) -> Known:
        known = self._known.get(name)
        if known is None or known.version < record.version:
            found = get_snapshot(self._store, name)
            assert found is not None, f"platform {name} has a version and no snapshot"
            version, packed = found
            snapshot = decode_snapshot(packed)
            if known is None:
                known = Known(version=version, revision=0, timeline=Timeline.of(snapshot))
            else:
                timeline = known.timeline.with_snapshot(snapshot)
                known = Known(version=version, revision=known.revision, timeline=timeline)
        if known.revision < record.revision:
            with self._store.read() as tx:
                changes = changes_since(tx, name, known.revision)
            timeline = known.timeline.with_bookings(changes.present, changes.gone)
            known = Known(version=known.version, revision=changes.revision, timeline=timeline)
        return known
