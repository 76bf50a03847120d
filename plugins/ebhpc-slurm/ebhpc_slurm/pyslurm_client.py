"""Slurm asked through pyslurm, which runs in a process of its own: libslurm ends its process when it sees fit."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import struct
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, TypeVar

import msgspec

from ebhpc_slurm import records
from ebhpc_slurm.commands import Commands
from ebhpc_slurm.processes import ThisHost
from ebhpc_slurm.transport import NotReached, Refused, Slurm, SlurmFault, Unanswered, Why, fault

T = TypeVar("T")

MOST_BYTES = 1 << 30

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
        self._process: subprocess.Popen[bytes] | None = None
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
            request = msgspec.json.encode([question, arguments])
            try:
                _write(process, struct.pack(">I", len(request)) + request, deadline)
                return self._checked(_read(process, deadline))
            except Unanswered:
                self._end()
                raise
        finally:
            self._lock.release()

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._end()
        source = resources.files("ebhpc_slurm").joinpath("pyslurm_worker.py").read_bytes()
        try:
            process = self._process = subprocess.Popen(
                self._words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=self._environment,
                cwd="/",
                start_new_session=True,
                bufsize=0,
            )
        except (OSError, ValueError) as error:
            raise NotReached(f"the Python with pyslurm cannot be started: {error}") from None
        deadline = time.monotonic() + self._within
        try:
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                os.set_blocking(stream.fileno(), False)
            _write(process, b"%d\n" % len(source) + source, deadline)
            self.about = msgspec.json.decode(self._checked(_read(process, deadline)), type=dict[str, str])
        except SlurmFault as error:
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
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


class _Answer(msgspec.Struct):
    ok: msgspec.Raw = msgspec.Raw(b"null")
    error: str | None = None


def _write(process: subprocess.Popen[bytes], data: bytes, deadline: float) -> None:
    assert process.stdin is not None
    left = memoryview(data)
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdin, selectors.EVENT_WRITE)
        while left:
            if not selector.select(max(deadline - time.monotonic(), 0)):
                raise Unanswered("pyslurm did not answer in time")
            try:
                left = left[os.write(process.stdin.fileno(), left) :]
            except OSError as error:
                raise Unanswered(f"the process with pyslurm has ended: {error}") from None


def _read(process: subprocess.Popen[bytes], deadline: float) -> bytes:
    (size,) = struct.unpack(">I", _exactly(process, 4, deadline))
    if size > MOST_BYTES:
        raise Unanswered(f"pyslurm answered {size} bytes")
    return _exactly(process, size, deadline)


def _exactly(process: subprocess.Popen[bytes], size: int, deadline: float) -> bytes:
    assert process.stdout is not None
    found = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while len(found) < size:
            if not selector.select(max(deadline - time.monotonic(), 0)):
                raise Unanswered("pyslurm did not answer in time")
            part = os.read(process.stdout.fileno(), min(size - len(found), 1 << 20))
            if not part:
                raise Unanswered("the process with pyslurm has ended")
            found += part
    return bytes(found)


class Pyslurm(Slurm):
    """pyslurm for all but becoming somebody else, and the accounting: that the commands do.

    ``own``: the jobs are this process's own user's, so that pyslurm may submit them.
    """

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

    def jobs(self, prefix: str = "") -> Sequence[records.Job]:
        return self._ask(list[records.Job], "jobs", prefix=prefix)

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
