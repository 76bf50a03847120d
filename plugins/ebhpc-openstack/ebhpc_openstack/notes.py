"""What the platform notes of each session on disk: whether a server was asked for, and whether it still waits for one.

A note is written before the server is asked for, so that whoever comes next looks for it first.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec
from msgspec import Struct

from ebhpc.batch import session_directory


class Note(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``asked``: when a server was last asked for (POSIX seconds; None: never). ``waits``: there is none, and at
    ``next`` one is to be asked for again; ``why`` tells the owner. ``volumes``: when volumes were last asked for.
    """

    asked: float | None = None
    waits: bool = False
    next: float = 0.0
    why: str = ""
    volumes: float | None = None


def read(root: Path, uuid: str) -> Note:
    """Return the note of a session; one that says nothing where there is none, or none that can be read."""
    try:
        return msgspec.json.decode(_path(root, uuid).read_bytes(), type=Note)
    except FileNotFoundError:
        return Note()
    except msgspec.DecodeError:
        # Half of a note: the machine went down while it was written, so a server may have been asked for
        return Note(asked=0.0, volumes=0.0)


def write(root: Path, uuid: str, note: Note) -> None:
    """Write the note of a session, so that it survives us."""
    path = _path(root, uuid)
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        file.write(msgspec.json.encode(note))
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def forget(root: Path, uuid: str) -> None:
    """Remove the note of a session."""
    with contextlib.suppress(FileNotFoundError):
        _path(root, uuid).unlink()


def _path(root: Path, uuid: str) -> Path:
    return session_directory(root, uuid).path / "server.json"
