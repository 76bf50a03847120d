"""What was learned of each platform's queue, and its newest forecast: written by one driver, read by everybody.

One driver at a time learns of a platform, by a lease, so that the work is done once. What it has learned has a
revision: who has another one in memory takes the stored one.
"""

from __future__ import annotations

import logging
import threading

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import IntegrityError

from ebhpc.model import Message, Phase
from ebhpc.planning.queue import (
    Accuracy,
    Expected,
    ForecastUnreadableError,
    LearnedUnreadableError,
    Outlook,
    Outlooks,
    Start,
    StartEstimator,
    decode_forecast,
    unpack_learned,
)
from ebhpc.store.engine import Store
from ebhpc.store.records import SessionRecord, added_messages, json_text
from ebhpc.store.sessions import LeaseLost, get_session
from ebhpc.store.tables import forecasts, learned, sessions

log = logging.getLogger("ebhpc.store")


class LearnedRecord(Struct, frozen=True, kw_only=True):
    """What was learned of a platform's queue: ``state`` as the planner packs it (None: nothing yet), its revision."""

    revision: int
    state: bytes | None


class ForecastRecord(Struct, frozen=True, kw_only=True):
    """A platform's newest forecast without its numbers: of which snapshot, what it cost, how well others were."""

    platform: str
    version: int
    taken: float
    seconds: float
    accuracy: Accuracy


_accuracy = msgspec.json.Decoder(Accuracy)
_starts = msgspec.json.Decoder(dict[str, Expected])


def lease_learning(store: Store, platform: str, driver: str, *, now: float, lease: float) -> int | None:
    """Become the driver that learns of a platform for ``lease`` seconds, or stay it; return the state's revision.

    None: another driver is.
    """
    with store.read() as tx:
        known = tx.execute(select(learned.c.platform).where(learned.c.platform == platform)).first()
    if known is None:
        try:
            with store.write("learn", platform, durable=False) as tx:
                tx.execute(insert(learned).values(platform=platform, revision=0))
        except IntegrityError:
            pass  # another process made it meanwhile
    with store.write("lease_learning", platform, durable=False) as tx:
        row = tx.execute(select(learned).where(learned.c.platform == platform).with_for_update()).one()
        if row.lease not in (None, driver) and row.lease_until > now:
            return None
        tx.execute(update(learned).where(learned.c.platform == platform).values(lease=driver, lease_until=now + lease))
        return int(row.revision)


def leave_learning(store: Store, driver: str) -> None:
    """Let another driver learn at once: an orderly stop."""
    with store.write("leave_learning", driver, durable=False) as tx:
        tx.execute(update(learned).where(learned.c.lease == driver).values(lease=None, lease_until=None))


def get_learned(store: Store, platform: str) -> LearnedRecord | None:
    """What was learned of a platform's queue; None: nobody has ever learned there."""
    query = select(learned.c.revision, learned.c.state).where(learned.c.platform == platform)
    with store.read() as tx:
        row = tx.execute(query).one_or_none()
    if row is None:
        return None
    return LearnedRecord(revision=row.revision, state=None if row.state is None else bytes(row.state))


def publish_forecast(
    store: Store,
    platform: str,
    driver: str,
    *,
    forecast: bytes,
    taken: float,
    seconds: float,
    accuracy: Accuracy,
    starts: dict[str, Expected],
    revision: int,
    state: bytes | None,
) -> int | None:
    """Publish a forecast and, where ``state`` is given, what was learned; return the state's revision from now on.

    ``revision`` is that from which the driver went on. None: another driver learns now, and nothing was published.
    """
    with store.write("publish_forecast", platform, durable=False) as tx:
        query = select(learned.c.lease, learned.c.revision).where(learned.c.platform == platform)
        row = tx.execute(query.with_for_update()).one_or_none()
        if row is None or row.lease != driver or row.revision != revision:
            return None
        if state is not None:
            revision += 1
            tx.execute(update(learned).where(learned.c.platform == platform).values(state=state, revision=revision))
        values = {
            "forecast": forecast,
            "taken": taken,
            "seconds": seconds,
            "figures": json_text(accuracy),
            "starts": json_text(starts),
        }
        mine = forecasts.c.platform == platform
        if not tx.execute(update(forecasts).where(mine).values(version=forecasts.c.version + 1, **values)).rowcount:
            tx.execute(insert(forecasts).values(platform=platform, version=1, **values))
        return revision


def read_forecasts(tx: Connection) -> dict[str, ForecastRecord]:
    """The newest forecast of each platform, without its numbers."""
    query = select(
        forecasts.c.platform, forecasts.c.version, forecasts.c.taken, forecasts.c.seconds, forecasts.c.figures
    ).order_by(forecasts.c.platform)
    return {
        row.platform: ForecastRecord(
            platform=row.platform,
            version=row.version,
            taken=row.taken,
            seconds=row.seconds,
            accuracy=_accuracy.decode(row.figures),
        )
        for row in tx.execute(query)
    }


