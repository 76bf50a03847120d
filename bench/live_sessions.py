"""``python -m bench.live_sessions``: what 10,000 live sessions cost whoever lists them, and the driver's loop.

The sessions run on a ledger (see ``tests/service/plugins/ledger.py``), which knows as many jobs. One is made through
the API; the others are copies of its rows, since how fast they are accepted is not what is measured. Bounds: a page of
``GET /sessions`` below 50 ms, a turn of the driver's loop below 2 s of processor time, all of its threads together.
"""

from __future__ import annotations

import argparse
import re
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import httpx
import psutil
from msgspec import Struct
from sqlalchemy import insert, select

from ebhpc.model import Phase
from ebhpc.store import Store
from ebhpc.store.tables import bookings, events, sessions
from tests.broker import ADMIN, PASSWORD, free_port
from tests.service.ledgers import LedgerBroker
from tests.service.postgres import Server

PAGE_MS, TURN_SECONDS = 50.0, 2.0
_ROWS = 1000


def copy_session(broker: LedgerBroker, uuid: str, count: int) -> None:
    """Make ``count`` more sessions of one that runs, with their bookings, events and jobs."""
    store = Store(broker.database)
    ledger = sqlite3.connect(broker.ledger, timeout=30)
    try:
        with store.read() as tx:
            row = dict(tx.execute(select(sessions).where(sessions.c.uuid == uuid)).one()._mapping)
            booked = [dict(one._mapping) for one in tx.execute(select(bookings).where(bookings.c.session == uuid))]
            passed = [dict(one._mapping) for one in tx.execute(select(events).where(events.c.session == uuid))]
        row |= {"lease": None, "lease_until": None, "due": 0.0}
        for first in range(0, count, _ROWS):
            new = [str(uuid4()) for _ in range(min(_ROWS, count - first))]
            with store.write("copy") as tx:
                # Not all at one instant, as nobody's are
                made = [
                    {**row, "uuid": one, "position": first + n, "created": row["created"] - (first + n) / 10}
                    for n, one in enumerate(new, start=1)
                ]
                tx.execute(insert(sessions), made)
                for table, found in ((bookings, booked), (events, passed)):
                    plain = [{key: value for key, value in one.items() if key != "id"} for one in found]
                    tx.execute(insert(table), [{**one, "session": name} for name in new for one in plain])
            with ledger:
                ledger.executemany(
                    "INSERT INTO jobs (session, began, cores, memory) VALUES (?, ?, 1, 1024)",
                    [(name, time.monotonic()) for name in new],
                )
    finally:
        ledger.close()
        store.close()


def turns(port: int) -> float:
    """How many turns the driver's loop has made."""
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False, timeout=30).text
    found = re.search(r"^ebhpc_driver_turns_total (\S+)", text, re.MULTILINE)
    assert found is not None
    return float(found[1])


class Figures(Struct, frozen=True, kw_only=True):
    """Latencies of pages, sorted, and a page's processor time (ms); processor seconds of a turn, and of each second."""

    latencies: list[float]
    page: float
    turn: float
    share: float


def _processor(processes: Sequence[psutil.Process]) -> float:
    """Processor seconds that the processes have used."""
    return sum(sum(one.cpu_times()[:2]) for one in processes)


def measure(folder: Path, count: int, database: str | None) -> Figures:
    """Make so many live sessions, list them for half a minute, and watch the driver meanwhile."""
    port = free_port()
    settings = {
        "driver": {"interval": "1s", "lease": "30s", "metrics": f"127.0.0.1:{port}"},
        "logging": {"level": "warning"},
    }
    broker = LedgerBroker(
        folder, database=database, cores=2 * count, memory_gib=2 * count, seconds=1e6, settings=settings
    )
    try:
        broker.run()
        uuid = broker.begin(1)[0]
        broker.until([uuid], Phase.RUNNING)
        copy_session(broker, uuid, count - 1)
        driver = psutil.Process(broker.processes["driver-1"].pid)
        deadline = time.monotonic() + 300
        while not _has_all(broker, count):
            assert time.monotonic() < deadline, broker.logs()
            time.sleep(1)
        time.sleep(5)
        workers = psutil.Process(broker.processes["api"].pid).children()
        begun, before, cpu = time.monotonic(), turns(port), _processor([driver])
        serving = _processor(workers)
        latencies = []
        with httpx.Client(
            base_url=broker.url, auth=(ADMIN, PASSWORD), headers={"Accept": "application/json"}, trust_env=False
        ) as client:
            client.get("/sessions")
            while time.monotonic() - begun < 30:
                path = "/sessions"
                for _ in range(5):
                    start = time.perf_counter()
                    answer = client.get(path)
                    latencies.append(1000 * (time.perf_counter() - start))
                    assert answer.status_code == 200, answer.text
                    path = answer.json()["next"].removeprefix(broker.url)
                time.sleep(0.5)
        made, used = turns(port) - before, _processor([driver]) - cpu
        page = 1000 * (_processor(workers) - serving) / len(latencies)
        return Figures(
            latencies=sorted(latencies), page=page, turn=used / made, share=used / (time.monotonic() - begun)
        )
    finally:
        broker.stop()


def _has_all(broker: LedgerBroker, count: int) -> bool:
    store = Store(broker.database)
    try:
        with store.read() as tx:
            leased = tx.execute(select(sessions.c.uuid).where(sessions.c.lease.is_not(None))).all()
        return len(leased) == count
    finally:
        store.close()


def main() -> int:
    """Measure and print; 1 where a bound is not met."""
    parser = argparse.ArgumentParser(prog="python -m bench.live_sessions", description=__doc__)
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--postgresql", action="store_true", help="on PostgreSQL instead of SQLite")
    given = parser.parse_args()
    server = None
    if given.postgresql:
        server = Server(free_port())
        server.make()
        server.start()
        server.execute("CREATE DATABASE ebhpc")
    try:
        with tempfile.TemporaryDirectory(prefix="ebhpc-live-") as folder:
            found = measure(Path(folder), given.sessions, server.url() if server else None)
    finally:
        if server is not None:
            server.remove()
    print(f"{given.sessions} live sessions, {'PostgreSQL' if given.postgresql else 'SQLite'}")
    median, most = statistics.median(found.latencies), found.latencies[int(0.99 * len(found.latencies))]
    print(
        f"  a page of GET /sessions: {found.page:.1f} ms of processor time; median {median:.1f} ms, p99 {most:.1f} ms"
    )
    print(f"  a turn of the driver: {found.turn:.2f} s of processor time; {found.share:.0%} of a processor")
    met = found.page < PAGE_MS and found.turn < TURN_SECONDS
    print(f"  wanted: below {PAGE_MS:g} ms and {TURN_SECONDS:g} s of processor time: {'met' if met else 'NOT MET'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
