"""Reserved time that is extended or moved: the old session stays until the new one stands."""

from __future__ import annotations

from ebhpc.driver.notices import at, notice, progress
from ebhpc.faults import point
from ebhpc.model import MessageKind
from ebhpc.plugins import SessionFailed
from ebhpc.store import SessionRecord, Store, cancel, take_over, tell


def take_over_from(store: Store, record: SessionRecord, now: float) -> None:
    """End the session whose reservation was just lengthened for another one, and give that one its booking.

    Raises:
        SessionFailed: it has ended meanwhile, so that nothing is there to go on with.
    """
    old = record.wants.replaces
    assert old is not None, "what extends something replaces it"
    told = progress(
        now, "the reserved time goes on, up to {end}, in session {session}", end=at(record.finish), session=record.uuid
    )
    point("driver.take-over.before", record.uuid)
    if not take_over(store, record.uuid, old, told, cause=f"goes on in session {record.uuid}", now=now):
        raise SessionFailed(
            notice(
                now,
                MessageKind.CONFLICT,
                "ERROR",
                "the session {session}, whose time should go on in this one, has ended",
                session=old,
            )
        )
    point("driver.take-over.after", record.uuid)


def end_replaced(store: Store, record: SessionRecord, now: float) -> None:
    """End the session in whose place another one stands now. Safe to repeat; it may have ended by itself."""
    old = record.wants.replaces
    assert old is not None, "asked of sessions that replace another"
    told = progress(now, "the reserved time was moved: session {session} stands in its place", session=record.uuid)
    before = cancel(store, old, now=now, cause=f"replaced by session {record.uuid}")
    if before is not None and before.modified == now:
        tell(store, old, (told,), now=now)
