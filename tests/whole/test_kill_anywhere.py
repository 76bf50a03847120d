"""The driver, and the API, are killed at every point of a session's life; a restart mends everything."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ebhpc.client import Broker, BrokerError, Conflict
from ebhpc.model import FINAL, Phase
from tests.broker import RunningBroker
from tests.whole.runs import check_histories, processes_of, read_runs, traced_notebook, traced_platform

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

_PATIENCE = 180.0
"""Seconds within which a session ends, whatever was done to the broker."""


class Saboteur:
    """A broker whose driver or API is ended by SIGKILL at points that the test names."""

    def __init__(self, folder: Path, victim: str) -> None:
        self.faults = folder / "faults"
        self.faults.mkdir()
        self.runs = folder / "runs"
        self.victim = victim
        # Where the API is killed, all are cancelled while they run: none may have ended by then
        platform = traced_platform(self.runs, seconds=60 if victim == "api" else 0.3)
        self.broker = RunningBroker(folder, {"platforms": [platform], "api": {"workers": 1}})
        self.broker.make_ready()
        self.start("api")
        self.start("drive")
        self.broker.wait_ready()

    def start(self, part: str) -> None:
        """Start a part; the victim with its fault points awake."""
        awake = {"EBHPC_FAULTS": str(self.faults)} if part == self.victim else {}
        self.broker.start(part, **awake)

    def arm(self, point: str) -> None:
        """Have the victim die when it next reaches ``point``."""
        made = self.faults / "arming"
        made.write_text(f"{point} 1", encoding="utf-8")
        made.replace(self.faults / "armed")

    def disarm(self) -> bool:
        """Take an armed point back; False: it was reached."""
        try:
            (self.faults / "armed").unlink()
        except FileNotFoundError:
            return False
        return True

    def fired(self) -> bool:
        """Whether the armed point was reached; the process is dead then or about to be."""
        return not (self.faults / "armed").exists()

    def restart(self) -> None:
        """Start the victim again after its death, as an operator or systemd would."""
        self.broker.kill(self.victim)
        self.start(self.victim)

    def points(self) -> list[str]:
        """The names of the points reached so far, each once, in order."""
        text = (self.faults / "seen").read_text(encoding="utf-8")
        return list(dict.fromkeys(line.split()[0] for line in text.splitlines()))

    def forget_points(self) -> None:
        (self.faults / "seen").unlink(missing_ok=True)


def whole_life(client: Broker) -> str:
    """Ask and accept; return the session's UUID."""
    offers = client.offers(traced_notebook())
    assert offers.result == "YES", offers
    uuid = offers.offers[0].meta.uuid
    client.accept(uuid)
    return uuid


def wait_final(client: Broker, uuid: str) -> Phase:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        phase = client.session(uuid).phase
        if phase in FINAL:
            return phase
        time.sleep(0.05)
    raise TimeoutError(f"session {uuid} is still {phase}")


def wait_settled(sab: Saboteur) -> None:
    """Wait until the driver has nothing left to do."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            check_histories(sab.broker)
            return
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


@pytest.fixture
def sab(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Saboteur]:
    saboteur = Saboteur(tmp_path, request.param)
    try:
        yield saboteur
    finally:
        saboteur.broker.stop()


def check_ran_once(sab: Saboteur, uuid: str) -> None:
    assert [run.session for run in read_runs(sab.runs)].count(uuid) == 1
    assert processes_of(uuid) == []


@pytest.mark.parametrize("sab", ["drive"], indirect=True)
def test_a_session_ends_as_it_should_wherever_the_driver_is_killed(sab):
    client = sab.broker.client()
    sab.forget_points()
    calm = whole_life(client)
    assert wait_final(client, calm) is Phase.COMPLETED
    wait_settled(sab)
    check_ran_once(sab, calm)
    points = [point for point in sab.points() if ".beat." not in point and ".publish" not in point]
    assert len(points) >= 20, points

    third = (len(points) + 2) // 3
    pending = [list(points[start::third]) for start in range(third)]
    never_reached = []
    while pending:
        group = pending.pop(0)
        uuid = ""
        for point in group:
            sab.arm(point)
            if not uuid:
                uuid = whole_life(client)
            deadline = time.monotonic() + _PATIENCE
            while not sab.fired() and time.monotonic() < deadline:
                if client.session(uuid).phase in FINAL:
                    # What follows the last phase move; a point that was not alone comes again
                    time_left = time.monotonic() + (20 if len(group) == 1 else 0.5)
                    while not sab.fired() and time.monotonic() < time_left:
                        time.sleep(0.02)
                    break
                time.sleep(0.02)
            if sab.disarm():
                if len(group) > 1:
                    pending.append([point])  # the kill before had made it needless: once more, alone
                else:
                    never_reached.append(point)
                continue
            sab.restart()
        assert wait_final(client, uuid) is Phase.COMPLETED, (group, client.session(uuid))
        wait_settled(sab)
        check_ran_once(sab, uuid)
    assert never_reached == []


@pytest.mark.parametrize("sab", ["drive"], indirect=True)
def test_a_cancelled_session_leaves_nothing_wherever_the_driver_is_killed(sab):
    client = sab.broker.client()
    sab.forget_points()
    calm = whole_life(client)
    client.cancel(calm)
    wait_settled(sab)
    points = [point for point in sab.points() if "CANCELLED" in point or "cancel" in point or "cleanup" in point]
    assert points
    for point in points:
        uuid = whole_life(client)
        sab.arm(point)
        client.cancel(uuid)
        deadline = time.monotonic() + 30
        while not sab.fired() and time.monotonic() < deadline:
            time.sleep(0.02)
        if not sab.disarm():
            sab.restart()
        wait_settled(sab)
        assert client.session(uuid).phase is Phase.CANCELLED
        assert len([run for run in read_runs(sab.runs) if run.session == uuid]) <= 1
        assert processes_of(uuid) == []


@pytest.mark.parametrize("sab", ["api"], indirect=True)
def test_what_was_asked_is_done_wholly_or_not_at_all_wherever_the_api_is_killed(sab):
    client = sab.broker.client()
    sab.forget_points()
    calm = whole_life(client)
    client.cancel(calm)
    client.reject(client.offers(traced_notebook()).offers[0].meta.uuid)
    direct = client.direct(traced_notebook())
    client.cancel(direct.meta.uuid)
    points = sab.points()
    assert len(points) >= 8, points
    for point in points:
        sab.arm(point)
        for attempt in range(2):
            try:
                client.cancel(whole_life(client))
                client.reject(client.offers(traced_notebook()).offers[0].meta.uuid)
                client.cancel(client.direct(traced_notebook()).meta.uuid)
            except BrokerError:
                assert attempt == 0, f"a second failure at {point}"
                sab.restart()
                sab.broker.wait_ready()
        assert sab.fired(), f"{point} was not reached again"
        sab.disarm()
    for session in client.sessions():
        if session.phase not in FINAL and session.phase is not Phase.OFFERED:
            with suppress(Conflict):  # it may end by itself meanwhile
                client.cancel(session.meta.uuid)
    wait_settled(sab)
    for run in read_runs(sab.runs):
        assert [other.session for other in read_runs(sab.runs)].count(run.session) == 1
