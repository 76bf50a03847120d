from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from ebhpc.model import MessageKind, Phase, message
from ebhpc.store import (
    Booked,
    Changes,
    Seen,
    Store,
    accept,
    book_offers,
    book_together,
    cancel,
    changes_since,
    claim,
    delete_old_offers,
    ensure_platforms,
    expire_offers,
    expired_counts,
    get_offerset,
    live_bookings,
    moves_of,
    publish_snapshot,
    publish_trouble,
    reject,
    upgrade,
)
from tests.store.families import NOW, offer, offerset, somebody


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    opened = Store(database_url)
    upgrade(opened)
    ensure_platforms(opened, ["tin", "zinc"])
    yield opened
    opened.close()


def book(store: Store, owner: str, *offers, fits=lambda platform, changes: True, now=NOW, **options):
    record = offerset(owner, offers)
    known = {one.platform: 0 for one in offers}
    return record, book_offers(store, record, offers, known, fits, now=now, **options)


UNSEEN = {"tin": Seen(version=0, revision=0), "zinc": Seen(version=0, revision=0)}


def never_asked(changes):
    raise AssertionError(f"asked to plan again with {changes}")


def phases(store: Store, uuid: str) -> list[Phase]:
    with store.read() as tx:
        found = get_offerset(tx, uuid)
    assert found is not None
    return [member.phase for member in found[1]]


def held_by(store: Store) -> set[str]:
    with store.read() as tx:
        return {row.session for row in live_bookings(tx)}


def test_offers_are_bookings_from_the_moment_they_are_made(store):
    first, second = offer(), offer("zinc")
    record, outcome = book(store, somebody(store), first, second)
    assert outcome is Booked.DONE
    assert phases(store, record.uuid) == [Phase.OFFERED, Phase.OFFERED]
    assert held_by(store) == {first.uuid, second.uuid}


def test_a_set_that_does_not_fit_on_one_platform_leaves_nothing_on_any(store):
    record, outcome = book(
        store, somebody(store), offer(), offer("zinc"), fits=lambda platform, changes: platform == "tin"
    )
    assert outcome is Booked.CONFLICT
    assert held_by(store) == set()
    with store.read() as tx:
        assert get_offerset(tx, record.uuid) is None


def test_accepting_one_offer_rejects_its_siblings_and_frees_what_they_held(store):
    one, two, three = offer(), offer(start=int(NOW) + 900), offer("zinc")
    record, _ = book(store, somebody(store), one, two, three)
    answer = accept(store, two.uuid, now=NOW + 1)
    assert answer is not None
    assert answer.done
    assert answer.session.phase is Phase.ACCEPTED
    assert phases(store, record.uuid) == [Phase.REJECTED, Phase.ACCEPTED, Phase.REJECTED]
    assert held_by(store) == {two.uuid}
    with store.read() as tx:
        moves = [(here, there) for _, here, there, _ in moves_of(tx, one.uuid)]
    assert moves == [(Phase.INITIAL, Phase.OFFERED), (Phase.OFFERED, Phase.REJECTED)]


def test_accepting_twice_answers_the_session_as_it_is(store):
    one = offer()
    book(store, somebody(store), one)
    accept(store, one.uuid, now=NOW)
    again = accept(store, one.uuid, now=NOW + 1000)
    assert again is not None
    assert again.done
    assert again.session.phase is Phase.ACCEPTED
    with store.read() as tx:
        assert len(moves_of(tx, one.uuid)) == 2


def test_an_offer_past_its_expiry_cannot_be_accepted_and_is_expired_by_the_attempt(store):
    one = offer(expires=int(NOW) + 10)
    book(store, somebody(store), one)
    answer = accept(store, one.uuid, now=NOW + 10)
    assert answer is not None
    assert not answer.done
    assert answer.session.phase is Phase.EXPIRED
    assert held_by(store) == set()


