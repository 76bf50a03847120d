"""A batch system in a file, for many sessions, machines and faults: its jobs are rows that end by the clock.

What it leaves out: nodes, processes and files; that the broker gets along with real batch systems is tested
elsewhere. Like a real one it makes a new job for each submission, so that a session that was submitted twice is found.
Its clock is the machine's monotonic one, which nobody steps. While the file `hang` is beside it, no hook answers.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct

from ebhpc import hookimpl
from ebhpc.config import read_settings
from ebhpc.model import Allocation, Message, Observation, Request, Session
from ebhpc.planning import Node, RunningJob, Snapshot

_TABLE = """CREATE TABLE IF NOT EXISTS jobs (
    id INTEGER PRIMARY KEY, session TEXT NOT NULL, began REAL NOT NULL, ended REAL,
    cancelled INTEGER NOT NULL DEFAULT 0,
    cores INTEGER NOT NULL, memory INTEGER NOT NULL)"""


class LedgerSettings(Struct, frozen=True, kw_only=True):
    """``file`` is the ledger, ``seconds`` how long each job runs."""

    file: Path
    nodes: int = 1
    cores: int = 8
    memory_gib: int = 16
    seconds: float = 1.0


@hookimpl
def ebhpc_platform(kind: str, name: str, settings: Mapping[str, Any], state: Path) -> object | None:
    """Build a platform whose batch system is a ledger."""
    return Ledger(name, read_settings(LedgerSettings, settings)) if kind == "ledger" else None


class Ledger:
    """One such batch system; any number of processes share it."""

    def __init__(self, name: str, settings: LedgerSettings) -> None:
        self.name = name
        self.settings = settings

    @contextmanager
    def _jobs(self) -> Iterator[sqlite3.Connection]:
        while self.settings.file.with_name("hang").exists():
            time.sleep(0.05)
        connection = sqlite3.connect(self.settings.file, timeout=30, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=OFF")
            connection.execute(_TABLE)
            now = time.monotonic()
            connection.execute(
                "UPDATE jobs SET ended = began + ? WHERE ended IS NULL AND began + ? <= ?",
                (self.settings.seconds, self.settings.seconds, now),
            )
            yield connection
        finally:
            connection.close()

    @hookimpl
    def ebhpc_refuses(self, request: Request) -> Iterable[Message]:
        return ()

    @hookimpl
    def ebhpc_snapshot(self, now: int) -> Snapshot:
        size, memory = self.settings.cores, self.settings.memory_gib * 1024
        nodes = tuple(Node(name=f"n{n}", cores=size, memory=memory) for n in range(self.settings.nodes))
        with self._jobs() as jobs:
            rows = jobs.execute("SELECT id, session, cores, memory FROM jobs WHERE ended IS NULL").fetchall()
        running = tuple(
            RunningJob(
                id=str(number),
                session=session,
                started=now,
                ends=now + 60,
                allocations=(Allocation(node="n0", cores=cores, memory=mib),),
            )
            for number, session, cores, mib in rows
        )
        return Snapshot(platform=self.name, taken=now, nodes=nodes, running=running)

    @hookimpl
    def ebhpc_submit(self, session: Session) -> str:
        with self._jobs() as jobs:
            found = jobs.execute("SELECT id FROM jobs WHERE session = ?", (session.uuid,)).fetchone()
            if found is None:
                size = session.allocations[0]
                values = (session.uuid, time.monotonic(), size.cores, size.memory)
                found = jobs.execute(
                    "INSERT INTO jobs (session, began, cores, memory) VALUES (?, ?, ?, ?) RETURNING id", values
                ).fetchone()
        return str(found[0])

    @hookimpl
    def ebhpc_observe(self, sessions: Sequence[Session]) -> Iterable[Observation]:
        with self._jobs() as jobs:
            rows = jobs.execute("SELECT session, began, ended, cancelled FROM jobs").fetchall()
        known = {row[0]: row for row in rows}
        ahead = time.time() - time.monotonic()
        return [_observation(session.uuid, known.get(session.uuid), ahead) for session in sessions]

    @hookimpl
    def ebhpc_cancel(self, session: Session) -> None:
        with self._jobs() as jobs:
            jobs.execute(
                "UPDATE jobs SET ended = ?, cancelled = 1 WHERE session = ? AND ended IS NULL",
                (time.monotonic(), session.uuid),
            )

    @hookimpl
    def ebhpc_cleanup(self, session: Session) -> None:
        """A ledger keeps all."""

    @hookimpl
    def ebhpc_forget(self, session: Session) -> None:
        """There are no results."""


def _observation(uuid: str, row: tuple[str, float, float | None, int] | None, ahead: float) -> Observation:
    if row is None:
        return Observation(uuid=uuid, state="GONE")
    _, began, ended, cancelled = row
    if ended is None:
        return Observation(uuid=uuid, state="RUNNING", started=began + ahead, node="n0")
    return Observation(
        uuid=uuid,
        state="FAILED" if cancelled else "SUCCEEDED",
        exit_code=143 if cancelled else 0,
        started=began + ahead,
        ended=ended + ahead,
        node="n0",
    )
