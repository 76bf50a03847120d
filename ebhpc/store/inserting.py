"""Many rows in one statement.

``executemany`` runs a statement for each row. On SQLite each gives up the interpreter, and a thread that has the
write lock must not queue for it behind threads that plan: all rows go in one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import chain
from operator import itemgetter

from sqlalchemy import Connection, Dialect, Table, insert

_MOST_VALUES = 30_000
"""Below what SQLite takes in one statement, 32766."""


def insert_rows(tx: Connection, table: Table, rows: Sequence[Mapping[str, object]]) -> None:
    """Insert rows, all with the same columns; values are what the database's driver takes as they are."""
    if tx.dialect.name != "sqlite":
        if rows:
            tx.execute(insert(table), rows)
        return
    for some in _portions(rows):
        tx.exec_driver_sql(*_statement(tx.dialect, table, some))


def insert_numbered(tx: Connection, table: Table, rows: Sequence[Mapping[str, object]]) -> list[int]:
    """Insert rows of a table whose key ``id`` the database counts; return their ids, in the order of the rows."""
    if not rows:
        return []
    if tx.dialect.name != "sqlite":
        statement = insert(table).returning(table.c.id, sort_by_parameter_order=True)
        return list(tx.execute(statement, rows).scalars())
    ids: list[int] = []
    for some in _portions(rows):
        # One writer at a time, and each new id is one more than the greatest: they follow one another.
        last = tx.exec_driver_sql(*_statement(tx.dialect, table, some)).lastrowid
        ids += range(last - len(some) + 1, last + 1)
    return ids


def _portions(rows: Sequence[Mapping[str, object]]) -> list[Sequence[Mapping[str, object]]]:
    if not rows:
        return []
    size = _MOST_VALUES // len(rows[0])
    return [rows[first : first + size] for first in range(0, len(rows), size)]


def _statement(dialect: Dialect, table: Table, rows: Sequence[Mapping[str, object]]) -> tuple[str, tuple[object, ...]]:
    columns = tuple(rows[0])
    values = (
        chain.from_iterable(map(itemgetter(*columns), rows)) if len(columns) > 1 else (row[columns[0]] for row in rows)
    )
    return _text(dialect, table, columns, len(rows)), tuple(values)


@lru_cache(maxsize=256)
def _text(dialect: Dialect, table: Table, columns: tuple[str, ...], count: int) -> str:
    quote = dialect.identifier_preparer.quote
    row = f"({', '.join('?' * len(columns))})"
    names = ", ".join(quote(table.c[column].name) for column in columns)
    return f"INSERT INTO {quote(table.name)} ({names}) VALUES {', '.join([row] * count)}"  # noqa: S608  # nosec B608
