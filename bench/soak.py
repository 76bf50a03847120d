"""``python -m bench.soak``: an hour of load compressed into minutes, while processes are killed.

50 users ask, accept, reject, cancel and let expire; two API workers, two drivers, PostgreSQL; batch scripts of two
seconds on the local platform; every 20 s one process is killed and started again, as systemd would. At the end nothing
may be sold twice, lost or run twice. Shown: how long ``POST /requests`` took, beside a calm run before it without users
that accept or processes that end, and how memory grew.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
from msgspec import Struct, field

from ebhpc.model import FINAL, Phase, kinds
from tests.broker import ADMIN, PASSWORD, RunningBroker, free_port, local_platform
from tests.service.ledgers import LedgerBroker, check_verdict
from tests.service.postgres import Server

CORES = 24
SETTLE = 10.0
"""Seconds after its start from which a process's memory counts for the slope: by then it has what it works with."""


class SoakBroker(LedgerBroker):
    """A broker on PostgreSQL whose local platform notes each run of a script in a file."""

    def __init__(self, folder: Path, database: str) -> None:
        self.runs = folder / "runs"
        self.runs.touch()
        environment = {"EBHPC_TEST_RUNS": str(self.runs)}
        platform = local_platform(cores=CORES, memory_gib=CORES, scripts={"allowed": True}, environment=environment)
        settings = {
            "platforms": [platform],
            "database": {"url": database},
            "api": {
                "workers": 2,
                "max_outstanding_offers": 100_000,
            },
            "offers": {"lifetime": "8s", "keep": "60s"},
            "driver": {"interval": "500ms", "lease": "5s", "retry_first": "200ms", "retry_most": "2s"},
            "logging": {"level": "warning"},
        }
        RunningBroker.__init__(self, folder, settings)
        self.database = database

    def submissions(self) -> Counter[str]:
        """How often each session's script ran."""
        return Counter(self.runs.read_text().split())


class Tally(Struct):
    """What the users saw; latencies of ``POST /requests`` in seconds."""

    latencies: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    accepted: list[str] = field(default_factory=list)
    unsure: set[str] = field(default_factory=set)
    deeds: Counter[str] = field(default_factory=Counter)


