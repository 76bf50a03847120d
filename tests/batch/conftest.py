"""Sessions of jobs that really run: the script of each is run here, as a batch system's node would."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ebhpc import batch
from ebhpc.config import Network
from ebhpc.model import (
    Allocation,
    DockerContainer,
    DockerImage,
    Executable,
    Identity,
    Observation,
    Phase,
    Session,
    SimpleCompute,
)
from ebhpc.staging.removal import remove
from tests.lab import containers
from tests.local.webserver import WebServer

MARVIN = Identity(uuid="6a3d2bb6-3f0e-4b8b-8f37-7d3b6a4f0c11", username="marvin")
PYTHON = sys.executable


class Site:
    """A site's root directory, and the jobs that ran below it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def settings(self, **more: Any) -> batch.JobSettings:
        """Return settings by which jobs run as ourselves, unless ``more`` says otherwise."""
        defaults: dict[str, Any] = {
            "root": self.root,
            "access": "own",
            "python": PYTHON,
            "grace": 2.0,
            "private_networks": [Network("127.0.0.0/8")],
        }
        return batch.JobSettings(**{**defaults, **more})

    def session(self, executable: Executable, *, duration: int = 600, firm: bool = False, **more: Any) -> Session:
        """Make an accepted session that may begin now."""
        now = int(time.time())
        return Session(
            uuid=str(uuid.uuid4()),
            name=None,
            owner=MARVIN,
            platform="cluster",
            phase=Phase.AVAILABLE,
            executable=executable,
            compute=SimpleCompute(),
            allocations=(Allocation(node="n1", cores=1, memory=512),),
            start=now,
            latest=now,
            end=now + duration,
            duration=duration,
            firm=firm,
            **more,
        )

    def start(self, session: Session, settings: batch.JobSettings) -> subprocess.Popen[bytes]:
        """Begin a prepared session's job, as a batch system does."""
        directory = batch.session_directory(settings.root, session.uuid)
        return run_script(batch.job_script(settings, directory))

    def run(self, session: Session, settings: batch.JobSettings, **more: Any) -> Observation:
        """Prepare a session, run its job, and observe it."""
        batch.prepare(session, settings, batch.unix_account(None), **more)
        return self.seen(session, settings, self.start(session, settings))

    def seen(self, session: Session, settings: batch.JobSettings, job: subprocess.Popen[bytes]) -> Observation:
        """Wait for a job's end, and observe the session by its exit code and report."""
        said, _ = job.communicate(timeout=120)
        native = batch.Native(state="FAILED" if job.returncode else "SUCCEEDED", exit_code=job.returncode)
        report = batch.read_report(batch.session_directory(settings.root, session.uuid))
        assert report is not None, said
        return batch.observation(session, native, report, settings)

    def output(self, session: Session, name: str = "stdout") -> bytes:
        """Return the content of one output."""
        settings = self.settings()
        file = batch.open_output(session, settings, name)
        assert file is not None, [one.name for one in batch.outputs(session, settings)]
        with file:
            return file.read()


@functools.cache
def _scripts() -> tempfile.TemporaryDirectory[str]:
    """Make the directory that scripts are run from; it goes when this process ends."""
    made = tempfile.TemporaryDirectory(prefix="ebb-scripts-", dir="/tmp")
    os.chmod(made.name, 0o711)
    return made


def run_script(text: str, **more: Any) -> subprocess.Popen[bytes]:
    """Run a batch script from a file, without anything on its stdin."""
    path = Path(_scripts().name, f"{uuid.uuid4()}.sh")
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return subprocess.Popen(
        [str(path)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **more
    )


def said(observation: Observation) -> str:
    """Return all messages of an observation, a line each."""
    return "\n".join(map(str, observation.messages))


@pytest.fixture
def site() -> Iterator[Site]:
    """A site whose root everybody on this host gets through to."""
    place = Path(tempfile.mkdtemp(prefix="ebb-", dir="/tmp"))
    place.chmod(0o711)
    yield Site(place / "sessions")
    remove(place)


@pytest.fixture
def web() -> Iterator[WebServer]:
    """A web server on loopback."""
    server = WebServer()
    yield server
    server.close()


@pytest.fixture
def runtime(podman: containers.Podman) -> batch.ContainerRuntime:
    """The lab's podman, without network."""
    return batch.ContainerRuntime(kind="podman", options=podman.options, environment=podman.environment, network="none")


def busybox(registry: containers.Registry, *command: str, **more: Any) -> DockerContainer:
    """Return a container of the lab's image."""
    image = DockerImage(locations=[registry.location], digest=registry.digest)
    return DockerContainer(image=image, command=list(command) or None, **more)
