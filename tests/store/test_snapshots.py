from __future__ import annotations

from ebhpc.model import message
from ebhpc.store import (
    Store,
    ensure_platforms,
    get_platforms,
    get_snapshot,
    publish_snapshot,
    publish_trouble,
    upgrade,
)


def test_the_newest_snapshot_wins_and_an_older_one_changes_nothing(database_url):
    store = Store(database_url)
    upgrade(store)
    ensure_platforms(store, ["tin", "tin"])
    assert get_snapshot(store, "tin") is None
    publish_snapshot(store, "tin", b"new", taken=20.0, now=21.0)
    publish_snapshot(store, "tin", b"old", taken=10.0, now=22.0)
    assert get_snapshot(store, "tin") == (1, b"new")
    store.close()


def test_trouble_is_told_until_the_next_snapshot(database_url):
    store = Store(database_url)
    upgrade(store)
    ensure_platforms(store, ["tin"])
    trouble = message("urn:platform-unavailable", "{platform} is silent", platform="tin")
    publish_trouble(store, "tin", trouble, now=5.0)
    assert get_platforms(store)["tin"].trouble == trouble
    publish_snapshot(store, "tin", b"x", taken=6.0, now=6.0)
    assert get_platforms(store)["tin"].trouble is None
    store.close()
