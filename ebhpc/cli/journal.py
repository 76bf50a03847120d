"""Log records as entries of systemd's journal, with fields that journalctl can look for.

An entry is one datagram to the journal's socket, a field a line, or the field's name, its length (64 bits,
little-endian) and its value where that has line breaks: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import struct
import tempfile
from collections.abc import Iterable
from pathlib import Path

SOCKET = Path("/run/systemd/journal/socket")

FIELDS = {"session": "EBHPC_SESSION", "platform": "EBHPC_PLATFORM", "hook": "EBHPC_HOOK"}
"""The journal's names for the attributes of a record that tell what it is about."""

_PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
"""The least level of each of syslog's priorities; below them is 7, debug."""


class JournalHandler(logging.Handler):
    """Sends records to the journal at ``path``; one that cannot be sent goes to `logging.Handler.handleError`."""

    def __init__(self, identifier: str, path: Path = SOCKET) -> None:
        """``identifier``: the name of the program, for SYSLOG_IDENTIFIER."""
        super().__init__()
        self._identifier = identifier
        self._path = str(path)
        self._text = logging.Formatter("%(message)s")
        self._way = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record; what was raised stands in its message, as Python writes it."""
        try:
            self._send(entry(self._fields(record)))
        except Exception:  # noqa: BLE001  # a handler may not fail its caller
            self.handleError(record)

    def _fields(self, record: logging.LogRecord) -> Iterable[tuple[str, str]]:
        yield "MESSAGE", self._text.format(record)
        yield "PRIORITY", str(next((number for level, number in _PRIORITIES if record.levelno >= level), 7))
        yield "SYSLOG_IDENTIFIER", self._identifier
        yield "LOGGER", record.name
        yield "THREAD_NAME", record.threadName or ""
        yield "CODE_FILE", record.pathname
        yield "CODE_LINE", str(record.lineno)
        yield "CODE_FUNC", record.funcName
        for name, field in FIELDS.items():
            value = getattr(record, name, None)
            if value is not None:
                yield field, str(value)

    def _send(self, data: bytes) -> None:
        try:
            self._way.sendto(data, self._path)
        except OSError as error:
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                raise
            # What is too long for a datagram goes as a file of which the socket carries only the descriptor
            with tempfile.TemporaryFile(dir="/dev/shm") as file:  # it has no name  # nosec B108
                file.write(data)
                file.flush()
                # Not socket.send_fds, which leaves the address out
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", file.fileno()))
                self._way.sendmsg([b""], [rights], 0, self._path)

    def close(self) -> None:
        """Close the socket."""
        self._way.close()
        super().close()


def entry(fields: Iterable[tuple[str, str]]) -> bytes:
    """Return an entry as the journal reads it."""
    parts = []
    for name, value in fields:
        data = value.encode("utf-8", "replace")
        if b"\n" in data:
            parts.append(name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n")
        else:
            parts.append(name.encode() + b"=" + data + b"\n")
    return b"".join(parts)


def journal_there(path: Path = SOCKET) -> bool:
    """Whether this machine has a journal that takes entries."""
    return os.access(path, os.W_OK)
