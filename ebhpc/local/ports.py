"""The ports by which a container is reached from outside, while it runs.

Imported by the supervisor: the standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
from typing import Any

from ebhpc.local.engine_calls import published_port


class Ports:
    """The ports of one container.

    ``spec`` is job.json's ``ports``: ``wanted`` (each with ``port``, ``protocol``, ``path``), ``address`` to listen
    at, ``advertise`` (the host name in URLs), ``low`` and ``high`` of the range (0: any), ``how``: ``forward`` by a
    process of ours, ``publish`` by the engine.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        self.wanted: list[dict[str, Any]] = spec["wanted"]
        self.address: str = spec["address"]
        self.advertise: str = spec["advertise"]
        self.low: int = spec["low"]
        self.high: int = spec["high"]
        self.how: str = spec["how"]
        self.forwarder: int | None = None
        self._listening: dict[int, socket.socket] = {}
        self._outer: dict[int, int] = {}
        self._ready = False

    def open(self, network: str) -> list[str]:
        """Get ready for a container on ``network``; return the engine's options for it.

        Raises:
            OSError: no port is free.
        """
        self.close()
        numbers = [port["port"] for port in self.wanted]
        if network == "host":
            self._outer = {number: number for number in numbers}
            return []
        if self.how == "publish":
            host = f"[{self.address}]" if ":" in self.address else self.address
            return [word for number in numbers for word in ("--publish", f"{host}::{number}")]
        self._listening = {number: self._listen() for number in numbers}
        self._outer = {number: listener.getsockname()[1] for number, listener in self._listening.items()}
        return []

    def connect(self, pid: int, found: dict[str, Any] | None) -> None:
        """Reach the container, whose first process is ``pid`` and which the engine describes as ``found``."""
        if self._listening:
            descriptors = {number: listener.fileno() for number, listener in self._listening.items()}
            words = [f"{descriptor}:{number}" for number, descriptor in descriptors.items()]
            self.forwarder = subprocess.Popen(
                [sys.executable, "-P", "-m", "ebhpc.local.forwarder", str(pid), *words],
                pass_fds=list(descriptors.values()),
                stdin=subprocess.DEVNULL,
            ).pid
        elif self.how == "publish" and not self._outer:
            for port in self.wanted:
                outer = published_port(found, port["port"])
                if outer is not None:
                    self._outer[port["port"]] = outer
        self._ready = True

    def listed(self, status: str | None = None) -> list[dict[str, str]]:
        """Return a connector for each port whose outer number is known."""
        if status is None:
            status = "AVAILABLE" if self._ready else "PREPARING"
        return [
            {
                "status": status,
                "protocol": port["protocol"],
                "location": self._url(port, self._outer[port["port"]]),
            }
            for port in self.wanted
            if port["port"] in self._outer
        ]

    def close(self) -> None:
        """End the forwarder and give the ports back. What :meth:`listed` says stays."""
        if self.forwarder is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.forwarder, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.forwarder, 0)
            self.forwarder = None
        for listener in self._listening.values():
            listener.close()
        self._listening = {}
        self._ready = False

    def _listen(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        for number in range(self.low, self.high + 1):
            listener = socket.socket(family, socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((self.address, number))
                listener.listen(128)
            except OSError as error:
                listener.close()
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                return listener
        raise OSError(errno.EADDRINUSE, f"no port from {self.low} to {self.high} is free at {self.address}")

    def _url(self, port: dict[str, Any], outer: int) -> str:
        host = f"[{self.advertise}]" if ":" in self.advertise else self.advertise
        path = port["path"] if port["protocol"] in ("HTTP", "HTTPS") else ""
        return f"{port['protocol'].lower()}://{host}:{outer}{path}"
