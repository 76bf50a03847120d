"""Platforms on the lab's clusters, and sessions to run there."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from ebhpc import batch
from ebhpc.model import Allocation, Executable, Identity, Observation, Phase, Session, SimpleCompute, SimpleStorage
from ebhpc_slurm import ebhpc_platform
from ebhpc_slurm.platform import SlurmPlatform
from tests.lab.slurm import Cluster


class ShellCommand(Executable, tag="https://example.org/kinds/executable/shell-command.yaml"):
    """Something that runs on the node itself, so that nothing has to be fetched."""

    command: list[str] | None = None


ALICE, BOB = 2001, 2002
IDENTITIES = {
    "ada": {"user": "alice", "account": "phys", "uid": ALICE},
    "berta": {"user": "bob", "account": "chem", "uid": BOB},
}


@dataclass
class Place:
    """A cluster, and the way in which it is asked: ``commands``, ``pyslurm`` or ``ssh``."""

    cluster: Cluster
    transport: str
    state: Path

    def settings(self, *, impatient: bool = False, **more: Any) -> dict[str, Any]:
        """Return a platform's settings. ``impatient``: a controller that is down is told so after two seconds."""
        cluster = self.cluster
        conf = {"SLURM_CONF": str(cluster.impatient_conf)} if impatient else {}
        found: dict[str, Any] = {
            "jobs": {"root": str(cluster.shared / "sessions"), "python": cluster.python, "runtime": {"kind": "none"}},
            "identities": IDENTITIES,
            "partitions": ["batch", "gpu"],
            "look": "0s",
        }
        if self.transport == "ssh":
            ssh = cluster.ssh
            found["ssh"] = {
                "host": ssh.host,
                "port": ssh.port,
                "user": ssh.user,
                "key_file": str(ssh.key_file),
                "known_hosts": str(ssh.known_hosts),
            }
            if impatient:
                found["slurm_conf"] = str(cluster.impatient_conf)
        else:
            found["command_prefix"] = cluster.enter_argv("ebhpc", conf)
            found["transport"] = self.transport
            found["pyslurm"] = [cluster.python]
        return {**found, **more}

    def platform(self, *, impatient: bool = False, **more: Any) -> SlurmPlatform:
        """Build a platform."""
        built = ebhpc_platform("slurm", "lab", self.settings(impatient=impatient, **more), self.state)
        assert isinstance(built, SlurmPlatform)
        return built


def session(
    *,
    node: str = "n3",
    cores: int = 1,
    memory: int = 256,
    devices: dict[str, int] | None = None,
    start: float = 0,
    duration: int = 120,
    who: str = "ada",
    **more: Any,
) -> Session:
    """Make a session that was accepted; ``start`` counts from now."""
    begin = int(time.time() + start)
    given: dict[str, Any] = {
        "uuid": str(uuid.uuid4()),
        "name": "a session",
        "owner": Identity(uuid=str(uuid.uuid4()), username=who),
        "platform": "lab",
        "phase": Phase.ACCEPTED,
        "executable": ShellCommand(),
        "compute": SimpleCompute(),
        "storage": (SimpleStorage(),),
        "allocations": (Allocation(node=node, cores=cores, memory=memory, devices=devices or {}),),
        "start": begin,
        "latest": begin,
        "end": begin + duration,
        "duration": duration,
    }
    return Session(**{**given, **more})


def ready(platform: SlurmPlatform, one: Session, command: Sequence[str], seconds: float | None = None) -> Session:
    """Prepare a session whose job is a command on the node itself, as a plugin's own kind of executable would be."""
    account = platform.account(platform._who(one))
    batch.prepare(
        one, platform.settings.jobs, account, node_variable="SLURMD_NODENAME", command=list(command), seconds=seconds
    )
    return replace(one, phase=Phase.AVAILABLE)


def submitted(platform: SlurmPlatform, one: Session) -> Session:
    """Submit a session's job."""
    return replace(one, native=platform.ebhpc_submit(one))


def until(
    platform: SlurmPlatform, one: Session, wanted: Callable[[Observation], bool], seconds: float = 60
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


def ours(platform: SlurmPlatform) -> list[str]:
    """Return what there is of ours that has not ended: reservations and jobs."""
    prefix = platform.settings.prefix
    found = [one.name for one in platform.slurm.reservations() if one.name.startswith(prefix)]
    live = ("PENDING", "RUNNING", "CONFIGURING", "SUSPENDED", "RESV_DEL_HOLD")
    return found + [f"job {job.id}" for job in platform.slurm.jobs(f"{prefix}-") if job.state in live]


def text_of(platform: SlurmPlatform, one: Session, name: str = "stdout") -> str:
    """Return an output."""
    file = platform.ebhpc_open_output(one, name)
    assert file is not None, [output.name for output in platform.ebhpc_outputs(one)]
    with file:
        return file.read().decode()
