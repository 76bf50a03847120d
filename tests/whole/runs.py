"""Notebooks that leave a trace of each time that they ran, and what must hold after all has ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
from msgspec import Struct
from sqlalchemy import select

from ebhpc.model import FINAL, LIVE, Phase, kinds, may_move
from ebhpc.store import Store, live_bookings
from ebhpc.store.tables import bookings, events, sessions
from tests.broker import RunningBroker, local_platform

NOTEBOOKS = Path(__file__).with_name("notebooks")


class Run(Struct, frozen=True, kw_only=True):
    """One run of a notebook: its session, when its work began and ended (POSIX seconds)."""

    session: str
    begun: float
    ended: float


def traced_platform(runs: Path, *, seconds: float = 0.3, **settings: Any) -> dict[str, Any]:
    """A local platform whose notebooks write to the file ``runs``."""
    return local_platform(
        file_roots=[str(NOTEBOOKS)],
        environment={"EBHPC_TEST_RUNS": str(runs), "EBHPC_TEST_SLEEP": str(seconds)},
        **settings,
    )


def traced_notebook(*, cores: int = 1, duration: str = "PT5M", **schedule: str) -> dict[str, Any]:
    """A request for a notebook that leaves a trace."""
    return {
        "executable": {"kind": kinds.JUPYTER_NOTEBOOK, "location": (NOTEBOOKS / "note_run.ipynb").as_uri()},
        "compute": {
            "kind": kinds.SIMPLE_COMPUTE,
            "cores": {"min": cores, "max": cores},
            "memory": {"min": 1, "max": 1},
        },
        "schedule": {"requested": {"duration": duration, **schedule}},
    }


def read_runs(file: Path) -> list[Run]:
    """All runs so far."""
    if not file.exists():
        return []
    lines = (line.split() for line in file.read_text(encoding="utf-8").splitlines())
    return [Run(session=uuid, begun=float(begun), ended=float(ended)) for uuid, begun, ended in lines]


def processes_of(uuid: str) -> list[int]:
    """Processes that carry a session's UUID in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("EBHPC_SESSION") == uuid:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def check_histories(broker: RunningBroker) -> dict[str, Phase]:
    """Check from the database that every session only moved forward and that none is left; return how each ended."""
    store = Store(f"sqlite:///{broker.state / 'ebhpc.sqlite3'}")
    try:
        with store.read() as tx:
            ended = {row.uuid: Phase(row.phase) for row in tx.execute(select(sessions.c.uuid, sessions.c.phase))}
            unfinished = list(tx.execute(select(sessions.c.uuid).where(sessions.c.unfinished.is_(True))).scalars())
            here = dict.fromkeys(ended, Phase.INITIAL)
            for row in tx.execute(select(events).order_by(events.c.id)):
                previous, phase = Phase(row.previous), Phase(row.phase)
                assert here[row.session] is previous, (
                    f"session {row.session} jumped from {here[row.session]} to {phase}"
                )
                assert may_move(previous, phase), f"session {row.session}: {previous} to {phase}"
                here[row.session] = phase
            assert here == ended
            assert unfinished == []
            assert not {uuid for uuid, phase in ended.items() if phase in LIVE}
            offered = {uuid for uuid, phase in ended.items() if phase is Phase.OFFERED}
            left = {row.session for row in live_bookings(tx)} - offered
            assert left == set(), f"bookings left by {[(uuid, ended[uuid]) for uuid in left]}"
    finally:
        store.close()
    return ended


def check_bookings(broker: RunningBroker, cores: int) -> None:
    """Check from the database that at no instant more cores were booked than there are.

    Two bookings collide if both counted at the same time and cover the same instant. What counted when is told by the
    numbers of the events, which the database gives in the order of the transactions; a clock read before a transaction
    began says nothing of its order.
    """
    store = Store(f"sqlite:///{broker.state / 'ebhpc.sqlite3'}")
    made: dict[str, int] = {}
    given_back: dict[str, int] = {}
    try:
        with store.read() as tx:
            rows = list(tx.execute(select(bookings)))
            freed = {
                row.session: row.freed
                for row in tx.execute(
                    select(bookings.c.session, bookings.c.freed)
                    .join(sessions, sessions.c.uuid == bookings.c.session)
                    .where(sessions.c.phase == Phase.CANCELLED, bookings.c.freed.is_not(None))
                )
            }
            for event in tx.execute(select(events).order_by(events.c.id)):
                if event.phase == Phase.OFFERED:
                    made[event.session] = event.id
                elif Phase(event.phase) in FINAL and event.phase != Phase.CANCELLED:
                    given_back[event.session] = event.id
                for session, moment in freed.items():
                    if moment <= event.time:
                        given_back.setdefault(session, event.id)
    finally:
        store.close()
    for row in rows:
        moment = made[row.session]
        counting = [
            other
            for other in rows
            if made[other.session] <= moment and given_back.get(other.session, moment + 1) > moment
        ]
        steps = [(other.start, other.cores) for other in counting]
        steps += [(other.finish, -other.cores) for other in counting]
        taken = 0
        for _, change in sorted(steps):
            taken += change
            assert taken <= cores, f"{taken} cores booked at once when {row.session} was offered"


def most_at_once(runs: list[Run]) -> int:
    """How many of the runs overlapped in time."""
    steps = sorted([(run.begun, 1) for run in runs] + [(run.ended, -1) for run in runs])
    most = now = 0
    for _, change in steps:
        now += change
        most = max(most, now)
    return most
