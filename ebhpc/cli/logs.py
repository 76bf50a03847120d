"""What the broker's processes log: to standard error, or to systemd's journal."""

from __future__ import annotations

import logging
import sys
import time
from typing import Literal

import msgspec

from ebhpc.cli.journal import FIELDS, SOCKET, JournalHandler, journal_there


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
        entry |= {name: str(getattr(record, name)) for name in FIELDS if hasattr(record, name)}
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(entry).decode()


def set_up_logging(level: str, form: Literal["text", "json", "journal"]) -> None:
    """Log from ``level`` on: lines for people or JSON objects to standard error, or entries to the journal.

    Where there is no journal, lines go to standard error, the first of which says so.
    """
    root = logging.getLogger()
    journal = form == "journal" and journal_there()
    root.handlers[:] = [JournalHandler("ebhpc") if journal else _lines(form)]
    root.setLevel(logging.WARNING)
    logging.getLogger("ebhpc").setLevel(level.upper())
    logging.getLogger("gunicorn").setLevel(level.upper())
    if form == "journal" and not journal:
        logging.getLogger("ebhpc").warning("logging.format is journal, but %s is not there: logging lines", SOCKET)


def _lines(form: str) -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    formatter = _Json() if form == "json" else _Text()
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    return handler
