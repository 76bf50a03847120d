"""Bookings and the lock that orders their changes.

Whoever changes bookings of a platform first locks its row. Under that lock the platform's ``revision`` is counted up
and stands in every booking that changes, so that a reader who knows revision *n* asks only for what changed since.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from msgspec import Struct
from sqlalchemy import Connection, and_, bindparam, insert, literal, or_, select, update

from ebhpc.model import Phase
from ebhpc.planning import Booking
from ebhpc.store.inserting import insert_rows
from ebhpc.store.records import booking_of
from ebhpc.store.tables import bookings, events, platforms, sessions


class UnknownPlatform(LookupError):
    """No platform of that name is in the database."""


class Changes(Struct, frozen=True, kw_only=True):
    """What happened to a platform's bookings up to ``revision``: those added or changed, and ids of those gone."""

    revision: int
    present: tuple[Booking, ...]
    gone: tuple[int, ...]


class Locked(NamedTuple):
    """A platform under its lock: the revision that changes bear now, its snapshot's version, whether it answers."""

    revision: int
    version: int
    answers: bool


_LOCK = (
    update(platforms)
    .where(platforms.c.name == bindparam("platform"))
    .values(revision=platforms.c.revision + 1)
    .returning(platforms.c.revision, platforms.c.version, platforms.c.trouble)
)
_REVISION = select(platforms.c.revision).where(platforms.c.name == bindparam("platform"))
_ALL = select(bookings).where(bookings.c.platform == bindparam("platform"), bookings.c.freed.is_(None))
_CHANGED = select(bookings).where(
    bookings.c.platform == bindparam("platform"), bookings.c.changed > bindparam("revision")
)
_is_due = and_(
    sessions.c.platform == bindparam("of"),
    sessions.c.phase == Phase.OFFERED,
    sessions.c.expires <= bindparam("at"),
)
_ANY_DUE = select(sessions.c.uuid).where(_is_due).limit(1)
_TELL_EXPIRED = insert(events).from_select(
    ["session", "time", "previous", "phase", "cause"],
    select(
        sessions.c.uuid,
        bindparam("at", type_=events.c.time.type),
        literal(Phase.OFFERED),
        literal(Phase.EXPIRED),
        literal("not accepted in time"),
    ).where(_is_due),
)
_FREE_EXPIRED = (
    update(bookings)
    .where(bookings.c.session.in_(select(sessions.c.uuid).where(_is_due)), bookings.c.freed.is_(None))
    .values(freed=bindparam("at"), changed=bindparam("revision"))
)
_MAY_BE_HELD = or_(sessions.c.held.is_not(None), sessions.c.submitting)
_EXPIRE = (
    update(sessions)
    .where(_is_due)
    .values(
        phase=Phase.EXPIRED,
        modified=bindparam("at"),
        unfinished=_MAY_BE_HELD,
        due=bindparam("at"),
    )
)
_COUNT_EXPIRED = (
    update(platforms).where(platforms.c.name == bindparam("of")).values(expired=platforms.c.expired + bindparam("more"))
)


def lock_platform(tx: Connection, name: str) -> int:
    """Lock a platform until the transaction's end; return the revision that its changes bear.

    A transaction that locks several platforms must do so in the order of their names.
    """
    return locked(tx, name).revision


def locked(tx: Connection, name: str) -> Locked:
    """Lock a platform as ``lock_platform`` does; return all that there is to know of it."""
    row = tx.execute(_LOCK, {"platform": name}).one_or_none()
    if row is None:
        raise UnknownPlatform(name)
    # Not `trouble IS NULL` in the statement: SQLite 3.40 answers that wrongly in RETURNING.
    return Locked(row.revision, row.version, row.trouble is None)


def changes_since(tx: Connection, platform: str, revision: int, *, now: int | None = None) -> Changes:
    """What changed after ``revision`` (0: all bookings that count). Read under the lock it is complete.

    ``now``: the revision that the platform has, where the caller knows it.
    """
    if now is None:
        now = tx.execute(_REVISION, {"platform": platform}).scalar_one_or_none()
    if now is None:
        raise UnknownPlatform(platform)
    if revision:
        rows = tx.execute(_CHANGED, {"platform": platform, "revision": revision})
    else:
        rows = tx.execute(_ALL, {"platform": platform})
    present: list[Booking] = []
    gone: list[int] = []
    for row in rows:
        if row.freed is None:
            present.append(booking_of(row))
        else:
            gone.append(row.id)
    return Changes(revision=int(now), present=tuple(present), gone=tuple(gone))


def expire_due(tx: Connection, platform: str, revision: int, now: float) -> int:
    """Turn the platform's offers that are due into EXPIRED and free their bookings; return how many, and count them."""
    values = {"of": platform, "at": now}
    if tx.execute(_ANY_DUE, values).first() is None:
        return 0
    tx.execute(_TELL_EXPIRED, values)
    tx.execute(_FREE_EXPIRED, {**values, "revision": revision})
    count = tx.execute(_EXPIRE, values).rowcount
    tx.execute(_COUNT_EXPIRED, {"of": platform, "more": count})
    return count


def to_release(now: float) -> dict[str, object]:
    """Values for an offer that is over: what its platform holds for it, a driver gives back."""
    return {"unfinished": _MAY_BE_HELD, "due": now}


def free(tx: Connection, uuids: list[str], revision: int, now: float) -> None:
    """Give back the bookings of sessions; those given back already stay as they were."""
    for some in _portions(uuids):
        tx.execute(
            update(bookings)
            .where(bookings.c.session.in_(some), bookings.c.freed.is_(None))
            .values(freed=now, changed=revision)
        )


def settle(tx: Connection, session: str, revision: int, *, finish: int | None = None) -> None:
    """Keep a session's bookings beyond its offer's expiry, and shorten them to ``finish`` where it is earlier."""
    values: dict[str, object] = {"expires": None, "changed": revision}
    tx.execute(update(bookings).where(bookings.c.session == session, bookings.c.freed.is_(None)).values(**values))
    if finish is not None:
        tx.execute(
            update(bookings)
            .where(bookings.c.session == session, bookings.c.freed.is_(None), bookings.c.finish > finish)
            .values(finish=finish)
        )


def record_moves(tx: Connection, uuids: Iterable[str], previous: Phase, phase: Phase, cause: str, now: float) -> None:
    """Write one event for each session that moved."""
    insert_rows(tx, events, moves(uuids, previous, phase, cause, now))


def moves(uuids: Iterable[str], previous: Phase, phase: Phase, cause: str, now: float) -> list[dict[str, object]]:
    """Return one event for each session that moved, as rows."""
    return [
        {"session": uuid, "time": now, "previous": previous.value, "phase": phase.value, "cause": cause}
        for uuid in uuids
    ]


def _portions(uuids: list[str], size: int = 500) -> Iterable[list[str]]:
    for first in range(0, len(uuids), size):
        yield uuids[first : first + size]
