"""Disks that are full, clocks that are stepped, platforms that hang: what was promised is kept."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ebhpc.model import FINAL, Phase
from tests.broker import running_broker
from tests.labs import require
from tests.service.ledgers import REQUEST, LedgerBroker, check_verdict, ledger_platform
from tests.whole.runs import read_runs, traced_notebook, traced_platform

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CORES = 40


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    require(os.geteuid() == 0, "needs root: it mounts a small file system")
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=0755", "none", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def fill(place: Path) -> Path:
    """Write a file until there is no room left; return it."""
    file = place / "filler"
    with contextlib.suppress(OSError), file.open("ab", buffering=0) as filler:
        while True:
            filler.write(bytes(65536))
    with contextlib.suppress(OSError), file.open("ab", buffering=0) as filler:
        while True:
            filler.write(bytes(512))
    return file


def test_a_full_disk_under_sqlite_is_503_and_what_was_accepted_goes_on_when_there_is_room(
    small_disk: Path, tmp_path: Path
):
    url = f"sqlite:///{small_disk / 'ebhpc.sqlite3'}"
    broker = LedgerBroker(tmp_path, database=url, cores=CORES, memory_gib=CORES, seconds=3)
    try:
        broker.run()
        accepted = broker.begin(10)
        filler = fill(small_disk)
        # What SQLite's log has room for still is answered
        deadline = time.monotonic() + 120
        while (status := broker.ask("POST", "/requests", json=REQUEST).status_code) != 503:
            assert status == 303
            assert time.monotonic() < deadline, broker.logs()
        assert broker.ask("GET", "/sessions").status_code == 200
        filler.unlink()
        deadline = time.monotonic() + 120
        while broker.ask("POST", "/requests", json=REQUEST).status_code != 303:
            assert time.monotonic() < deadline, broker.logs()
            time.sleep(0.2)
        broker.until_over(accepted)
        ended = check_verdict(broker, accepted, CORES)
        assert {ended[uuid] for uuid in accepted} == {Phase.COMPLETED}
    finally:
        broker.stop()


def test_a_full_disk_under_results_fails_the_session_that_needs_it_and_no_other(small_disk: Path, tmp_path: Path):
    runs = tmp_path / "runs"
    settings = {
        "platforms": [traced_platform(runs)],
        "database": {"url": f"sqlite:///{tmp_path / 'elsewhere.sqlite3'}"},
    }
    (tmp_path / "state").symlink_to(small_disk)
    with running_broker(tmp_path, settings) as broker:
        client = broker.client()
        filler = fill(small_disk)
        offers = client.offers(traced_notebook())
        assert offers.result == "YES"
        starved = client.accept(offers.offers[0].meta.uuid).meta.uuid
        # It is either given up with a reason, or waits until there is room
        deadline = time.monotonic() + 20
        while (session := client.session(starved)).phase not in FINAL and time.monotonic() < deadline:
            time.sleep(0.2)
        if session.phase in FINAL:
            assert session.phase is Phase.FAILED
            assert any("space" in str(item) for item in session.meta.messages), session.meta.messages
        filler.unlink()
        offers = client.offers(traced_notebook())
        fed = client.accept(offers.offers[0].meta.uuid).meta.uuid
        deadline = time.monotonic() + 180
        while (last := client.session(fed)).phase not in FINAL:
            assert time.monotonic() < deadline, broker.logs()
            time.sleep(0.2)
        assert last.phase is Phase.COMPLETED, [str(item) for item in last.meta.messages]
        while client.session(starved).phase not in FINAL:
            assert time.monotonic() < deadline, broker.logs()
            time.sleep(0.2)
        ran = [run.session for run in read_runs(runs)]
        assert ran.count(fed) == 1
        assert ran.count(starved) <= 1


class Clock:
    """The wall clock of the processes that are started with its `environment`; it can be stepped while they run."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.step(0)
        path = [str(Path(__file__).with_name("stepped")), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.environment = {"EBHPC_TEST_CLOCK": str(self._file), "PYTHONPATH": os.pathsep.join(path)}

    def step(self, seconds: int) -> None:
        """Have the clock go wrong by so many seconds from now on."""
        # In place and in one write: who reads meanwhile has the descriptor of this very file
        with self._file.open("r+b" if self._file.exists() else "wb", buffering=0) as file:
            file.write(f"{seconds:<+12d}".encode())


@pytest.mark.parametrize("step", [3600, -3600], ids=["forward", "back"])
def test_a_step_of_the_clock_by_an_hour_starts_nothing_twice_and_stops_nothing(step: int, tmp_path: Path):
    clock = Clock(tmp_path)
    broker = LedgerBroker(tmp_path, cores=CORES, memory_gib=CORES, seconds=3)
    broker.environment.update(clock.environment)
    try:
        broker.run()
        accepted = broker.begin(10)
        offered = broker.ask("POST", "/requests", json=REQUEST).json()["offers"][0]["meta"]["uuid"]
        clock.step(step)
        expected = 409 if step > 0 else 200
        body = {"kind": "uri:enum-value-update", "path": "phase", "value": "ACCEPTED"}
        assert broker.ask("POST", f"/sessions/{offered}", json=body).status_code == expected
        # Work goes on by the clock as it is now, as soon as a driver has looked at the platform
        broker.until_health("ready")
        later = broker.begin(3)
        broker.until_over(later)
        # The clock is put right again, and a driver that is killed just then is started again, as systemd does
        clock.step(0)
        broker.kill("driver-1")
        broker.start("drive", "driver-1")
        broker.until_health("ready")
        last = broker.begin(3)
        everything = [*accepted, *later, *last, *([offered] if step < 0 else [])]
        broker.until_over(everything)
        ended = check_verdict(broker, everything, CORES)
        assert {ended[uuid] for uuid in last} == {Phase.COMPLETED}
        # A step forward takes a session past its end, so its job may be ended; after a step back a session whose start
        # was still to come waits for it until the clock is right
        allowed = {Phase.COMPLETED} if step < 0 else {Phase.COMPLETED, Phase.FAILED}
        assert {ended[uuid] for uuid in everything} <= allowed
    finally:
        broker.stop()


def test_platforms_that_all_hang_take_neither_the_api_nor_the_driver_with_them(tmp_path: Path):
    names = ("cluster", "other")
    platforms = [
        {
            **ledger_platform(tmp_path, name=name, cores=CORES, memory_gib=CORES, seconds=3),
            "timeout": "1s",
            "stale": "3s",
        }
        for name in names
    ]
    broker = LedgerBroker(tmp_path, settings={"platforms": platforms, "api": {"max_outstanding_offers": 10_000}})
    try:
        broker.run()
        accepted = broker.begin(10)
        hang = tmp_path / "hang"
        hang.touch()
        deadline = time.monotonic() + 120
        while (answer := broker.ask("POST", "/requests", json=REQUEST)).json()["result"] != "NO":
            assert time.monotonic() < deadline, answer.text
            time.sleep(0.2)
        told = {item["kind"] for item in answer.json()["meta"]["messages"]}
        assert told == {"urn:platform-unavailable"}, answer.text
        began = time.monotonic()
        assert broker.ask("GET", "/sessions").status_code == 200
        assert time.monotonic() - began < 5
        health = broker.ask("GET", "/health/ready").json()
        assert (health["status"], health["platforms"]) == ("degraded", dict.fromkeys(names, False))
        assert health["checks"]["drivers"] == "1 of 1 alive"
        hang.unlink()
        broker.until_over(accepted)
        assert {broker.phases()[uuid] for uuid in accepted} == {Phase.COMPLETED}
        accepted += broker.begin(1)
        broker.until_over(accepted)
        check_verdict(broker, accepted, 2 * CORES)
    finally:
        broker.stop()
