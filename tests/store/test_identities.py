from __future__ import annotations

from collections.abc import Callable

import pytest

from ebhpc.store import Store, set_barred, set_password, upgrade
from ebhpc.store.visits import VisitRecord, add_visit, find_visit
from tests.store.families import NOW, somebody


@pytest.mark.parametrize(
    "change",
    [
        lambda store, uuid: set_password(store, uuid, "another hash"),
        lambda store, uuid: set_barred(store, uuid, NOW),
    ],
    ids=["another password", "barred"],
)
def test_an_accounts_browsers_are_signed_out_with_its_password_and_others_are_not(
    database_url: str, change: Callable[[Store, str], None]
):
    store = Store(database_url)
    upgrade(store)
    ada, bob = somebody(store, "ada"), somebody(store, "bob")
    for mark, identity in (("at work", ada), ("at home", ada), ("of bob", bob)):
        add_visit(store, VisitRecord(mark=mark, identity=identity, created=NOW, expires=NOW + 1000), now=NOW)
    change(store, ada)
    left = {mark for mark in ("at work", "at home", "of bob") if find_visit(store, mark, now=NOW) is not None}
    assert left == {"of bob"}
    store.close()
