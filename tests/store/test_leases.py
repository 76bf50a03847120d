from __future__ import annotations

from collections.abc import Iterator
from threading import Barrier, Thread

import pytest

from ebhpc.model import Phase, message
from ebhpc.store import (
    Change,
    DriverRecord,
    LeaseLost,
    Store,
    beat,
    book_offers,
    cancel,
    claim,
    ensure_platforms,
    get_driver,
    leave,
    live_bookings,
    move,
    moves_of,
    register_driver,
    upgrade,
)
from tests.store.families import NOW, offer, offerset, somebody


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    opened = Store(database_url)
    upgrade(opened)
    ensure_platforms(opened, ["tin"])
    yield opened
    opened.close()


@pytest.fixture
def accepted(store) -> list[str]:
    """Twelve sessions that were accepted."""
    owner = somebody(store)
    uuids = []
    for _ in range(12):
        one = offer()
        book_offers(
            store,
            offerset(owner, [one]),
            [one],
            {"tin": 0},
            lambda *_: True,
            now=NOW,
            accept_first=True,
        )
        uuids.append(one.uuid)
    return uuids


def driver(name: str, incarnation: str, heartbeat: float = NOW) -> DriverRecord:
    return DriverRecord(name=name, incarnation=incarnation, host="here", pid=1, pid_started=1.0, heartbeat=heartbeat)


def test_two_drivers_that_claim_at_once_share_the_sessions_without_overlap(store, accepted):
    claimed: dict[str, list[str]] = {}
    together = Barrier(4)

    def take(name: str) -> None:
        together.wait()
        claimed[name] = [session.uuid for session in claim(store, name, now=NOW, lease=30, most=3)]

    threads = [Thread(target=take, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    everything = [uuid for uuids in claimed.values() for uuid in uuids]
    assert len(everything) == len(set(everything))
    rest = [session.uuid for session in claim(store, "e", now=NOW, lease=30, most=99)]
    assert sorted(everything + rest) == sorted(accepted)


def test_a_lease_that_ran_out_is_claimed_by_another(store, accepted):
    assert len(claim(store, "a", now=NOW, lease=30, most=99)) == 12
    assert claim(store, "b", now=NOW + 29, lease=30, most=99) == []
    assert len(claim(store, "b", now=NOW + 30, lease=30, most=99)) == 12


def test_a_step_under_a_lost_lease_changes_nothing(store, accepted):
    claim(store, "a", now=NOW, lease=30, most=99)
    claim(store, "b", now=NOW + 31, lease=30, most=99)
    with pytest.raises(LeaseLost):
        move(
            store,
            accepted[0],
            driver="a",
            here=Phase.ACCEPTED,
            there=Phase.WAITING,
            cause="-",
            change=Change(),
            now=NOW,
        )
    with store.read() as tx:
        assert len(moves_of(tx, accepted[0])) == 2


def test_a_step_on_a_session_that_was_cancelled_meanwhile_changes_nothing(store, accepted):
    claim(store, "a", now=NOW, lease=30, most=99)
    cancel(store, accepted[0], now=NOW, cause="by its owner")
    with pytest.raises(LeaseLost):
        move(
            store,
            accepted[0],
            driver="a",
            here=Phase.ACCEPTED,
            there=Phase.WAITING,
            cause="-",
            change=Change(),
            now=NOW,
        )


def test_a_move_against_the_machine_is_refused(store, accepted):
    claim(store, "a", now=NOW, lease=30, most=99)
    with pytest.raises(ValueError, match="no edge"):
        move(
            store,
            accepted[0],
            driver="a",
            here=Phase.ACCEPTED,
            there=Phase.RUNNING,
            cause="-",
            change=Change(),
            now=NOW,
        )


def test_a_step_adds_its_messages_and_figures_in_one_go(store, accepted):
    claim(store, "a", now=NOW, lease=30, most=99)
    for text in ("first", "second"):
        changed = move(
            store,
            accepted[0],
            driver="a",
            here=Phase.ACCEPTED,
            there=None,
            cause="-",
            change=Change(messages=(message("urn:progress", text),), native="job-7", attempt=2),
            now=NOW,
        )
    assert [str(one) for one in changed.messages] == ["first", "second"]
    assert (changed.native, changed.attempt) == ("job-7", 2)


def test_a_finished_session_frees_its_booking_and_is_claimed_no_more(store, accepted):
    claim(store, "a", now=NOW, lease=30, most=99)
    for uuid in accepted:
        cancel(store, uuid, now=NOW, cause="-")
        move(
            store,
            uuid,
            driver="a",
            here=Phase.CANCELLED,
            there=None,
            cause="-",
            change=Change(finished=True),
            now=NOW,
        )
    assert claim(store, "b", now=NOW + 99, lease=30, most=99) == []
    with store.read() as tx:
        assert live_bookings(tx) == []


def test_a_driver_of_the_same_name_takes_over_only_from_the_one_it_knows_of(store, accepted):
    assert register_driver(store, driver("d", "one"), replaces=None)
    assert not register_driver(store, driver("d", "two"), replaces=None)
    claim(store, "one", now=NOW, lease=30, most=99)
    assert register_driver(store, driver("d", "two"), replaces="one")
    assert len(claim(store, "two", now=NOW, lease=30, most=99)) == 12
    assert not beat(store, "one", now=NOW)
    assert beat(store, "two", now=NOW)


def test_a_sign_of_life_lengthens_the_leases(store, accepted):
    register_driver(store, driver("d", "one"), replaces=None)
    claim(store, "one", now=NOW, lease=30, most=99)
    beat(store, "one", now=NOW + 20)
    assert claim(store, "two", now=NOW + 40, lease=30, most=99) == []


def test_an_orderly_stop_gives_everything_back(store, accepted):
    register_driver(store, driver("d", "one"), replaces=None)
    claim(store, "one", now=NOW, lease=30, most=99)
    leave(store, "one")
    assert get_driver(store, "d") is None
    assert len(claim(store, "two", now=NOW, lease=30, most=99)) == 12
