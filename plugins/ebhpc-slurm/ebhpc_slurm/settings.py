"""The settings of a platform of kind ``slurm``: what stands under ``settings:`` in its file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from ebhpc.batch import JobSettings, UnixName, UnixUser
from ebhpc.config import Duration, Seconds

Word = Annotated[
    str,
    Meta(pattern=r"\A[A-Za-z0-9_][A-Za-z0-9_.+@:-]{0,99}\Z", description="a name of letters, digits and . _ + @ : -"),
]
"""A name of Slurm's: an account, a partition, a QOS."""

Prefix = Annotated[
    str, Meta(pattern=r"\A[a-z][a-z0-9]{0,15}\Z", description="1 to 16 lower-case letters and digits, a letter first")
]

Port = Annotated[int, Meta(ge=1, le=65535)]


class Ssh(Struct, frozen=True, kw_only=True):
    """The host on which Slurm's commands run, where they are not on this one."""

    host: str
    user: UnixName
    key_file: Path
    known_hosts: Path
    port: Port = 22


class Mapped(UnixUser, frozen=True, kw_only=True):
    """Who a user of the broker is on the cluster; what is absent is the platform's."""

    account: Word | None = None
    qos: Word | None = None


class SlurmSettings(Struct, frozen=True, kw_only=True):
    """All of them."""

    jobs: JobSettings
    """Where sessions have their directories, and how jobs run."""

    transport: Literal["commands", "pyslurm"] = "commands"
    """How Slurm is asked."""

    command_prefix: tuple[str, ...] = ()
    """Words before every command of Slurm's."""

    ssh: Ssh | None = None
    """Where the commands run; absent: on this host."""

    pyslurm: tuple[str, ...] = ("python3",)
    """The words that start the Python which has pyslurm."""

    slurm_conf: Path | None = None
    """The cluster's slurm.conf; absent: the usual one."""

    answer_within: Duration = Duration(8)
    """How long Slurm may take for one answer."""

    look: Seconds = Seconds(5)
    """The least time between two looks at the cluster."""

    prefix: Prefix = "ebhpc"
    """What the names of our jobs and reservations begin with; each broker of a cluster needs its own."""

    partitions: tuple[Word, ...] = ()
    """The partitions to offer, the preferred first; none: the cluster's default one."""

    account: Word | None = None
    """The account of jobs whose user has none of his own here; absent: Slurm's default for the user."""

    qos: Word | None = None
    """The QOS of jobs; absent: Slurm's default."""

    run_as: Literal["sudo", "token", "self"] = "sudo"
    """How jobs become those of their users: sudo, a token (JWT) of the user's, or not at all."""

    sudo: tuple[str, ...] = ("sudo", "-n", "-u", "{user}", "--")
    """The words before sbatch where ``run_as`` is sudo."""

    token_command: tuple[str, ...] = (
        "sudo",
        "-n",
        "-u",
        "slurm",
        "scontrol",
        "token",
        "username={user}",
        "lifespan=600",
    )
    """What prints SLURM_JWT=… for a user, where ``run_as`` is token."""

    identities: dict[str, Mapped] = field(default_factory=dict)
    """Who the broker's users are on the cluster."""

    others: Literal["refuse", "same-name"] = "refuse"
    """What of users who are not among ``identities``: none of their requests is taken, or their name is their own."""

    gap: Seconds = Seconds(120)
    """How much longer than promised a reservation lasts: Slurm enforces limits late, and counts them in minutes."""

    horizon: Duration = Duration(14 * 86400)
    """How far ahead reservations that repeat are looked at."""

    def __post_init__(self) -> None:
        if self.ssh is not None and self.transport == "pyslurm":
            raise ValueError("pyslurm runs on this host; with ssh the transport must be commands")
        if self.gap and self.gap < 60:
            raise ValueError("gap must be 0s or at least 60s: Slurm counts limits in whole minutes")
        for name in ("sudo", "token_command"):
            words = getattr(self, name)
            if getattr(self, f"_{name}_needed") and not any("{user}" in word for word in words):
                raise ValueError(f"{name} must have {{user}} among its words")

    @property
    def _sudo_needed(self) -> bool:
        return self.run_as == "sudo"

    @property
    def _token_command_needed(self) -> bool:
        return self.run_as == "token"
