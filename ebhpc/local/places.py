"""Where the local platform keeps what: its state directory and the directory of each session.

    state/
      claims/            a file for each core and device, locked by the supervisor that has it
      sessions/UUID/
        job.json         what the supervisor is to do
        launch.lock      held while somebody launches the supervisor, or cleans up
        prepare.lock     held while somebody prepares
        alive.lock       held by the supervisor as long as it lives
        started          made once, by the supervisor that has the job: its processes and its start
        running.json     how to reach the job while it runs
        status.json      how it ended
        cancel, closed   marks: it shall end; it is being cleaned up
        supervisor.log   what went wrong in the supervisor itself
        stage/           the notebook or image, as fetched
        work/            the job's working directory
        storage/N/       the session's storage elements, in their order
        output/          what is kept: stdout, stderr, results

Imported by the supervisor: the standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class Busy(Exception):
    """Somebody else holds the lock."""


class SessionDirectory:
    """The directory of one session."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.uuid = path.name
        self.job = path / "job.json"
        self.launch_lock = path / "launch.lock"
        self.prepare_lock = path / "prepare.lock"
        self.alive_lock = path / "alive.lock"
        self.started = path / "started"
        self.running = path / "running.json"
        self.status = path / "status.json"
        self.cancel = path / "cancel"
        self.closed = path / "closed"
        self.log = path / "supervisor.log"
        self.image = path / "image.json"
        self.stage = path / "stage"
        self.work = path / "work"
        self.storage = path / "storage"
        self.output = path / "output"

    @property
    def results(self) -> Path:
        """Where the job leaves the files that shall be kept."""
        return self.output / "results"

    @property
    def kept_storage(self) -> Path:
        """Where storage elements go that are kept as results."""
        return self.output / "storage"

    @property
    def name(self) -> str:
        """The name of everything of this session outside of its directory: container, control group."""
        return f"ebhpc-{self.uuid}"

    def make(self) -> None:
        """Make the directory and its parts. Safe to repeat."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for part in (self.stage, self.work, self.storage, self.output, self.results):
            part.mkdir(mode=0o700, exist_ok=True)

    def marked_to_end(self) -> bool:
        """Whether the session shall end, or has been cleaned up."""
        return self.cancel.exists() or self.closed.exists()

    def lives(self) -> bool:
        """Whether a supervisor is at work: it holds ``alive.lock`` until its very end."""
        try:
            with held(self.alive_lock, shared=True, wait=False, make=False):
                return False
        except Busy:
            return True
        except FileNotFoundError:
            return False


def session_directory(state: Path, uuid: str) -> SessionDirectory:
    """Return the directory of a session.

    Raises:
        ValueError: ``uuid`` is none, so that it must not become part of a path.
    """
    if not _UUID.fullmatch(uuid):
        raise ValueError(f"{uuid!r} is no UUID")
    return SessionDirectory(state / "sessions" / uuid.lower())


@contextlib.contextmanager
def held(path: Path, *, shared: bool = False, wait: bool = True, make: bool = True) -> Iterator[int]:
    """Hold a lock on the file ``path``; yields its descriptor, which child processes do not inherit.

    Raises:
        Busy: it is held and we do not wait.
        FileNotFoundError: with ``make=False``, it is not there.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if make else 0), 0o600)
    try:
        how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(descriptor, how if wait else how | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"{path} is locked") from None
        yield descriptor
    finally:
        os.close(descriptor)


def mark(path: Path) -> None:
    """Make an empty file that lasts. Safe to repeat."""
    with open(path, "ab") as file:
        os.fsync(file.fileno())
    _sync(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write a file whole or not at all, so that it lasts."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
    _sync(path.parent)


def read_json(path: Path) -> dict[str, Any] | None:
    """Read what :func:`write_json` wrote; None if there is no such file."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds no JSON object")
    return value


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
