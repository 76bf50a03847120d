"""A process beside the broker's, asked through its standard input and output.

For libraries of batch systems that may hang, or that end the process they are in when they see fit. What goes through
is a message at a time: its length in four bytes, the greatest first, and then so many bytes.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import struct
import subprocess
import time
from collections.abc import Mapping, Sequence

MOST_BYTES = 1 << 30
"""A longer message is taken for nonsense."""

_PORTION = 1 << 20


class BesideFault(Exception):
    """The process has ended, did not take or answer in time, or answered nonsense; the text says which."""


class Beside:
    """A process that was started, in a session of its own. Not for several threads at once."""

    def __init__(self, words: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """Start it.

        Raises:
            OSError, ValueError: it cannot be started.
        """
        self._process = subprocess.Popen(
            list(words),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=None if environment is None else dict(environment),
            cwd="/",
            start_new_session=True,
            bufsize=0,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._into = self._process.stdin.fileno()
        self._out_of = self._process.stdout.fileno()
        for descriptor in (self._into, self._out_of):
            os.set_blocking(descriptor, False)

    @property
    def pid(self) -> int:
        """Its process identifier."""
        return self._process.pid

    @property
    def lives(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def write(self, data: bytes, deadline: float) -> None:
        """Write bytes as they are, until ``deadline`` (of time.monotonic).

        Raises:
            BesideFault: it takes no more.
        """
        left = memoryview(data)
        with selectors.DefaultSelector() as selector:
            selector.register(self._into, selectors.EVENT_WRITE)
            while left:
                if not selector.select(max(deadline - time.monotonic(), 0)):
                    raise BesideFault("it did not take the question in time")
                try:
                    left = left[os.write(self._into, left) :]
                except OSError as error:
                    raise BesideFault(f"it has ended: {error.strerror}") from None

    def send(self, message: bytes, deadline: float) -> None:
        """Write a message.

        Raises:
            BesideFault: it takes no more.
        """
        self.write(struct.pack(">I", len(message)) + message, deadline)

    def receive(self, deadline: float) -> bytes:
        """Read a message.

        Raises:
            BesideFault: none comes.
        """
        (size,) = struct.unpack(">I", self._exactly(4, deadline))
        if size > MOST_BYTES:
            raise BesideFault(f"it answered with {size} bytes")
        return self._exactly(size, deadline)

    def _exactly(self, size: int, deadline: float) -> bytes:
        found = bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(self._out_of, selectors.EVENT_READ)
            while len(found) < size:
                if not selector.select(max(deadline - time.monotonic(), 0)):
                    raise BesideFault("it did not answer in time")
                part = os.read(self._out_of, min(size - len(found), _PORTION))
                if not part:
                    raise BesideFault("it has ended")
                found += part
        return bytes(found)

    def end(self) -> None:
        """Kill it and what it has started. Safe to repeat."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
