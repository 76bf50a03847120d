"""Several drivers, and drivers that die."""

from __future__ import annotations

import os
from collections import Counter

import psutil
import pytest

from ebhpc.driver import DriverRunning, NameTaken, register
from ebhpc.model import Phase
from ebhpc.store import get_driver, leased, list_drivers


def test_two_drivers_share_the_sessions_and_none_runs_twice(world):
    one, two = world.driver("one"), world.driver("two", pid=2)
    uuids = [world.accepted() for _ in range(20)]
    for _ in range(80):
        world.now += 5
        one.step(world.now)
        two.step(world.now)
    for uuid in uuids:
        world.check_is_over(uuid, Phase.COMPLETED)
        assert world.tin.starts[uuid] == 1
    assert world.tin.calls["submit"] == 20


def test_the_sessions_of_a_driver_that_fell_silent_go_to_another_when_its_lease_is_over(world):
    one = world.driver("one")
    uuid = world.accepted(duration=3600)
    world.tin.runs_for = 600
    world.until(one, lambda: world.phase(uuid) is Phase.RUNNING)
    two = world.driver("two", pid=2)
    world.turn(two, 20)
    assert uuid not in two.charges
    world.turn(two, 15)
    assert uuid in two.charges
    world.until(two, lambda: world.is_over(uuid))
    world.check_is_over(uuid, Phase.COMPLETED)
    assert world.tin.starts[uuid] == 1


def test_a_driver_keeps_its_sessions_as_long_as_it_gives_signs_of_life(world):
    one, two = world.driver("one"), world.driver("two", pid=2)
    uuid = world.accepted(duration=3600)
    world.tin.runs_for = 3000
    world.until(one, lambda: world.phase(uuid) is Phase.RUNNING)
    for _ in range(200):
        world.now += 5
        one.step(world.now)
        two.step(world.now)
    assert uuid in one.charges
    assert uuid not in two.charges


def test_a_driver_that_slept_lets_go_of_what_another_has_taken_meanwhile(world):
    one = world.driver("one")
    uuid = world.accepted(duration=3600)
    world.tin.runs_for = 2000
    world.until(one, lambda: world.phase(uuid) is Phase.RUNNING)
    two = world.driver("two", pid=2)
    world.turn(two, 40)
    assert uuid in two.charges
    world.turn(one, 1)
    world.turn(one, 1)
    assert uuid not in one.charges
    world.until(two, lambda: world.is_over(uuid))
    world.check_is_over(uuid, Phase.COMPLETED)


def test_a_driver_whose_signs_of_life_do_not_get_through_calls_no_hook_any_more(world, monkeypatch, caplog):
    one = world.driver("one")
    world.accepted(duration=3600)
    world.turn(one)

    def lost(*_, **__):
        raise ConnectionError("the database is away")

    from ebhpc.driver import registration

    monkeypatch.setattr(registration, "beat", lost)
    world.turn(one, 31)
    before = Counter(world.tin.calls)
    world.turn(one, 200, each=5)
    assert world.tin.calls == before
    assert any("no sign of life" in record.getMessage() for record in caplog.records)
    monkeypatch.undo()
    world.until(one, lambda: all(not record.unfinished for record in world.all_sessions()))
    assert [record.phase for record in world.all_sessions()] == [Phase.COMPLETED]


def test_a_driver_that_restarts_takes_its_name_and_its_sessions_over_at_once(world):
    one = world.driver("one")
    uuid = world.accepted(duration=3600)
    world.tin.runs_for = 600
    world.until(one, lambda: world.phase(uuid) is Phase.RUNNING)
    again = world.driver("one", pid=2)
    world.turn(again)
    assert uuid in again.charges
    with pytest.raises(NameTaken):
        world.turn(one, 11, each=11)
    world.until(again, lambda: world.is_over(uuid))
    world.check_is_over(uuid, Phase.COMPLETED)


def test_an_orderly_stop_gives_all_sessions_back_at_once(world):
    one, two = world.driver("one"), world.driver("two", pid=2)
    uuid = world.accepted(duration=3600)
    world.until(one, lambda: world.phase(uuid) is Phase.RUNNING)
    one.stop()
    assert get_driver(world.store, "one") is None
    world.turn(two)
    assert uuid in two.charges


def test_a_driver_gives_back_a_session_that_it_does_not_work_on(world):
    one = world.driver("one")
    uuid = world.accepted(duration=3600)
    world.until(one, lambda: world.phase(uuid) is Phase.RUNNING)
    one.charges.drop(frozenset({uuid}))
    assert uuid in leased(world.store, next(iter(list_drivers(world.store))).incarnation)
    world.until(one, lambda: world.is_over(uuid))
    world.check_is_over(uuid, Phase.COMPLETED)


def test_a_name_is_refused_while_its_process_lives_on_this_host(world):
    pid = os.getpid()
    started = psutil.Process(pid).create_time()
    register(world.store, "d", host="here", pid=pid, pid_started=started, now=1000, lease=30)
    with pytest.raises(DriverRunning, match=f"process {pid} on here"):
        register(world.store, "d", host="here", pid=pid + 1, pid_started=2.0, now=9999, lease=30)


def test_a_name_is_free_at_once_when_its_process_has_died_and_its_number_serves_another(world):
    pid = os.getpid()
    started = psutil.Process(pid).create_time()
    register(world.store, "d", host="here", pid=pid, pid_started=started - 100, now=1000, lease=30)
    record = register(world.store, "d", host="here", pid=pid, pid_started=started, now=1001, lease=30)
    assert get_driver(world.store, "d") == record


def test_a_name_on_another_host_is_free_when_its_driver_has_been_silent_for_a_lease(world):
    register(world.store, "d", host="there", pid=1, pid_started=1.0, now=1000, lease=30)
    with pytest.raises(DriverRunning, match="on there"):
        register(world.store, "d", host="here", pid=1, pid_started=1.0, now=1029, lease=30)
    register(world.store, "d", host="here", pid=1, pid_started=1.0, now=1030, lease=30)
