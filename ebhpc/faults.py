"""Fault points: places where a test may end the process, to show that a restart mends everything.

Each side effect is preceded and followed by a ``point``. Without the environment variable ``EBHPC_FAULTS`` a point
does nothing. With it, naming a directory, each point that is reached is appended to the file ``seen`` there, and where
the file ``armed`` holds ``NAME COUNT``, the process gets SIGKILL when it reaches that point the COUNT-th time.
The file is removed first, so that the restarted process lives.
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

_directory = os.environ.get("EBHPC_FAULTS")
_lock = threading.Lock()
_hits: dict[str, int] = {}


def point(name: str, subject: str = "") -> None:
    """Mark the place ``name``, reached on behalf of ``subject`` (a session's UUID)."""
    if _directory is None:
        return
    folder = Path(_directory)
    with _lock:
        _hits[name] = _hits.get(name, 0) + 1
        with (folder / "seen").open("a", encoding="utf-8") as seen:
            seen.write(f"{name} {subject}\n")
        armed = folder / "armed"
        try:
            wanted, count = armed.read_text(encoding="utf-8").split()
            if name == wanted and _hits[name] >= int(count):
                armed.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
        except FileNotFoundError:  # nothing is armed, or just now it was taken back
            return
