"""A driver's name belongs to one living process, and its signs of life keep its leases."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable
from uuid import uuid4

import psutil

from ebhpc.store import DriverRecord, Store, beat, get_driver, register_driver

log = logging.getLogger("ebhpc.driver")


class DriverRunning(Exception):
    """The name belongs to another driver that lives."""

    def __init__(self, present: DriverRecord, why: str) -> None:
        self.present = present
        super().__init__(
            f"a driver named {present.name} runs already, as process {present.pid} on {present.host}: {why};"
            " end that one, or give this one another name"
        )


class NameTaken(Exception):
    """Another process has taken this driver's name: this one must not touch a session any more."""


def process_lives(pid: int, started: float) -> bool:
    """Whether the process ``pid`` that started then (POSIX seconds) still lives on this host."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - started) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def register(
    store: Store,
    name: str,
    *,
    host: str,
    pid: int,
    pid_started: float,
    now: float,
    lease: float,
    lives: Callable[[int, float], bool] = process_lives,
) -> DriverRecord:
    """Take a driver's name for a process, and with it the sessions of the process that had it before.

    A process before it on this host must have ended; one on another host must have been silent for ``lease`` seconds.

    Raises:
        DriverRunning: it lives.
    """
    while True:
        present = get_driver(store, name)
        if present is not None:
            if present.host == host:
                if lives(present.pid, present.pid_started):
                    raise DriverRunning(present, "that process lives")
            elif now - present.heartbeat < lease:
                ago = max(0, round(now - present.heartbeat))
                raise DriverRunning(present, f"it gave a sign of life {ago} s ago")
        record = DriverRecord(
            name=name, incarnation=str(uuid4()), host=host, pid=pid, pid_started=pid_started, heartbeat=now
        )
        if register_driver(store, record, replaces=present.incarnation if present else None):
            if present is not None:
                log.warning("took the name %s over from process %d on %s", name, present.pid, present.host)
            return record


def this_process() -> tuple[str, int, float]:
    """Host, process identifier and start (POSIX seconds) of this process."""
    pid = os.getpid()
    return socket.gethostname(), pid, psutil.Process(pid).create_time()


class Heartbeat:
    """A driver's signs of life, on a thread of their own so that no work delays them.

    ``until`` (POSIX seconds) is when the leases run out for others, as far as this process knows: from then on it must
    leave the sessions alone. ``taken``: another process has the name.
    """

    def __init__(self, store: Store, incarnation: str, *, lease: float, clock: Callable[[], float], now: float) -> None:
        self._store = store
        self._incarnation = incarnation
        self._lease = lease
        self._clock = clock
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.until = now + lease
        self.taken = threading.Event()

    def beat(self) -> None:
        """Give one now. A database that does not answer is logged: the next one may get through."""
        now = self._clock()
        try:
            known = beat(self._store, self._incarnation, now=now)
        except Exception:  # whatever it is, only time tells whether it passes
            log.exception("no sign of life could be given; the leases run out at %.0f", self.until)
            return
        if known:
            self.until = now + self._lease
        else:
            self.taken.set()

    def beat_if_due(self) -> None:
        """Give one where no thread does and a third of the lease is over."""
        if self._thread is None and self._clock() >= self.until - self._lease * 2 / 3:
            self.beat()

    def holds(self) -> bool:
        """Whether the leases still hold."""
        return not self.taken.is_set() and self._clock() < self.until

    def start(self, on_taken: Callable[[], None]) -> None:
        """Give them from now on, three in each lease; call ``on_taken`` when the name is taken."""

        def run() -> None:
            while not self._stop.wait(self._lease / 3):
                self.beat()
                if self.taken.is_set():
                    on_taken()
                    return

        self._thread = threading.Thread(target=run, name="driver-heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Give no more."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(5)
