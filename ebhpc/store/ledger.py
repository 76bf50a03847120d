"""Bookings and the lock that orders their changes.

Whoever changes bookings of a platform first locks its row. Under that lock the platform's ``revision`` is counted up
and stands in every booking that changes, so that a reader who knows revision *n* asks only for what changed since.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct
from sqlalchemy import Connection, bindparam, insert, select, update

from ebhpc.model import Allocation, Phase
from ebhpc.planning import Booking
from ebhpc.store.records import booking_of, json_text
from ebhpc.store.tables import bookings, events, platforms, sessions


class UnknownPlatform(LookupError):
    """No platform of that name is in the database."""


class Changes(Struct, frozen=True, kw_only=True):
    """What happened to a platform's bookings up to ``revision``: those added or changed, and ids of those gone."""

    revision: int
    present: tuple[Booking, ...]
    gone: tuple[int, ...]


_LOCK = (
    update(platforms)
    .where(platforms.c.name == bindparam("platform"))
    .values(revision=platforms.c.revision + 1)
    .returning(platforms.c.revision)
)
_REVISION = select(platforms.c.revision).where(platforms.c.name == bindparam("platform"))
_ALL = select(bookings).where(bookings.c.platform == bindparam("platform"), bookings.c.freed.is_(None))
_CHANGED = select(bookings).where(
    bookings.c.platform == bindparam("platform"), bookings.c.changed > bindparam("revision")
)
_DUE = select(sessions.c.uuid).where(
    sessions.c.platform == bindparam("platform"),
    sessions.c.phase == Phase.OFFERED,
    sessions.c.expires <= bindparam("now"),
)


def lock_platform(tx: Connection, name: str) -> int:
    """Lock a platform until the transaction's end; return the revision that its changes bear.

    A transaction that locks several platforms must do so in the order of their names.
    """
    revision = tx.execute(_LOCK, {"platform": name}).scalar_one_or_none()
    if revision is None:
        raise UnknownPlatform(name)
    return int(revision)


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
    """Turn the platform's offers that are due into EXPIRED and free their bookings; return how many."""
    due = list(tx.execute(_DUE, {"platform": platform, "now": now}).scalars())
    if due:
        tx.execute(
            update(sessions)
            .where(sessions.c.uuid.in_(due))
            .values(phase=Phase.EXPIRED, modified=now, **to_release(now))
        )
        free(tx, due, revision, now)
        record_moves(tx, due, Phase.OFFERED, Phase.EXPIRED, "not accepted in time", now)
    return len(due)


def to_release(now: float) -> dict[str, object]:
    """Values for an offer that is over: what its platform holds for it, a driver gives back."""
    return {"unfinished": sessions.c.held.is_not(None), "due": now}


def booking_rows(
    platform: str,
    revision: int,
    session: str,
    allocations: Iterable[Allocation],
    licences: Mapping[str, int],
    start: int,
    finish: int,
    expires: int | None,
) -> list[dict[str, object]]:
    """The rows of ``bookings`` for a session's allocations; the first has its licences."""
    return [
        {
            "session": session,
            "platform": platform,
            "node": allocation.node,
            "start": start,
            "finish": finish,
            "cores": allocation.cores,
            "memory": allocation.memory,
            "devices": json_text(allocation.devices) if allocation.devices else "{}",
            "licences": json_text(licences) if licences and not order else "{}",
            "expires": expires,
            "changed": revision,
            "freed": None,
        }
        for order, allocation in enumerate(allocations)
    ]


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
    rows = [{"session": uuid, "time": now, "previous": previous, "phase": phase, "cause": cause} for uuid in uuids]
    if rows:
        tx.execute(insert(events), rows)


def _portions(uuids: list[str], size: int = 500) -> Iterable[list[str]]:
    for first in range(0, len(uuids), size):
        yield uuids[first : first + size]
