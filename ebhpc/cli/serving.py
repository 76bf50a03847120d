"""The API and a driver as processes of their own, watched by this one."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

import httpx
from msgspec import Struct

from ebhpc.cli.served import environment_of_parts
from ebhpc.config import Config

log = logging.getLogger("ebhpc.serve")

_MOST_ENDS = 5
"""A part that ends so often within _SPAN seconds is not started again."""
_SPAN = 60.0
_GRACE = 30.0
"""Seconds that a part has to end after SIGTERM."""


class _Part(Struct, kw_only=True):
    """One process and when it ended before (monotonic seconds)."""

    name: str
    command: list[str]
    process: subprocess.Popen[bytes]
    ends: list[float]


def serve_all(config: Config, options: Sequence[str]) -> int:
    """Run the API and a driver until a signal or until one cannot be kept running; return the exit code."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    parts = [_start(name, [*command, *options]) for name, command in (("api", ["api"]), ("driver", ["drive"]))]
    threading.Thread(target=_tell_when_ready, args=(config, stop), daemon=True).start()
    code = 0
    while not stop.wait(0.2):
        for part in parts:
            if part.process.poll() is not None and not _again(part):
                log.error("the %s cannot be kept running; stopping", part.name)
                code = 1
                stop.set()
                break
    _stop(parts)
    return code


def _start(name: str, arguments: list[str]) -> _Part:
    command = [sys.executable, "-m", "ebhpc", *arguments]
    return _Part(name=name, command=command, process=_spawn(command), ends=[])


def _spawn(command: list[str]) -> subprocess.Popen[bytes]:
    # A session of its own: Ctrl-C on the terminal reaches this process alone, which then ends the parts in
    # order.
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, env=environment_of_parts())


def _again(part: _Part) -> bool:
    now = time.monotonic()
    part.ends = [moment for moment in part.ends if moment > now - _SPAN] + [now]
    log.error("the %s ended with code %s", part.name, part.process.returncode)
    if len(part.ends) > _MOST_ENDS:
        return False
    time.sleep(0.2 * len(part.ends))
    part.process = _spawn(part.command)
    return True


def _stop(parts: Sequence[_Part]) -> None:
    for part in parts:
        if part.process.poll() is None:
            part.process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + _GRACE
    for part in parts:
        try:
            part.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.error("the %s did not end in %.0f s and is killed", part.name, _GRACE)
            part.process.kill()
            part.process.wait()


def _tell_when_ready(config: Config, stop: threading.Event) -> None:
    """Say once that requests are answered and a driver is there."""
    address = str(config.api.bind)
    if address.startswith("unix:"):
        client = httpx.Client(transport=httpx.HTTPTransport(uds=address[5:]), base_url="http://ebhpc")
    else:
        client = httpx.Client(base_url=f"http://{address}", trust_env=False)
    with client:
        while not stop.wait(0.1):
            try:
                if client.get("/health/ready", timeout=2.0).status_code == 200:
                    log.info("ready at %s", config.api.url or f"http://{address}")
                    return
            except httpx.TransportError:
                continue
