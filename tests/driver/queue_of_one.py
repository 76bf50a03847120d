"""A fake batch system with a queue and one node: jobs are real processes, one at a time, in the order of submission.

What it leaves out: users, priorities, backfill, limits that it enforces itself, and a controller that fails. Its state
is a folder, so that it outlives any driver: ``jobs/UUID`` what was submitted, ``started/UUID`` and ``ended/UUID`` what
became of it, ``cancelled/UUID`` whose end was asked for, ``stuff/UUID`` what was prepared, ``ran`` a line for each
start.

:class:`QueueOfOne` runs the jobs; :class:`QueuedPlatform` is the plugin that a driver uses. As a program
(``python -m tests.driver.queue_of_one URL FOLDER``) it is a driver of that platform, for tests that kill it.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ebhpc.hookspecs import hookimpl
from ebhpc.model import Allocation, Message, Observation, Prepared, Session
from ebhpc.model.sessions import Shape
from ebhpc.planning import FinishedJob, Node, RunningJob, Scheduler, Snapshot, WaitingJob

NAME = "queue"


class Submitted(msgspec.Struct, kw_only=True):
    """A job in the queue: its place, until when it may run, how long it really does."""

    order: int
    submitted: int
    limit: int
    begin: int
    seconds: float
    ours: bool = True


class Ended(msgspec.Struct, kw_only=True):
    """How a job ended; one that never started has no ``started``."""

    started: float | None
    ended: float
    code: int


def write(path: Path, value: Any) -> None:
    """Write a file so that nobody sees half of it."""
    half = path.with_suffix(f".{threading.get_ident()}")
    half.write_bytes(msgspec.json.encode(value))
    half.rename(path)


class Folder:
    """The state of the fake."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for part in ("jobs", "started", "ended", "cancelled", "stuff"):
            (path / part).mkdir(parents=True, exist_ok=True)

    def read(self, part: str, name: str, kind: Any) -> Any:
        with contextlib.suppress(FileNotFoundError):
            return msgspec.json.decode((self.path / part / name).read_bytes(), type=kind)
        return None

    def names(self, part: str) -> set[str]:
        return {path.name for path in (self.path / part).iterdir() if "." not in path.name}

    def waiting(self) -> list[tuple[str, Submitted]]:
        """Jobs that have not begun, in order."""
        names = self.names("jobs") - self.names("started") - self.names("ended")
        found = [(name, self.read("jobs", name, Submitted)) for name in names]
        return sorted(found, key=lambda item: item[1].order)

    def submit(self, name: str, job: Submitted) -> None:
        if not (self.path / "jobs" / name).exists():
            write(self.path / "jobs" / name, job)

    def runs(self, name: str) -> int:
        """How often a job was really started."""
        log = self.path / "ran"
        return log.read_text().split().count(name) if log.exists() else 0


class QueueOfOne(Folder):
    """Runs the jobs on a thread."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(20)

    def block(self, seconds: float) -> str:
        """Put in a job of somebody else's."""
        name = f"other-{time.monotonic_ns()}"
        now = time.time()
        self.submit(
            name,
            Submitted(order=time.monotonic_ns(), submitted=int(now), limit=60, begin=0, seconds=seconds, ours=False),
        )
        return name

    def _run(self) -> None:
        while not self._stop.wait(0.01):
            self._drop_cancelled()
            following = next(((name, job) for name, job in self.waiting() if job.begin <= time.time()), None)
            if following is not None:
                self._run_one(*following)

    def _drop_cancelled(self) -> None:
        for name in self.names("cancelled") & {name for name, _ in self.waiting()}:
            write(self.path / "ended" / name, Ended(started=None, ended=time.time(), code=143))

    def _run_one(self, name: str, job: Submitted) -> None:
        program = f"echo {name} >> ran; exec sleep {job.seconds}"
        began = time.time()
        with subprocess.Popen(["sh", "-c", program], cwd=self.path) as process:
            write(self.path / "started" / name, began)
            while process.poll() is None:
                if self._stop.is_set() or (self.path / "cancelled" / name).exists():
                    process.kill()
                self._drop_cancelled()
                time.sleep(0.01)
        write(self.path / "ended" / name, Ended(started=began, ended=time.time(), code=abs(process.returncode)))


