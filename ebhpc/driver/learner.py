"""The process that learns for a driver: started when it is first needed, started again when it has ended."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
from typing import Protocol

import msgspec

from ebhpc.driver.learning import Learner, Plan, Planned, Result, Task, plan_queue, receive_result, send

log = logging.getLogger("ebhpc.driver")

LONGEST = 300.0
"""Seconds that a task may take; then the process is taken to hang."""

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class LearnerGone(Exception):
    """The learning process has ended or hangs; the next task starts another."""


class Learns(Protocol):
    """Who does the tasks of a driver."""

    def do(self, task: Task) -> Result:
        """Do a task.

        Raises:
            LearnerGone: it could not be done.
        """

    def plan(self, task: Plan) -> Planned:
        """Plan the waiting jobs of a snapshot.

        Raises:
            LearnerGone: it could not be done.
        """

    def close(self) -> None:
        """End it."""


class LearnerHere(Learner):
    """Learns in the driver's own process: for tests that go step by step."""

    def plan(self, task: Plan) -> Planned:
        """Plan the waiting jobs of a snapshot."""
        return plan_queue(task)

    def close(self) -> None:
        """Nothing to end."""


class LearnerProcess:
    """Learns in a process of its own, for all platforms of a driver, one task after the other."""

    def __init__(self, *, longest: float = LONGEST) -> None:
        self.longest = longest
        """seconds that a task may take"""
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._wire: socket.socket | None = None
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The process identifier; None: it does not run."""
        return self._process.pid if self._process is not None else None

    def do(self, task: Task) -> Result:
        result = self._ask(task)
        if not isinstance(result, Result):
            raise LearnerGone("the learning process answered something else")
        return result

    def plan(self, task: Plan) -> Planned:
        result = self._ask(task)
        if not isinstance(result, Planned):
            raise LearnerGone("the learning process answered something else")
        return result

    def _ask(self, task: Task | Plan) -> Result | Planned:
        with self._lock:
            if self._closed:
                raise LearnerGone("the driver stops")
            wire = self._start() if self._wire is None else self._wire
            wire.settimeout(self.longest)
            try:
                send(wire, task)
                return receive_result(wire)
            except (OSError, EOFError, msgspec.DecodeError) as error:
                how = f"silent for {self.longest:.0f} s" if isinstance(error, TimeoutError) else str(error)
                self._end()
                raise LearnerGone(f"the learning process failed: {how}") from error

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ebhpc.driver.learning_process", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, **_ONE_THREAD},
                start_new_session=True,
            )
        self._wire = ours
        log.info("process %d learns of the queues", self._process.pid)
        return ours

    def _end(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """End the process, at once: what it has not given back is learned again from later snapshots."""
        self._closed = True
        if self._process is not None:
            self._process.kill()  # whoever waits for its answer goes on now
        with self._lock:
            self._end()
