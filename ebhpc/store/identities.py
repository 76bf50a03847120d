"""Who the broker's users are: local accounts, and the users of issuers (OpenID Connect)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable

from msgspec import Struct
from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from ebhpc.store.engine import Store
from ebhpc.store.tables import identities, memberships, visits

FRESH = 3600.0
"""Seconds in which nothing is written where an issuer says the same of somebody again."""


class IdentityRecord(Struct, frozen=True, kw_only=True):
    """An account; ``password`` is an argon2 hash and never shown; empty: an issuer's user has none here."""

    uuid: str
    username: str
    password: str
    admin: bool
    created: float
    issuer: str | None = None
    subject: str | None = None
    seen: float | None = None
    barred: float | None = None

    def __rich_repr__(self) -> list[tuple[str, str]]:
        return [("uuid", self.uuid), ("username", self.username)]

    def __repr__(self) -> str:
        return f"IdentityRecord(uuid={self.uuid!r}, username={self.username!r}, admin={self.admin})"


class ExternalUser(Struct, frozen=True, kw_only=True):
    """What an issuer says of one of its users; ``username`` is the one wanted, qualified by the issuer's name."""

    issuer: str
    subject: str
    username: str
    groups: tuple[str, ...] = ()


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


def get_identity(store: Store, uuid: str) -> tuple[IdentityRecord, tuple[str, ...]] | None:
    """The account of that UUID, and the groups that its issuer last said; None: there is none."""
    with store.read() as tx:
        row = tx.execute(select(identities).where(identities.c.uuid == uuid)).one_or_none()
        if row is None:
            return None
        return IdentityRecord(**row._mapping), _groups(tx, uuid)


def list_identities(store: Store) -> list[IdentityRecord]:
    """All accounts, by username."""
    with store.read() as tx:
        return [IdentityRecord(**row._mapping) for row in tx.execute(select(identities).order_by("username"))]


def meet_external(store: Store, user: ExternalUser, *, uuid: str, now: float) -> IdentityRecord:
    """Return an issuer's user, made with ``uuid`` where it is new; keep what the issuer says of its groups now.

    The username is given once and stays: where the wanted one is somebody else's, a part of a hash follows it.
    """
    for _ in range(2):
        with store.read() as tx:
            record = _external(tx, user)
            if record is not None and now - (record.seen or 0) < FRESH and _groups(tx, record.uuid) == user.groups:
                return record
        try:
            with store.write("meet_external", uuid) as tx:
                record = _external(tx, user)
                if record is None:
                    tx.execute(
                        insert(identities).values(
                            uuid=uuid,
                            username=_free_name(tx, user),
                            password="",
                            admin=False,
                            created=now,
                            issuer=user.issuer,
                            subject=user.subject,
                            seen=now,
                        )
                    )
                else:
                    tx.execute(update(identities).where(identities.c.uuid == record.uuid).values(seen=now))
                _set_groups(tx, uuid if record is None else record.uuid, user.groups)
                made = _external(tx, user)
                assert made is not None
                return made
        except IntegrityError:  # another worker met them at the same moment
            continue
    raise RuntimeError(f"{user.username} can be neither found nor added")


def set_password(store: Store, uuid: str, password: str) -> None:
    """Replace an account's argon2 hash; browsers that are signed in as it are no more."""
    with store.write("set_password", uuid) as tx:
        tx.execute(update(identities).where(identities.c.uuid == uuid).values(password=password))
        tx.execute(delete(visits).where(visits.c.identity == uuid))


def set_barred(store: Store, uuid: str, since: float | None) -> None:
    """Bar an account from everything since an instant, or with None no longer; its browsers are signed out."""
    with store.write("set_barred", uuid) as tx:
        tx.execute(update(identities).where(identities.c.uuid == uuid).values(barred=since))
        tx.execute(delete(visits).where(visits.c.identity == uuid))


def count_identities(store: Store) -> int:
    """How many accounts there are."""
    with store.read() as tx:
        return int(tx.execute(select(func.count()).select_from(identities)).scalar_one())


def _external(tx: Connection, user: ExternalUser) -> IdentityRecord | None:
    row = tx.execute(
        select(identities).where(identities.c.issuer == user.issuer, identities.c.subject == user.subject)
    ).one_or_none()
    return None if row is None else IdentityRecord(**row._mapping)


def _free_name(tx: Connection, user: ExternalUser) -> str:
    digest = hashlib.sha256(f"{user.issuer}\0{user.subject}".encode()).digest()
    mark = base64.b32encode(digest).decode().lower()
    for name in (user.username, *(f"{user.username}~{mark[:length]}" for length in (6, 12, 52))):
        if tx.execute(select(identities.c.uuid).where(identities.c.username == name)).first() is None:
            return name
    raise RuntimeError(f"no username is free for {user.username}")


def _groups(tx: Connection, uuid: str) -> tuple[str, ...]:
    query = select(memberships.c.name).where(memberships.c.identity == uuid).order_by(memberships.c.name)
    return tuple(tx.execute(query).scalars())


def _set_groups(tx: Connection, uuid: str, names: Iterable[str]) -> None:
    present, wanted = set(_groups(tx, uuid)), set(names)
    if gone := present - wanted:
        tx.execute(delete(memberships).where(memberships.c.identity == uuid, memberships.c.name.in_(gone)))
    if new := wanted - present:
        tx.execute(insert(memberships), [{"identity": uuid, "name": name} for name in sorted(new)])
