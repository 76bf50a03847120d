"""Slurm asked through pyslurm, which runs in a process of its own: libslurm ends its process when it sees fit."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from importlib import resources
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec

from ebhpc.batch.beside import Beside, BesideFault
from ebhpc_slurm import records
from ebhpc_slurm.commands import Commands
from ebhpc_slurm.processes import ThisHost
from ebhpc_slurm.transport import NotReached, Refused, Slurm, SlurmFault, Unanswered, Why, fault

T = TypeVar("T")

_BOOT = """\
import sys
size = int(sys.stdin.buffer.readline())
exec(compile(sys.stdin.buffer.read(size), "pyslurm_worker.py", "exec"), {"__name__": "__main__"})
"""
"""What the worker's Python is started with: it reads the worker's source, which thus need not be installed there."""


class Worker:
    """The process. One request at a time; it is started when it is needed, and again when it has ended."""

    def __init__(self, programs: ThisHost, command: Sequence[str], *, within: float) -> None:
        self._words = programs.command([*command, "-I", "-u", "-c", _BOOT])
        self._environment = programs.environment
        self._within = within
        self._lock = threading.Lock()
        self._process: Beside | None = None
        self.about: Mapping[str, str] = {}

    def ask(self, question: str, **arguments: object) -> bytes:
        """Return the JSON of an answer.

        Raises:
            Unanswered: the process ended, or took too long.
            NotReached: it cannot be started, or has no pyslurm.
            Refused: Slurm said no.
        """
        deadline = time.monotonic() + self._within
        if not self._lock.acquire(timeout=self._within):
            raise NotReached("pyslurm is busy with other questions")
        try:
            process = self._started()
            try:
                process.send(msgspec.json.encode([question, arguments]), deadline)
                return self._checked(process.receive(deadline))
            except BesideFault as error:
                self._end()
                raise Unanswered(f"the process with pyslurm: {error}") from None
            except Unanswered:
                self._end()
                raise
        finally:
            self._lock.release()

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _started(self) -> Beside:
        if self._process is not None and self._process.lives:
            return self._process
        self._end()
        source = resources.files("ebhpc_slurm").joinpath("pyslurm_worker.py").read_bytes()
        try:
            process = self._process = Beside(self._words, self._environment)
        except (OSError, ValueError) as error:
            raise NotReached(f"the Python with pyslurm cannot be started: {error}") from None
        deadline = time.monotonic() + self._within
        try:
            process.write(b"%d\n" % len(source) + source, deadline)
            self.about = msgspec.json.decode(self._checked(process.receive(deadline)), type=dict[str, str])
        except (BesideFault, SlurmFault) as error:
            self._end()
            raise NotReached(f"pyslurm did not start: {error}") from None
        return process

    def _checked(self, answer: bytes) -> bytes:
        try:
            told = msgspec.json.decode(answer, type=_Answer)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Unanswered(f"pyslurm answered what is none: {error}") from None
        if told.error is not None:
            raise fault(told.error)
        return bytes(told.ok)

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.end()


class _Answer(msgspec.Struct):
    ok: msgspec.Raw = msgspec.Raw(b"null")
    error: str | None = None


class Pyslurm(Slurm):
    """pyslurm for all but becoming somebody else, and the accounting: that the commands do.

    ``own``: the jobs are this process's own user's, so that pyslurm may submit them.
    """

    # With nodes it asks for partitions, with partitions for the configuration
    requests = MappingProxyType(
        {"jobs": 1, "nodes": 2, "partitions": 2, "reservations": 1, "licences": 1, "configuration": 2}
    )

    def __init__(self, worker: Worker, commands: Commands, *, own: bool) -> None:
        self.worker = worker
        self._commands = commands
        self._own = own

    def version(self) -> str:
        return self._commands.version()

    def configuration(self) -> records.Configuration:
        return self._commands.configuration()

    def nodes(self) -> Sequence[records.Node]:
        return self._ask(list[records.Node], "nodes")

    def partitions(self) -> Sequence[records.Partition]:
        return self._ask(list[records.Partition], "partitions")

    def reservations(self) -> Sequence[records.Reservation]:
        return self._ask(list[records.Reservation], "reservations")

    def licences(self) -> dict[str, int]:
        return self._ask(dict[str, int], "licences")

    def jobs(self, prefix: str = "", age: float = 0.0) -> Sequence[records.Job]:
        return self._ask(list[records.Job], "jobs", prefix=prefix, age=age)

    def ended(self, since: int, names: Sequence[str] = ()) -> Sequence[records.Job]:
        return self._commands.ended(since, names)

    def submit(self, wish: records.Submit) -> int:
        return self._ask(int, "submit", wish=wish) if self._own else self._commands.submit(wish)

    def cancel(self, job: int, user: str) -> None:
        try:
            self._ask(Any, "cancel", job=job)
        except Refused as refused:
            if refused.why is Why.NOT_PERMITTED:
                self._commands.cancel(job, user)
            elif refused.why is not Why.UNKNOWN:
                raise

    def reserve(self, wish: records.Reserve) -> None:
        self._ask(Any, "reserve", wish=wish)

    def change_reservation(self, wish: records.Reserve) -> None:
        # pyslurm sends all that it has loaded again, times in the past included, which Slurm refuses
        self._commands.change_reservation(wish)

    def delete_reservation(self, name: str) -> None:
        self._ask(Any, "delete_reservation", name=name)

    def close(self) -> None:
        self.worker.close()
        self._commands.close()

    def _ask(self, wanted: type[T], question: str, **arguments: object) -> T:
        answer = self.worker.ask(question, **arguments)
        try:
            return msgspec.json.decode(answer, type=wanted)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Unanswered(f"pyslurm answered what is none: {error}") from None
