"""A fake batch system that runs nothing: for faults that no real one produces at will.

Its jobs are entries in a dict that live by the test's clock. It leaves out whatever a real platform does to nodes,
files and processes; that the driver gets along with a real one is tested in ``test_on_local_platform``.

``script`` says for each hook what its next calls do: an exception to raise, or a function that is called with the
session (or sessions) and whose result is answered, ``DO`` standing for what the hook does otherwise. Calls without an
entry do just that. ``Late`` does it and raises all the same, as a call that was carried out without an answer;
``Delayed`` raises, and does it later.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from typing import Any

from ebhpc.hookspecs import hookimpl
from ebhpc.model import Connector, Message, Observation, Prepared, Session, message
from ebhpc.planning import Node, Snapshot

DO = object()


class Late(Exception):
    """The hook does its work, and the answer is lost."""


class Delayed(Exception):
    """The answer is lost, and the hook does its work only ``seconds`` later."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class Job:
    """A job of the fake."""

    def __init__(self, session: Session, now: float, runs_for: float) -> None:
        self.session = session
        self.begins = now
        self.limit = float(session.end)
        self.natural_end = now + runs_for
        self.ended: float | None = None
        self.exit_code: int | None = None

    def settle(self, now: float) -> None:
        """End by itself, or by its limit."""
        if self.ended is None and now >= min(self.natural_end, self.limit):
            self.ended = min(self.natural_end, self.limit)
            self.exit_code = 0 if self.natural_end <= self.limit else 137


class ScriptedPlatform:
    """The fake. ``starts`` counts how often a job was really started for each session, ``calls`` the hooks' calls."""

    def __init__(self, name: str, clock: Callable[[], float]) -> None:
        self.name = name
        self.clock = clock
        self.runs_for = 60.0
        self.queues_for = 0.0
        self.obeys_cancel = True
        self.exit_code = 0
        self.connectors: tuple[Connector, ...] | None = None
        self.job_messages: tuple[Message, ...] = ()
        self.script: dict[str, list[Any]] = defaultdict(list)
        self.always: dict[str, Any] = {}
        self.calls: Counter[str] = Counter()
        self.starts: Counter[str] = Counter()
        self.seen: dict[str, list[Session]] = defaultdict(list)
        self.jobs: dict[str, Job] = {}
        self.held: set[str] = set()
        self.stuff: set[str] = set()
        self.results: set[str] = set()
        self.delayed: list[tuple[float, Callable[[], Any]]] = []
        self.lock = threading.RLock()

    # --- the hooks -----------------------------------------------------------------------------------------------

    @hookimpl
    def ebhpc_refuses(self, request: Any) -> Iterable[Message]:
        return ()

    @hookimpl
    def ebhpc_snapshot(self, now: int) -> Snapshot:
        return self._play(
            "snapshot",
            None,
            lambda: Snapshot(platform=self.name, taken=now, nodes=(Node(name="n1", cores=64, memory=65536),)),
        )

    @hookimpl
    def ebhpc_hold(self, session: Session) -> str:
        def hold() -> str:
            self.held.add(session.uuid)
            return f"held-{session.uuid}"

        return self._play("hold", session, hold)

    @hookimpl
    def ebhpc_release(self, session: Session) -> None:
        return self._play("release", session, lambda: self.held.discard(session.uuid))

    @hookimpl
    def ebhpc_prepare(self, session: Session) -> Prepared:
        def prepare() -> Prepared:
            self.stuff.add(session.uuid)
            return Prepared(messages=(message("urn:progress", "staged", level="INFO"),))

        return self._play("prepare", session, prepare)

    @hookimpl
    def ebhpc_submit(self, session: Session) -> str:
        def submit() -> str:
            if session.uuid not in self.jobs:
                self.starts[session.uuid] += 1
                self.jobs[session.uuid] = Job(session, self.clock() + self.queues_for, self.runs_for)
            return f"job-{session.uuid}"

        return self._play("submit", session, submit)

    @hookimpl
    def ebhpc_observe(self, sessions: Sequence[Session]) -> Iterable[Observation]:
        return self._play("observe", sessions, lambda: [self._observe(session.uuid) for session in sessions])

    @hookimpl
    def ebhpc_cancel(self, session: Session) -> None:
        def cancel() -> None:
            job = self.jobs.get(session.uuid)
            if job is not None and job.ended is None and self.obeys_cancel:
                job.ended, job.exit_code = self.clock(), 143

        return self._play("cancel", session, cancel)

    @hookimpl
    def ebhpc_cleanup(self, session: Session) -> None:
        def cleanup() -> None:
            job = self.jobs.get(session.uuid)
            assert job is None or job.ended is not None, "cleaned up under a job that lives"
            self.stuff.discard(session.uuid)
            self.results.add(session.uuid)

        return self._play("cleanup", session, cleanup)

    @hookimpl
    def ebhpc_forget(self, session: Session) -> None:
        return self._play("forget", session, lambda: self.results.discard(session.uuid))

    # --- the fake's own ------------------------------------------------------------------------------------------

    def _play(self, hook: str, argument: Any, ordinary: Callable[[], Any]) -> Any:
        with self.lock:
            self.catch_up()
            self.calls[hook] += 1
            if isinstance(argument, Session):
                self.seen[hook].append(argument)
            entry = self.script[hook].pop(0) if self.script[hook] else self.always.get(hook, DO)
        if isinstance(entry, Late):
            with self.lock:
                ordinary()
        if isinstance(entry, Delayed):
            self.delayed.append((self.clock() + entry.seconds, ordinary))
        if isinstance(entry, Exception):
            raise copy(entry).with_traceback(None)  # one entry may be raised many times
        answer = entry(argument) if callable(entry) else entry
        if answer is DO:
            with self.lock:
                return ordinary()
        return answer

    def _observe(self, uuid: str) -> Observation:
        now = self.clock()
        job = self.jobs.get(uuid)
        if job is None:
            return Observation(uuid=uuid, state="GONE")
        if job.exit_code is None and now < job.begins:
            return Observation(uuid=uuid, state="PENDING")
        job.settle(now)
        if job.ended is None:
            return Observation(
                uuid=uuid,
                state="RUNNING",
                started=job.begins,
                node="n1",
                connectors=self.connectors,
                messages=self.job_messages,
            )
        code = job.exit_code or self.exit_code
        return Observation(
            uuid=uuid,
            state="FAILED" if code else "SUCCEEDED",
            exit_code=code,
            started=job.begins,
            ended=job.ended,
            node="n1",
            messages=self.job_messages,
        )

    def catch_up(self) -> None:
        """Do what was delayed until now."""
        with self.lock:
            ready = [work for due, work in self.delayed if due <= self.clock()]
            self.delayed = [(due, work) for due, work in self.delayed if due > self.clock()]
            for work in ready:
                work()

    def running(self) -> set[str]:
        """Sessions whose job runs or waits now."""
        self.catch_up()
        now = self.clock()
        for job in self.jobs.values():
            job.settle(now)
        return {uuid for uuid, job in self.jobs.items() if job.ended is None}

    def left_behind(self) -> set[str]:
        """Sessions of which anything but results is left."""
        return self.held | self.stuff | self.running()
