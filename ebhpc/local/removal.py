"""Removing a session's files, whatever the job has made of them."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from pathlib import Path

from ebhpc.local.engine import Engine, EngineFailed


def remove(path: Path, engine: Engine | None) -> None:
    """Remove a file or a directory tree; symbolic links are not followed. Safe to repeat.

    Files that a rootless container has made belong to other users of its user namespace: ``engine`` helps there.

    Raises:
        OSError: something is left.
    """
    try:
        kind = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(kind):
        path.unlink(missing_ok=True)
        return
    with contextlib.suppress(PermissionError):
        shutil.rmtree(path)
        return
    _open_up(path)
    try:
        shutil.rmtree(path)
    except PermissionError:
        if engine is None or not engine.rootless:
            raise
        try:
            engine.call("unshare", "rm", "-rf", "--", str(path), timeout=600)
        except EngineFailed as error:
            raise PermissionError(f"{path} cannot be removed: {error.text}") from None


def _open_up(path: Path) -> None:
    """Give ourselves the right to remove what lies in each directory: a job may have taken it away."""
    with contextlib.suppress(PermissionError):
        path.chmod(0o700)
    for folder, folders, _ in os.walk(path):
        for name in folders:
            inner = os.path.join(folder, name)
            with contextlib.suppress(OSError):
                if not os.path.islink(inner):
                    os.chmod(inner, 0o700)
