"""Locks, marks, and files that are written whole or not at all.

Imported by the local platform's supervisor: the standard library only.
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

MEBI = 2**20
GIBI = 2**30

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class Busy(Exception):
    """Somebody else holds the lock."""


def directory_name(uuid: str) -> str:
    """Return a session's UUID as the name of its directory.

    Raises:
        ValueError: ``uuid`` is none, so that it must not become part of a path.
    """
    if not _UUID.fullmatch(uuid):
        raise ValueError(f"{uuid!r} is no UUID")
    return uuid.lower()


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
