"""Firm time: who has how much of it, and what operators say to it."""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import Connection, and_, or_, select, update

from ebhpc.model import LIVE, Allocation, Message, Phase
from ebhpc.store.audit import AuditEntry, add_audit
from ebhpc.store.engine import Store
from ebhpc.store.ledger import record_moves
from ebhpc.store.records import SessionRecord, added_messages, allocations_of, json_text
from ebhpc.store.sessions import get_session, select_sessions
from ebhpc.store.tables import sessions
from ebhpc.store.waking import wake

_HELD = (*LIVE, Phase.RELEASING)
_UNDECIDED = (Phase.ACCEPTED, Phase.WAITING)


class FirmTimeOf(Struct, frozen=True, kw_only=True):
    """Firm time of a user, from ``start`` to ``end``: until its session's end, where that has ended. POSIX seconds."""

    session: str
    offerset: str
    phase: Phase
    start: int
    end: int
    allocations: tuple[Allocation, ...]


def firm_time_of(tx: Connection, owner: str, platform: str, *, since: int, now: float) -> list[FirmTimeOf]:
    """Return the firm time that a user has on a platform, open offers included, of what ends after ``since``."""
    rows = tx.execute(
        select(
            sessions.c.uuid,
            sessions.c.offerset,
            sessions.c.phase,
            sessions.c.start,
            sessions.c.duration,
            sessions.c.modified,
            sessions.c.ended,
            sessions.c.allocations,
        ).where(
            sessions.c.owner == owner,
            sessions.c.platform == platform,
            sessions.c.firm.is_(True),
            sessions.c.finish > since,
            or_(
                sessions.c.phase.in_([*_HELD, Phase.COMPLETED, Phase.FAILED, Phase.CANCELLED]),
                and_(sessions.c.phase == Phase.OFFERED, sessions.c.expires > now),
            ),
        )
    )
    return [
        FirmTimeOf(
            session=row.uuid,
            offerset=row.offerset,
            phase=Phase(row.phase),
            start=row.start,
            end=max(min(row.start + row.duration, _until(row)), row.start),
            allocations=allocations_of(row.allocations),
        )
        for row in rows
    ]


def _until(row: Any) -> int:
    """Return until when the time of a session is its own: to the end, or until it ended before that."""
    if Phase(row.phase) in (*_HELD, Phase.OFFERED):
        return int(row.start + row.duration)
    return int(row.ended if row.ended is not None else row.modified)


def pending_approvals(tx: Connection) -> list[SessionRecord]:
    """Return the accepted sessions that wait for an operator's word, the most urgent first."""
    found = select_sessions(
        tx, sessions.c.unfinished.is_(True), sessions.c.phase.in_(_UNDECIDED), sessions.c.approval.is_not(None)
    )
    waiting = [each for each in found if each.approval is not None and each.approval.approved is None]
    return sorted(waiting, key=lambda each: (each.approval.deadline if each.approval else 0, each.uuid))


class Decided(Struct, frozen=True, kw_only=True):
    """What became of an operator's word: the session as it is now, and whether the word holds."""

    session: SessionRecord
    done: bool


def decide(
    store: Store,
    uuid: str,
    *,
    approved: bool,
    operator: str,
    reason: str | None,
    told: Message,
    now: float,
    audit: AuditEntry | None = None,
) -> Decided | None:
    """Approve a session that waits for it, or refuse it, which cancels it; ``told`` is added to its messages.

    Done too where the same was said before. A session that waits for no word, or no more, is returned as it is. None:
    no such session. ``audit`` is written where something was changed.
    """
    with store.write("approve" if approved else "refuse", uuid) as tx:
        query = select(sessions.c.phase, sessions.c.messages).where(sessions.c.uuid == uuid)
        row = tx.execute(query.with_for_update()).one_or_none()
        record = get_session(tx, uuid)
        if row is None or record is None:
            return None
        approval = record.approval
        if approval is None or approval.approved is not None or record.phase not in _UNDECIDED:
            same = approval is not None and approval.approved is approved
            return Decided(session=record, done=same)
        word = replace(approval, approved=approved, decided=now, operator=operator, reason=reason)
        values: dict[str, Any] = {
            "approval": json_text(word),
            "messages": added_messages(row.messages, (told,)),
            "modified": now,
            "due": now,
        }
        if not approved:
            values |= {"phase": Phase.CANCELLED, "outcome": Phase.CANCELLED, "attempt": 0}
        tx.execute(update(sessions).where(sessions.c.uuid == uuid).values(**values))
        if not approved:
            record_moves(tx, [uuid], record.phase, Phase.CANCELLED, "refused by an operator", now)
        if audit is not None:
            add_audit(tx, [audit])
        changed = get_session(tx, uuid)
        assert changed is not None
    wake(store)
    return Decided(session=changed, done=True)
