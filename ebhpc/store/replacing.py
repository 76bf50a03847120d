"""A session that goes on with another one's reserved time, on the same nodes."""

from __future__ import annotations

from sqlalchemy import select, update

from ebhpc.model import LIVE, Message, Phase
from ebhpc.store.engine import Store
from ebhpc.store.ledger import free, lock_platform, record_moves
from ebhpc.store.records import added_messages
from ebhpc.store.sessions import get_session
from ebhpc.store.tables import bookings, sessions

_WAY = (
    Phase.ACCEPTED,
    Phase.WAITING,
    Phase.PREPARING,
    Phase.AVAILABLE,
    Phase.RUNNING,
    Phase.RELEASING,
    Phase.COMPLETED,
)


def take_over(store: Store, new: str, old: str, message: Message, *, cause: str, now: float) -> bool:
    """End the session ``old``, whose reservation ``new`` has now; what was booked for the one is booked for the other.

    The old one is COMPLETED at once: nothing of it is left to be ended or released. Safe to repeat. False: it had ended
    before, so that its time is nobody's to go on with.
    """
    with store.write("take_over", new) as tx:
        successor, before = get_session(tx, new), get_session(tx, old)
        if successor is None or before is None:
            return False
        revision = lock_platform(tx, successor.platform)
        query = select(sessions.c.phase, sessions.c.messages).where(sessions.c.uuid == old)
        row = tx.execute(query.with_for_update()).one()
        phase = Phase(row.phase)
        if phase not in LIVE:
            return phase is Phase.COMPLETED and any(one == message or _same(one, message) for one in before.messages)
        for here, there in zip(_WAY[_WAY.index(phase) :], _WAY[_WAY.index(phase) + 1 :], strict=False):
            record_moves(tx, [old], here, there, cause, now)
        tx.execute(
            update(sessions)
            .where(sessions.c.uuid == old)
            .values(
                phase=Phase.COMPLETED,
                outcome=Phase.COMPLETED,
                modified=now,
                ended=now,
                unfinished=False,
                lease=None,
                lease_until=None,
                messages=added_messages(row.messages, (message,)),
            )
        )
        free(tx, [old], revision, now)
        tx.execute(
            update(bookings)
            .where(
                bookings.c.session == new, bookings.c.freed.is_(None), bookings.c.start > max(successor.start, int(now))
            )
            .values(start=max(successor.start, int(now)), changed=revision)
        )
    return True


def _same(one: Message, other: Message) -> bool:
    return one.template == other.template and one.values == other.values
