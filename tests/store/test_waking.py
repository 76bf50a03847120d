"""Drivers that are woken: at once, on either database, and nobody minds where nobody listens."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from ebhpc.store import NewOffer, Store, Waking, accept, book_offers, cancel, ensure_platforms, upgrade, wake
from tests.store.families import NOW, offer, offerset, somebody


@pytest.fixture
def store(database_url):
    opened = Store(database_url)
    upgrade(opened)
    ensure_platforms(opened, ["tin", "zinc"])
    yield opened
    opened.close()


def offered(store: Store) -> NewOffer:
    """An offer that somebody may accept."""
    one = offer()
    record = offerset(somebody(store), [one])
    book_offers(store, record, [one], {"tin": 0, "zinc": 0}, lambda platform, changes: True, now=NOW)
    return one


class Ears:
    """A driver that only listens."""

    def __init__(self, store: Store, name: str) -> None:
        self.heard = threading.Event()
        self.waking = Waking(store, name, self.heard.set)

    def __enter__(self) -> Ears:
        self.waking.__enter__()
        return self

    def __exit__(self, *what: object) -> None:
        self.waking.__exit__(None, None, None)

    def hears(self, store: Store) -> bool:
        """Wake until it is heard: listening begins on a thread."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            wake(store)
            if self.heard.wait(0.2):
                self.heard.clear()
                return True
        return False


def test_every_driver_hears_it(store):
    with Ears(store, "one") as one, Ears(store, "two") as two:
        assert one.hears(store)
        assert two.hears(store)


def test_who_accepts_or_cancels_wakes_the_driver(store):
    first = offered(store)
    with Ears(store, "one") as one:
        assert one.hears(store)
        time.sleep(0.3)  # what was said while it was not listening yet
        one.heard.clear()
        accept(store, first.uuid, now=NOW)
        assert one.heard.wait(10)
        one.heard.clear()
        cancel(store, first.uuid, now=NOW, cause="cancelled")
        assert one.heard.wait(10)


def test_where_nobody_listens_nothing_happens(store):
    first = offered(store)
    answer = accept(store, first.uuid, now=NOW)
    assert answer is not None
    assert answer.done


def test_what_a_killed_driver_left_is_taken_away(tmp_path):
    # A directory so deep that no socket's address could hold its path
    deep = tmp_path / ("d" * 100) / "broker.sqlite3"
    store = Store(f"sqlite:///{deep}")
    upgrade(store)
    with Ears(store, "killed") as ears:
        assert ears.hears(store)
        left = Path(f"{deep}.wake")
        assert [one.name for one in left.iterdir()] == ["killed"]
        (left / "killed").rename(left / "older")
    assert [one.name for one in left.iterdir()] == ["older"]
    wake(store)
    assert list(left.iterdir()) == []
    store.close()
