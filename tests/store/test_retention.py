from __future__ import annotations

from ebhpc.model import Phase
from ebhpc.store import (
    Change,
    Store,
    accept,
    book_offers,
    cancel,
    claim,
    delete_old_offers,
    ensure_platforms,
    expire_offers,
    get_offerset,
    move,
    results_are_gone,
    sessions_with_old_results,
    upgrade,
)
from tests.store.families import NOW, offer, offerset, somebody


def test_offers_nobody_took_are_deleted_and_accepted_sessions_stay(database_url):
    store = Store(database_url)
    upgrade(store)
    ensure_platforms(store, ["tin"])
    owner = somebody(store)
    sets = []
    for _ in range(3):
        offers = [offer(), offer()]
        record = offerset(owner, offers)
        book_offers(store, record, offers, {"tin": 0}, lambda *_: True, now=NOW)
        sets.append((record, offers))
    empty = offerset(owner, [])
    book_offers(store, empty, [], {}, lambda *_: True, now=NOW)
    accept(store, sets[0][1][1].uuid, now=NOW)
    expire_offers(store, "tin", now=NOW + 300)
    assert delete_old_offers(store, before=NOW + 300) == 1
    assert delete_old_offers(store, before=NOW + 301) == 3
    assert delete_old_offers(store, before=NOW + 301) == 0
    with store.read() as tx:
        kept = get_offerset(tx, sets[0][0].uuid)
        assert kept is not None
        assert [one.phase for one in kept[1]] == [Phase.ACCEPTED]
        assert get_offerset(tx, sets[1][0].uuid) is None
        assert get_offerset(tx, empty.uuid) is None
    store.close()


def test_results_are_due_once_their_time_has_passed(database_url):
    store = Store(database_url)
    upgrade(store)
    ensure_platforms(store, ["tin"])
    one = offer()
    record = offerset(somebody(store), [one])
    book_offers(store, record, [one], {"tin": 0}, lambda *_: True, now=NOW, accept_first=True)
    claim(store, "d", now=NOW, lease=9, most=9)
    cancel(store, one.uuid, now=NOW, cause="-")
    move(
        store,
        one.uuid,
        driver="d",
        here=Phase.CANCELLED,
        there=None,
        cause="-",
        change=Change(finished=True, kept_until=NOW + 60),
        now=NOW,
    )
    assert sessions_with_old_results(store, now=NOW + 59) == []
    assert [session.uuid for session in sessions_with_old_results(store, now=NOW + 60)] == [one.uuid]
    results_are_gone(store, one.uuid)
    assert sessions_with_old_results(store, now=NOW + 61) == []
    store.close()
