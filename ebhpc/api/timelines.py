"""The timelines that a worker keeps in memory, brought up to date before each use."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Mapping
from math import inf

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import Connection

from ebhpc.model.times import instant_text
from ebhpc.planning import Booking, Snapshot, SnapshotUnreadableError, Timeline, decode_snapshot
from ebhpc.planning.pauses import Pause, no_pause
from ebhpc.planning.queue import Outlooks
from ebhpc.plugins import Platform, PlatformUnavailable
from ebhpc.store import (
    Changes,
    Forecasts,
    PlatformRecord,
    Store,
    changes_since,
    expire_offers,
    get_snapshot,
    read_platforms,
)

log = logging.getLogger("ebhpc.api")

_HOOK = "ebhpc_snapshot"

_LASTS = 3600.0
"""Seconds after which all bookings are read anew and not only what changed: of what was given back long ago nothing is
left in the database that could tell."""


_MOMENT = 0.5
"""Seconds for which ``lately`` does not look again."""


class Known(Struct, frozen=True, kw_only=True):
    """A timeline, and what it is made of: the snapshot's ``version``, the bookings up to ``revision``.

    ``newest`` is the version that the database had: above ``version`` while the timeline of a large one is made.
    ``looked`` is when the bookings were read, POSIX seconds. ``outlooks`` is what is expected of the platform's queue;
    None where it promises nothing of it, or no driver has made a forecast yet. ``expiring`` is when the first of its
    offers is due.
    """

    version: int
    revision: int
    timeline: Timeline
    looked: float
    newest: int = 0
    outlooks: Outlooks | None = None
    expiring: float = inf

    def changed(self, changes: Changes, now: float) -> Known:
        """Return what is known with changes of the bookings, read at ``now``."""
        timeline = self.timeline
        if changes.present or changes.gone:
            timeline = timeline.with_bookings(changes.present, changes.gone)
        expiring = min(self.expiring, _first_expiry(changes.present))
        return replace(self, revision=changes.revision, timeline=timeline, looked=now, expiring=expiring)

    def added(self, bookings: Iterable[Booking]) -> Known:
        """Return what is known with bookings of our own."""
        more = tuple(bookings)
        expiring = min(self.expiring, _first_expiry(more))
        return replace(self, timeline=self.timeline.with_bookings(more), expiring=expiring)


def _first_expiry(bookings: Iterable[Booking]) -> float:
    return min((one.expires for one in bookings if one.expires is not None), default=inf)


_PAUSE = 0.002
"""Seconds that the making of a large timeline rests after each portion: longer than the portion took."""

_SMALL = 2000
"""Nodes and jobs up to which a timeline is made at once, in a few dozen milliseconds."""


def _size(snapshot: Snapshot) -> int:
    return len(snapshot.nodes) + len(snapshot.running) + len(snapshot.waiting) + len(snapshot.planned)


class Timelines:
    """One timeline for each platform. Safe for threads; one object for each worker process."""

    def __init__(self, store: Store, platforms: Mapping[str, Platform]) -> None:
        self._store = store
        self._platforms = platforms
        self._forecasts = Forecasts(store)
        self._known: dict[str, Known] = {}
        self._lately: tuple[float, dict[str, Known | PlatformUnavailable]] = (-_MOMENT, {})
        self._locks = {name: threading.Lock() for name in platforms}
        self._making: set[str] = set()
        self._expired: dict[str, float] = {}

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

    def newest(self, now: float) -> dict[str, Known | PlatformUnavailable]:
        """Return what this worker knows, from its last look and from what it has booked itself.

        It looked less than a moment ago. Who books finds out under the lock whether others did so meanwhile.
        """
        return {
            name: self._known.get(name, one) if isinstance(one, Known) else one
            for name, one in self.lately(now).items()
        }

    def adopt(self, name: str, known: Known) -> None:
        """Take over what a booking of this worker has led to."""
        with self._locks[name]:
            before = self._known.get(name)
            if before is None or (before.version, before.revision) < (known.version, known.revision):
                self._known[name] = replace(known, newest=max(known.newest, before.newest if before else 0))

    def one(self, name: str, now: float) -> Known | PlatformUnavailable:
        """Return the timeline of one platform, as ``current`` does."""
        return self._those([name], now)[name]

    def expire_due(self, now: float) -> None:
        """Free the offers that are due, so that nobody is planned around what nobody can take any more.

        For those who ask for offers: it writes, and who only looks must get an answer when nothing can be written.
        """
        due = [name for name, known in list(self._known.items()) if known.expiring <= now and self.expires(name, now)]
        for name in due:
            expire_offers(self._store, name, now=now)
            with self._locks[name]:
                known = self._known[name]
                left = (one for one in known.timeline.bookings() if one.expires is not None and one.expires > now)
                self._known[name] = replace(known, expiring=_first_expiry(left))
        if due:
            self._lately = -_MOMENT, {}

    def without_expired(self, names: Iterable[str], now: float) -> dict[str, Known | PlatformUnavailable]:
        """Free the offers that are due on those platforms, and return their timelines anew where there were any."""
        freed = [name for name in names if expire_offers(self._store, name, now=now)]
        return self._those(freed, now) if freed else {}

    def expires(self, name: str, now: float) -> bool:
        """Whether it is time that who books on a platform has the offers expire there that are due: now and then.

        Until then their bookings count, and nothing is sold twice; each time costs as much as some bookings.
        """
        if now - self._expired.get(name, -_MOMENT) < _MOMENT:
            return False
        self._expired[name] = now
        return True

    def _those(self, names: Iterable[str], now: float) -> dict[str, Known | PlatformUnavailable]:
        with self._store.read() as tx:
            records = read_platforms(tx)
            return {name: self._of(tx, name, records.get(name), now) for name in names}

    def _of(self, tx: Connection, name: str, record: PlatformRecord | None, now: float) -> Known | PlatformUnavailable:
        reason = self.why_unavailable(name, record, now)
        if record is None or reason is not None:
            return PlatformUnavailable(name, _HOOK, reason or "it is not in the database")
        outlooks = self._forecasts.current(tx, name) if "queue" in self._platforms[name].promises else None
        known = self._known.get(name)
        if (
            known is None
            or known.newest != record.version
            or (known.version != record.version and name not in self._making)
            or known.revision < record.revision
            or known.outlooks is not outlooks
        ):
            try:
                with self._locks[name]:
                    self._known[name] = known = replace(self._updated(tx, name, record, now), outlooks=outlooks)
            except SnapshotUnreadableError as error:
                return PlatformUnavailable(name, _HOOK, f"its stored state cannot be read: {error}")
        if known.version != record.version:
            taken = known.timeline.snapshot.taken
            if now - taken > self._platforms[name].config.stale:
                reason = f"its newest state could not be taken in; the last one is of {instant_text(taken)}"
                return PlatformUnavailable(name, _HOOK, reason)
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
        """Bring what is known up to date; of a large platform's new state the timeline is made on a thread."""
        known = self._known.get(name)
        if known is None:
            known = self._made(name, None, now)
        elif known.version < record.version or now - known.looked > _LASTS:
            if _size(known.timeline.snapshot) <= _SMALL:
                known = self._made(name, known, now)
            else:
                self._make(name, now)
        if known.revision < record.revision:
            changes = changes_since(tx, name, known.revision, now=record.revision)
            known = known.changed(changes, now)
        return replace(known, newest=record.version)

    def _made(self, name: str, known: Known | None, now: float, pause: Pause = no_pause) -> Known:
        """Make a timeline of the newest snapshot with the bookings that are known, or that are to be read."""
        found = get_snapshot(self._store, name)
        assert found is not None, f"platform {name} has a version and no snapshot"
        version, packed = found
        snapshot = decode_snapshot(packed, pause=pause)
        if known is None or now - known.looked > _LASTS:
            timeline = self._timeline(name, snapshot, None, pause)
            return Known(version=version, revision=0, timeline=timeline, looked=now)
        return replace(known, version=version, timeline=self._timeline(name, snapshot, known.timeline, pause))

    def _make(self, name: str, now: float) -> None:
        """Have a platform's new timeline made on a thread, unless that is being done."""
        if name not in self._making:
            self._making.add(name)
            threading.Thread(target=self._make_new, args=(name, now), name=f"timeline-{name}", daemon=True).start()

    def _make_new(self, name: str, now: float) -> None:
        try:
            before = self._known.get(name)
            made = self._made(name, before, now, _let_others)
            if made.revision == 0:
                with self._store.read() as tx:
                    changes = changes_since(tx, name, 0)
                made = made.changed(changes, now)
            with self._locks[name]:
                known = self._known.get(name)
                self._known[name] = replace(made, newest=max(made.version, known.newest if known is not None else 0))
        except Exception:
            log.exception("platform %s: no timeline could be made of its newest state", name)
        finally:
            self._making.discard(name)

    def _timeline(self, name: str, snapshot: Snapshot, before: Timeline | None, pause: Pause) -> Timeline:
        """Make the timeline of a snapshot, with the bookings of the one ``before``."""
        return Timeline.of(
            snapshot,
            before.bookings() if before is not None else (),
            gap=snapshot.scheduler.gap if snapshot.scheduler is not None else 0,
            delay_queue=self._platforms[name].config.delay_queue,
            pause=pause,
        )


def _let_others() -> None:
    """Let threads that answer have the interpreter for a while."""
    time.sleep(_PAUSE)
