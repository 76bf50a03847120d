"""What a worker knows of platforms: brought up to date before each use, without keeping requests from their answers."""

from __future__ import annotations

import threading
import time

import pytest

from ebhpc.api import timelines
from ebhpc.planning import Node
from ebhpc.store import live_bookings
from tests.api.conftest import compute, notebook

SMALL, LARGE = Node(name="n1", cores=4, memory=8192), Node(name="n1", cores=32, memory=65536)


WHENEVER = {"requested": {"duration": "PT1H", "start": "2030-03-17T17:46:40Z/P30D"}}


def answers(site, cores: int) -> str:
    return site.post("/requests", notebook(compute=compute(cores), schedule=WHENEVER)).json["result"]


def test_a_small_platforms_new_state_counts_at_once(site):
    site.publish("paper", [SMALL])
    assert answers(site, 16) == "NO"
    site.publish("paper", [LARGE])
    site.clock.now += 1
    assert answers(site, 16) == "YES"


@pytest.fixture
def site(make_site):
    return make_site(api={"max_outstanding_offers": 1000})


@pytest.fixture
def held(site, monkeypatch):
    """A broker that takes its platform for a large one, whose new timelines are made when ``held`` is set."""
    monkeypatch.setattr(timelines, "_SMALL", 0)
    site.publish("paper", [SMALL])
    assert answers(site, 2) == "YES"
    gate = threading.Event()
    decode = timelines.decode_snapshot

    def slow(packed, *, pause):
        assert gate.wait(20)
        return decode(packed, pause=pause)

    monkeypatch.setattr(timelines, "decode_snapshot", slow)
    yield gate
    gate.set()


def until_yes(site, cores: int) -> None:
    for _ in range(100):
        site.clock.now += 1
        if answers(site, cores) == "YES":
            return
        time.sleep(0.02)
    raise AssertionError("the new state never counted")


def test_a_large_platforms_new_state_is_taken_in_beside_the_requests_that_go_on_with_the_old_one(site, held):
    site.publish("paper", [LARGE])
    site.clock.now += 1
    assert answers(site, 2) == "YES"
    assert answers(site, 16) == "NO"
    site.publish("paper", [LARGE])  # again newer, while the one before is being taken in
    assert answers(site, 2) == "YES"
    held.set()
    until_yes(site, 16)


def test_what_was_booked_meanwhile_is_on_the_new_timeline_too(site, held):
    site.publish("paper", [LARGE])
    site.clock.now += 1
    assert answers(site, 2) == "YES"
    held.set()
    until_yes(site, 30)
    taken: dict[tuple[int, int], int] = {}
    with site.store.read() as tx:
        for row in live_bookings(tx):
            taken[row.start, row.finish] = taken.get((row.start, row.finish), 0) + row.cores
    instants = sorted({start for start, _ in taken})
    for instant in instants:
        assert sum(cores for (start, end), cores in taken.items() if start <= instant < end) <= LARGE.cores


def test_a_state_that_cannot_be_taken_in_is_told_in_the_log_and_the_next_one_is_tried(site, held, caplog, monkeypatch):
    broken = RuntimeError("no memory")

    def fails(packed, *, pause):
        raise broken

    held.set()
    whole = timelines.decode_snapshot
    monkeypatch.setattr(timelines, "decode_snapshot", fails)
    site.publish("paper", [LARGE])
    site.clock.now += 1
    assert answers(site, 2) == "YES"
    for _ in range(200):
        if "no timeline could be made" in caplog.text:
            break
        time.sleep(0.02)
    assert "no timeline could be made of its newest state" in caplog.text
    site.clock.now += 121
    site.publish("paper", [LARGE])
    told = site.post("/requests", notebook())
    assert told.json["result"] == "NO"
    assert "its newest state could not be taken in" in told.content.decode()
    monkeypatch.setattr(timelines, "decode_snapshot", whole)
    until_yes(site, 16)


def test_due_offers_expire_when_somebody_books_but_not_at_each_booking(site):
    worker = timelines.Timelines(site.store, {})
    assert [now for now in (10.0, 10.2, 10.4, 10.6, 10.7) if worker.expires("paper", now)] == [10.0, 10.6]


def test_offers_that_nobody_took_in_time_are_in_nobodys_way(site):
    tomorrow = {"requested": {"duration": "PT1H", "start": "2030-03-18T17:46:40Z/P30D"}}
    site.publish("paper", [SMALL])

    def first_start() -> str:
        told = site.post("/requests", notebook(compute=compute(4), schedule=tomorrow)).json
        return min(one["schedule"]["available"]["start"] for one in told["offers"])

    first = first_start()
    assert first_start() > first
    site.clock.now += 600
    site.publish("paper", [SMALL])
    assert first_start() == first
    assert first_start() > first
