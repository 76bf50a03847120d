"""What the database tells those who watch the broker."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from ebhpc.model import Phase
from ebhpc.store.tables import events, platforms, sessions

NEWEST = 5000
"""How many of the newest events the times of phases are taken from."""


def phase_times(tx: Connection, *, newest: int = NEWEST) -> dict[tuple[str, Phase], list[float]]:
    """Seconds that sessions spent in each phase, by platform and phase, from the newest events.

    A stay whose beginning is older than those events is left out.
    """
    recent = (
        select(events.c.id, events.c.session, events.c.time, events.c.previous, events.c.phase)
        .order_by(events.c.id.desc())
        .limit(newest)
        .subquery()
    )
    query = (
        select(sessions.c.platform, recent.c.session, recent.c.time, recent.c.previous, recent.c.phase)
        .join(sessions, sessions.c.uuid == recent.c.session)
        .order_by(recent.c.id)
    )
    began: dict[str, float] = {}
    found: dict[tuple[str, Phase], list[float]] = {}
    for row in tx.execute(query):
        since = began.get(row.session)
        if since is not None:
            # A clock that was set back between the two makes no negative times
            found.setdefault((row.platform, Phase(row.previous)), []).append(max(0.0, row.time - since))
        began[row.session] = row.time
    return found


def oldest_due(tx: Connection) -> float | None:
    """When (POSIX seconds) the session was due that has waited longest for a driver; None: none waits for one."""
    return tx.execute(
        select(func.min(sessions.c.due)).where(sessions.c.unfinished.is_(True), sessions.c.lease.is_(None))
    ).scalar()


def expired_counts(tx: Connection) -> dict[str, int]:
    """How many offers of each platform have expired since the database was made, whoever expired them."""
    return {row.name: row.expired for row in tx.execute(select(platforms.c.name, platforms.c.expired))}


def lease_counts(tx: Connection) -> dict[str, int]:
    """How many sessions each incarnation of a driver has."""
    query = (
        select(sessions.c.lease, func.count().label("held"))
        .where(sessions.c.unfinished.is_(True), sessions.c.lease.is_not(None))
        .group_by(sessions.c.lease)
    )
    return {row.lease: row.held for row in tx.execute(query)}
