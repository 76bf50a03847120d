"""Waking drivers: what was just accepted or cancelled is looked at at once, and not at their next turn.

On SQLite each driver has a socket in a directory beside the database, on PostgreSQL it listens to a channel. Nothing
relies on it: a driver that hears nothing finds all that is due at its next turn.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy.exc import SQLAlchemyError

from ebhpc.store.engine import Store

log = logging.getLogger(__name__)

_CHANNEL = "ebhpc_due"

_LOOK = 1.0
"""Seconds after which a listener looks whether it is to end."""

_APART = 0.05
"""Seconds between two calls, at least: a driver's turn may well serve several wakes."""

_AGAIN = 5.0
"""Seconds after which a lost connection to PostgreSQL is tried again."""


def wake(store: Store) -> None:
    """Have all drivers of a database look now. Call it when what they are to find has been committed."""
    if store.sqlite:
        _wake_beside(_directory(store))
        return
    try:
        with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql(f"NOTIFY {_CHANNEL}")
    except SQLAlchemyError as error:
        log.warning("no driver could be woken: %s", error)


class Waking:
    """Calls ``woken``, on a thread, when somebody wakes the drivers. ``name`` is the driver's own."""

    def __init__(self, store: Store, name: str, woken: Callable[[], None]) -> None:
        self._store = store
        self._name = name
        self._woken = woken
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="driver-waking", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(2 * _LOOK)

    def _listen(self) -> None:
        while not self._over.is_set():
            try:
                if self._store.sqlite:
                    self._listen_beside(_directory(self._store))
                else:
                    self._listen_to_channel()
            except Exception as error:  # noqa: BLE001  # the database's driver has errors of its own
                log.warning("nobody can wake this driver for a while: %s", error)
                self._over.wait(_AGAIN)

    def _heard(self) -> None:
        self._woken()
        self._over.wait(_APART)

    def _listen_beside(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, exist_ok=True)
        folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ears:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._name, dir_fd=folder)
                ears.bind(_address(folder, self._name))
                ears.settimeout(_LOOK)
                while not self._over.is_set():
                    with contextlib.suppress(TimeoutError):
                        ears.recv(1)
                        self._heard()
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._name, dir_fd=folder)
            os.close(folder)

    def _listen_to_channel(self) -> None:
        pooled = self._store.engine.raw_connection()
        connection: Any = pooled.driver_connection
        pooled.detach()  # it is never given back to the pool
        try:
            connection.autocommit = True
            connection.execute(f"LISTEN {_CHANNEL}")
            while not self._over.is_set():
                for _ in connection.notifies(timeout=_LOOK, stop_after=1):
                    self._heard()
        finally:
            connection.close()


def _wake_beside(directory: Path) -> None:
    try:
        folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return  # no driver has run here yet
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as mouth:
            mouth.setblocking(False)
            for name in os.listdir(folder):
                try:
                    mouth.sendto(b"!", _address(folder, name))
                except ConnectionRefusedError:
                    # Left behind by a driver that was killed
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=folder)
                except BlockingIOError:
                    continue  # it has enough to hear already
                except OSError as error:
                    log.warning("the driver %s could not be woken: %s", name, error)
    finally:
        os.close(folder)


def _directory(store: Store) -> Path:
    return Path(f"{store.engine.url.database}.wake")


def _address(folder: int, name: str) -> str:
    """Return the path of a socket in an open directory: the whole one may be longer than a socket's address can be."""
    return f"/proc/self/fd/{folder}/{name}"
