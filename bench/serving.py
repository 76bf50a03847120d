"""``POST /requests`` through gunicorn, beside a bare Falcon resource on the same server settings."""

from __future__ import annotations

import base64
import contextlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil
import yaml
from msgspec import Struct

from bench.load import Load, load
from ebhpc.model import kinds

CONNECTIONS = 16
WORKERS = 2
THREADS = 8

REQUEST = {
    "executable": {
        "kind": kinds.JUPYTER_NOTEBOOK,
        "meta": {"name": "reduce", "description": "Reduce a night's frames"},
        "location": "https://archive.example/notebooks/reduce.ipynb",
    },
    "compute": {"kind": kinds.SIMPLE_COMPUTE, "cores": {"min": 1, "max": 4}, "memory": {"min": 1, "max": 4}},
    "storage": [{"kind": kinds.SIMPLE_STORAGE, "meta": {"name": "frames"}, "size": {"min": 2}}],
    "data": [
        {"kind": kinds.SIMPLE_DATA, "location": f"https://archive.example/frames/{number}.fits", "storage": "frames"}
        for number in range(4)
    ],
    "schedule": {"requested": {"duration": "PT30M"}},
}
"""A request as users make them: a notebook, its data and storage, half an hour."""


class Figures(Struct, frozen=True, kw_only=True):
    """What was measured. Latencies in seconds, memory in MB (10^6 bytes)."""

    broker: Load
    bare: Load
    plain: Load
    worker_memory: float
    ready: float


def free_port() -> int:
    """A loopback port that nobody listens on."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def process(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process until the block ends."""
    with log.open("wb") as sink:
        running = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink)
    try:
        yield running
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait(60)


def wait_for(url: str, running: subprocess.Popen[bytes], log: Path, *statuses: int) -> float:
    """Wait until ``url`` answers with one of the statuses; return the seconds waited."""
    begun = time.perf_counter()
    while time.perf_counter() - begun < 60:
        if running.poll() is not None:
            raise RuntimeError(f"it ended:\n{log.read_text()}")
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url, trust_env=False).status_code in statuses:
                return time.perf_counter() - begun
        time.sleep(0.02)
    raise TimeoutError(log.read_text())


def broker_settings(folder: Path, port: int) -> Path:
    """Write the configuration of the broker that is measured: the default, on a host with many cores."""
    settings: dict[str, Any] = {
        "state": str(folder / "state"),
        "api": {
            "bind": f"127.0.0.1:{port}",
            "workers": WORKERS,
            "threads": THREADS,
            "max_outstanding_offers": 1_000_000,
        },
        "offers": {"lifetime": "5s"},
        "logging": {"level": "warning"},
        "platforms": [
            {
                "name": "wide",
                "kind": "local",
                "lead": "0s",
                "settings": {
                    "overcommit": True,
                    "cores": 100_000,
                    "memory_gib": 400_000,
                    "runtime": {"program": "true"},
                },
            }
        ],
    }
    file = folder / "ebhpc.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file


def measure(folder: Path, requests: int) -> Figures:
    """Load the broker, then the bare resource, one after the other on the same machine."""
    port = free_port()
    body = msgspec.json.encode(REQUEST)
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    log = folder / "broker.log"
    config = broker_settings(folder, port)
    begun = time.perf_counter()
    with process([sys.executable, "-m", "ebhpc", "serve", "--config", str(config)], log) as running:
        wait_for(f"http://127.0.0.1:{port}/health/ready", running, log, 200)
        ready = time.perf_counter() - begun
        found = re.search(r"the administrator (\S+) with the password (\S+)", log.read_text())
        assert found is not None
        credentials = base64.b64encode(f"{found[1]}:{found[2]}".encode()).decode()
        signed = {**headers, "Authorization": f"Basic {credentials}"}
        load("127.0.0.1", port, "/requests", body, signed, connections=CONNECTIONS, requests=requests // 4)
        broker = load("127.0.0.1", port, "/requests", body, signed, connections=CONNECTIONS, requests=requests)
        memory = max(_workers_memory(running.pid))
    answer = folder / "answer.json"
    answer.write_bytes(broker.sample)
    bare_port = free_port()
    log = folder / "bare.log"
    with process([sys.executable, "-m", "bench.bare", str(bare_port), str(answer)], log) as running:
        wait_for(f"http://127.0.0.1:{bare_port}/requests", running, log, 405)
        bare, plain = (
            [
                load("127.0.0.1", bare_port, path, body, headers, connections=CONNECTIONS, requests=requests * many)
                for many in (1, 4)
            ][-1]
            for path in ("/requests", "/plain")
        )
    return Figures(broker=broker, bare=bare, plain=plain, worker_memory=memory, ready=ready)


def _workers_memory(pid: int) -> list[float]:
    """Unique and shared memory (RSS, MB) of the API's workers below ``ebhpc serve``."""
    found = []
    for child in psutil.Process(pid).children():
        if "api" in child.cmdline():
            found += [worker.memory_info().rss / 1e6 for worker in child.children()]
    return found
