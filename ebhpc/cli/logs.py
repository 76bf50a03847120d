"""What the broker's processes write to standard error."""

from __future__ import annotations

import logging
import sys
import time
from typing import Literal

import msgspec

_FIELDS = ("session", "platform", "hook")
"""Attributes of a log record that tell what it is about."""


class _Text(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s", datefmt="%Y-%m-%dT%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        session = getattr(record, "session", None)
        line = super().format(record)
        return f"{line} [session {session}]" if session and session not in line else line


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%S')}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
        }
        entry |= {name: str(getattr(record, name)) for name in _FIELDS if hasattr(record, name)}
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(entry).decode()


def set_up_logging(level: str, form: Literal["text", "json"]) -> None:
    """Log to standard error, from ``level`` on, as lines for people or as JSON objects."""
    handler = logging.StreamHandler(sys.stderr)
    formatter = _Json() if form == "json" else _Text()
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("ebhpc").setLevel(level.upper())
    logging.getLogger("gunicorn").setLevel(level.upper())
