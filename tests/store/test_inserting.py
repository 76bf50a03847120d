"""Many rows in one statement, and SQLite's log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from ebhpc.model import Phase
from ebhpc.store import Store, ensure_platforms, upgrade
from ebhpc.store.inserting import insert_numbered, insert_rows
from ebhpc.store.tables import bookings, events, identities, platforms
from tests.store.families import NOW, offer, somebody
from tests.store.test_offers import book


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    opened = Store(database_url)
    upgrade(opened)
    ensure_platforms(opened, ["tin"])
    yield opened
    opened.close()


def test_more_rows_than_one_statement_takes_are_all_inserted(store):
    rows = [
        {"uuid": f"{number:036}", "username": f"user {number}", "password": "-", "admin": False, "created": NOW}
        for number in range(7_000)
    ]
    with store.write("test") as tx:
        insert_rows(tx, identities, rows)
    with store.read() as tx:
        found = tx.execute(select(identities.c.uuid, identities.c.username).order_by(identities.c.uuid)).all()
    assert [tuple(row) for row in found] == [(row["uuid"], row["username"]) for row in rows]


@pytest.mark.parametrize("count", [0, 1, 3, 7_000])
def test_ids_are_those_of_the_rows_in_their_order(store, count):
    one = offer("tin")
    book(store, somebody(store), one)
    rows = [
        {"session": one.uuid, "time": NOW, "previous": Phase.INITIAL, "phase": Phase.OFFERED, "cause": f"row {number}"}
        for number in range(count)
    ]
    with store.write("test") as tx:
        ids = insert_numbered(tx, events, rows)
        insert_numbered(tx, events, rows[:1])
    with store.read() as tx:
        causes = dict(tuple(row) for row in tx.execute(select(events.c.id, events.c.cause)).all())
    assert len(ids) == count
    assert [causes[number] for number in ids] == [row["cause"] for row in rows]


def test_an_insertion_that_is_undone_leaves_nothing(store):
    one = offer("tin")
    book(store, somebody(store), one)
    before = _count(store)
    rows = [{"session": one.uuid, "time": NOW, "previous": "A", "phase": "B", "cause": "-"}] * 3
    with store.write("test") as tx:
        insert_rows(tx, events, rows)
        tx.rollback()
    assert _count(store) == before


def test_a_checkpoint_carries_the_log_over_while_others_are_in_a_transaction(tmp_path):
    store = Store(f"sqlite:///{tmp_path / 'here.db'}")
    upgrade(store)
    ensure_platforms(store, ["tin"])
    small = (tmp_path / "here.db").stat().st_size
    owner = somebody(store)
    with store.read() as reading:
        assert reading.execute(select(platforms.c.name)).scalars().all() == ["tin"]
        store.checkpoint()
        for _ in range(20):
            book(store, owner, offer("tin"))
    store.checkpoint()
    assert (tmp_path / "here.db").stat().st_size > small
    store.close()
    assert _held(tmp_path / "here.db") == 20


def test_a_checkpoint_of_another_database_is_nothing(store):
    store.checkpoint()
    with store.read() as tx:
        assert tx.execute(select(platforms.c.name)).scalars().all() == ["tin"]


def _count(store: Store) -> int:
    with store.read() as tx:
        return len(tx.execute(select(events.c.id)).all())


def _held(path: Path) -> int:
    store = Store(f"sqlite:///{path}")
    with store.read() as tx:
        found = len(tx.execute(select(bookings.c.id)).all())
    store.close()
    return found
