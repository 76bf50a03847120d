"""The settings of a platform of kind ``htcondor``: what stands under ``settings:`` in its file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from ebhpc.batch import JobSettings, UnixUser
from ebhpc.config import Duration, Seconds

Word = Annotated[
    str, Meta(pattern=r"\A[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}\Z", description="a name of letters, digits and . _ -")
]
"""A name of HTCondor's: an accounting group, a schedd's host."""

Attribute = Annotated[
    str, Meta(pattern=r"\A[A-Za-z_][A-Za-z0-9_]{0,99}\Z", description="the name of a ClassAd attribute")
]

SubmitName = Annotated[
    str, Meta(pattern=r"\A\+?[A-Za-z_][A-Za-z0-9_]{0,99}\Z", description="a submit command, or + and an attribute")
]

Scheme = Annotated[str, Meta(pattern=r"\A[a-z][a-z0-9]{0,15}\Z", description="the scheme of a URL")]

Prefix = Annotated[
    str, Meta(pattern=r"\A[a-z][a-z0-9]{0,15}\Z", description="1 to 16 lower-case letters and digits, a letter first")
]

Place = Annotated[str, Meta(pattern=r"\A/[A-Za-z0-9_./{}@-]{0,999}\Z", description="an absolute path")]

Line = Annotated[str, Meta(pattern=r"\A[^\r\n\0]*\Z", description="one line")]


SIGNED = frozenset({"s3", "gs"})
"""The schemes of URLs that HTCondor signs with keys of a job's owner, and then fetches by https."""


class Mapped(UnixUser, frozen=True, kw_only=True):
    """Who a user of the broker is in the pool."""

    group: Word | None = None
    """The accounting group of his jobs; absent: the platform's."""


class HTCondorSettings(Struct, frozen=True, kw_only=True):
    """All of them."""

    jobs: JobSettings
    """Where sessions have their directories, and how jobs run."""

    collector: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_.:\[\]-]+\Z", description="host or host:port")]
    """The pool's collector."""

    schedd: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_.@-]+\Z")] | None = None
    """The schedd that jobs are submitted to; absent: the only one of the pool."""

    schedds: Literal["all", "own"] = "all"
    """Whose jobs are looked at for when jobs will start: all schedds of the pool, or only ours."""

    token_directory: Path | None = None
    """The directory with the broker's own token (SEC_TOKEN_DIRECTORY)."""

    condor_config: Path | None = None
    """A configuration file of HTCondor's for the broker; absent: none but these settings."""

    parameters: dict[Attribute, Line] = field(default_factory=dict)
    """More configuration of HTCondor's for the broker, as SEC_CLIENT_AUTHENTICATION_METHODS."""

    domain: Word
    """The pool's UID_DOMAIN and FILESYSTEM_DOMAIN: a job runs where it finds the files, and as whom it was submitted,
    only where these are the machine's."""

    run_as: Literal["token", "self"] = "token"
    """Whose jobs are: the user's, by a token of his own that ``token_command`` prints, or the broker's account's."""

    token_command: tuple[str, ...] = ()
    """What prints an IDTOKEN of ``{user}``, where ``run_as`` is token."""

    identities: dict[str, Mapped] = field(default_factory=dict)
    """Who the broker's users are in the pool."""

    others: Literal["refuse", "same-name"] = "refuse"
    """What of users who are not among ``identities``: none of their requests is taken, or their name is their own."""

    files: Literal["shared", "transfer"] = "shared"
    """How jobs get their files: from ``jobs.root``, which the machines see too, or carried by HTCondor."""

    containers: Literal["job", "universe"] = "job"
    """Who runs Docker containers: the job, by ``jobs.runtime``, or HTCondor (its container universe)."""

    native_urls: tuple[Scheme, ...] = ("http", "https")
    """With ``files: transfer``, the schemes of URLs that HTCondor's own plugins fetch, as ``s3``."""

    s3_keys: Place | None = None
    """The directory on the schedd's host, ``{user}`` in it being the job's owner, whose files ``access-key-id`` and
    ``secret-access-key`` are what objects in S3 are asked for with. HTCondor reads them as that user."""

    fetch_within: Duration = Duration(3600)
    """How long fetching one job's files from the schedd may take."""

    group: Word | None = None
    """The accounting group of jobs whose user has none of his own here."""

    prefix: Prefix = "ebhpc"
    """What our jobs are marked with; each broker of a pool needs its own."""

    slots: Line = "true"
    """A ClassAd expression: the slots that are offered."""

    requirements: Line = ""
    """More Requirements of every job, as ``TARGET.HasApptainer``."""

    features: dict[Word, Line] = field(default_factory=dict)
    """Features that a request can ask of a slot, each a ClassAd expression of the slot's attributes, as
    ``TARGET.has_avx512f``; a slot's Arch and OpSysAndVer are features by themselves."""

    rank: Line = ""
    """The Rank of every job."""

    submit: dict[SubmitName, Line] = field(default_factory=dict)
    """More lines of every submit description, as ``+ProjectName``."""

    disk_mib: Annotated[int, Meta(ge=1)] = 1024
    """How much of the slot's disk a job asks for, in MiB."""

    licences: dict[Word, Annotated[int, Meta(ge=0)]] = field(default_factory=dict)
    """How many there are of each concurrency limit: the pool does not tell."""

    limit_attributes: tuple[Attribute, ...] = ("MaxWallTime",)
    """Attributes of jobs that say how long they may run, in seconds, where HTCondor's own do not."""

    start_expression: bool = False
    """Whether the pool's machines keep start times, by the configuration that comes with this plugin."""

    reservations: Path | None = None
    """The directory in which the machines look for what is kept on them."""

    reserve_within: Duration = Duration(60)
    """How long it may take until a machine says that it keeps what was asked."""

    early: Duration = Duration(90)
    """How long before its start a session's job with a kept start is submitted, to have its claim in time."""

    answer_within: Duration = Duration(20)
    """How long the pool may take for one answer."""

    look: Seconds = Seconds(5)
    """The least time between two looks at our jobs."""

    history: Annotated[int, Meta(ge=0)] = 2000
    """How many finished jobs are read at most at one look, to learn how long jobs run."""

    def __post_init__(self) -> None:
        if self.run_as == "token" and not any("{user}" in word for word in self.token_command):
            raise ValueError("token_command must have {user} among its words, or run_as be self")
        if self.run_as == "self" and self.jobs.access != "own":
            raise ValueError("run_as: self needs jobs.access: own, since all jobs are the broker's account's")
        if self.files == "transfer" and self.jobs.staging != "job":
            raise ValueError("files: transfer needs jobs.staging: job, since nothing lies where the machines see it")
        if self.containers == "universe" and self.files != "transfer":
            raise ValueError("containers: universe needs files: transfer, by which results come back")
        if not SIGNED.isdisjoint(self.native_urls) and self.s3_keys is None:
            raise ValueError("native_urls with s3 or gs needs s3_keys: HTCondor asks for no object without keys")
        if self.start_expression and self.reservations is None:
            raise ValueError("start_expression needs reservations: the directory that the pool's machines read")
