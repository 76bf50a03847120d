"""``python -m bench.soak``: an hour of load compressed into minutes, while processes are killed.

50 users ask, accept, reject, cancel and let expire; two API workers, two drivers, PostgreSQL; batch scripts of two
seconds on the local platform; every 20 s one process is killed and started again, as systemd would. At the end nothing
may be sold twice, lost or run twice. Shown: how long ``POST /requests`` took, beside a calm run before it without users
that accept or processes that end, and how memory grew.

Memory is looked at within the lives of processes: those that were killed begin anew, and what a young one takes up to
work with is no growth. So the API and the first driver are killed at the beginning, and from then on the second driver
and the youngest worker in turn: one driver and one worker live to the end. Of each process only what came after its
first three minutes counts. A line through the samples of all processes of a role, each with a level of its own, gives
the slope; the interval around it has 95 % confidence, and allows for samples that follow one another being alike.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from msgspec import Struct, field

from ebhpc.model import FINAL, Phase, kinds
from tests.broker import ADMIN, PASSWORD, RunningBroker, free_port, local_platform
from tests.service.ledgers import LedgerBroker, check_verdict
from tests.service.postgres import Server

CORES = 24
SETTLE = 180.0
"""Seconds after its start from which a process's memory counts for the slope: by then it has what it works with, as
threads for all that comes at once, each with connections of its own. A shorter run has less, three tenths of it."""

FIRST = ("api", "driver-1")
THEN = ("api worker", "driver-2")
"""Who is killed, once and then in turn. Of the workers it is the youngest: one of them, and the first driver, have to
grow old, else nobody learns whether they grow large."""


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


class Growth(Struct, frozen=True, kw_only=True):
    """How the memory of a role's processes changed with their age; sizes in MB, slopes in MB a minute.

    ``oldest`` is the greatest age in seconds that one of the ``processes`` came to. ``error`` is half of the 95 %
    interval around ``slope``.
    """

    processes: int
    samples: int
    oldest: float
    mean: float
    slope: float
    error: float


class Memory:
    """Samples of each process: its role, who it is, its age in seconds, its own memory in bytes."""

    def __init__(self, broker: RunningBroker) -> None:
        self._broker = broker
        self._stop = threading.Event()
        self.samples: dict[str, dict[tuple[int, float], list[tuple[float, int]]]] = {}
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(2):
            for name, process in list(self._broker.processes.items()):
                try:
                    top = psutil.Process(process.pid)
                    self._note("api arbiter" if name == "api" else "driver", top)
                    for child in top.children() if name == "api" else ():
                        self._note("api worker", child)
                except psutil.Error:
                    continue

    def _note(self, role: str, process: psutil.Process) -> None:
        began = process.create_time()
        lives = self.samples.setdefault(role, {})
        lives.setdefault((process.pid, began), []).append((time.time() - began, process.memory_full_info().uss))

    def stop(self) -> None:
        """Take no more."""
        self._stop.set()
        self._thread.join()

    def growth(self, settle: float) -> dict[str, Growth]:
        """By role, from samples of processes older than ``settle`` seconds; a role without enough is left out."""
        found = {}
        for role, lives in self.samples.items():
            old = [[(age, size) for age, size in life if age > settle] for life in lives.values()]
            grown = growth([life for life in old if len(life) > 3])
            if grown is not None:
                found[role] = grown
        return found


def growth(lives: Sequence[Sequence[tuple[float, float]]]) -> Growth | None:
    """Fit one slope through samples (age in seconds, bytes) of several processes, each with a level of its own.

    The interval is that of least squares, widened by what neighbouring residuals have in common, as of a first-order
    autoregression. None: too few samples.
    """
    if not lives:
        return None
    ages = [np.array([age for age, _ in life]) / 60 for life in lives]
    sizes = [np.array([size for _, size in life]) / 1e6 for life in lives]
    x = np.concatenate([one - one.mean() for one in ages])
    y = np.concatenate([one - one.mean() for one in sizes])
    spread, free = float(x @ x), len(x) - len(lives) - 1
    if spread == 0 or free < 1:
        return None
    slope = float(x @ y) / spread
    left = [size - size.mean() - slope * (age - age.mean()) for age, size in zip(ages, sizes, strict=True)]
    squares = sum(float(one @ one) for one in left)
    alike = sum(float(one[1:] @ one[:-1]) for one in left) / squares if squares else 0.0
    alike = min(0.95, max(0.0, alike))
    error = 1.96 * (squares / free / spread * (1 + alike) / (1 - alike)) ** 0.5
    return Growth(
        processes=len(lives),
        samples=len(x),
        oldest=60 * max(float(one.max()) for one in ages),
        mean=float(np.concatenate(sizes).mean()),
        slope=slope,
        error=error,
    )


class Killer:
    """Kills one process every ``pause`` seconds, and starts it again after one, as systemd would."""

    def __init__(self, broker: RunningBroker, pause: float) -> None:
        self._broker = broker
        self._pause = pause
        self._stop = threading.Event()
        self._all_kinds = threading.Event()
        self.killed: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        for victim in itertools.chain(FIRST, itertools.cycle(THEN)):
            if self._stop.wait(self._pause):
                return
            if victim == "api worker":
                api = psutil.Process(self._broker.processes["api"].pid)
                while len(children := api.children()) < 2:  # the arbiter replaces one just now
                    if self._stop.wait(0.05):
                        return
                with contextlib.suppress(psutil.NoSuchProcess):
                    max(children, key=psutil.Process.create_time).kill()
                    self.killed[victim] += 1
                continue
            self.killed[victim] += 1
            self._broker.kill(victim)
            time.sleep(1)
            self._broker.start(*(("api",) if victim == "api" else ("drive", victim)))
            if victim == THEN[-1]:
                self._all_kinds.set()

    def wait(self, seconds: float) -> None:
        """Wait until a process of each kind was killed, and started again.

        Raises:
            TimeoutError: they were not within ``seconds``.
        """
        if not self._all_kinds.wait(seconds):
            raise TimeoutError(f"killed were only {dict(self.killed)}")

    def stop(self) -> None:
        """Kill no more."""
        self._stop.set()
        self._thread.join()


class Outcome(Struct, frozen=True, kw_only=True):
    """What came of a soak."""

    calm: Tally
    load: Tally
    killed: Mapping[str, int]
    growth: Mapping[str, Growth]
    settle: float
    ended: Mapping[str, Phase]
    ran: int


def soak(
    folder: Path,
    *,
    seconds: float,
    users: int,
    calm: float,
    pause: float,
    think: float,
    seed: int,
    tell: Callable[[str], object] = lambda line: None,
) -> Outcome:
    """Run it, with a line about it now and then; AssertionError where something was sold twice, lost or run twice."""
    settle = min(SETTLE, 0.3 * seconds)
    server = Server(free_port(), settings={"max_connections": "120"})
    server.make()
    server.start()
    server.execute("CREATE DATABASE ebhpc")
    broker = SoakBroker(folder, server.url())
    try:
        broker.run(drivers=2)
        quiet = Users(broker.url, users, calm=True, seed=seed, think=think)
        _wait(calm, lambda: tell(f"calm: {len(quiet.tally.latencies)} requests"))
        quiet.stop()
        memory, killer = Memory(broker), Killer(broker, pause)
        crowd = Users(broker.url, users, calm=False, seed=seed, think=think)
        _wait(
            seconds,
            lambda: tell(
                f"load: {len(crowd.tally.latencies)} requests, {len(crowd.tally.accepted)} accepted,"
                f" {killer.killed.total()} kills"
            ),
        )
        killer.wait(60 + 10 * pause)
        killer.stop()
        crowd.stop()
        memory.stop()
        tell("over; sessions end")
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
        ended = check_verdict(broker, accepted, CORES)
        return Outcome(
            calm=quiet.tally,
            load=crowd.tally,
            killed=killer.killed,
            growth=memory.growth(settle),
            settle=settle,
            ended={uuid: ended[uuid] for uuid in accepted},
            ran=len(broker.submissions()),
        )
    finally:
        broker.stop()
        server.remove()


def _wait(seconds: float, tell: Callable[[], object]) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(10.0, left))
        tell()


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
    print(f"  {'memory, after ' + format(outcome.settle, '.0f') + ' s of age':32}{'MB':>6}{'MB a minute':>20}", end="")
    print(f"{'processes':>11}{'oldest s':>10}{'samples':>9}")
    for role, one in sorted(outcome.growth.items()):
        slope = f"{one.slope:+.2f} ± {one.error:.2f}"
        print(f"  {role:32}{one.mean:>6.0f}{slope:>20}{one.processes:>11}{one.oldest:>10.0f}{one.samples:>9}")


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
    print(f"soak: {given.users} users, {given.minutes:g} minutes, seed {given.seed}", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ebhpc-soak-") as folder:
        outcome = soak(
            Path(folder),
            seconds=60 * given.minutes,
            users=given.users,
            calm=60 * given.calm,
            pause=given.pause,
            think=given.think,
            seed=given.seed,
            tell=lambda line: print(f"  {time.monotonic() - began:5.0f} s  {line}", flush=True),
        )
    show(outcome)
    return 0


if __name__ == "__main__":
    sys.exit(main())
