"""A local platform in a directory of the test's own, sessions for it, and what they are fetched from."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ebhpc.local import ebhpc_platform, processes
from ebhpc.local.places import SessionDirectory, session_directory
from ebhpc.local.platform import LocalPlatform
from ebhpc.model import (
    Allocation,
    Demand,
    Executable,
    ExecutionRequest,
    Identity,
    JupyterNotebook,
    Observation,
    Phase,
    Request,
    Session,
    Shape,
    SimpleCompute,
)
from tests.lab import containers
from tests.local.webserver import WebServer

HOUR = 3600
MARVIN = Identity(uuid="6a3d2bb6-3f0e-4b8b-8f37-7d3b6a4f0c11", username="marvin")

Observe = Callable[..., Observation]


class Workshop:
    """Makes platforms and sessions, and at the end sees that nothing of them is left."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.sessions: list[tuple[LocalPlatform, Session]] = []

    def platform(self, **settings: Any) -> LocalPlatform:
        """Build a platform as the broker does."""
        settings.setdefault("grace", "2s")
        settings.setdefault("private_networks", ["127.0.0.0/8"])
        built = ebhpc_platform(kind="local", name="here", settings=settings, state=self.place / "state")
        assert isinstance(built, LocalPlatform)
        return built

    def session(
        self,
        platform: LocalPlatform,
        executable: Executable,
        *,
        cores: int = 1,
        memory: int = 1024,
        duration: float = HOUR,
        **more: Any,
    ) -> Session:
        """Make an accepted session that begins now; ``memory`` in MiB, ``duration`` in seconds."""
        now = int(time.time())
        made = Session(
            uuid=str(uuid.uuid4()),
            name=None,
            owner=MARVIN,
            platform=platform.name,
            phase=Phase.AVAILABLE,
            executable=executable,
            compute=SimpleCompute(),
            allocations=(Allocation(node=platform.node, cores=cores, memory=memory),),
            start=now,
            latest=now,
            end=int(now + duration),
            duration=int(duration),
            **more,
        )
        self.sessions.append((platform, made))
        return made

    def directory(self, session: Session) -> SessionDirectory:
        """Return a session's directory."""
        return session_directory(self.place / "state", session.uuid)

    def until(self, platform: LocalPlatform, session: Session, *states: str, patience: float = 60.0) -> Observation:
        """Observe until the session is in one of ``states``, by default at its end."""
        wanted = states or ("SUCCEEDED", "FAILED", "GONE")
        limit = time.monotonic() + patience
        while True:
            (seen,) = platform.ebhpc_observe(sessions=[session])
            if seen.state in wanted:
                return seen
            assert seen.state in ("PENDING", "RUNNING"), f"{seen} {self.log(session)}"
            assert time.monotonic() < limit, f"still {seen.state} {self.log(session)}"
            time.sleep(0.05)

    def run(self, platform: LocalPlatform, session: Session) -> Observation:
        """Prepare, submit, and wait for the end."""
        platform.ebhpc_prepare(session=session)
        platform.ebhpc_submit(session=session)
        return self.until(platform, session)

    def log(self, session: Session) -> str:
        """Return what the supervisor complained of."""
        log = self.directory(session).log
        return log.read_text(encoding="utf-8") if log.exists() else ""

    def output(self, platform: LocalPlatform, session: Session, name: str = "stdout") -> str:
        """Return the text of one output."""
        file = platform.ebhpc_open_output(session=session, name=name)
        assert file is not None, [one.name for one in platform.ebhpc_outputs(session=session)]
        with file:
            return file.read().decode("utf-8")

    def finish(self) -> None:
        """End all sessions and check that they left nothing."""
        for platform, session in self.sessions:
            platform.ebhpc_cancel(session=session)
        for platform, session in self.sessions:
            platform.ebhpc_cleanup(session=session)
            directory = self.directory(session)
            assert processes.marked(directory.uuid) == []
            if directory.path.exists():
                left = {entry.name for entry in directory.path.iterdir()}
                assert not left & {"work", "stage", "storage", "job.json"}
            platform.ebhpc_forget(session=session)
            assert not directory.path.exists()


def said(observation: Observation) -> str:
    """Return all messages of an observation, a line each."""
    return "\n".join(map(str, observation.messages))


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    """A workshop that is swept at the end."""
    made = Workshop(tmp_path)
    yield made
    made.finish()


@pytest.fixture
def web() -> Iterator[WebServer]:
    """A web server on loopback."""
    server = WebServer()
    yield server
    server.close()


@pytest.fixture
def runtime(podman: containers.Podman) -> dict[str, Any]:
    """The platform's setting ``runtime`` for the lab's podman."""
    return podman.runtime


def notebook(*cells: str) -> bytes:
    """Return a notebook with these code cells."""
    return json.dumps(
        {
            "cells": [
                {
                    "cell_type": "code",
                    "execution_count": None,
                    "id": f"cell-{at}",
                    "metadata": {},
                    "outputs": [],
                    "source": cell,
                }
                for at, cell in enumerate(cells)
            ],
            "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
            "nbformat": 4,
            "nbformat_minor": 5,
        }
    ).encode()


def asked(executable: Executable, **more: Any) -> Request:
    """Return a request as the core reads it."""
    demand = more.pop("demand", None) or Demand(
        least=Shape(cores=1, memory=1024), duration=HOUR, earliest=0, latest=HOUR
    )
    return Request(
        document=ExecutionRequest(executable=executable),
        executable=executable,
        compute=more.pop("compute", SimpleCompute()),
        demand=demand,
        **more,
    )


def changed(session: Session, **more: Any) -> Session:
    """Return a session with other values."""
    return msgspec.structs.replace(session, **more)


def notebook_at(url: str) -> JupyterNotebook:
    """Return a notebook executable."""
    return JupyterNotebook(location=url)
