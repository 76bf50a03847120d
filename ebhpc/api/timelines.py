"""The timelines that a worker keeps in memory, brought up to date before each use."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import Connection

from ebhpc.model.times import instant_text
from ebhpc.planning import SnapshotUnreadableError, Timeline, decode_snapshot
from ebhpc.plugins import Platform, PlatformUnavailable
from ebhpc.store import (
    PlatformRecord,
    Store,
    changes_since,
    expire_offers,
    get_snapshot,
    read_platforms,
)

_HOOK = "ebhpc_snapshot"

_LASTS = 3600.0
"""Seconds after which all bookings are read anew and not only what changed: of what was given back long ago nothing is
left in the database that could tell."""


_MOMENT = 0.5
"""Seconds for which ``lately`` does not look again."""


class Known(Struct, frozen=True, kw_only=True):
    """A timeline, and what it is made of: the snapshot's ``version``, the bookings up to ``revision``.

    ``looked`` is when the bookings were read, POSIX seconds.
    """

    version: int
    revision: int
    timeline: Timeline
    looked: float


class Timelines:
    """One timeline for each platform. Safe for threads; one object for each worker process."""

    def __init__(self, store: Store, platforms: Mapping[str, Platform]) -> None:
        self._store = store
        self._platforms = platforms
        self._known: dict[str, Known] = {}
        self._lately: tuple[float, dict[str, Known | PlatformUnavailable]] = (-_MOMENT, {})
        self._locks = {name: threading.Lock() for name in platforms}

    def current(self, now: float) -> dict[str, Known | PlatformUnavailable]:
        """Return each platform's timeline as the database has it now, or why there is none to offer from."""
        return self._those(self._platforms, now)

    def lately(self, now: float) -> dict[str, Known | PlatformUnavailable]:
        """Return what ``current`` gives, or gave less than a moment ago if there was an answer from all platforms.

        For questions to which bookings do not matter; who books looks again.
        """
        moment, last = self._lately
        if not moment <= now < moment + _MOMENT or any(isinstance(one, PlatformUnavailable) for one in last.values()):
            last = self.current(now)
            self._lately = now, last
        return last

    def one(self, name: str, now: float) -> Known | PlatformUnavailable:
        """Return the timeline of one platform, as ``current`` does."""
        return self._those([name], now)[name]

    def without_expired(self, names: Iterable[str], now: float) -> dict[str, Known | PlatformUnavailable]:
        """Free the offers that are due on those platforms, and return their timelines anew where there were any."""
        freed = [name for name in names if expire_offers(self._store, name, now=now)]
        return self._those(freed, now) if freed else {}

    def _those(self, names: Iterable[str], now: float) -> dict[str, Known | PlatformUnavailable]:
        with self._store.read() as tx:
            records = read_platforms(tx)
            return {name: self._of(tx, name, records.get(name), now) for name in names}

    def _of(self, tx: Connection, name: str, record: PlatformRecord | None, now: float) -> Known | PlatformUnavailable:
        reason = self.why_unavailable(name, record, now)
        if record is None or reason is not None:
            return PlatformUnavailable(name, _HOOK, reason or "it is not in the database")
        known = self._known.get(name)
        if known is not None and known.version == record.version and known.revision >= record.revision:
            return known
        try:
            with self._locks[name]:
                self._known[name] = known = self._updated(tx, name, record, now)
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

    def _updated(self, tx: Connection, name: str, record: PlatformRecord, now: float) -> Known:
        known = self._known.get(name)
        if known is not None and now - known.looked > _LASTS:
            known = None
        if known is None or known.version < record.version:
            found = get_snapshot(self._store, name)
            assert found is not None, f"platform {name} has a version and no snapshot"
            version, packed = found
            snapshot = decode_snapshot(packed)
            if known is None:
                known = Known(version=version, revision=0, timeline=Timeline.of(snapshot), looked=now)
            else:
                known = replace(known, version=version, timeline=known.timeline.with_snapshot(snapshot))
        if known.revision < record.revision:
            changes = changes_since(tx, name, known.revision, now=record.revision)
            timeline = known.timeline.with_bookings(changes.present, changes.gone)
            known = replace(known, revision=changes.revision, timeline=timeline, looked=now)
        return known
