"""Removing a session's files, those of a rootless container's other users included."""

from __future__ import annotations

from pathlib import Path

from ebhpc.local.engine import Engine, EngineFailed
from ebhpc.staging import removal


def remove(path: Path, engine: Engine | None) -> None:
    """Remove a file or a directory tree; symbolic links are not followed. Safe to repeat.

    Files that a rootless container has made belong to other users of its user namespace: ``engine`` helps there.

    Raises:
        OSError: something is left.
    """
    try:
        removal.remove(path)
    except PermissionError:
        if engine is None or not engine.rootless:
            raise
        try:
            engine.call("unshare", "rm", "-rf", "--", str(path), timeout=600)
        except EngineFailed as error:
            raise PermissionError(f"{path} cannot be removed: {error.text}") from None
