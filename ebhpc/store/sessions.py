"""Sessions: found, listed, cancelled, moved by a driver that holds their lease."""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, and_, func, or_, select, update

from ebhpc.model import LIVE, Connector, Message, Phase, Usage, may_move
from ebhpc.store.audit import AuditEntry, add_audit
from ebhpc.store.engine import Store
from ebhpc.store.ledger import free, lock_platform, record_moves, settle
from ebhpc.store.records import SessionRecord, added_messages, json_text, session_of
from ebhpc.store.tables import bookings, identities, sessions
from ebhpc.store.waking import wake


class LeaseLost(Exception):
    """The session's lease is another driver's, or the session is no longer in the phase that was worked on."""


def select_sessions(tx: Connection, *conditions: ColumnElement[bool]) -> list[SessionRecord]:
    """Sessions for which all ``conditions`` on the tables ``sessions`` and ``identities`` hold."""
    query = (
        select(sessions, identities.c.username)
        .join(identities, identities.c.uuid == sessions.c.owner)
        .where(*conditions)
    )
    return [session_of(row) for row in tx.execute(query)]


def get_session(tx: Connection, uuid: str) -> SessionRecord | None:
    """The session of that UUID."""
    found = select_sessions(tx, sessions.c.uuid == uuid)
    return found[0] if found else None


def unfinished_sessions(store: Store, platform: str) -> list[SessionRecord]:
    """All sessions of a platform that are not done with, whoever has their lease, and the offers that are open."""
    with store.read() as tx:
        return select_sessions(
            tx,
            sessions.c.platform == platform,
            or_(sessions.c.unfinished.is_(True), sessions.c.phase == Phase.OFFERED),
        )


class Page(Struct, frozen=True, kw_only=True):
    """Part of a listing, newest first, and the cursor for the next part (None: that was all)."""

    sessions: list[SessionRecord]
    following: str | None


def list_sessions(
    tx: Connection,
    *,
    owner: str | None,
    phases: frozenset[Phase] = frozenset(),
    platform: str | None = None,
    after: str | None = None,
    size: int = 50,
) -> Page:
    """The sessions of an owner (None: of everybody), newest first, from behind the session ``after``."""
    query = select(sessions, identities.c.username).join(identities, identities.c.uuid == sessions.c.owner)
    if owner is not None:
        query = query.where(sessions.c.owner == owner)
    if phases:
        query = query.where(sessions.c.phase.in_(sorted(phases)))
    if platform is not None:
        query = query.where(sessions.c.platform == platform)
    if after is not None:
        mark = tx.execute(select(sessions.c.created).where(sessions.c.uuid == after)).scalar_one_or_none()
        if mark is None:
            return Page(sessions=[], following=None)
        query = query.where(or_(sessions.c.created < mark, and_(sessions.c.created == mark, sessions.c.uuid < after)))
    query = query.order_by(sessions.c.created.desc(), sessions.c.uuid.desc()).limit(size + 1)
    found = [session_of(row) for row in tx.execute(query)]
    more = len(found) > size
    return Page(sessions=found[:size], following=found[size - 1].uuid if more else None)


def cancel(store: Store, uuid: str, *, now: float, cause: str, audit: AuditEntry | None = None) -> SessionRecord | None:
    """Cancel an accepted session that has not ended; the driver then ends its job and frees its booking.

    Any other session is returned as it is. None: no such session. ``audit`` is written where something was changed.
    """
    with store.write("cancel", uuid) as tx:
        query = select(sessions.c.phase).where(sessions.c.uuid == uuid)
        found = tx.execute(query.with_for_update()).scalar_one_or_none()
        if found is None:
            return None
        phase = Phase(found)
        if phase in LIVE:
            tx.execute(
                update(sessions)
                .where(sessions.c.uuid == uuid)
                .values(phase=Phase.CANCELLED, outcome=Phase.CANCELLED, modified=now, attempt=0, due=now)
            )
            record_moves(tx, [uuid], phase, Phase.CANCELLED, cause, now)
            if audit is not None:
                add_audit(tx, [audit])
        session = get_session(tx, uuid)
    if phase in LIVE:
        wake(store)
    return session


