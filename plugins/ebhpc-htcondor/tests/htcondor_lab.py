"""Platforms on the lab's pool, and sessions to run there."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from ebhpc import batch
from ebhpc.model import Allocation, Executable, Identity, Observation, Phase, Session, SimpleCompute, SimpleStorage
from ebhpc_htcondor import ebhpc_platform
from ebhpc_htcondor.platform import HTCondorPlatform
from tests.lab.htcondor import Pool


class ShellCommand(Executable, tag="https://example.org/kinds/executable/shell-command.yaml"):
    """Something that runs on the machine itself, so that nothing has to be fetched."""

    command: list[str] | None = None


IDENTITIES = {"ada": {"user": "alice", "uid": 2001}, "berta": {"user": "bob", "uid": 2002, "group": "chem"}}


LEAD = 300.0
"""Seconds before its start at which a session's job is submitted."""

APPTAINER = {"kind": "apptainer"}


@dataclass
class Place:
    """A pool, and the platforms on it that were built for a test."""

    pool: Pool
    state: Path
    built: list[HTCondorPlatform] = field(default_factory=list)

    def settings(self, **more: Any) -> dict[str, Any]:
        """Return a platform's settings."""
        pool = self.pool
        return {
            "jobs": {"root": str(pool.shared / "sessions"), "python": pool.python, "runtime": {"kind": "none"}},
            "collector": pool.collector_address,
            "token_directory": str(pool.tokens("ebhpc")),
            "token_command": pool.token_command,
            "domain": pool.domain,
            "identities": IDENTITIES,
            "licences": {"matlab": 2},
            "look": "0s",
            **more,
        }

    def platform(self, **more: Any) -> HTCondorPlatform:
        """Build a platform."""
        built = ebhpc_platform("htcondor", "pool", self.settings(**more), self.state, LEAD)
        assert isinstance(built, HTCondorPlatform)
        self.built.append(built)
        return built

    def carrying(self, runtime: Mapping[str, str] = APPTAINER, **more: Any) -> HTCondorPlatform:
        """Build a platform of whose files the pool sees none."""
        jobs = {"root": str(self.state / "sessions"), "python": self.pool.python, "staging": "job"}
        return self.platform(jobs=jobs | {"runtime": runtime}, files="transfer", **more)

    def close(self) -> None:
        """End what the platforms have started."""
        for platform in self.built:
            platform.pool.close()


def session(
    *,
    node: str = "",
    cores: int = 1,
    memory: int = 256,
    devices: dict[str, int] | None = None,
    start: float = 0,
    duration: int = 120,
    who: str = "ada",
    **more: Any,
) -> Session:
    """Make a session that was accepted, for the queue; ``start`` counts from now."""
    begin = int(time.time() + start)
    given: dict[str, Any] = {
        "uuid": str(uuid.uuid4()),
        "name": "a session",
        "owner": Identity(uuid=str(uuid.uuid4()), username=who),
        "platform": "pool",
        "phase": Phase.ACCEPTED,
        "executable": ShellCommand(),
        "compute": SimpleCompute(),
        "storage": (SimpleStorage(),),
        "allocations": (Allocation(node=node, cores=cores, memory=memory, devices=devices or {}),),
        "start": begin,
        "latest": begin + 600,
        "end": begin + 600 + duration,
        "duration": duration,
        "firm": False,
    }
    return Session(**{**given, **more})


def ready(platform: HTCondorPlatform, one: Session, command: Sequence[str], seconds: float | None = None) -> Session:
    """Prepare a session whose job is a command on the machine itself, as a plugin's own kind would be."""
    account = platform.account(platform._who(one))
    batch.prepare(one, platform.settings.jobs, account, command=list(command), seconds=seconds)
    return replace(one, phase=Phase.AVAILABLE)


def ready_to_carry(platform: HTCondorPlatform, one: Session, command: Sequence[str]) -> Session:
    """Prepare such a session where HTCondor carries the files."""
    platform.prepared_to_carry(one, command=list(command))
    return replace(one, phase=Phase.AVAILABLE)


def submitted(platform: HTCondorPlatform, one: Session) -> Session:
    """Submit a session's job."""
    return replace(one, native=platform.ebhpc_submit(one))


def until(
    platform: HTCondorPlatform, one: Session, wanted: Callable[[Observation], bool], seconds: float = 120
) -> Observation:
    """Observe a session until it is as wanted."""
    deadline = time.monotonic() + seconds
    last: Observation | None = None
    while time.monotonic() < deadline:
        for last in platform.ebhpc_observe([one]):
            if wanted(last):
                return last
        time.sleep(0.2)
    raise AssertionError(f"still {last}")


def ended(seen: Observation) -> bool:
    """Whether a job has ended."""
    return seen.state in ("SUCCEEDED", "FAILED")


def runs(seen: Observation) -> bool:
    """Whether a job runs."""
    return seen.state == "RUNNING"


def text_of(platform: HTCondorPlatform, one: Session, name: str = "stdout") -> str:
    """Return an output."""
    file = platform.ebhpc_open_output(one, name)
    assert file is not None, [output.name for output in platform.ebhpc_outputs(one)]
    with file:
        return file.read().decode()


def words(seen: Observation) -> str:
    """Return what an observation says to the user."""
    return " / ".join(str(one.filled) for one in seen.messages)
