"""What the runner tells of a job, and what the batch system tells, made into one observation.

The report is written by the user's job, so it is read as a stranger's: no link is followed, it has a limit, each value
has its type, and URLs are made here.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import msgspec
from msgspec import Struct

from ebhpc.batch.directory import SessionDirectory
from ebhpc.batch.settings import JobSettings
from ebhpc.model import Connector, DockerContainer, Level, Message, MessageKind, Observation, Session, message
from ebhpc.staging.outputs import open_regular

_LARGEST = 1 << 20
"""Bytes of a report that are read."""

_MOST_MESSAGES = 20
_KINDS = frozenset(str(kind) for kind in MessageKind)

State = Literal["PENDING", "RUNNING", "SUCCEEDED", "FAILED", "GONE"]


class Native(Struct, frozen=True, kw_only=True):
    """What the batch system says of a job. ``messages`` say what its exit code does not: a time limit, a lost node."""

    state: State
    exit_code: int | None = None
    node: str | None = None
    started: float | None = None
    ended: float | None = None
    messages: tuple[Message, ...] = ()


class Words(Struct, frozen=True):
    """A message as the runner writes it."""

    kind: str
    level: Level
    template: str
    values: dict[str, str]


class Port(Struct, frozen=True):
    """A container's ``port`` and the node's, ``outer``, that leads to it."""

    port: int
    outer: int


class Report(Struct, frozen=True, kw_only=True):
    """What the runner has written: RUNNING until it has written how the job ended."""

    state: Literal["RUNNING", "SUCCEEDED", "FAILED"] = "RUNNING"
    exit_code: int | None = None
    node: str = ""
    started: float | None = None
    ended: float | None = None
    messages: tuple[Words, ...] = ()
    ports: tuple[Port, ...] = ()


def read_report(directory: SessionDirectory) -> Report | None:
    """Read what the runner has written; None: it has not begun."""
    ended = _read(directory, "status.json")
    if ended is not None:
        return ended if ended.state != "RUNNING" else _unreadable()
    return _read(directory, "running.json")


def observation(session: Session, native: Native, report: Report | None, settings: JobSettings) -> Observation:
    """Say what became of a session's job.

    The batch system says whether it has ended; a complete report says how. Without one, the batch system's word stands.
    """
    complete = report is not None and report.state != "RUNNING"
    if native.state == "PENDING" or (native.state == "GONE" and not complete):
        return Observation(uuid=session.uuid, state=native.state, messages=native.messages)
    node = native.node or (report.node if report is not None else "") or None
    started = _time(report.started) if report is not None else None
    running = native.state == "RUNNING"
    seen = Observation(
        uuid=session.uuid,
        state=native.state,
        exit_code=native.exit_code,
        node=node,
        started=started or native.started,
        ended=None if running else native.ended,
        messages=native.messages,
        connectors=_connectors(session, report, node, settings, finished=not running),
    )
    if running or report is None or report.state == "RUNNING":
        return seen
    return msgspec.structs.replace(
        seen,
        state=report.state,
        exit_code=report.exit_code if report.exit_code is not None else native.exit_code,
        ended=_time(report.ended) or native.ended,
        messages=(*native.messages, *_messages(report)),
    )


def _read(directory: SessionDirectory, name: str) -> Report | None:
    file = open_regular(directory.path, ["report", name])
    if file is None:
        return None
    with file:
        raw = file.read(_LARGEST + 1)
    if len(raw) > _LARGEST:
        return _unreadable()
    try:
        return msgspec.json.decode(raw, type=Report)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _unreadable()


def _unreadable() -> Report:
    template = "The report of the job cannot be read: the job has changed it."
    return Report(state="FAILED", messages=(Words(str(MessageKind.FAILED), "ERROR", template, {}),))


def _messages(report: Report) -> list[Message]:
    found = []
    for words in report.messages[:_MOST_MESSAGES]:
        kind = words.kind if words.kind in _KINDS else str(MessageKind.FAILED)
        values: dict[str, Any] = {
            name: value[:4000] for name, value in words.values.items() if name not in ("level", "time")
        }
        try:
            found.append(message(kind, words.template[:1000], level=words.level, **values))
        except (KeyError, TypeError):  # a hole without a value: not the runner's own
            continue
    return found


def _time(seconds: float | None) -> float | None:
    return seconds if seconds is not None and math.isfinite(seconds) and 0 < seconds < 1e11 else None


def _connectors(
    session: Session, report: Report | None, node: str | None, settings: JobSettings, *, finished: bool
) -> tuple[Connector, ...] | None:
    """Return the ways to reach a container's ports, once the runner has seen them answer."""
    executable = session.executable
    if report is None or node is None or not isinstance(executable, DockerContainer):
        return None
    outer = {port.port: port.outer for port in report.ports if 1 <= port.outer <= 65535}
    found = []
    for port in (executable.network.ports if executable.network else None) or ():
        number = port.internal.port if port.internal is not None else None
        if port.access is False or number not in outer:
            continue
        protocol, path = port.protocol or "TCP", port.path or ""
        path = path if protocol in ("HTTP", "HTTPS") else ""
        path = path if path.startswith("/") or not path else f"/{path}"
        # A part of a machine may be a node of its own: ``slot2@host``
        name = node.rpartition("@")[2]
        host = f"[{name}]" if ":" in name else f"{name}{settings.domain}"
        found.append(
            Connector(
                status="FINISHED" if finished else "AVAILABLE",
                protocol=protocol,
                location=f"{protocol.lower()}://{host}:{outer[number]}{path}",
            )
        )
    return tuple(found)
