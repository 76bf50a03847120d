"""A platform is compared with the sessions that it should have."""

from __future__ import annotations

import ebhpc
from ebhpc.model import Phase
from tests.driver.scripted_platform import ScriptedPlatform


class Comparing(ScriptedPlatform):
    """Notes what it is told of."""

    def __init__(self, name, clock):
        super().__init__(name, clock)
        self.told: list[dict[str, Phase]] = []
        self.broken = 0

    @ebhpc.hookimpl
    def ebhpc_reconcile(self, sessions):
        if self.broken:
            self.broken -= 1
            raise OSError("no answer")
        self.told.append({session.uuid: session.phase for session in sessions})


def comparing(world):
    platform = Comparing("tin", world.clock)
    world.platforms["tin"] = world.platform("tin", platform)
    return platform


def test_a_driver_that_starts_tells_a_platform_of_all_that_is_not_done_with(world):
    tin = comparing(world)
    ended = world.accepted()
    driver = world.driver()
    world.until(driver, lambda: world.is_over(ended))
    live = world.accepted()
    offer = world.offer()
    world.book(offer)
    driver.stop()
    tin.told.clear()
    world.turn(world.driver("other", pid=2))
    assert tin.told[0].keys() == {live, offer.uuid}
    assert tin.told[0][offer.uuid] is Phase.OFFERED


def test_it_is_told_again_every_five_minutes_and_sooner_where_it_failed(world):
    tin = comparing(world)
    tin.broken = 1
    driver = world.driver()
    world.turn(driver)
    assert tin.told == []
    world.turn(driver, 31, each=31)
    assert len(tin.told) == 1
    world.turn(driver, 290, each=29)
    assert len(tin.told) == 1
    world.turn(driver, 20, each=20)
    assert len(tin.told) == 2


def test_a_platform_whose_sessions_cannot_all_be_read_is_left_alone(world, caplog):
    tin = comparing(world)
    offer = world.offer(document=b'{"kind": "no such thing"}')
    world.book(offer)
    world.turn(world.driver())
    assert tin.told == []
    assert offer.uuid in caplog.text
