"""The results of a session: listing them, and opening one without ever leaving their directory.

A job may have left anything there: symbolic links, pipes, names with line breaks. Only regular files are results, and
each step of a path is opened without following links.
"""

from __future__ import annotations

import mimetypes
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ebhpc.model import Output

_MOST = 10_000
"""Results of one session that are listed."""

_DEEPEST = 64

_TYPES = {".ipynb": "application/x-ipynb+json", ".md": "text/markdown", ".log": "text/plain; charset=utf-8"}


def listed(root: Path) -> Iterator[Output]:
    """Yield the results below ``root``, at most ten thousand, stdout and stderr first."""
    if not root.is_dir():
        return
    count = 0
    for name in ("stdout", "stderr"):
        size = _size(root / name)
        if size is not None:
            yield Output(name=name, size=size, media_type="text/plain; charset=utf-8")
    for folder, folders, files, descriptor in os.fwalk(root, follow_symlinks=False):
        relative = Path(folder).relative_to(root)
        if len(relative.parts) >= _DEEPEST:
            folders.clear()
        folders.sort()
        for file in sorted(files):
            if relative == Path() or count >= _MOST:
                continue
            try:
                found = os.stat(file, dir_fd=descriptor, follow_symlinks=False)
            except FileNotFoundError:  # the job still runs, and has removed it
                continue
            if stat.S_ISREG(found.st_mode) and _is_text(file):
                count += 1
                yield Output(name=str(relative / file), size=found.st_size, media_type=_media_type(file))


def opened(root: Path, name: str) -> BinaryIO | None:
    """Open a result for reading; None if there is none of that name, or it is no regular file."""
    parts = name.split("/")
    if len(parts) == 1 and name not in ("stdout", "stderr"):
        return None
    return open_regular(root, parts)


def open_regular(root: Path, parts: list[str]) -> BinaryIO | None:
    """Open a regular file below ``root``, no link followed on the way; None if there is none."""
    if len(parts) > _DEEPEST or any(part in ("", ".", "..") or "\0" in part for part in parts):
        return None
    try:
        descriptor = _descend(root, parts)
    except (OSError, UnicodeError):
        return None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    return open(descriptor, "rb")


def _descend(root: Path, parts: list[str]) -> int:
    here = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            os.close(here)
            here = below
        # Opening a pipe to read must not wait for somebody who writes
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(parts[-1], flags, dir_fd=here)
    finally:
        os.close(here)


def _size(path: Path) -> int | None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _is_text(name: str) -> bool:
    """Whether a name can be part of a URL and a JSON document: no bytes that are no UTF-8."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _media_type(name: str) -> str:
    suffix = os.path.splitext(name)[1].lower()
    return _TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
