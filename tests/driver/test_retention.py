"""What is kept no longer goes."""

from __future__ import annotations

from ebhpc.model import Phase
from ebhpc.store import get_offerset, get_session
from tests.driver.world import EPOCH, World


def finished(world: World, driver) -> str:
    uuid = world.accepted()
    world.until(driver, lambda: world.is_over(uuid))
    return uuid


def test_results_are_deleted_when_their_time_has_passed(world):
    driver = world.driver()
    uuid = finished(world, driver)
    kept_until = world.session(uuid).kept_until
    world.now = kept_until - 61
    world.turn(driver)
    assert world.tin.results == {uuid}
    world.turn(driver, 62, each=62)
    world.turn(driver, 61, each=61)
    assert world.tin.results == set()
    assert world.session(uuid).kept_until is None
    assert world.tin.calls["forget"] == 1


def test_results_that_cannot_be_deleted_keep_no_others_and_are_tried_again(world):
    driver = world.driver()
    uuids = [world.accepted() for _ in range(3)]
    world.until(driver, lambda: all(world.is_over(uuid) for uuid in uuids))
    world.now += 8 * 86400
    world.tin.script["forget"] = [OSError("busy")]
    world.turn(driver, 61, each=61)
    assert len(world.tin.results) == 1
    world.turn(driver, 3700, each=100)
    assert world.tin.results == set()


def test_offers_that_nobody_took_expire_and_are_deleted_later(world):
    driver = world.driver(keep_offers=1000)
    offer = world.offer()
    world.book(offer)
    world.turn(driver, 299, each=299)
    assert world.phase(offer.uuid) is Phase.OFFERED
    world.turn(driver, 2, each=2)
    assert world.phase(offer.uuid) is Phase.EXPIRED
    assert world.booked(offer.uuid) == []
    offerset = world.session(offer.uuid).offerset
    world.now = EPOCH + 300 + 1070
    world.turn(driver)
    with world.store.read() as tx:
        assert get_session(tx, offer.uuid) is None
        assert get_offerset(tx, offerset) is None


def test_offers_of_a_platform_that_is_no_longer_configured_expire_too(world):
    driver = world.driver(platforms={})
    offer = world.offer()
    world.book(offer)
    world.turn(driver, 301, each=301)
    assert world.phase(offer.uuid) is Phase.EXPIRED
