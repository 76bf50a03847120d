"""Whatever users, platforms and crashes do, and in whatever order: what always holds for sessions."""

from __future__ import annotations

import logging
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from ebhpc.model import FINAL, Phase
from ebhpc.plugins import SessionFailed
from ebhpc.store import accept, cancel, live_bookings, moves_of, reject
from tests.driver.scripted_platform import DO, Delayed, Late
from tests.driver.world import World

HOOKS = ("hold", "prepare", "submit", "observe", "cancel", "cleanup", "release")
PLATFORMS = st.sampled_from(["tin", "zinc"])
NAMES = st.sampled_from(["one", "two"])
FAULTS = ("raises", "late", "delayed", "nonsense", "can never succeed")


def fault(kind: str) -> Any:
    return {
        "raises": OSError("no route"),
        "late": Late("no answer"),
        "delayed": Delayed(15),
        "nonsense": 42,
        "can never succeed": SessionFailed("never"),
    }[kind]


class Sessions(RuleBasedStateMachine):
    """Users who accept, reject and cancel; hooks that fail; drivers that die and come back; time that passes."""

    offers = Bundle("offers")
    world: World

    def __init__(self) -> None:
        super().__init__()
        self.pid = 1
        self.drivers: dict[str, Any] = {}
        self.uuids: list[str] = []

    @initialize()
    def begin(self) -> None:
        self.world.empty()
        for fake in self.world.fakes.values():
            fake.__init__(fake.name, self.world.clock)  # type: ignore[misc]
        for platform in self.world.platforms.values():
            platform.close()
        for name, fake in self.world.fakes.items():
            self.world.platforms[name] = self.world.platform(name, fake)
        self.restart("one")

    @rule(target=offers, slack=st.sampled_from([0, 300]), platform=PLATFORMS)
    def offer(self, slack: int, platform: str) -> str:
        start = int(self.world.now) + 30
        offer = self.world.offer(start=start, latest=start + slack, duration=300, platform=platform)
        self.world.book(offer)
        self.uuids.append(offer.uuid)
        return offer.uuid

    @rule(target=offers, wait=st.sampled_from([0, 70]), slack=st.sampled_from([0, 300]), platform=PLATFORMS)
    def direct(self, wait: int, slack: int, platform: str) -> str:
        start = int(self.world.now) + wait
        offer = self.world.offer(start=start, latest=start + slack, duration=300, platform=platform)
        self.world.book(offer, accept_first=True)
        self.uuids.append(offer.uuid)
        return offer.uuid

    @rule(uuid=offers)
    def accept(self, uuid: str) -> None:
        accept(self.world.store, uuid, now=self.world.now)

    @rule(uuid=offers)
    def reject(self, uuid: str) -> None:
        reject(self.world.store, uuid, now=self.world.now)

    @rule(uuid=offers)
    def cancel(self, uuid: str) -> None:
        cancel(self.world.store, uuid, now=self.world.now, cause="cancelled by its owner")

    @rule(
        hook=st.sampled_from(HOOKS),
        kind=st.sampled_from(FAULTS),
        times=st.integers(1, 4),
        platform=PLATFORMS,
    )
    def fail(self, hook: str, kind: str, times: int, platform: str) -> None:
        if hook == "prepare" and kind == "delayed":
            return  # a plugin's own affair: what it prepares after the clean-up it must not leave
        self.world.fakes[platform].script[hook] += [fault(kind)] * times

    @rule(seconds=st.sampled_from([1, 5, 20, 70]), times=st.integers(1, 4), name=NAMES)
    def turn(self, seconds: int, times: int, name: str) -> None:
        for _ in range(times):
            self.world.now += seconds
            if name in self.drivers:
                self.drivers[name].step(self.world.now)

    @rule(kind=st.sampled_from(["late", "delayed"]), platform=PLATFORMS, name=NAMES, then=st.booleans())
    def lose_the_answer_of_a_submission(self, kind: str, platform: str, name: str, then: bool) -> None:
        """The moment that matters most, and that chance alone rarely finds."""
        uuid = self.direct(0, 300, platform)
        self.world.fakes[platform].script["submit"].insert(0, fault(kind))
        self.turn(1, 1, name)
        if then:
            self.cancel(uuid)

    @rule(hook=st.sampled_from(("hold", "prepare", "submit", "cleanup")), uuid=offers)
    def cancel_meanwhile(self, hook: str, uuid: str) -> None:
        def meanwhile(_session: Any) -> Any:
            cancel(self.world.store, uuid, now=self.world.now, cause="cancelled meanwhile")
            return DO

        self.world.tin.script[hook].append(meanwhile)

    @rule(name=NAMES)
    def restart(self, name: str) -> None:
        """The process is killed, with all that it knew, and another takes its name."""
        self.pid += 1
        self.drivers[name] = self.world.driver(name, pid=self.pid)

    @rule(name=NAMES)
    def die(self, name: str) -> None:
        self.drivers.pop(name, None)

    @invariant()
    def no_job_is_started_twice(self) -> None:
        for fake in self.world.fakes.values():
            assert all(count == 1 for count in fake.starts.values())

    @invariant()
    def a_job_that_lives_belongs_to_a_session_that_is_unfinished_and_booked(self) -> None:
        running = set().union(*(fake.running() for fake in self.world.fakes.values()))
        if running:
            with self.world.store.read() as tx:
                booked = {row.session for row in live_bookings(tx)}
            assert running <= booked
            assert running <= {record.uuid for record in self.world.all_sessions() if record.unfinished}

    def teardown(self) -> None:
        if not self.drivers and not self.uuids:
            return
        for fake in self.world.fakes.values():
            fake.script.clear()
        self.restart("one")
        for _ in range(400):
            self.world.now += 10
            self.drivers["one"].step(self.world.now)
            records = self.world.all_sessions()
            if all(record.phase in FINAL and not record.unfinished for record in records):
                break
        for record in self.world.all_sessions():
            phases = self.world.phases(record.uuid)  # checks each edge, and that one row follows the other
            assert record.phase in FINAL
            assert phases[-1] is record.phase
            assert len(phases) == len(set(phases))
            assert not record.unfinished
            assert record.lease is None
            assert self.world.booked(record.uuid) == []
            for fake in self.world.fakes.values():
                assert record.uuid not in fake.left_behind()
            if record.phase is Phase.COMPLETED:
                assert self.world.fakes[record.platform].starts[record.uuid] == 1
        with self.world.store.read() as tx:
            for uuid in self.uuids:
                times = [time for time, *_ in moves_of(tx, uuid)]
                assert times == sorted(times)


def test_sessions_keep_to_their_phases_and_leave_nothing_whatever_happens(ready_database_url):
    logging.getLogger("ebhpc").setLevel(logging.CRITICAL)
    world = World(ready_database_url, ("tin", "zinc"))
    examples = 100 if ready_database_url.startswith("sqlite") else 40

    class OnThisDatabase(Sessions):
        pass

    OnThisDatabase.world = world
    try:
        run_state_machine_as_test(
            OnThisDatabase,
            settings=settings(
                max_examples=examples,
                stateful_step_count=40,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                print_blob=True,
            ),
        )
    finally:
        logging.getLogger("ebhpc").setLevel(logging.NOTSET)
        world.close()