class Change(Struct, frozen=True, kw_only=True):
    """What a driver's step changes in a session, beside its phase. None: unchanged."""

    messages: tuple[Message, ...] = ()
    """added to the session's messages"""
    connectors: tuple[Connector, ...] | None = None
    held: str | None = None
    native: str | None = None
    node: str | None = None
    exit_code: int | None = None
    started: float | None = None
    ended: float | None = None
    outcome: Phase | None = None
    submitting: bool | None = None
    attempt: int | None = None
    """failures of the present step so far"""
    troubled: float | None = None
    """when the first of them was"""
    due: float | None = None
    """when a driver should look at it; only for one that gives the lease back"""
    kept_until: float | None = None
    booked_until: int | None = None
    """shortens the bookings to end then (POSIX seconds)"""
    finish: int | None = None
    """when its time ends, earlier than was booked"""
    usage: Usage | None = None
    finished: bool = False
    """nothing is left to do: the bookings are freed, the driver looks at it no more"""
    unlease: bool = False
    """gives the lease back"""


_PLAIN = (
    "held",
    "native",
    "node",
    "exit_code",
    "started",
    "ended",
    "outcome",
    "submitting",
    "attempt",
    "troubled",
    "due",
    "kept_until",
    "finish",
)


def move(
    store: Store,
    uuid: str,
    *,
    driver: str,
    here: Phase,
    there: Phase | None,
    cause: str,
    change: Change,
    now: float,
) -> SessionRecord:
    """Apply a driver's step: move the session from ``here`` to ``there`` (None: it stays) with its ``change``.

    Raises:
        LeaseLost: the lease is not ``driver``'s, or the session is not in phase ``here`` any more.
        ValueError: the machine has no such edge, or a lease is given back without saying when the session is due.
    """
    if change.unlease and change.due is None:
        raise ValueError(f"session {uuid}: given back, but due never")
    if there is not None and not may_move(here, there):
        raise ValueError(f"session {uuid}: no edge from {here} to {there}")
    name = f"move.{here}-{there}" if there is not None else f"change.{here}"
    touches_bookings = change.finished or change.booked_until is not None
    with store.write(name, uuid) as tx:
        revision = None
        if touches_bookings:
            platform = tx.execute(select(sessions.c.platform).where(sessions.c.uuid == uuid)).scalar_one()
            revision = lock_platform(tx, platform)
        query = select(sessions.c.phase, sessions.c.lease, sessions.c.messages).where(sessions.c.uuid == uuid)
        row = tx.execute(query.with_for_update()).one()
        if row.phase != here or row.lease != driver:
            raise LeaseLost(f"session {uuid} is {row.phase} with {row.lease}, not {here} with {driver}")
        values: dict[str, Any] = {name: value for name in _PLAIN if (value := getattr(change, name)) is not None}
        if change.connectors is not None:
            values["connectors"] = json_text(change.connectors)
        if change.usage is not None:
            values["usage"] = json_text(change.usage)
        if change.messages:
            values["messages"] = added_messages(row.messages, change.messages)
        if there is not None:
            values["phase"] = there
        if there is not None or change.messages or change.connectors is not None or change.usage is not None:
            values["modified"] = now
        if change.finished:
            values["unfinished"] = False
        if change.unlease or change.finished:
            values |= {"lease": None, "lease_until": None}
        if values:
            tx.execute(update(sessions).where(sessions.c.uuid == uuid).values(**values))
        if revision is not None:
            if change.finished:
                free(tx, [uuid], revision, now)
            else:
                settle(tx, uuid, revision, finish=change.booked_until)
        if there is not None:
            record_moves(tx, [uuid], here, there, cause, now)
        result = get_session(tx, uuid)
        assert result is not None
    return result


def count_phases(tx: Connection) -> dict[tuple[str, Phase], int]:
    """How many sessions are on each platform in each phase."""
    query = select(sessions.c.platform, sessions.c.phase, func.count()).group_by(sessions.c.platform, sessions.c.phase)
    return {(platform, Phase(phase)): count for platform, phase, count in tx.execute(query)}


def live_bookings(tx: Connection, platform: str | None = None) -> list[Any]:
    """Rows of bookings that count, for audits."""
    query = select(bookings).where(bookings.c.freed.is_(None))
    if platform is not None:
        query = query.where(bookings.c.platform == platform)
    return list(tx.execute(query))
