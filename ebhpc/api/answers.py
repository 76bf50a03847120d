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


class NewAccount(Wire):
    """An account to be made."""

    username: str
    password: str


class Account(Wire):
    """An account."""

    uuid: str
    username: str


class Health(Wire):
    """How the broker is; `platforms`: whether each can be used now."""

    status: Literal["live", "ready", "not ready"]
    reason: str | None = None
    platforms: dict[str, bool] | None = None
