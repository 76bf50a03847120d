"""The ways in which a job ends, in words for the user: plain data that status.json holds.

Imported by the supervisor: the standard library only. The kinds are those of ``ebhpc.model.MessageKind``, written out
because that package is more than a supervisor should carry.
"""

from __future__ import annotations

import signal as signals
from typing import Any

FAILED = "urn:execution-failed"
LIMIT = "urn:resource-limit"
TIME = "urn:time-limit"
PROGRESS = "urn:progress"

Words = dict[str, Any]
"""A message: kind, level, template, values."""


def words(kind: str, level: str, template: str, **values: object) -> Words:
    """Make a message as plain data."""
    return {
        "kind": kind,
        "level": level,
        "template": template,
        "values": {name: str(value) for name, value in values.items()},
    }


def exited(code: int) -> Words:
    """The job ended by itself, with an exit code that is not zero or by a signal (negative)."""
    if code >= 0:
        return words(FAILED, "ERROR", "The job ended with exit code {code}.", code=code)
    try:
        name = signals.Signals(-code).name
    except ValueError:
        name = str(-code)
    return words(FAILED, "ERROR", "The job was ended by signal {signal}.", signal=name)


def notebook(what: str, cell: int, error: str, text: str) -> Words:
    """What the notebook's runner tells: ``what`` is one of its ways to fail."""
    values: dict[str, object] = {"cell": cell, "error": error, "text": text}
    template = {
        "cell": "Cell {cell} of the notebook failed: {error}: {text}",
        "died": "The notebook's kernel died while it ran cell {cell}.",
        "no-kernel": "The notebook's kernel is not installed: {text}",
    }.get(what, "The notebook's kernel could not be started: {text}")
    return words(FAILED, "ERROR", template, **values)


def not_started(code: int, text: str) -> Words:
    """The container engine could not start the container (podman-run(1), EXIT STATUS)."""
    why = {
        126: "The container's command cannot be run ({code}): {text}",
        127: "The container has no such command ({code}): {text}",
    }.get(code, "The container engine could not start the container ({code}): {text}")
    return words(FAILED, "ERROR", why, code=code, text=text)


def cannot_launch(text: str) -> Words:
    """The host could not start the job at all."""
    return words(FAILED, "ERROR", "The job could not be started: {text}", text=text)


def memory_exceeded(limit: int, how: str) -> Words:
    """The job used more than ``limit`` bytes; ``how`` says who kept the limit."""
    return words(
        LIMIT,
        "ERROR",
        "The job was ended because it used more than its {mebibytes} MiB of memory (kept by {how}).",
        mebibytes=limit // 2**20,
        how=how,
    )


def memory_suspected(limit: int) -> Words:
    """A container was killed by nobody that we know of; its engine cannot say whether for want of memory."""
    return words(
        FAILED,
        "ERROR",
        "The job was ended by signal SIGKILL, as happens when it uses more than its {mebibytes} MiB of memory.",
        mebibytes=limit // 2**20,
    )


def memory_was_short(limit: int) -> Words:
    """A process of the job was ended for want of memory, but the job went on."""
    return words(
        LIMIT,
        "WARN",
        "The kernel ended a process of the job because the job used more than its {mebibytes} MiB of memory.",
        mebibytes=limit // 2**20,
    )


def disk_exceeded(what: str, limit: int) -> Words:
    """``what`` grew above ``limit`` bytes."""
    return words(
        LIMIT,
        "ERROR",
        "The job was ended because {what} took more than {mebibytes} MiB of disk.",
        what=what,
        mebibytes=round(limit / 2**20, 1),
    )


def time_is_over(*, expected: bool) -> Words:
    """The session's time ended before the job; ``expected``: it is a service, which runs until then."""
    if expected:
        return words(TIME, "INFO", "The session's time is over; its service was ended.")
    return words(TIME, "ERROR", "The job was ended because the session's time is over.")


def cancelled() -> Words:
    """Somebody asked for it."""
    return words(PROGRESS, "INFO", "The job was ended on request.")


def stopped() -> Words:
    """The supervisor was told to stop, as when the host shuts down."""
    return words(FAILED, "ERROR", "The job was ended because its supervisor was told to stop.")


def supervisor_lost(how: str) -> Words:
    """The supervisor itself was killed, and the job with it."""
    return words(FAILED, "ERROR", "The job's supervisor ended before the job ({how}); the job was ended.", how=how)


def no_network(engine: str) -> Words:
    """The engine's bridge network does not work on this host."""
    return words(
        PROGRESS,
        "WARN",
        "{engine} cannot make a bridge network on this host: the container runs without network to the outside.",
        engine=engine,
    )


def not_kept(what: str, limit: int) -> Words:
    """Results are dropped because they are too large."""
    return words(
        LIMIT,
        "WARN",
        "{what} is not kept: the results would take more than {mebibytes} MiB.",
        what=what,
        mebibytes=limit // 2**20,
    )
