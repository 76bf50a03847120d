"""Browsers that are signed in on the page: of each, the hash of its cookie, who it is, until when."""

from __future__ import annotations

from msgspec import Struct
from sqlalchemy import bindparam, delete, insert, select

from ebhpc.store.engine import Store
from ebhpc.store.tables import visits


class VisitRecord(Struct, frozen=True, kw_only=True):
    """A signed-in browser; ``mark`` is a hash of its cookie, from which nobody makes the cookie. POSIX seconds."""

    mark: str
    identity: str
    created: float
    expires: float


def add_visit(store: Store, record: VisitRecord, *, now: float) -> None:
    """Note that a browser has signed in, and forget those whose time is over."""
    with store.write("add_visit", record.identity, durable=False) as tx:
        tx.execute(delete(visits).where(visits.c.expires <= now))
        tx.execute(
            insert(visits).values(
                mark=record.mark, identity=record.identity, created=record.created, expires=record.expires
            )
        )


# Made once: each look of each watching browser asks this
_FIND = select(visits).where(visits.c.mark == bindparam("mark"), visits.c.expires > bindparam("now"))


def find_visit(store: Store, mark: str, *, now: float) -> VisitRecord | None:
    """Return the browser that has this mark; None: it is not signed in, or no more."""
    with store.read() as tx:
        row = tx.execute(_FIND, {"mark": mark, "now": now}).one_or_none()
    return None if row is None else VisitRecord(**row._mapping)


def end_visit(store: Store, mark: str) -> None:
    """Sign a browser out; nothing happens where it is not signed in."""
    with store.write("end_visit", "") as tx:
        tx.execute(delete(visits).where(visits.c.mark == mark))
