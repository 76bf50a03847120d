"""What Slurm says of its nodes, jobs and reservations, and what it is asked for: the same over every transport.

Times are POSIX seconds, limits seconds, memory MiB; None where Slurm says nothing. Words are Slurm's own.
"""

from __future__ import annotations

from msgspec import Struct, field


class Node(Struct, frozen=True, kw_only=True):
    """A node. ``states``: ``MIXED``, ``DRAIN``, …; ``cpus`` and ``memory`` without what Slurm keeps for itself.

    ``threads``: hardware threads of a core, each of which Slurm counts as a CPU.
    """

    name: str
    states: tuple[str, ...]
    cpus: int
    memory: int
    threads: int = 1
    gres: str = ""
    features: tuple[str, ...] = ()
    reason: str = ""
    version: str = ""


class Partition(Struct, frozen=True, kw_only=True):
    """A partition. ``nodes`` is a host list; of an empty ``allowed`` everybody is."""

    name: str
    nodes: str
    state: str = "UP"
    limit: int | None = None
    default: bool = False
    tier: int = 1
    most_nodes: int | None = None
    exclusive: bool = False
    allowed_accounts: tuple[str, ...] = ()
    denied_accounts: tuple[str, ...] = ()
    allowed_qos: tuple[str, ...] = ()
    denied_qos: tuple[str, ...] = ()


class Reservation(Struct, frozen=True, kw_only=True):
    """A reservation. ``cores`` says how many on which node, where it does not have whole nodes."""

    name: str
    start: int
    end: int
    nodes: str = ""
    cores: dict[str, int] = field(default_factory=dict)
    tres: str = ""
    flags: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    partition: str = ""
    licences: str = ""


class Job(Struct, frozen=True, kw_only=True, gc=False):
    """A job, or what still waits of an array of jobs. ``task``: which of the array, ``3`` or ``4-9%2``."""

    id: int
    array: int = 0
    task: str = ""
    name: str = ""
    comment: str = ""
    user: str = ""
    account: str = ""
    partition: str = ""
    state: str
    reason: str = ""
    submitted: int = 0
    eligible: int | None = None
    started: int | None = None
    ends: int | None = None
    limit: int | None = None
    nodes: int = 1
    cpus: int = 1
    tres: str = ""
    hosts: str = ""
    priority: int = 0
    features: str = ""
    reservation: str = ""
    licences: str = ""
    required: str = ""
    excluded: str = ""
    exclusive: bool = False
    exit: str = ""


class Configuration(Struct, frozen=True, kw_only=True):
    """The controller's settings as it tells them, and its clock when it did."""

    now: int
    settings: dict[str, str]


class Reserve(Struct, frozen=True, kw_only=True):
    """A reservation to make: so many ``cpus`` (whole cores) and ``devices`` on each of ``nodes``, for ``user``.

    ``others`` are users who may use it too. With ``accounts`` only their jobs come in: those of all their users, or
    with ``others`` those of ``user`` and of these.
    """

    name: str
    start: int
    end: int
    user: str
    others: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()
    nodes: tuple[str, ...]
    partition: str | None = None
    cpus: int
    devices: dict[str, int] = field(default_factory=dict)
    licences: dict[str, int] = field(default_factory=dict)
    whole: bool = False
    """Whole nodes, whatever they have."""

    @property
    def users(self) -> tuple[str, ...]:
        """Who may use it; none: all users of its accounts."""
        return () if self.accounts and not self.others else (self.user, *self.others)


class Submit(Struct, frozen=True, kw_only=True):
    """A job to submit for ``user``: the same share on each node. ``minutes``: its limit; ``memory`` on each node."""

    name: str
    user: str
    script: str
    minutes: int
    cpus: int
    memory: int
    devices: dict[str, int] = field(default_factory=dict)
    licences: dict[str, int] = field(default_factory=dict)
    nodes: int = 1
    hosts: tuple[str, ...] = ()
    """The nodes to use; none: Slurm chooses."""
    directory: str
    output: str = "/dev/null"
    errors: str = "/dev/null"
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    reservation: str | None = None
    begin: int | None = None
    features: tuple[str, ...] = ()
    whole: bool = False
    """Whole nodes, whatever they have."""
