"""Answers of our own, beside the standard's documents: their form, which the OpenAPI document shows too."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import field

from ebhpc.model import Message, Wire


class ProblemDocument(Wire, rename={"type_": "type"}):
    """An error (RFC 9457); `messages` says everything that is wrong, each with its `path` where it has one."""

    type_: str
    title: str
    status: int
    messages: list[Message]
    detail: str | None = None


class SessionPage(Wire):
    """Some of the sessions, newest first; `next` is the URL of those that follow, absent at the end."""

    sessions: list[Any]
    next: str | None = None


class OutputItem(Wire):
    """A file that a session left behind: its `size` in bytes as it is now, and where it can be fetched."""

    name: str
    size: int
    media_type: str
    url: str


class OutputList(Wire):
    """A session's stdout, stderr and result files."""

    outputs: list[OutputItem]


class PlatformItem(Wire):
    """A platform; `reason` says why it is not available. Memory in GiB; the numbers are of all nodes together."""

    name: str
    kind: str
    available: bool
    reason: str | None = None
    taken: str | None = None
    nodes: int | None = None
    cores: int | None = None
    memory: int | None = None
    devices: dict[str, int] | None = None


class PlatformItems(Wire):
    """The platforms of this broker."""

    platforms: list[PlatformItem]


class TimelineStep(Wire):
    """What is free from `start` until the next step. Memory in GiB, rounded down."""

    start: str
    cores: int
    memory: int
    devices: dict[str, int] = field(default_factory=dict)


class TimelineNode(Wire):
    """A node, all that it has (memory in GiB), and what of it is free."""

    name: str
    state: str
    cores: int
    memory: int
    devices: dict[str, int] = field(default_factory=dict)
    steps: list[TimelineStep] = field(default_factory=list)


class TimelineLicences(Wire):
    """The licences that are free from `start` until the next step."""

    start: str
    free: dict[str, int]


class TimelineDocument(Wire):
    """What is free on a platform from `start` to `end`, by its state of the instant `taken`."""

    platform: str
    taken: str
    start: str
    end: str
    total: list[TimelineStep]
    nodes: list[TimelineNode]
    licences: list[TimelineLicences] = field(default_factory=list)


class PicturePartition(Wire):
    """A partition; `runs` are its nodes: pairs of the first's place in `nodes` and how many follow one another."""

    name: str
    runs: list[list[int]]


class PictureSpans(Wire):
    """What takes nodes, one column for each figure. A span takes `cores` of each of `count` nodes.

    `first` is the place of the first node in `nodes`, less that of the span before. `start` is in seconds from the
    document's `start`, `length` in seconds; `expected` is after how many seconds a running job will probably end.
    `kind`: 0 a running job, to its limit; 1 a waiting job where it is planned to start; 2 a reservation of the batch
    system; 3 maintenance; 4 a session of the broker's; 5 an offer that is open. `label` and `session` are places in the
    lists of these names.
    """

    first: list[int]
    count: list[int]
    start: list[int]
    length: list[int]
    expected: list[int]
    cores: list[int]
    kind: list[int]
    label: list[int] | None = None
    session: list[int] | None = None


class PlatformPictureDocument(Wire):
    """A platform's calendar from `start` to `end`, by its state of the instant `taken`; memory in GiB.

    `states` is absent where all nodes are up. `labels` name jobs, where the site shows them; `sessions` are those
    of the broker's sessions whose UUIDs the reader may see.
    """

    platform: str
    taken: str
    start: str
    end: str
    nodes: list[str]
    cores: list[int]
    memory: list[int]
    partitions: list[PicturePartition]
    spans: PictureSpans
    states: list[str] | None = None
    labels: list[str] | None = None
    sessions: list[str] | None = None


class ApprovalItem(Wire):
    """A session that waits for an operator's word until `deadline`: whose it is, and which nodes it takes when."""

    session: str
    url: str
    executable: str
    owner: str
    platform: str
    phase: str
    start: str
    duration: str
    nodes: list[str]
    deadline: str
    name: str | None = None


class ApprovalList(Wire):
    """The sessions that wait for an operator's word, the most urgent first."""

    approvals: list[ApprovalItem]


class Decision(Wire):
    """An operator's word on a session, and why."""

    decision: Literal["approve", "refuse"]
    reason: str | None = None


class CalendarAddress(Wire):
    """Where a user's calendar is; whoever knows the ``url`` can read it."""

    url: str


class NewAccount(Wire):
    """An account to be made."""

    username: str
    password: str


class Account(Wire):
    """An account."""

    uuid: str
    username: str


class Health(Wire):
    """How the broker is, `reason`: what is wrong; `platforms`: whether each can be used now."""

    status: Literal["live", "ready", "degraded", "not ready"]
    reason: str | None = None
    checks: dict[str, str] | None = None
    platforms: dict[str, bool] | None = None
