"""Sessions, windows and messages as the page's scripts want them: flat, and with instants as POSIX seconds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from ebhpc.api.placing import Planned
from ebhpc.api.rendering import Moves, phase_options, session_document
from ebhpc.model import Allocation, Message
from ebhpc.store import SessionRecord

_MIB_PER_GIB = 1024


def message_facts(message: Message) -> dict[str, Any]:
    """Return a message: what it is about, its level, its words, and the ``path`` of the element that it means."""
    return {
        "kind": message.kind,
        "level": message.level or "INFO",
        "text": str(message),
        "time": message.time.timestamp() if message.time is not None else None,
        "path": (message.values or {}).get("path"),
        "platform": (message.values or {}).get("platform"),
    }


def messages_facts(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """Return several."""
    return [message_facts(one) for one in messages]


def window_facts(planned: Planned) -> dict[str, Any]:
    """Return a window that was planned and not booked."""
    window = planned.window
    return {
        "platform": planned.platform.name,
        "start": window.start,
        "latest": window.latest,
        "end": window.end if window.firm else window.latest + window.duration,
        "duration": window.duration,
        "firm": window.firm,
        "expected": window.expected,
        "confidence": window.confidence,
        "label": window.label,
        "shares": shares_facts(window.allocations),
        "costs": msgspec.to_builtins(planned.quote.costs),
        "metrics": msgspec.to_builtins(planned.quote.metrics),
        "messages": messages_facts(planned.messages),
    }


def session_facts(record: SessionRecord, base: str, moves: Moves | None = None) -> dict[str, Any]:
    """Return a session; ``document`` is what the API answers of it, whose parts are taken over where they help."""
    document = session_document(record, base, moves)
    executable = document.get("executable") or {}
    outlook = record.outlook or record.promised
    return {
        "uuid": record.uuid,
        "offerset": record.offerset,
        "name": (document.get("meta") or {}).get("name"),
        "owner": record.username,
        "platform": record.platform,
        "phase": record.phase,
        "options": list(phase_options(record.phase)),
        "created": record.created,
        "modified": record.modified,
        "expires": record.expires,
        "start": outlook.start if outlook and not record.firm else record.start,
        "latest": outlook.latest if outlook and not record.firm else record.latest,
        "end": record.finish,
        "duration": record.duration,
        "firm": record.firm,
        "expected": outlook.expected if outlook else None,
        "confidence": outlook.confidence if outlook else None,
        "promised": msgspec.to_builtins(record.promised) if record.promised else None,
        "started": record.started,
        "ended": record.ended,
        "node": record.node,
        "exit_code": record.exit_code,
        "kept_until": record.kept_until,
        "shares": shares_facts(record.allocations),
        "moves": {str(phase): moment for phase, moment in (moves or {}).items()},
        "kind": executable.get("kind"),
        "what": _what(executable),
        "jobs": executable.get("jobs"),
        "connectors": document.get("connectors", []),
        "costs": document.get("costs") or [],
        "metrics": document.get("metrics") or [],
        "messages": messages_facts(record.messages),
    }


def shares_facts(allocations: Sequence[Allocation]) -> list[dict[str, Any]]:
    """Return what is taken of each node; memory in GiB."""
    return [
        {
            "node": share.node,
            "cores": share.cores,
            "memory": share.memory / _MIB_PER_GIB,
            "devices": share.devices,
        }
        for share in allocations
    ]


def _what(executable: dict[str, Any]) -> str:
    """Return one line that says what is executed."""
    image = executable.get("image") or {}
    locations = image.get("locations") or [None]
    found = executable.get("location") or locations[0]
    if found:
        return str(found)
    if script := executable.get("script"):
        return next((line for line in str(script).splitlines() if line and not line.startswith("#")), "a script")
    return ""