class QueuedPlatform(Folder):
    """The plugin."""

    def __init__(self, path: Path, seconds: float = 0.3) -> None:
        super().__init__(path)
        self._seconds = seconds
        self._told: set[str] = set()

    @hookimpl
    def ebhpc_refuses(self, request: Any) -> Iterable[Message]:
        return ()

    @hookimpl
    def ebhpc_snapshot(self, now: int) -> Snapshot:
        ended = self.names("ended")
        running = self.names("started") - ended
        finished = []
        for name in ended - self._told:
            self._told.add(name)
            job, end = self.read("jobs", name, Submitted), self.read("ended", name, Ended)
            finished.append(
                FinishedJob(
                    id=name,
                    nodes=1,
                    cores=1,
                    time_limit=job.limit,
                    submitted=job.submitted,
                    started=int(end.started or 0),
                    ended=int(end.ended),
                )
            )
        return Snapshot(
            platform=NAME,
            taken=now,
            nodes=(Node(name="n1", cores=1, memory=1024),),
            running=tuple(
                RunningJob(
                    id=name,
                    allocations=(Allocation(node="n1", cores=1, memory=1024),),
                    started=int(self.read("started", name, float)),
                    ends=int(self.read("started", name, float)) + self.read("jobs", name, Submitted).limit,
                    session=name if self.read("jobs", name, Submitted).ours else None,
                )
                for name in running
            ),
            waiting=tuple(
                WaitingJob(
                    id=name,
                    shape=Shape(cores=1, memory=1024),
                    time_limit=job.limit,
                    submitted=job.submitted,
                    session=name if job.ours else None,
                )
                for name, job in self.waiting()
            ),
            finished=tuple(finished),
            scheduler=Scheduler(),
        )

    @hookimpl
    def ebhpc_prepare(self, session: Session) -> Prepared:
        write(self.path / "stuff" / session.uuid, True)
        return Prepared()

    @hookimpl
    def ebhpc_submit(self, session: Session) -> str:
        assert not session.firm
        assert (self.path / "stuff" / session.uuid).exists()
        job = Submitted(
            order=time.monotonic_ns(),
            submitted=int(time.time()),
            limit=session.duration,
            begin=session.start,
            seconds=self._seconds,
        )
        self.submit(session.uuid, job)
        return session.uuid

    @hookimpl
    def ebhpc_observe(self, sessions: Sequence[Session]) -> Iterable[Observation]:
        return [self._observe(session.uuid) for session in sessions]

    def _observe(self, uuid: str) -> Observation:
        end, began = self.read("ended", uuid, Ended), self.read("started", uuid, float)
        if end is not None:
            state = "SUCCEEDED" if end.code == 0 else "FAILED"
            return Observation(
                uuid=uuid, state=state, exit_code=end.code, started=end.started, ended=end.ended, node="n1"
            )
        if began is not None:
            return Observation(uuid=uuid, state="RUNNING", started=began, node="n1")
        return Observation(uuid=uuid, state="PENDING" if uuid in self.names("jobs") else "GONE")

    @hookimpl
    def ebhpc_cancel(self, session: Session) -> None:
        write(self.path / "cancelled" / session.uuid, True)

    @hookimpl
    def ebhpc_cleanup(self, session: Session) -> None:
        (self.path / "stuff" / session.uuid).unlink(missing_ok=True)


def drive(url: str, folder: Path) -> int:
    """Drive that platform until SIGTERM."""
    from ebhpc.config import Duration, PlatformConfig, Seconds
    from ebhpc.driver import Driver
    from ebhpc.model.registry import Kinds
    from ebhpc.plugins import Platform, PluginManager
    from ebhpc.store import Store
    from tests.driver.test_loop import QUICK

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    pm = PluginManager()
    fake = QueuedPlatform(folder)
    pm.register(fake, name=NAME)
    config = PlatformConfig(
        name=NAME, kind="queue", lead=Seconds(0), timeout=Duration(5), refresh=Duration(0.1), stale=Duration(60)
    )
    platform = Platform(pm, config, fake)
    store = Store(url)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    Driver(store, {NAME: platform}, Kinds(), QUICK, name="d", settle=0.3).run(stop)
    platform.close()
    store.close()
    return 0


if __name__ == "__main__":
    sys.exit(drive(sys.argv[1], Path(sys.argv[2])))
