"""Platforms on the lab's cloud, and sessions to run there."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from ebhpc.model import (
    Allocation,
    Identity,
    JupyterNotebook,
    Observation,
    Phase,
    Session,
    Shape,
    SimpleCompute,
    SimpleStorage,
)
from ebhpc_openstack import ebhpc_platform
from ebhpc_openstack.platform import OpenStackPlatform
from tests.lab.debian import PYTHON
from tests.lab.openstack import Cloud

SMALL = Shape(cores=1, memory=1024, devices={"scratch": 10})
MEDIUM = Shape(cores=2, memory=4096, devices={"scratch": 20})


@dataclass
class Place:
    """A cloud, and the platforms on it that were built for a test."""

    cloud: Cloud
    state: Path
    built: list[OpenStackPlatform] = field(default_factory=list)

    def settings(self, **more: Any) -> dict[str, Any]:
        """Return a platform's settings."""
        ssh = self.cloud.ssh
        return {
            "ssh": {
                "host": ssh.host,
                "port": ssh.port,
                "user": ssh.user,
                "key_file": str(ssh.key_file),
                "known_hosts": str(ssh.known_hosts),
                **more.pop("ssh", {}),
            },
            "jobs": {
                "root": str(self.state / "sessions"),
                "access": "own",
                "staging": "job",
                "notebook_python": PYTHON,
                "runtime": {"kind": "apptainer"},
                **more.pop("jobs", {}),
            },
            "cloud": "planner",
            "image": "debian",
            "look": "0s",
            **more,
        }

    def platform(self, **more: Any) -> OpenStackPlatform:
        """Build a platform."""
        built = ebhpc_platform("openstack", "cloud", self.settings(**more), self.state)
        assert isinstance(built, OpenStackPlatform)
        self.built.append(built)
        return built

    def close(self) -> None:
        """End what the platforms have started."""
        for platform in self.built:
            ended_with_its_process(platform)


def ended_with_its_process(platform: OpenStackPlatform) -> None:
    """Take from a platform what it loses when its process ends."""
    platform.host.close()
    if platform.forwards is not None:
        platform.forwards.close()


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a directory on loopback, which the lab's guests share with us; yield its URL."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def notebook(folder: Path, source: str) -> None:
    """Write a notebook of one cell."""
    cell = {"cell_type": "code", "id": "one", "metadata": {}, "execution_count": None, "outputs": [], "source": source}
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    text = {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel}, "cells": [cell]}
    (folder / "note.ipynb").write_text(json.dumps(text), encoding="utf-8")


def session(
    url: str = "http://127.0.0.1:9/note.ipynb",
    *,
    shape: Shape = SMALL,
    node: str = "",
    start: float = 0,
    duration: int = 120,
    **more: Any,
) -> Session:
    """Make a session that was accepted; ``start`` counts from now."""
    begin = int(time.time() + start)
    given: dict[str, Any] = {
        "uuid": str(uuid.uuid4()),
        "name": "a session",
        "owner": Identity(uuid=str(uuid.uuid4()), username="ada"),
        "platform": "cloud",
        "phase": Phase.ACCEPTED,
        "executable": JupyterNotebook(location=url),
        "compute": SimpleCompute(),
        "storage": (SimpleStorage(),),
        "allocations": (Allocation(node=node, cores=shape.cores, memory=shape.memory, devices=shape.devices),),
        "start": begin,
        "latest": begin + 600,
        "end": begin + 600 + duration,
        "duration": duration,
        "firm": False,
    }
    return Session(**{**given, **more})


def ready(platform: OpenStackPlatform, one: Session) -> Session:
    """Prepare a session."""
    platform.ebhpc_prepare(one)
    return replace(one, phase=Phase.AVAILABLE)


def submitted(platform: OpenStackPlatform, one: Session) -> Session:
    """Have a session's server made."""
    return replace(one, native=platform.ebhpc_submit(one))


def until(
    platform: OpenStackPlatform, one: Session, wanted: Callable[[Observation], bool], seconds: float = 240
) -> Observation:
    """Observe a session until it is as wanted."""
    deadline = time.monotonic() + seconds
    last: Observation | None = None
    while time.monotonic() < deadline:
        for last in platform.ebhpc_observe([one]):
            if wanted(last):
                return last
        time.sleep(0.3)
    raise AssertionError(f"still {last}")


def ended(seen: Observation) -> bool:
    """Whether a job has ended."""
    return seen.state in ("SUCCEEDED", "FAILED")


def runs(seen: Observation) -> bool:
    """Whether a job runs."""
    return seen.state == "RUNNING"


def text_of(platform: OpenStackPlatform, one: Session, name: str = "stdout") -> str:
    """Return an output."""
    file = platform.ebhpc_open_output(one, name)
    assert file is not None, [output.name for output in platform.ebhpc_outputs(one)]
    with file:
        return file.read().decode()


def words(seen: Observation) -> str:
    """Return what an observation says to the user."""
    return " / ".join(str(one.filled) for one in seen.messages)
