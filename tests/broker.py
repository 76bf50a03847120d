"""A real broker for tests: ``ebhpc api`` and ``ebhpc drive`` as processes, on loopback, with a state of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from ebhpc.client import Broker

ADMIN = "admin"
PASSWORD = "a password for tests only"

QUICK: dict[str, Any] = {
    "driver": {"interval": "100ms", "lease": "3s", "retry_first": "100ms", "retry_most": "1s"},
    "offers": {"lifetime": "60s"},
}
"""Settings under which a test does not wait."""


def free_port() -> int:
    """A port of the loopback interface that nobody listened on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def local_platform(**settings: Any) -> dict[str, Any]:
    """The configuration of a platform that runs things on this host, and promises more than the host has."""
    return {
        "name": "here",
        "kind": "local",
        "lead": "0s",
        "refresh": "1s",
        "settings": {
            "overcommit": True,
            "cores": 8,
            "memory_gib": 16,
            "private_networks": ["127.0.0.0/8"],
            **settings,
        },
    }


class RunningBroker:
    """The processes of one broker; ``state`` is its directory, ``url`` where its API answers."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], environment: Mapping[str, str] = {}) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.config = folder / "ebhpc.yaml"
        self.environment = dict(environment)
        merged = {**QUICK, **settings}
        merged["state"] = str(self.state)
        merged["api"] = {"bind": f"127.0.0.1:{self.port}", **merged.get("api", {})}
        self.config.write_text(yaml.safe_dump(merged, sort_keys=False), encoding="utf-8")
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def command(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run an operator's command with this broker's configuration, to its end."""
        return subprocess.run(
            [sys.executable, "-m", "ebhpc", *arguments, "--config", str(self.config)],
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
            **options,
        )

    def make_ready(self) -> None:
        """Make the database and the administrator."""
        secret = self.folder / "password"
        secret.write_text(PASSWORD + "\n", encoding="utf-8")
        self.command("db", "upgrade")
        self.command("account", "add", ADMIN, "--admin", "--password-file", str(secret))

    def start(self, part: str, name: str | None = None, **environment: str) -> None:
        """Start ``api`` or ``drive``; ``name`` tells several drivers apart."""
        key = name or part
        arguments = [part, "--config", str(self.config), *(["--name", name] if name else [])]
        with (self.folder / f"{key}.log").open("ab") as log:
            self.processes[key] = subprocess.Popen(
                [sys.executable, "-m", "ebhpc", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **self.environment, **environment},
            )

    def kill(self, key: str) -> None:
        """SIGKILL a part with all its workers, as a power cut would; the jobs live on."""
        process = self.processes.pop(key)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        """End all parts in order."""
        for process in self.processes.values():
            if process.poll() is None:
                process.terminate()
        for key, process in list(self.processes.items()):
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill(key)
        self.processes.clear()

    def wait_ready(self, seconds: float = 120) -> None:
        """Wait until the API answers and every platform has a snapshot."""
        deadline = time.monotonic() + seconds
        last = "no answer"
        while time.monotonic() < deadline:
            try:
                answer = httpx.get(f"{self.url}/health/ready", timeout=5, trust_env=False)
                if answer.status_code == 200:
                    return
                last = answer.text
            except httpx.TransportError as error:
                last = repr(error)
            time.sleep(0.05)
        raise TimeoutError(f"the broker is not ready: {last}\n{self.logs()}")

    def logs(self) -> str:
        """What the parts have logged, each one's end."""
        return "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')[-4000:]}" for path in sorted(self.folder.glob("*.log"))
        )

    def client(self) -> Broker:
        """A client that asks as the administrator."""
        return Broker(self.url, username=ADMIN, password=PASSWORD)


@contextmanager
def running_broker(
    folder: Path, settings: Mapping[str, Any], environment: Mapping[str, str] = {}, drivers: int = 1
) -> Iterator[RunningBroker]:
    """A broker that is ready, with its API and some drivers."""
    broker = RunningBroker(folder, settings, environment)
    try:
        broker.make_ready()
        broker.start("api")
        for number in range(drivers):
            broker.start("drive", f"driver-{number + 1}")
        broker.wait_ready()
        yield broker
    finally:
        broker.stop()
