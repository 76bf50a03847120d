"""What a service says to systemd, its manager: that it is ready, reloads, stops, is alive.

The protocol is a datagram to the socket named by NOTIFY_SOCKET: sd_notify(3). WATCHDOG_USEC says how often the manager
wants to hear of it: sd_watchdog_enabled(3). Elsewhere nothing is said.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping

_NAMES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class ServiceManager:
    """The manager of this process. Safe for threads."""

    def __init__(self, environment: dict[str, str]) -> None:
        """``environment``: the variables that the manager has set for this process; without them it hears nothing."""
        self.environment = environment
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        meant = environment.get("WATCHDOG_PID") in (None, str(os.getpid()))
        span = environment.get("WATCHDOG_USEC", "")
        self.pause = int(span) / 3e6 if meant and span.isdecimal() and int(span) > 0 else None
        """Seconds between two signs of life, three in the time that the manager waits; None: it waits for none."""
        self._due = 0.0

    @classmethod
    def of_process(cls, environment: MutableMapping[str, str] = os.environ) -> ServiceManager:
        """Take the manager's variables out of the environment, so that no job or worker speaks for the service."""
        return cls({name: environment.pop(name) for name in _NAMES if name in environment})

    @property
    def listens(self) -> bool:
        """Whether there is a manager that listens."""
        return bool(self._address)

    def ready(self, status: str) -> None:
        """Say that the service does its work, at its start or after a reload; ``status`` is one line for people."""
        self._say("READY=1", f"STATUS={status}")

    def reloading(self, status: str = "reading its settings again") -> None:
        """Say that the service is taking up new settings; `ready` says when it has."""
        self._say("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", f"STATUS={status}")

    def stopping(self, status: str) -> None:
        """Say that the service is about to end."""
        self._say("STOPPING=1", f"STATUS={status}")

    def status(self, status: str) -> None:
        """Say in one line what the service does."""
        self._say(f"STATUS={status}")

    def alive(self) -> None:
        """Give a sign of life, if one is due: call it often, from the loop whose standstill would be a fault."""
        if self.pause is not None and time.monotonic() >= self._due:
            self._due = time.monotonic() + self.pause
            self._say("WATCHDOG=1")

    def _say(self, *lines: str) -> None:
        if not self._address:
            return
        text = "\n".join(line.replace("\n", " ") for line in lines)
        # A manager that restarts misses it, and hears the next
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as way,
        ):
            way.sendto(text.encode(), self._address)