def expected_starts(tx: Connection, platform: str) -> tuple[float, dict[str, Expected]] | None:
    """When the broker's waiting jobs are expected to start, by session, and when that was found; None: no forecast."""
    query = select(forecasts.c.taken, forecasts.c.starts).where(forecasts.c.platform == platform)
    row = tx.execute(query).one_or_none()
    return None if row is None else (row.taken, _starts.decode(row.starts))


class Forecasts:
    """The newest forecast of each platform, decoded: one object for each worker process. Safe for threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, tuple[int, int, Outlooks]] = {}
        self._lock = threading.Lock()

    def current(self, tx: Connection, platform: str) -> Outlooks | None:
        """Return a platform's newest forecast with what was learned; None: there is none that can be read."""
        query = (
            select(forecasts.c.version, learned.c.revision)
            .join(learned, learned.c.platform == forecasts.c.platform)
            .where(forecasts.c.platform == platform)
        )
        row = tx.execute(query).one_or_none()
        if row is None:
            return None
        known = self._known.get(platform)
        if known is not None and known[:2] == (row.version, row.revision):
            return known[2]
        with self._lock:
            known = self._known.get(platform)
            if known is None or known[0] < row.version or known[1] != row.revision:
                try:
                    known = self._known[platform] = self._decoded(tx, platform, known)
                except ForecastUnreadableError as error:
                    log.warning("platform %s: its forecast cannot be read: %s", platform, error)
                    return None
            return known[2]

    def _decoded(
        self, tx: Connection, platform: str, known: tuple[int, int, Outlooks] | None
    ) -> tuple[int, int, Outlooks]:
        query = (
            select(forecasts.c.version, forecasts.c.forecast, learned.c.revision)
            .join(learned, learned.c.platform == forecasts.c.platform)
            .where(forecasts.c.platform == platform)
        )
        row = tx.execute(query).one()
        if known is not None and known[1] == row.revision:
            estimator = known[2].estimator
        else:
            state = tx.execute(select(learned.c.state).where(learned.c.platform == platform)).scalar_one()
            estimator = estimator_of(platform, None if state is None else bytes(state), to_learn=False)
        outlooks = Outlooks.of(decode_forecast(bytes(row.forecast)), estimator)
        return row.version, row.revision, outlooks


def estimator_of(platform: str, state: bytes | None, *, to_learn: bool) -> StartEstimator:
    """Return what was learned of a platform's queue; where it cannot be read, one that begins anew."""
    if state is None:
        return StartEstimator()
    try:
        return unpack_learned(state, to_learn=to_learn)
    except LearnedUnreadableError as error:
        log.warning("platform %s: what was learned of its queue is dropped: %s", platform, error)
        return StartEstimator()


# --- sessions whose start is not firm --------------------------------------------------------------------------------


def tell_outlook(
    store: Store, uuid: str, *, driver: str, outlook: Outlook, messages: tuple[Message, ...], now: float
) -> SessionRecord:
    """Note when a session that waits in the queue is expected to start by now.

    Raises:
        LeaseLost: its lease is not ``driver``'s, or it waits no more.
    """
    with store.write("tell_outlook", uuid, durable=False) as tx:
        query = select(sessions.c.phase, sessions.c.lease, sessions.c.messages).where(sessions.c.uuid == uuid)
        row = tx.execute(query.with_for_update()).one()
        if row.phase != Phase.AVAILABLE or row.lease != driver:
            raise LeaseLost(f"session {uuid} is {row.phase} with {row.lease}, not AVAILABLE with {driver}")
        values: dict[str, object] = {"outlook": json_text(outlook), "modified": now}
        if messages:
            values["messages"] = added_messages(row.messages, messages)
        tx.execute(update(sessions).where(sessions.c.uuid == uuid).values(**values))
        record = get_session(tx, uuid)
        assert record is not None
    return record


_MOST_STARTS = 2000


def promised_starts(tx: Connection, *, since: float, most: int = _MOST_STARTS) -> dict[tuple[str, bool], list[Start]]:
    """What sessions were promised and when they started, by platform and whether it was firm; since POSIX seconds.

    Of sessions that never started, those count whose time went by or that failed after their latest start.
    """
    columns = (
        sessions.c.platform,
        sessions.c.firm,
        sessions.c.start,
        sessions.c.latest,
        sessions.c.started,
        sessions.c.promised,
    )
    started = select(*columns).where(sessions.c.started >= since).order_by(sessions.c.started.desc()).limit(most)
    missed = (
        select(*columns)
        .where(
            sessions.c.phase == Phase.FAILED,
            sessions.c.started.is_(None),
            sessions.c.modified >= since,
            sessions.c.modified > sessions.c.latest,
        )
        .order_by(sessions.c.modified.desc())
        .limit(most)
    )
    found: dict[tuple[str, bool], list[Start]] = {}
    for query in (started, missed):
        for row in tx.execute(query):
            promised = msgspec.json.decode(row.promised, type=Outlook) if row.promised else None
            found.setdefault((row.platform, bool(row.firm)), []).append(
                Start(
                    earliest=promised.start if promised else row.start,
                    latest=promised.latest if promised else row.latest,
                    expected=promised.expected if promised else row.start,
                    started=row.started,
                )
            )
    return found