def test_expiry_frees_the_booking_and_tells_those_who_follow_the_changes(store):
    one = offer(expires=int(NOW) + 10)
    book(store, somebody(store), one)
    with store.read() as tx:
        before = changes_since(tx, "tin", 0)
    assert expire_offers(store, "tin", now=NOW + 9) == 0
    assert expire_offers(store, "tin", now=NOW + 10) == 1
    with store.read() as tx:
        after = changes_since(tx, "tin", before.revision)
    assert [booking.session for booking in before.present] == [one.uuid]
    assert after.gone == (before.present[0].id,)
    assert after.present == ()


def test_each_expired_offer_is_counted_once_whoever_expires_it_and_after_it_is_forgotten(store):
    soon, later = int(NOW) + 10, int(NOW) + 20
    first, second, third, taken = offer(expires=soon), offer(expires=soon), offer(expires=soon), offer(expires=later)
    owner = somebody(store)
    for one in (first, second, third, taken):
        book(store, owner, one)
    accept(store, first.uuid, now=NOW + 10)  # expires all three
    expire_offers(store, "tin", now=NOW + 10)
    accept(store, taken.uuid, now=NOW + 11)
    expire_offers(store, "tin", now=NOW + 30)
    book(store, owner, offer(), now=NOW + 30)
    with store.read() as tx:
        assert expired_counts(tx) == {"tin": 3, "zinc": 0}
    assert delete_old_offers(store, before=NOW + 1000)
    with store.read() as tx:
        assert expired_counts(tx) == {"tin": 3, "zinc": 0}


def test_a_later_booking_sees_due_offers_expired_in_its_own_transaction(store):
    owner = somebody(store)
    book(store, owner, offer(expires=int(NOW) + 10))
    seen: list[Changes] = []

    def look(platform: str, changes: Changes) -> bool:
        seen.append(changes)
        return True

    book(store, owner, offer(), fits=look, now=NOW + 20)
    assert seen[0].present == ()


@pytest.mark.parametrize("expire", [True, False])
def test_what_is_booked_together_has_due_offers_expire_where_it_is_time_for_that(store, expire):
    owner = somebody(store)
    old, _ = book(store, owner, offer(expires=int(NOW) + 10))
    offers = [offer()]
    seen = {name: msgspec.structs.replace(one, revision=1, expire=expire) for name, one in UNSEEN.items()}
    booked = book_together(
        store,
        [(offerset(owner, offers), offers)],
        seen,
        lambda platform, changes: True,
        never_asked,
        now=NOW + 20,
        most_outstanding=1,
    )
    # An offer that is due counts for nobody, expired or not
    assert booked.outcomes == (Booked.DONE,)
    assert phases(store, old.uuid) == [Phase.EXPIRED if expire else Phase.OFFERED]
    assert len(booked.changes["tin"].gone) == (1 if expire else 0)


def test_rejecting_one_offer_leaves_its_siblings(store):
    one, two = offer(), offer("zinc")
    record, _ = book(store, somebody(store), one, two)
    answer = reject(store, one.uuid, now=NOW)
    assert answer is not None
    assert answer.done
    assert phases(store, record.uuid) == [Phase.REJECTED, Phase.OFFERED]
    assert reject(store, one.uuid, now=NOW).done
    assert not accept(store, one.uuid, now=NOW).done


def test_an_accepted_offer_cannot_be_rejected(store):
    one = offer()
    book(store, somebody(store), one)
    accept(store, one.uuid, now=NOW)
    answer = reject(store, one.uuid, now=NOW)
    assert answer is not None
    assert not answer.done
    assert answer.session.phase is Phase.ACCEPTED


def test_an_owner_can_have_only_so_many_offers_outstanding(store):
    ada, grace = somebody(store, "ada"), somebody(store, "grace")
    assert book(store, ada, offer(), offer(), most_outstanding=3)[1] is Booked.DONE
    assert book(store, ada, offer(), offer(), most_outstanding=3)[1] is Booked.TOO_MANY
    assert book(store, grace, offer(), offer(), most_outstanding=3)[1] is Booked.DONE
    assert book(store, ada, offer(), most_outstanding=3)[1] is Booked.DONE
    assert len(held_by(store)) == 5


def test_direct_execution_books_and_accepts_in_one_transaction(store):
    one, two = offer(), offer("zinc")
    record, _ = book(store, somebody(store), one, two, accept_first=True)
    assert phases(store, record.uuid) == [Phase.ACCEPTED, Phase.REJECTED]
    assert held_by(store) == {one.uuid}
    assert [session.uuid for session in claim(store, "d", now=NOW, lease=30, most=9)] == [one.uuid]


