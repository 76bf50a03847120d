"""Drivers share the sessions by leases, and each driver's name belongs to one living process.

A session's lease holds until ``lease_until``, and beyond that while its driver gives signs of life: these are one row
of ``drivers``, so that a driver with ten thousand sessions does not write ten thousand rows to keep them. While a
session is leased its ``due`` is NEVER: the driver that has it keeps its own time. Whoever else wants that driver's
attention (a user who cancels) sets ``due``, and the driver's next ``claim`` returns the session again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, and_, delete, insert, not_, select, update

from ebhpc.model import Phase
from ebhpc.store.engine import Store
from ebhpc.store.records import SessionRecord
from ebhpc.store.sessions import select_sessions
from ebhpc.store.tables import drivers, sessions

NEVER = 253_402_300_800.0
"""``due`` of a leased session: the year 10000."""

_AT_ONCE = 0.0


class DriverRecord(Struct, frozen=True, kw_only=True):
    """A driver: its process, and when it last gave a sign of life (POSIX seconds)."""

    name: str
    incarnation: str
    host: str
    pid: int
    pid_started: float
    heartbeat: float


def get_driver(store: Store, name: str) -> DriverRecord | None:
    """The process that has, or last had, a driver's name."""
    with store.read() as tx:
        row = tx.execute(select(drivers).where(drivers.c.name == name)).one_or_none()
    return None if row is None else DriverRecord(**row._mapping)


def list_drivers(store: Store) -> list[DriverRecord]:
    """All drivers that ever registered and did not leave."""
    with store.read() as tx:
        rows = tx.execute(select(drivers).order_by(drivers.c.name))
        return [DriverRecord(**row._mapping) for row in rows]


def register_driver(store: Store, record: DriverRecord, *, replaces: str | None) -> bool:
    """Take a driver's name, from the incarnation ``replaces`` (None: nobody has it). False: someone was faster.

    The leases of the incarnation before are ended, so that its sessions can be claimed at once.
    """
    with store.write("register_driver", record.name) as tx:
        query = select(drivers.c.incarnation).where(drivers.c.name == record.name)
        present = tx.execute(query.with_for_update()).scalar_one_or_none()
        if present != replaces:
            return False
        if present is not None:
            tx.execute(delete(drivers).where(drivers.c.name == record.name))
            _end_leases(tx, present)
        tx.execute(
            insert(drivers).values(
                name=record.name,
                incarnation=record.incarnation,
                host=record.host,
                pid=record.pid,
                pid_started=record.pid_started,
                heartbeat=record.heartbeat,
            )
        )
    return True


def leave(store: Store, incarnation: str) -> None:
    """Give up a driver's name and all its leases: an orderly stop."""
    with store.write("leave", incarnation) as tx:
        _end_leases(tx, incarnation)
        tx.execute(delete(drivers).where(drivers.c.incarnation == incarnation))


def _end_leases(tx: Connection, incarnation: str) -> None:
    """Free a driver's sessions; whoever comes next looks at them at once."""
    tx.execute(
        update(sessions)
        .where(sessions.c.unfinished.is_(True), sessions.c.lease == incarnation)
        .values(lease=None, lease_until=None, due=_AT_ONCE)
    )


def claim(
    store: Store,
    incarnation: str,
    *,
    now: float,
    lease: float,
    most: int,
    busy: Collection[str] = (),
    preparing: Collection[str] = (),
) -> list[SessionRecord]:
    """Take leases on up to ``most`` sessions that are due and free, or whose lease ran out; return them.

    Sessions that the driver has already are among them where someone else made them due. Left alone are those of the
    platforms ``busy``, and those to prepare on the platforms ``preparing``: the driver has its hands full with them.
    """
    wanted = [
        *([sessions.c.platform.not_in(sorted(busy))] if busy else []),
        *(
            [not_(and_(sessions.c.phase == Phase.PREPARING, sessions.c.platform.in_(sorted(preparing))))]
            if preparing
            else []
        ),
    ]
    with store.read() as tx:
        ready = list(_ready(tx, incarnation, now=now, lease=lease))
        if not any(tx.execute(select(sessions.c.uuid).where(*one, *wanted).limit(1)).first() for one in ready):
            return []
    with store.write("claim", incarnation, durable=False) as tx:
        uuids: list[str] = []
        for one in _ready(tx, incarnation, now=now, lease=lease):
            query = select(sessions.c.uuid).where(*one, *wanted).order_by(sessions.c.due)
            query = query.limit(most - len(uuids))
            uuids += tx.execute(query.with_for_update(skip_locked=True)).scalars()
        if not uuids:
            return []
        tx.execute(
            update(sessions)
            .where(sessions.c.uuid.in_(uuids))
            .values(lease=incarnation, lease_until=now + lease, due=NEVER)
        )
        return select_sessions(tx, sessions.c.uuid.in_(uuids))


def _ready(tx: Connection, incarnation: str, *, now: float, lease: float) -> Iterator[tuple[ColumnElement[bool], ...]]:
    """Conditions for what a driver may claim, each answered from the index: ours, free, abandoned."""
    alive = tx.execute(select(drivers.c.incarnation).where(drivers.c.heartbeat > now - lease)).scalars()
    unfinished = sessions.c.unfinished.is_(True)
    yield unfinished, sessions.c.lease == incarnation, sessions.c.due <= now
    yield unfinished, sessions.c.lease.is_(None), sessions.c.due <= now
    yield (
        unfinished,
        sessions.c.lease.is_not(None),
        sessions.c.lease.not_in(sorted({incarnation, *alive})),
        sessions.c.lease_until <= now,
    )


def leased(store: Store, incarnation: str) -> frozenset[str]:
    """UUIDs of the sessions that a driver has."""
    with store.read() as tx:
        return frozenset(
            tx.execute(
                select(sessions.c.uuid).where(sessions.c.unfinished.is_(True), sessions.c.lease == incarnation)
            ).scalars()
        )


def give_back(store: Store, incarnation: str, uuids: Collection[str], *, due: float) -> None:
    """End a driver's leases on some sessions; they are due then."""
    with store.write("give_back", incarnation, durable=False) as tx:
        tx.execute(
            update(sessions)
            .where(sessions.c.uuid.in_(sorted(uuids)), sessions.c.lease == incarnation)
            .values(lease=None, lease_until=None, due=due)
        )


def beat(store: Store, incarnation: str, *, now: float) -> bool:
    """Give a sign of life, which lengthens all leases. False: another process has taken the name; stop."""
    with store.write("beat", incarnation, durable=False) as tx:
        known = tx.execute(update(drivers).where(drivers.c.incarnation == incarnation).values(heartbeat=now)).rowcount
    return bool(known)
