"""The secret addresses of users' calendars, and what stands in one."""

from __future__ import annotations

from sqlalchemy import delete, insert, select

from ebhpc.model import LIVE, Phase
from ebhpc.store.engine import Store
from ebhpc.store.records import SessionRecord
from ebhpc.store.sessions import select_sessions
from ebhpc.store.tables import calendars, sessions

_SHOWN = sorted({*LIVE, Phase.COMPLETED, Phase.CANCELLED, Phase.FAILED})


def set_calendar(store: Store, identity: str, secret: str, *, now: float) -> None:
    """Give a user's calendar an address; ``secret`` is the SHA-256 of what stands in it. The one before is none."""
    with store.write("set_calendar", identity) as tx:
        tx.execute(delete(calendars).where(calendars.c.identity == identity))
        tx.execute(insert(calendars).values(identity=identity, secret=secret, made=now))


def drop_calendar(store: Store, identity: str) -> bool:
    """Take the address of a user's calendar away; whether it had one."""
    with store.write("drop_calendar", identity) as tx:
        return bool(tx.execute(delete(calendars).where(calendars.c.identity == identity)).rowcount)


def calendar_owner(store: Store, secret: str) -> str | None:
    """Return whose calendar has the address with that SHA-256; None: nobody's."""
    with store.read() as tx:
        found: str | None = tx.execute(
            select(calendars.c.identity).where(calendars.c.secret == secret)
        ).scalar_one_or_none()
    return found


def reserved_sessions(store: Store, owner: str, *, since: float, most: int = 1000) -> list[SessionRecord]:
    """Return a user's reserved time that ends after ``since`` (POSIX seconds), in the order of its starts."""
    with store.read() as tx:
        found = select_sessions(
            tx,
            sessions.c.owner == owner,
            sessions.c.phase.in_(_SHOWN),
            sessions.c.finish > since,
            sessions.c.wants.like('%"reserved":true%'),
        )
    mine = [record for record in found if record.wants.reserved]
    return sorted(mine, key=lambda record: record.start)[:most]
