"""Offers that their batch systems reserve before they are accepted."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import update

from ebhpc.model import Phase
from ebhpc.store.engine import Store
from ebhpc.store.ledger import free, lock_platform, record_moves, to_release
from ebhpc.store.records import SessionRecord
from ebhpc.store.sessions import select_sessions
from ebhpc.store.tables import sessions


def read_sessions(store: Store, uuids: Sequence[str]) -> list[SessionRecord]:
    """Return the sessions of these UUIDs, in any order."""
    if not uuids:
        return []
    with store.read() as tx:
        return select_sessions(tx, sessions.c.uuid.in_(uuids))


def note_held(store: Store, uuid: str, name: str | None) -> None:
    """Note the native name of what was reserved for an offer; None: its batch system reserves nothing."""
    with store.write("note_held", uuid, durable=False) as tx:
        # Once it is over, a driver is about to release it, and needs the name as much
        tx.execute(update(sessions).where(sessions.c.uuid == uuid).values(held=name, submitting=False))


def withdraw(store: Store, uuids: Sequence[str], *, now: float, cause: str) -> None:
    """Reject offers that do not stand, and free their bookings; what may be reserved for them is released."""
    if not uuids:
        return
    with store.write("withdraw", uuids[0], durable=False) as tx:
        open_ones = select_sessions(tx, sessions.c.uuid.in_(uuids), sessions.c.phase == Phase.OFFERED)
        revisions = {name: lock_platform(tx, name) for name in sorted({one.platform for one in open_ones})}
        # Under the locks again: one may have been accepted or have expired meanwhile
        open_ones = select_sessions(tx, sessions.c.uuid.in_(uuids), sessions.c.phase == Phase.OFFERED)
        for name, revision in revisions.items():
            those = [one.uuid for one in open_ones if one.platform == name]
            if those:
                tx.execute(
                    update(sessions)
                    .where(sessions.c.uuid.in_(those))
                    .values(phase=Phase.REJECTED, modified=now, **to_release(now))
                )
                free(tx, those, revision, now)
                record_moves(tx, those, Phase.OFFERED, Phase.REJECTED, cause, now)