class Users:
    """``count`` people, each a thread that asks, thinks and decides. ``calm``: they ask and reject."""

    def __init__(self, url: str, count: int, *, calm: bool, seed: int, think: float) -> None:
        self._url = url
        self._calm = calm
        self._think = think
        self._stop = threading.Event()
        self.tally = Tally()
        self._threads = [threading.Thread(target=self._live, args=(random.Random(seed + n),)) for n in range(count)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let each end what it is doing."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _live(self, chance: random.Random) -> None:
        self._stop.wait(chance.random() * self._think)
        with httpx.Client(
            base_url=self._url,
            auth=(ADMIN, PASSWORD),
            headers={"Accept": "application/json"},
            timeout=30,
            trust_env=False,
        ) as client:
            while not self._stop.is_set():
                try:
                    self._visit(client, chance)
                except httpx.TransportError as error:
                    self.tally.statuses[type(error).__name__] += 1
                self._stop.wait(chance.expovariate(1 / self._think))

    def _visit(self, client: httpx.Client, chance: random.Random) -> None:
        began = time.perf_counter()
        answer = client.post("/requests", json=_request(chance))
        self.tally.latencies.append(time.perf_counter() - began)
        self.tally.statuses[str(answer.status_code)] += 1
        offers = answer.json().get("offers") or [] if answer.status_code == 303 else []
        if not offers:
            self.tally.deeds["got no offer"] += 1
            return
        uuid = chance.choice(offers)["meta"]["uuid"]
        deed = (
            "rejected"
            if self._calm
            else chance.choices(("accepted", "accepted and cancelled", "rejected", "let expire"), (5, 2, 1, 2))[0]
        )
        self.tally.deeds[deed] += 1
        if deed == "let expire":
            return
        if deed == "rejected":
            self._move(client, uuid, "REJECTED")
            return
        if self._move(client, uuid, "ACCEPTED") and deed == "accepted and cancelled":
            self._stop.wait(chance.random() * 4)
            self._move(client, uuid, "CANCELLED")

    def _move(self, client: httpx.Client, uuid: str, phase: str) -> bool:
        body = {"kind": "uri:enum-value-update", "path": "phase", "value": phase}
        if phase == "ACCEPTED":
            self.tally.unsure.add(uuid)
        answer = client.post(f"/sessions/{uuid}", json=body)
        self.tally.statuses[str(answer.status_code)] += 1
        if phase == "ACCEPTED":
            self.tally.unsure.discard(uuid)
            if answer.status_code == 200:
                self.tally.accepted.append(uuid)
            elif answer.status_code >= 500:
                self.tally.unsure.add(uuid)
        return answer.status_code == 200


def _request(chance: random.Random) -> dict[str, Any]:
    cores = chance.choice((1, 1, 1, 2, 4))
    start = f"{datetime.now(UTC).isoformat(timespec='seconds').replace('+00:00', 'Z')}/PT45S"
    script = '#!/bin/sh\necho "$EBHPC_SESSION" >>"$EBHPC_TEST_RUNS"\nexec sleep 2\n'
    return {
        "executable": {"kind": kinds.BATCH_SCRIPT, "script": script},
        "compute": {
            "kind": kinds.SIMPLE_COMPUTE,
            "cores": {"min": cores, "max": cores},
            "memory": {"min": 1, "max": 1},
        },
        "schedule": {"requested": {"start": start, "duration": chance.choice(("PT10S", "PT20S", "PT60S"))}},
    }


class Memory:
    """Samples of each process: its role, its age in seconds, its own memory in bytes."""

    def __init__(self, broker: RunningBroker) -> None:
        self._broker = broker
        self._stop = threading.Event()
        self.samples: dict[str, list[tuple[float, int]]] = {}
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(5):
            for name, process in list(self._broker.processes.items()):
                try:
                    top = psutil.Process(process.pid)
                    self._note("api arbiter" if name == "api" else "driver", top)
                    for child in top.children() if name == "api" else ():
                        self._note("api worker", child)
                except psutil.Error:
                    continue

    def _note(self, role: str, process: psutil.Process) -> None:
        age = time.time() - process.create_time()
        self.samples.setdefault(role, []).append((age, process.memory_full_info().uss))

    def stop(self) -> None:
        """Take no more."""
        self._stop.set()
        self._thread.join()

    def slopes(self) -> dict[str, tuple[int, float, float]]:
        """By role: samples, their mean in MB, and MB a minute by least squares over the age of the processes."""
        found = {}
        for role, samples in self.samples.items():
            settled = [(age, size) for age, size in samples if age > SETTLE]
            if len(settled) > 2:
                found[role] = (
                    len(settled),
                    sum(s for _, s in settled) / len(settled) / 1e6,
                    _slope(settled) * 60 / 1e6,
                )
        return found


def _slope(points: list[tuple[float, int]]) -> float:
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


class Killer:
    """Kills one process every ``pause`` seconds, and starts it again after one, as systemd would."""

    def __init__(self, broker: RunningBroker, pause: float, chance: random.Random) -> None:
        self._broker = broker
        self._pause = pause
        self._chance = chance
        self._stop = threading.Event()
        self.killed: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        for victim in itertools.cycle(("driver-1", "api worker", "driver-2", "api")):
            if self._stop.wait(self._pause):
                return
            self.killed[victim] += 1
            if victim == "api worker":
                children = psutil.Process(self._broker.processes["api"].pid).children()
                if children:
                    os.kill(self._chance.choice(children).pid, signal.SIGKILL)
                continue
            self._broker.kill(victim)
            time.sleep(1)
            self._broker.start(*(("api",) if victim == "api" else ("drive", victim)))

    def stop(self) -> None:
        """Kill no more."""
        self._stop.set()
        self._thread.join()


class Outcome(Struct, frozen=True, kw_only=True):
    """What came of a soak."""

    calm: Tally
    load: Tally
    killed: Mapping[str, int]
    slopes: Mapping[str, tuple[int, float, float]]
    ended: Mapping[str, Phase]
    ran: int


def soak(folder: Path, *, seconds: float, users: int, calm: float, pause: float, think: float, seed: int) -> Outcome:
    """Run it; AssertionError where something was sold twice, lost or run twice."""
    server = Server(free_port(), settings={"max_connections": "120"})
    server.make()
    server.start()
    server.execute("CREATE DATABASE ebhpc")
    broker = SoakBroker(folder, server.url())
    try:
        broker.run(drivers=2)
        quiet = Users(broker.url, users, calm=True, seed=seed, think=think)
        time.sleep(calm)
        quiet.stop()
        memory, killer = Memory(broker), Killer(broker, pause, random.Random(seed))
        crowd = Users(broker.url, users, calm=False, seed=seed, think=think)
        time.sleep(seconds)
        killer.stop()
        crowd.stop()
        memory.stop()
        broker.wait_ready()
        deadline = time.monotonic() + 180
        # Offers that are open expire, what was accepted ends
        while live := [uuid for uuid, phase in broker.phases().items() if phase not in FINAL]:
            left = Counter(broker.phases()[uuid] for uuid in live)
            assert time.monotonic() < deadline, f"sessions have not ended: {left}\n{broker.logs()}"
            time.sleep(1)
        known = broker.phases()
        accepted = [uuid for uuid in crowd.tally.accepted if uuid in known]
        assert len(accepted) == len(crowd.tally.accepted), "accepted sessions are lost"
        time.sleep(1)
        ended = check_verdict(broker, accepted, CORES)
        return Outcome(
            calm=quiet.tally,
            load=crowd.tally,
            killed=killer.killed,
            slopes=memory.slopes(),
            ended={uuid: ended[uuid] for uuid in accepted},
            ran=len(broker.submissions()),
        )
    finally:
        broker.stop()
        server.remove()


def _percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def show(outcome: Outcome) -> None:
    """Print what came of it."""
    print(f"  {'POST /requests':22}{'requests':>10}{'median ms':>12}{'p99 ms':>10}{'most ms':>10}")
    for name, tally in (("calm", outcome.calm), ("under load and kills", outcome.load)):
        times = [1000 * value for value in tally.latencies]
        figures = (_percentile(times, 0.5), _percentile(times, 0.99), max(times))
        print(f"  {name:22}{len(times):>10}{figures[0]:>12.0f}{figures[1]:>10.0f}{figures[2]:>10.0f}")
    print(f"  what users did: {dict(outcome.load.deeds)}")
    print(f"  answers: {dict(outcome.load.statuses)}")
    print(f"  killed: {dict(outcome.killed)}")
    print(f"  accepted sessions: {len(outcome.ended)}, by their ends {dict(Counter(outcome.ended.values()))}")
    print(f"  scripts that ran: {outcome.ran}; sold twice 0, lost 0, run twice 0")
    for role, (count, mean, slope) in sorted(outcome.slopes.items()):
        print(f"  memory of an {role}: {mean:.0f} MB, {slope:+.2f} MB a minute ({count} samples)")


def main() -> int:
    """Run the soak and print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="under load (default %(default)s)")
    parser.add_argument("--calm", type=float, default=1.0, help="minutes of the calm run (default %(default)s)")
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--think", type=float, default=15.0, help="mean seconds between two visits of a user")
    parser.add_argument("--pause", type=float, default=20.0, help="seconds between two kills")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    given = parser.parse_args()
    print(f"soak: {given.users} users, {given.minutes:g} minutes, seed {given.seed}")
    with tempfile.TemporaryDirectory(prefix="ebhpc-soak-") as folder:
        outcome = soak(
            Path(folder),
            seconds=60 * given.minutes,
            users=given.users,
            calm=60 * given.calm,
            pause=given.pause,
            think=given.think,
            seed=given.seed,
        )
    show(outcome)
    return 0


if __name__ == "__main__":
    sys.exit(main())
