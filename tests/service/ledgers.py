"""A broker over a ledger (see ``plugins/ledger.py``), and what must hold when all is over."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
from sqlalchemy import select

from ebhpc.model import FINAL, Phase, kinds, may_move
from ebhpc.store import Store, live_bookings
from ebhpc.store.tables import bookings, events, sessions
from tests.broker import ADMIN, PASSWORD, RunningBroker

PLUGINS = Path(__file__).with_name("plugins")

REQUEST: dict[str, Any] = {
    "executable": {"kind": kinds.JUPYTER_NOTEBOOK, "location": "https://example.org/any.ipynb"},
    "compute": {"kind": kinds.SIMPLE_COMPUTE, "cores": {"min": 1, "max": 1}, "memory": {"min": 1, "max": 1}},
    "schedule": {"requested": {"duration": "PT10M"}},
}
"""One core for ten minutes; the ledger runs anything."""


def ledger_platform(folder: Path, *, name: str = "cluster", **settings: Any) -> dict[str, Any]:
    """The settings of a platform whose ledger lies in ``folder``."""
    return {
        "name": name,
        "kind": "ledger",
        "lead": "0s",
        "refresh": "1s",
        "stale": "30s",
        "settings": {"file": str(folder / f"{name}.ledger"), **settings},
    }


class LedgerBroker(RunningBroker):
    """A broker whose platforms are ledgers; ``database`` is the URL of its database, without one SQLite."""

    def __init__(
        self, folder: Path, *, database: str | None = None, settings: Mapping[str, Any] = {}, **ledger: Any
    ) -> None:
        self.ledger = folder / "cluster.ledger"
        chosen: dict[str, Any] = {"platforms": [ledger_platform(folder, **ledger)], **settings}
        if database is not None:
            chosen["database"] = {"url": database}
        super().__init__(folder, chosen, {"EBHPC_PLUGINS_DIR": str(PLUGINS)})
        self.database = database or f"sqlite:///{self.state / 'ebhpc.sqlite3'}"

    def run(self, drivers: int = 1) -> None:
        """Make the database, start the API and the drivers, wait until they serve."""
        self.make_ready()
        self.start("api")
        for number in range(drivers):
            self.start("drive", f"driver-{number + 1}")
        self.wait_ready()

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Ask once; the answer, whatever it is."""
        return httpx.request(
            method, f"{self.url}{path}", auth=(ADMIN, PASSWORD), headers=_JSON, trust_env=False, timeout=90, **options
        )

    def begin(self, count: int, *, at_once: int = 16) -> list[str]:
        """Have so many sessions accepted at once; return their UUIDs."""
        # On a thread of its own: tests that drive a browser leave a loop behind that runs on the main one
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(lambda: asyncio.run(self._begin(count, at_once))).result()

    async def _begin(self, count: int, at_once: int) -> list[str]:
        limits = httpx.Limits(max_connections=at_once)
        accepted: list[str] = []
        left = iter(range(count))
        async with httpx.AsyncClient(
            base_url=self.url, auth=(ADMIN, PASSWORD), headers=_JSON, limits=limits, timeout=120, trust_env=False
        ) as client:

            async def ask() -> None:
                for _ in left:
                    answer = await client.post("/direct", json=REQUEST)
                    assert answer.status_code == 303, answer.text
                    accepted.append(answer.json()["meta"]["uuid"])

            await asyncio.gather(*(ask() for _ in range(at_once)))
        return accepted

    def kill_all(self) -> None:
        """End every process at the same moment, as a power cut does."""
        groups = [process.pid for process in self.processes.values()]
        for group in groups:
            os.killpg(group, signal.SIGSTOP)
        for group in groups:
            os.killpg(group, signal.SIGKILL)
        for process in self.processes.values():
            process.wait()
        self.processes.clear()

    def worker_memory(self) -> int:
        """Bytes that all processes of the broker have of their own."""
        total = 0
        for process in self.processes.values():
            for one in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
                total += one.memory_full_info().uss
        return total

    def submissions(self) -> Counter[str]:
        """How many jobs the batch system made for each session."""
        if not self.ledger.exists():
            return Counter()
        connection = sqlite3.connect(self.ledger, timeout=30)
        try:
            return Counter(row[0] for row in connection.execute("SELECT session FROM jobs"))
        finally:
            connection.close()

    def end_jobs(self) -> None:
        """Let all jobs of the batch system end well now."""
        connection = sqlite3.connect(self.ledger, timeout=30)
        try:
            with connection:
                connection.execute("UPDATE jobs SET ended = ? WHERE ended IS NULL", (time.monotonic(),))
        finally:
            connection.close()

    def phases(self) -> dict[str, Phase]:
        """Every session's phase, from the database."""
        store = Store(self.database)
        try:
            with store.read() as tx:
                return {row.uuid: Phase(row.phase) for row in tx.execute(select(sessions.c.uuid, sessions.c.phase))}
        finally:
            store.close()

    def until_health(self, status: str, seconds: float = 120.0) -> httpx.Response:
        """Wait until the health has a status, as ``ready`` where all platforms are known; return the answer."""
        deadline = time.monotonic() + seconds
        while (told := self.ask("GET", "/health/ready")).json()["status"] != status:
            assert time.monotonic() < deadline, f"{told.text}\n{self.logs()}"
            time.sleep(0.1)
        return told

    def until_over(self, uuids: Iterable[str], seconds: float = 180.0) -> dict[str, Phase]:
        """Wait until sessions are in a final phase; return every session's phase."""
        wanted, deadline = set(uuids), time.monotonic() + seconds
        while True:
            phases = self.phases()
            left = {uuid: phases.get(uuid) for uuid in wanted if phases.get(uuid) not in FINAL}
            if not left:
                return phases
            assert time.monotonic() < deadline, f"{len(left)} left: {Counter(left.values())}\n{self.logs()}"
            time.sleep(0.2)

    def until_clean(self, seconds: float = 180.0) -> None:
        """Wait until drivers have cleaned up after the sessions in a final phase: after some, that comes later."""
        deadline = time.monotonic() + seconds
        store = Store(self.database)
        try:
            over = select(sessions.c.uuid).where(sessions.c.unfinished.is_(True), sessions.c.phase.in_(list(FINAL)))
            while True:
                with store.read() as tx:
                    left = list(tx.execute(over).scalars())
                if not left:
                    return
                assert time.monotonic() < deadline, f"{len(left)} are not cleaned up\n{self.logs()}"
                time.sleep(0.1)
        finally:
            store.close()

    def until(self, uuids: Iterable[str], phase: Phase, seconds: float = 180.0) -> None:
        """Wait until all of the sessions are in a phase."""
        wanted, deadline = set(uuids), time.monotonic() + seconds
        while True:
            found = self.phases()
            counted = Counter(found.get(uuid) for uuid in wanted)
            if counted[phase] == len(wanted):
                return
            assert time.monotonic() < deadline, f"{counted}\n{self.logs()}"
            time.sleep(0.1)


