"""What HTCondor says of its slots, jobs and submitters, and what it is asked for.

Times are POSIX seconds, limits seconds, memory MiB (which HTCondor calls MB); None where HTCondor says nothing.
"""

from __future__ import annotations

from msgspec import Struct, field


class Share(Struct, frozen=True, kw_only=True, gc=False):
    """What somebody has of a slot. ``owner`` is the submitter, ``job`` the job's global name, where it is told."""

    name: str
    cores: int
    memory: int
    devices: dict[str, int] = field(default_factory=dict)
    owner: str = ""
    claimed: bool = True


class Slot(Struct, frozen=True, kw_only=True, gc=False):
    """A slot that jobs get parts of (partitionable), or whole (static), with all that it has.

    ``free_cores``, ``free_memory``: what is not in somebody's dynamic slot. ``devices``: ``gpu``, ``gpu:MODEL`` and the
    pool's own resources by their names.
    """

    name: str
    machine: str
    cores: int
    memory: int
    devices: dict[str, int] = field(default_factory=dict)
    free_cores: int = 0
    free_memory: int = 0
    features: tuple[str, ...] = ()
    partitionable: bool = True
    state: str = "Unclaimed"
    activity: str = "Idle"
    draining: bool = False
    taking: bool = True
    shares: tuple[Share, ...] = ()
    entered: int = 0
    kept: tuple[str, ...] = ()
    """Whom the machine keeps something for, as its own attributes say: ``UUID user``."""

    keeps: tuple[str, ...] = ()
    """Of which devices the machine keeps some, as ``GPUs`` and, in lower case, resources of the pool's own."""

    checked: int | None = None
    """When the machine last looked what is kept on it."""

    containers: bool = False
    clock: int | None = None


class Job(Struct, frozen=True, kw_only=True, gc=False):
    """A job. ``status`` is HTCondor's number; ``order`` how the negotiator sorts within one submitter;
    ``spooled`` when the schedd had all of its files, where they were sent to it.
    """

    schedd: str
    cluster: int
    process: int
    status: int
    owner: str = ""
    submitter: str = ""
    session: str = ""
    prefix: str = ""
    cores: int = 1
    memory: int = 0
    devices: dict[str, int] = field(default_factory=dict)
    submitted: int = 0
    spooled: int | None = None
    priority: int = 0
    entered: int = 0
    started: int | None = None
    executing: int | None = None
    finished: int | None = None
    begin: int | None = None
    execute_limit: int | None = None
    job_limit: int | None = None
    site_limit: int | None = None
    starts: int = 0
    slot: str = ""
    hold_code: int | None = None
    hold_subcode: int | None = None
    hold_reason: str = ""
    reject_reason: str = ""
    remove_reason: str = ""
    exit_code: int | None = None
    exit_signal: int | None = None
    licences: dict[str, int] = field(default_factory=dict)
    partition: str = ""
    suspended: bool = False
    ports: dict[str, int] = field(default_factory=dict)
    """Ports of the machine that lead to a container's, by the names of its services."""

    @property
    def id(self) -> str:
        """Return its number within its schedd, ``12.0``."""
        return f"{self.cluster}.{self.process}"


class Submitter(Struct, frozen=True, kw_only=True, gc=False):
    """Who submits, and how the negotiator ranks him: a lower ``priority`` comes first."""

    name: str
    priority: float


class Group(Struct, frozen=True, kw_only=True):
    """Slots that some waiting jobs can use by their Requirements, where these are not all."""

    name: str
    slots: tuple[str, ...]


class Look(Struct, frozen=True, kw_only=True):
    """All that was told at one look. ``silent`` are schedds that did not answer."""

    slots: tuple[Slot, ...]
    jobs: tuple[Job, ...] = ()
    finished: tuple[Job, ...] = ()
    submitters: tuple[Submitter, ...] = ()
    groups: tuple[Group, ...] = ()
    limits: dict[str, int] = field(default_factory=dict)
    negotiator: bool = True
    silent: tuple[str, ...] = ()


class Submitted(Struct, frozen=True, kw_only=True):
    """A job that was taken."""

    cluster: int


class Daemons(Struct, frozen=True, kw_only=True):
    """Which daemons the collector knows, and what they run: names and versions."""

    collector: str = ""
    schedd: str = ""
    schedd_version: str = ""
    negotiator: str = ""
    may_write: bool | None = None
    write_error: str = ""
    identity: str = ""
    clock: int | None = None
    cycle: int | None = None
    """Seconds between the last two negotiations."""
