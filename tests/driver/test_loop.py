"""The loop with its threads, by the real clock: what hangs delays nobody else."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from msgspec.structs import replace
from sqlalchemy import event

from ebhpc.config import Duration, Seconds
from ebhpc.driver import Driver, NameTaken
from ebhpc.driver.registration import register
from ebhpc.driver.workers import Threads
from ebhpc.model import Phase
from ebhpc.store import get_driver, get_platforms
from tests.driver.scripted_platform import DO
from tests.driver.world import SETTINGS, World

QUICK = replace(
    SETTINGS, interval=0.05, lease=3.0, retry_first=0.05, retry_most=0.5, threads=4, keep_results=Seconds(3600)
)
HANGS = 60.0


class Clock(World):
    """A world by the real clock, whose platforms give up soon."""

    @property
    def now(self) -> float:
        return time.time()

    @now.setter
    def now(self, value: float) -> None:
        pass

    def platform(self, name, implementation, **settings):
        quick = {"lead": Seconds(0), "timeout": Duration(0.5), "refresh": Duration(0.2)}
        return super().platform(name, implementation, **{**quick, **settings})


@pytest.fixture
def running(ready_database_url: str) -> Iterator[Clock]:
    world = Clock(ready_database_url, ("tin", "zinc"))
    for fake in world.fakes.values():
        fake.runs_for = 0.3
    yield world
    world.close()


@contextmanager
def driven(world: Clock, name: str = "d", **options) -> Iterator[Driver]:
    """A driver whose loop runs in a thread."""
    options = {"settings": QUICK, "settle": 0.5, "process": None, **options}
    settings = options.pop("settings")
    driver = Driver(
        world.store,
        world.platforms,
        kinds(),
        settings,
        name=name,
        settle=options["settle"],
        workers=Threads,
    )
    stop = threading.Event()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            driver.run(stop)
        except BaseException as error:  # noqa: BLE001  # told to the test
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    driver.failures = failures  # type: ignore[attr-defined]
    driver.thread = thread  # type: ignore[attr-defined]
    try:
        yield driver
    finally:
        stop.set()
        thread.join(20)
        assert not thread.is_alive()


def kinds():
    from ebhpc.model.registry import Kinds

    return Kinds()


def wait(met, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.02)


def soon(world: Clock, **given) -> str:
    start = int(time.time()) + 1
    return world.accepted(start=start, latest=start + 30, duration=60, **given)


def test_a_driver_moves_sessions_through_all_phases_and_stops_in_order(running):
    with driven(running) as driver:
        uuids = [soon(running, platform=name) for name in ("tin", "zinc") * 3]
        wait(lambda: all(running.is_over(uuid) for uuid in uuids))
        assert get_driver(running.store, "d") is not None
    assert driver.failures == []
    assert get_driver(running.store, "d") is None
    for uuid in uuids:
        running.check_is_over(uuid, Phase.COMPLETED)


@pytest.mark.parametrize("hook", ["snapshot", "hold", "prepare", "submit", "observe", "cleanup"])
def test_a_platform_that_hangs_delays_neither_the_others_nor_the_loop(running, hook):
    released = threading.Event()

    def hang(_argument):
        released.wait(HANGS)
        return DO

    running.tin.always[hook] = hang
    with driven(running):
        stuck = soon(running)
        wait(lambda: running.tin.calls[hook] > 0)
        begun = time.monotonic()
        good = [soon(running, platform="zinc") for _ in range(3)]
        wait(lambda: all(running.is_over(uuid) for uuid in good))
        assert time.monotonic() - begun < 10
        assert running.session(stuck).unfinished or hook == "snapshot"
        running.tin.always.clear()
        released.set()
        wait(lambda: running.is_over(stuck), 60)
    running.check_is_over(stuck, Phase.COMPLETED)
    for uuid in good:
        running.check_is_over(uuid, Phase.COMPLETED)


def test_a_platform_without_a_snapshot_is_told_of_until_it_answers_again(running):
    running.tin.always["snapshot"] = OSError("no route")
    with driven(running):
        wait(lambda: get_platforms(running.store)["tin"].trouble is not None)
        trouble = get_platforms(running.store)["tin"].trouble
        assert trouble.kind == "urn:platform-unavailable"
        assert "no route" in str(trouble)
        assert get_platforms(running.store)["zinc"].trouble is None
        running.tin.always.clear()
        wait(lambda: get_platforms(running.store)["tin"].trouble is None)


def test_a_driver_whose_name_is_taken_stops_at_once(running):
    with driven(running, settings=replace(QUICK, lease=0.6)) as driver:
        wait(lambda: get_driver(running.store, "d") is not None)
        present = get_driver(running.store, "d")
        register(
            running.store,
            "d",
            host=present.host,
            pid=1,
            pid_started=1.0,
            now=time.time(),
            lease=30,
            lives=lambda pid, started: False,
        )
        wait(lambda: not driver.thread.is_alive())
    assert [type(one) for one in driver.failures] == [NameTaken]
    assert get_driver(running.store, "d").pid == 1


def test_a_database_that_fails_for_a_while_ends_no_loop_and_loses_no_session(running, monkeypatch):
    with driven(running):
        first = soon(running)
        wait(lambda: running.phase(first) is not Phase.ACCEPTED)
        broken = True

        def refuse(*_):
            if broken:
                raise OSError("disk I/O error")

        event.listen(running.store.engine, "before_cursor_execute", refuse)
        time.sleep(1.0)
        broken = False
        event.remove(running.store.engine, "before_cursor_execute", refuse)
        second = soon(running)
        wait(lambda: running.is_over(first) and running.is_over(second), 60)
    running.check_is_over(first, Phase.COMPLETED)
    running.check_is_over(second, Phase.COMPLETED)


def test_a_stop_waits_for_running_steps_but_not_for_one_that_hangs(running):
    released = threading.Event()
    running.tin.always["prepare"] = lambda _session: (released.wait(HANGS) and DO) or DO
    with driven(running):
        uuid = soon(running)
        wait(lambda: running.tin.calls["prepare"] > 0)
        begun = time.monotonic()
    assert time.monotonic() - begun < 10
    assert running.session(uuid).lease is None
    released.set()
    running.tin.always.clear()
    with driven(running, "another"):
        wait(lambda: running.is_over(uuid), 60)
    running.check_is_over(uuid, Phase.COMPLETED)


def test_a_platform_is_told_when_a_session_that_it_still_prepares_is_cancelled(running):
    told = threading.Event()

    def prepare(_session):
        assert told.wait(HANGS)
        return DO

    def note(_session):
        told.set()
        return DO

    running.tin.always |= {"prepare": prepare, "cancel": note}
    with driven(running):
        uuid = soon(running)
        wait(lambda: running.tin.calls["prepare"] > 0)
        running.cancel(uuid)
        wait(lambda: running.is_over(uuid))
    running.check_is_over(uuid, Phase.CANCELLED)


def test_what_is_accepted_wakes_a_driver_that_has_nothing_to_do_for_long(ready_database_url):
    world = Clock(ready_database_url)
    world.platforms = {"tin": world.platform("tin", world.tin, refresh=Duration(600), stale=Duration(900))}
    with driven(world, settings=replace(QUICK, interval=30.0, lease=90.0)):
        wait(lambda: world.tin.calls["snapshot"] > 0)
        time.sleep(0.5)  # now there is nothing more to do
        soon(world)
        wait(lambda: world.tin.calls["hold"] > 0, 10)
    world.close()
