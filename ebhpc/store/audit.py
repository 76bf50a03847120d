"""Who did what: the audit trail."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from sqlalchemy import Connection, delete, select

from ebhpc.store.engine import Store
from ebhpc.store.inserting import insert_rows
from ebhpc.store.tables import audit

_WIDTHS = {"username": 255, "address": 64, "action": 40, "kind": 40, "object": 255, "result": 16, "detail": 2000}


class AuditEntry(Struct, frozen=True, kw_only=True):
    """One line: at ``time`` somebody (``actor`` their identity, ``username`` its name, ``address`` where from) did
    ``action`` to the ``object`` of a ``kind``; ``result`` is done, refused or failed; ``count`` times in a row.
    """

    time: float
    action: str
    actor: str | None = None
    username: str = ""
    address: str = ""
    kind: str = ""
    object: str = ""
    result: str = "done"
    detail: str = ""
    count: int = 1


class AuditQuestion(Struct, frozen=True, kw_only=True):
    """Which entries are wanted; None: any. ``since`` and ``until`` are instants, ``most`` how many at most."""

    since: float | None = None
    until: float | None = None
    username: str | None = None
    address: str | None = None
    action: str | None = None
    object: str | None = None
    result: str | None = None
    after: int | None = None
    most: int = 100


def add_audit(tx: Connection, entries: Sequence[AuditEntry]) -> None:
    """Add entries in a transaction of somebody else's."""
    insert_rows(tx, audit, [_values(entry) for entry in entries])


def write_audit(store: Store, entries: Sequence[AuditEntry]) -> None:
    """Add entries. What somebody else chose is cut to what a column takes."""
    if not entries:
        return
    with store.write("write_audit", durable=False) as tx:
        add_audit(tx, entries)


def read_audit(store: Store, question: AuditQuestion) -> list[tuple[int, AuditEntry]]:
    """Return the newest entries that were asked for, oldest first, each with its number."""
    query = select(audit)
    for column in ("username", "address", "action", "object", "result"):
        wanted = getattr(question, column)
        if wanted is not None:
            query = query.where(audit.c[column] == wanted)
    if question.since is not None:
        query = query.where(audit.c.time >= question.since)
    if question.until is not None:
        query = query.where(audit.c.time < question.until)
    if question.after is not None:
        query = query.where(audit.c.id > question.after)
    with store.read() as tx:
        rows = tx.execute(query.order_by(audit.c.id.desc()).limit(question.most)).all()
    found = []
    for row in reversed(rows):
        values = dict(row._mapping)
        found.append((int(values.pop("id")), AuditEntry(**values)))
    return found


def delete_old_audit(store: Store, *, before: float, most: int = 500) -> int:
    """Delete a portion of the entries from ``before``; return how many. Call again while it equals ``most``."""
    with store.read() as tx:
        old = list(
            tx.execute(select(audit.c.id).where(audit.c.time < before).order_by(audit.c.id).limit(most)).scalars()
        )
    if old:
        with store.write("delete_old_audit", durable=False) as tx:
            tx.execute(delete(audit).where(audit.c.id.in_(old)))
    return len(old)


def _values(entry: AuditEntry) -> dict[str, object]:
    values = {name: getattr(entry, name) for name in entry.__struct_fields__}
    for name, width in _WIDTHS.items():
        values[name] = _storable(values[name])[:width]
    return values


def _storable(text: str) -> str:
    """Return a text that both databases take: without NUL and half surrogates."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
