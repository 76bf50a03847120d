"""What is old goes, in small batches."""

from __future__ import annotations

from sqlalchemy import delete, exists, or_, select, update

from ebhpc.model import Phase
from ebhpc.store.engine import Store
from ebhpc.store.records import SessionRecord
from ebhpc.store.sessions import select_sessions
from ebhpc.store.tables import bookings, events, offersets, sessions

_OVER = (sessions.c.phase.in_((Phase.EXPIRED, Phase.REJECTED)), sessions.c.unfinished.is_(False))
"""Offers that were never accepted, and for which nothing is held any more."""


def sessions_with_old_results(
    store: Store, *, now: float, most: int = 100, platform: str | None = None
) -> list[SessionRecord]:
    """Sessions, of one platform or of all, whose results need be kept no longer; the oldest first."""
    query = (
        select(sessions.c.uuid)
        .where(sessions.c.kept_until <= now, sessions.c.unfinished.is_(False))
        .order_by(sessions.c.kept_until)
        .limit(most)
    )
    if platform is not None:
        query = query.where(sessions.c.platform == platform)
    with store.read() as tx:
        uuids = list(tx.execute(query).scalars())
        return select_sessions(tx, sessions.c.uuid.in_(uuids)) if uuids else []


def results_are_gone(store: Store, uuid: str) -> None:
    """Note that a session's results were deleted."""
    keep_results(store, uuid, until=None)


def keep_results(store: Store, uuid: str, *, until: float | None) -> None:
    """Note until when (POSIX seconds) a session's results are kept; None: there are none any more."""
    with store.write("keep_results" if until is not None else "results_gone", uuid) as tx:
        tx.execute(update(sessions).where(sessions.c.uuid == uuid).values(kept_until=until))


def delete_old_offers(store: Store, *, before: float, most: int = 500) -> int:
    """Delete offers that were never accepted, and offer sets that have none left, that expired ``before``.

    Returns how many offer sets were looked at; call again while it equals ``most``.
    """
    with store.read() as tx:
        old = list(
            tx.execute(
                select(offersets.c.uuid)
                .where(
                    offersets.c.expires < before,
                    or_(
                        ~exists().where(sessions.c.offerset == offersets.c.uuid),
                        exists().where(sessions.c.offerset == offersets.c.uuid, *_OVER),
                    ),
                )
                .limit(most)
            ).scalars()
        )
    if not old:
        return 0
    with store.write("delete_old_offers", durable=False) as tx:
        gone = select(sessions.c.uuid).where(sessions.c.offerset.in_(old), *_OVER)
        tx.execute(delete(events).where(events.c.session.in_(gone)))
        tx.execute(delete(bookings).where(bookings.c.session.in_(gone)))
        tx.execute(delete(sessions).where(sessions.c.offerset.in_(old), *_OVER))
        tx.execute(
            delete(offersets).where(offersets.c.uuid.in_(old), ~exists().where(sessions.c.offerset == offersets.c.uuid))
        )
    return len(old)