def test_a_cancelled_session_keeps_its_booking_until_the_driver_has_ended_it(store):
    one = offer()
    book(store, somebody(store), one)
    assert cancel(store, one.uuid, now=NOW, cause="too early").phase is Phase.OFFERED
    accept(store, one.uuid, now=NOW)
    assert cancel(store, one.uuid, now=NOW, cause="by its owner").phase is Phase.CANCELLED
    assert cancel(store, one.uuid, now=NOW, cause="again").phase is Phase.CANCELLED
    assert held_by(store) == {one.uuid}
    assert not accept(store, one.uuid, now=NOW).done


def test_what_does_not_exist_is_none(store):
    assert accept(store, "no such", now=NOW) is None
    assert reject(store, "no such", now=NOW) is None
    assert cancel(store, "no such", now=NOW, cause="-") is None
    with store.read() as tx:
        assert get_offerset(tx, "no such") is None


def test_several_sets_are_booked_in_one_transaction_and_one_too_many_is_left_out_alone(store):
    ada, grace = somebody(store, "ada"), somebody(store, "grace")
    sets = [
        (offerset(owner, offers), offers)
        for owner, offers in [
            (ada, [offer(), offer("zinc")]),
            (ada, [offer(), offer()]),
            (grace, [offer()]),
            (ada, [offer()]),
            (ada, []),
        ]
    ]
    booked = book_together(
        store, sets, UNSEEN, lambda platform, changes: True, never_asked, now=NOW, most_outstanding=3
    )
    assert booked.outcomes == (Booked.DONE, Booked.TOO_MANY, Booked.DONE, Booked.DONE, Booked.DONE)
    expected = {one.uuid for number in (0, 2, 3) for one in sets[number][1]}
    assert held_by(store) == expected
    with store.read() as tx:
        assert get_offerset(tx, sets[1][0].uuid) is None
        assert get_offerset(tx, sets[4][0].uuid) is not None


def test_what_was_booked_together_is_told_as_the_database_has_it(store):
    owner = somebody(store)
    sets = [(offerset(owner, offers), offers) for offers in ([offer(), offer("zinc")], [offer()])]
    booked = book_together(
        store, sets, UNSEEN, lambda platform, changes: True, never_asked, now=NOW, most_outstanding=9
    )
    with store.read() as tx:
        for platform in ("tin", "zinc"):
            stored = changes_since(tx, platform, 0)
            assert stored.revision == booked.changes[platform].revision
            assert stored.present == booked.added[platform]


def test_sets_that_others_are_in_the_way_of_are_planned_again_under_the_lock(store):
    owner = somebody(store)
    sets = [(offerset(owner, offers), offers) for offers in ([offer()], [offer("zinc")])]
    others = [(offerset(owner, offers), offers) for offers in ([offer("zinc")], [])]
    asked = []

    def replan(changes):
        asked.append(sorted(changes))
        return others

    booked = book_together(
        store, sets, UNSEEN, lambda platform, changes: platform == "tin", replan, now=NOW, most_outstanding=9
    )
    assert asked == [["tin", "zinc"]]
    assert booked.outcomes == (Booked.DONE, Booked.DONE)
    assert held_by(store) == {others[0][1][0].uuid}


@pytest.mark.parametrize("news", ["a newer snapshot", "no answer"])
def test_nothing_is_booked_together_where_there_is_news_of_a_platform(store, news):
    if news == "no answer":
        publish_trouble(store, "tin", message(MessageKind.PLATFORM_UNAVAILABLE, "gone"), now=NOW)
    else:
        publish_snapshot(store, "tin", b"-", taken=NOW, now=NOW)
    owner = somebody(store)
    sets = [(offerset(owner, offers), offers) for offers in ([offer()], [offer("zinc")])]
    fine = book_together(store, sets, UNSEEN, lambda platform, changes: True, never_asked, now=NOW, most_outstanding=9)
    assert fine is None
    assert held_by(store) == set()
