"""The newest snapshot of each platform, as the drivers publish it."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import IntegrityError

from ebhpc.model import Message
from ebhpc.store.engine import Store
from ebhpc.store.records import json_text
from ebhpc.store.tables import platforms


class PlatformRecord(Struct, frozen=True, kw_only=True):
    """A platform: ``version`` counts its snapshots, ``trouble`` says why it does not answer now."""

    name: str
    revision: int
    version: int
    taken: float | None
    looked: float | None
    trouble: Message | None


def ensure_platforms(store: Store, names: Iterable[str]) -> None:
    """Make a row for each configured platform that has none."""
    for name in names:
        with store.read() as tx:
            if tx.execute(select(platforms.c.name).where(platforms.c.name == name)).first():
                continue
        try:
            with store.write("ensure_platform", name) as tx:
                tx.execute(insert(platforms).values(name=name, revision=0, version=0))
        except IntegrityError:
            continue  # another process made it meanwhile


_PLATFORMS = select(
    platforms.c.name,
    platforms.c.revision,
    platforms.c.version,
    platforms.c.taken,
    platforms.c.looked,
    platforms.c.trouble,
).order_by(platforms.c.name)


def get_platforms(store: Store) -> dict[str, PlatformRecord]:
    """All platforms by name, without their snapshots."""
    with store.read() as tx:
        return read_platforms(tx)


def read_platforms(tx: Connection) -> dict[str, PlatformRecord]:
    """All platforms by name, without their snapshots."""
    return {
        row.name: PlatformRecord(
            name=row.name,
            revision=row.revision,
            version=row.version,
            taken=row.taken,
            looked=row.looked,
            trouble=msgspec.json.decode(row.trouble, type=Message) if row.trouble else None,
        )
        for row in tx.execute(_PLATFORMS)
    }


def get_snapshot(store: Store, name: str) -> tuple[int, bytes] | None:
    """The newest snapshot of a platform with its version; None: it has none yet."""
    with store.read() as tx:
        row = tx.execute(
            select(platforms.c.version, platforms.c.snapshot).where(platforms.c.name == name)
        ).one_or_none()
    return None if row is None or row.snapshot is None else (int(row.version), bytes(row.snapshot))


def publish_snapshot(store: Store, name: str, snapshot: bytes, *, taken: float, now: float) -> None:
    """Publish a snapshot that is newer than the stored one; an older one changes nothing."""
    with store.write("publish_snapshot", name, durable=False) as tx:
        tx.execute(
            update(platforms)
            .where(platforms.c.name == name, (platforms.c.taken.is_(None)) | (platforms.c.taken <= taken))
            .values(version=platforms.c.version + 1, snapshot=snapshot, taken=taken, looked=now, trouble=None)
        )


def publish_trouble(store: Store, name: str, trouble: Message, *, now: float) -> None:
    """Say why a platform gives no snapshot."""
    with store.write("publish_trouble", name, durable=False) as tx:
        tx.execute(update(platforms).where(platforms.c.name == name).values(trouble=json_text(trouble), looked=now))
