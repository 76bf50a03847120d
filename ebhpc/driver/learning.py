"""Learning of queues, forecasting and planning them, as work that needs nothing but its task.

A driver has it done by a process of its own (``ebhpc.driver.learning_process``), so that its interpreter lock stays
with the sessions; here is also how tasks and results go through a socket.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterable
from itertools import count

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from ebhpc.planning import (
    Booking,
    FinishedJob,
    SnapshotUnreadableError,
    decode_snapshot,
    encode_snapshot,
    planned_starts,
)
from ebhpc.planning.queue import (
    Accuracy,
    Expected,
    LearnedUnreadableError,
    Outlooks,
    StartEstimator,
    accuracy,
    encode_forecast,
    look,
    pack_learned,
    unpack_learned,
)

SHARE = 0.25
"""Of one processor, what planning a platform's queue may take in the mean, and forecasting it."""

KEEP_EVERY = 60
"""So many jobs that have started or ended after which what was learned is worth storing."""


class Plan(Struct, frozen=True, kw_only=True, tag=True):
    """Plan the waiting jobs of a ``snapshot`` (encoded) beside the broker's ``bookings``, as of ``now``."""

    snapshot: bytes
    bookings: tuple[Booking, ...]
    now: int


class Planned(Struct, frozen=True, kw_only=True, tag=True):
    """The snapshot with the planned starts in it, encoded, or why there is none; ``seconds`` of processor time."""

    snapshot: bytes = b""
    failure: str | None = None
    seconds: float = 0.0


class Task(Struct, frozen=True, kw_only=True, tag=True):
    """Learn from a platform's ``snapshot`` (encoded), and forecast.

    ``ended`` are jobs that ended in snapshots left out since the last task, ``bookings`` the broker's. ``token`` is
    that of the result from which to go on; where the learner knows it no more, it needs ``state`` (None: it asks
    for it). ``fresh``: nothing was ever stored, or it is to begin anew. ``keep``: the state is wanted back in any case.
    """

    platform: str
    snapshot: bytes
    ended: tuple[FinishedJob, ...] = ()
    bookings: tuple[Booking, ...] = ()
    token: str = ""
    state: bytes | None = None
    fresh: bool = False
    keep: bool = False


class Result(Struct, frozen=True, kw_only=True, tag=True):
    """What came of a task: the encoded forecast, or why there is none.

    ``unknown``: the token is not known, and no state was given. ``dropped`` says why a state could not be read.
    ``seconds`` is the processor time taken, ``known`` how many starts and ends were learned from in all.
    """

    token: str = ""
    unknown: bool = False
    failure: str | None = None
    dropped: str | None = None
    forecast: bytes = b""
    taken: int = 0
    starts: dict[str, Expected] = {}
    accuracy: Accuracy = Accuracy()
    state: bytes | None = None
    seconds: float = 0.0
    known: int = 0


class Learner:
    """Keeps the estimators of the platforms, and does tasks with them."""

    def __init__(self) -> None:
        self._mine = f"{os.getpid()}-{time.monotonic_ns()}"
        self._numbers = count(1)
        self._known: dict[str, tuple[str, StartEstimator, int]] = {}
        self._before: dict[str, Outlooks] = {}

    def do(self, task: Task) -> Result:
        """Do a task."""
        begun = time.process_time()
        token, estimator, stored = self._known.get(task.platform, ("", StartEstimator(), 0))
        dropped = None
        if task.fresh or task.state is not None:
            self._before.pop(task.platform, None)
        if task.fresh:
            estimator, stored = StartEstimator(), 0
        elif task.state is not None:
            try:
                estimator = unpack_learned(task.state)
            except LearnedUnreadableError as error:
                estimator, dropped = StartEstimator(), str(error)
            stored = _events(estimator)
        elif not token or task.token != token:
            return Result(unknown=True)
        try:
            snapshot = decode_snapshot(task.snapshot)
            forecast = look(
                estimator, snapshot, ended=task.ended, bookings=task.bookings, before=self._before.get(task.platform)
            )
            self._before[task.platform] = Outlooks.of(forecast, estimator)
        except (SnapshotUnreadableError, ValueError, ArithmeticError, LookupError) as error:
            # What it had learned half may be anything: the next task brings the state that was stored
            self._known.pop(task.platform, None)
            self._before.pop(task.platform, None)
            return Result(
                failure=f"{type(error).__name__}: {error}", dropped=dropped, seconds=time.process_time() - begun
            )
        token = f"{self._mine}-{next(self._numbers)}"
        events = _events(estimator)
        keep = task.keep or dropped is not None or events - stored >= KEEP_EVERY
        state = pack_learned(estimator) if keep else None
        self._known[task.platform] = (token, estimator, events if keep else stored)
        return Result(
            token=token,
            dropped=dropped,
            forecast=encode_forecast(forecast),
            taken=forecast.taken,
            starts=forecast.sessions,
            accuracy=accuracy(estimator.outcomes),
            state=state,
            seconds=time.process_time() - begun,
            known=events,
        )


