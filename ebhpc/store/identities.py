"""Local accounts."""

from __future__ import annotations

from msgspec import Struct
from sqlalchemy import func, insert, select, update
from sqlalchemy.exc import IntegrityError

from ebhpc.store.engine import Store
from ebhpc.store.tables import identities


class IdentityRecord(Struct, frozen=True, kw_only=True):
    """An account; ``password`` is an argon2 hash and never shown."""

    uuid: str
    username: str
    password: str
    admin: bool
    created: float

    def __rich_repr__(self) -> list[tuple[str, str]]:
        return [("uuid", self.uuid), ("username", self.username)]

    def __repr__(self) -> str:
        return f"IdentityRecord(uuid={self.uuid!r}, username={self.username!r}, admin={self.admin})"


def add_identity(store: Store, record: IdentityRecord) -> IdentityRecord | None:
    """Add an account. Returns the one that has the username already, or None where it was added."""
    try:
        with store.write("add_identity", record.uuid) as tx:
            tx.execute(
                insert(identities).values(
                    uuid=record.uuid,
                    username=record.username,
                    password=record.password,
                    admin=record.admin,
                    created=record.created,
                )
            )
    except IntegrityError:
        present = find_identity(store, record.username)
        if present is None:
            raise
        return present
    return None


def find_identity(store: Store, username: str) -> IdentityRecord | None:
    """The account of that name."""
    with store.read() as tx:
        row = tx.execute(select(identities).where(identities.c.username == username)).one_or_none()
    return None if row is None else IdentityRecord(**row._mapping)


def set_password(store: Store, uuid: str, password: str) -> None:
    """Replace an account's argon2 hash."""
    with store.write("set_password", uuid) as tx:
        tx.execute(update(identities).where(identities.c.uuid == uuid).values(password=password))


def count_identities(store: Store) -> int:
    """How many accounts there are."""
    with store.read() as tx:
        return int(tx.execute(select(func.count()).select_from(identities)).scalar_one())
