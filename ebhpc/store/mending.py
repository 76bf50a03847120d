"""Sessions whose nodes are given up for others before they start."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import select, update

from ebhpc.model import Allocation, Message, Phase
from ebhpc.store.engine import Store
from ebhpc.store.ledger import Changes, changes_since, lock_platform
from ebhpc.store.records import SessionRecord, added_messages, json_text
from ebhpc.store.sessions import get_session, select_sessions
from ebhpc.store.tables import bookings, sessions

_BEFORE = (Phase.WAITING, Phase.PREPARING, Phase.AVAILABLE)


def not_begun(store: Store, platform: str, *, now: float) -> list[SessionRecord]:
    """Return the firm sessions of a platform that it holds, and that have not begun."""
    with store.read() as tx:
        return select_sessions(
            tx,
            sessions.c.platform == platform,
            sessions.c.unfinished.is_(True),
            sessions.c.phase.in_(_BEFORE),
            sessions.c.firm.is_(True),
            sessions.c.held.is_not(None),
            sessions.c.started.is_(None),
            sessions.c.finish > now,
        )


def booked_nodes(store: Store, platform: str) -> frozenset[str]:
    """Return the names of the nodes of a platform on which anything is booked."""
    with store.read() as tx:
        query = select(bookings.c.node).where(bookings.c.platform == platform, bookings.c.freed.is_(None)).distinct()
        return frozenset(tx.execute(query).scalars())


def reallocate(
    store: Store,
    before: SessionRecord,
    allocations: tuple[Allocation, ...],
    message: Message | None,
    *,
    revision: int,
    still_fit: Callable[[Changes], bool],
    now: float,
) -> SessionRecord | None:
    """Give a session that has not begun other allocations, node by node, and book these; return it as it is then.

    Under the platform's lock ``still_fit`` is asked with what changed since ``revision``, with which they were planned.
    None: they do not fit any more, or the session is another than ``before`` was.
    """
    with store.write("reallocate", before.uuid) as tx:
        present = lock_platform(tx, before.platform)
        found = get_session(tx, before.uuid)
        same = found is not None and found.allocations == before.allocations and found.phase in _BEFORE
        if not same or not still_fit(changes_since(tx, before.platform, revision, now=present)):
            tx.rollback()
            return None
        for old, new in zip(before.allocations, allocations, strict=True):
            if old != new:
                tx.execute(
                    update(bookings)
                    .where(bookings.c.session == before.uuid, bookings.c.node == old.node, bookings.c.freed.is_(None))
                    .values(
                        node=new.node,
                        cores=new.cores,
                        memory=new.memory,
                        devices=json_text(new.devices) if new.devices else "{}",
                        changed=present,
                    )
                )
        values = {"allocations": json_text(allocations), "modified": now, "due": now}
        messages = tx.execute(select(sessions.c.messages).where(sessions.c.uuid == before.uuid)).scalar_one()
        if message is not None:
            values["messages"] = added_messages(messages, (message,))
        tx.execute(update(sessions).where(sessions.c.uuid == before.uuid).values(**values))
        return get_session(tx, before.uuid)


def tell(store: Store, uuid: str, messages: tuple[Message, ...], *, now: float) -> None:
    """Add messages to a session that a driver has or has not; whoever has it looks at it."""
    if not messages:
        return
    with store.write("tell", uuid) as tx:
        query = select(sessions.c.messages).where(sessions.c.uuid == uuid).with_for_update()
        stored = tx.execute(query).scalar_one_or_none()
        if stored is not None:
            tx.execute(
                update(sessions)
                .where(sessions.c.uuid == uuid)
                .values(messages=added_messages(stored, messages), modified=now, due=now)
            )


def bookings_revision(store: Store, platform: str) -> tuple[int, Changes]:
    """Return a platform's revision and all its bookings that count."""
    with store.read() as tx:
        changes = changes_since(tx, platform, 0)
    return changes.revision, changes
