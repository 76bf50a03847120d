"""Removing files, whatever a job has made of them."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from pathlib import Path


def remove(path: Path, *, open_up: bool = True) -> None:
    """Remove a file or a directory tree; symbolic links are not followed. Safe to repeat.

    ``open_up``: directories that a job has shut are opened. Not where somebody else may still change what lies there:
    what is opened is found by its path.

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
    try:
        shutil.rmtree(path)
    except PermissionError:
        if not open_up:
            raise
        _open_up(path)
        shutil.rmtree(path)


def _open_up(path: Path) -> None:
    """Give ourselves the right to remove what lies in each directory: a job may have taken it away."""
    _open_one(path)
    for folder, folders, _ in os.walk(path):
        for name in folders:
            _open_one(Path(folder, name))


def _open_one(path: Path) -> None:
    """Open a directory of our own; a link in its place is not followed."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.chmod(f"/proc/self/fd/{descriptor}", 0o700)
        finally:
            os.close(descriptor)