def plan_queue(task: Plan) -> Planned:
    """Plan the waiting jobs of a snapshot."""
    begun = time.process_time()
    try:
        snapshot = decode_snapshot(task.snapshot)
        planned = planned_starts(snapshot, task.bookings, now=task.now)
        packed = encode_snapshot(replace(snapshot, planned=planned))
    except (SnapshotUnreadableError, ValueError, ArithmeticError, LookupError) as error:
        return Planned(failure=f"{type(error).__name__}: {error}", seconds=time.process_time() - begun)
    return Planned(snapshot=packed, seconds=time.process_time() - begun)


def _events(estimator: StartEstimator) -> int:
    return estimator.known + estimator.run_times.ended


# --- through a socket ------------------------------------------------------------------------------------------------

_LENGTH = struct.Struct("!Q")
_TASKS: msgspec.msgpack.Decoder[Task | Plan] = msgspec.msgpack.Decoder(Task | Plan)
_RESULTS: msgspec.msgpack.Decoder[Result | Planned] = msgspec.msgpack.Decoder(Result | Planned)
_ENCODER = msgspec.msgpack.Encoder()


def send(wire: socket.socket, message: Task | Plan | Result | Planned) -> None:
    """Send a task or a result.

    Raises:
        OSError: the other end is gone, or does not take it in time.
    """
    packed = _ENCODER.encode(message)
    wire.sendall(_LENGTH.pack(len(packed)))
    wire.sendall(packed)


def receive_result(wire: socket.socket) -> Result | Planned:
    """Receive a result.

    Raises:
        EOFError, OSError: the other end is gone, or silent for too long.
        msgspec.DecodeError: it is none.
    """
    return _RESULTS.decode(_receive(wire))


def _receive(wire: socket.socket) -> bytearray:
    (length,) = _LENGTH.unpack(_exactly(wire, _LENGTH.size))
    return _exactly(wire, length)


def _exactly(wire: socket.socket, length: int) -> bytearray:
    found = bytearray(length)
    view = memoryview(found)
    while view:
        got = wire.recv_into(view)
        if not got:
            raise EOFError("the other end is gone")
        view = view[got:]
    return found


def serve(wire: socket.socket, learner: Learner) -> None:
    """Do the tasks that come until the other end is gone."""
    while True:
        try:
            task = _TASKS.decode(_receive(wire))
        except (EOFError, ConnectionError):
            return
        result: Result | Planned
        try:
            result = learner.do(task) if isinstance(task, Task) else plan_queue(task)
        except Exception as error:  # noqa: BLE001  # told to the driver, which logs it
            failure = f"{type(error).__name__}: {error}"
            result = Result(failure=failure) if isinstance(task, Task) else Planned(failure=failure)
        try:
            send(wire, result)
        except ConnectionError:
            return


def ended_since(pending: Iterable[FinishedJob], newer: Iterable[FinishedJob], most: int) -> tuple[FinishedJob, ...]:
    """Return jobs that ended, each once, the last ``most``."""
    found = {job.id: job for job in (*pending, *newer)}
    return tuple(found.values())[-most:]