_JSON = {"Accept": "application/json"}


def check_verdict(broker: LedgerBroker, accepted: Iterable[str], cores: int) -> dict[str, Phase]:
    """Check what always holds once all is over; return every session's phase.

    Nothing lost: each accepted session is there and at its end. Nothing run twice: one job at most for each, and one
    for each that completed. Nothing sold twice: see `most_booked`. Phases went forward, and nothing stays booked. A
    driver must be there: what is over may have to be cleaned up after still.
    """
    broker.until_clean()
    store = Store(broker.database)
    try:
        with store.read() as tx:
            ended = {row.uuid: Phase(row.phase) for row in tx.execute(select(sessions.c.uuid, sessions.c.phase))}
            here = dict.fromkeys(ended, Phase.INITIAL)
            for row in tx.execute(select(events).order_by(events.c.id)):
                previous, phase = Phase(row.previous), Phase(row.phase)
                assert here[row.session] is previous, f"{row.session} jumped from {here[row.session]} to {phase}"
                assert may_move(previous, phase), f"{row.session}: {previous} to {phase}"
                here[row.session] = phase
            unfinished = list(tx.execute(select(sessions.c.uuid).where(sessions.c.unfinished.is_(True))).scalars())
            open_offers = {uuid for uuid, phase in ended.items() if phase is Phase.OFFERED}
            left = {row.session for row in live_bookings(tx)} - open_offers
            booked = most_booked(tx)
    finally:
        store.close()
    assert here == ended
    accepted = set(accepted)
    assert accepted <= ended.keys(), f"{len(accepted - ended.keys())} accepted sessions are lost"
    assert {ended[uuid] for uuid in accepted} <= FINAL
    assert unfinished == []
    assert left == set(), f"bookings left by {[(uuid, ended[uuid]) for uuid in left][:5]}"
    started = broker.submissions()
    assert max(started.values(), default=0) <= 1, "a job was started twice"
    completed = {uuid for uuid, phase in ended.items() if phase is Phase.COMPLETED}
    assert completed <= started.keys()
    assert booked <= cores, f"{booked} cores were booked at once, of {cores}"
    return ended


def most_booked(tx: Any) -> int:
    """The most cores that were booked at one instant, of bookings that counted at the same time.

    What counted when is told by the numbers of the events, which the database gives in the order of its transactions.
    """
    made: dict[str, int] = {}
    gone: dict[str, int] = {}
    for event in tx.execute(select(events.c.id, events.c.session, events.c.phase).order_by(events.c.id)):
        if event.phase == Phase.OFFERED:
            made.setdefault(event.session, event.id)
        elif Phase(event.phase) in FINAL:
            gone[event.session] = event.id
    rows = [row for row in tx.execute(select(bookings)) if row.session in made]
    # By number of event: what begins to count, and what ceases to; the instants in between are looked at once for each
    steps = sorted(
        [(made[row.session], 1, row) for row in rows]
        + [(gone[row.session], 0, row) for row in rows if row.session in gone],
        key=lambda step: step[:2],
    )
    counting: dict[int, Any] = {}
    most = 0
    for _, begins, row in steps:
        if not begins:
            counting.pop(row.id, None)
            continue
        counting[row.id] = row
        covering = [one for one in counting.values() if one.start < row.finish and row.start < one.finish]
        turns = sorted([(one.start, one.cores) for one in covering] + [(one.finish, -one.cores) for one in covering])
        taken = 0
        for _, change in turns:
            taken += change
            most = max(most, taken)
    return most
