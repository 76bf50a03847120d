"""A stored session as clients see it: its fixed document, and what has become of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from ebhpc.api.reserving import tell_use
from ebhpc.model import FINAL, LIVE, Connector, EnumOption, LifecyclePhase, Phase, ScheduledSession
from ebhpc.model.times import duration_text, instant_text, interval_text, utc
from ebhpc.planning.queue import Outlook
from ebhpc.store import NewOffer, OfferSetRecord, SessionRecord

Moves = Mapping[Phase, float]
"""When a session came into each of its phases, POSIX seconds."""

_PARTS = ("executable", "compute")
_LISTS = ("storage", "data")

_COMPONENT: dict[Phase, tuple[LifecyclePhase, LifecyclePhase]] = {
    Phase.INITIAL: (LifecyclePhase.INITIALIZING, LifecyclePhase.INITIALIZING),
    Phase.OFFERED: (LifecyclePhase.INITIALIZING, LifecyclePhase.INITIALIZING),
    Phase.ACCEPTED: (LifecyclePhase.INITIALIZING, LifecyclePhase.INITIALIZING),
    Phase.REJECTED: (LifecyclePhase.CANCELLED, LifecyclePhase.CANCELLED),
    Phase.EXPIRED: (LifecyclePhase.CANCELLED, LifecyclePhase.CANCELLED),
    Phase.WAITING: (LifecyclePhase.WAITING, LifecyclePhase.WAITING),
    Phase.PREPARING: (LifecyclePhase.WAITING, LifecyclePhase.PREPARING),
    Phase.AVAILABLE: (LifecyclePhase.AVAILABLE, LifecyclePhase.AVAILABLE),
    Phase.RUNNING: (LifecyclePhase.RUNNING, LifecyclePhase.AVAILABLE),
    Phase.RELEASING: (LifecyclePhase.RELEASING, LifecyclePhase.RELEASING),
    Phase.COMPLETED: (LifecyclePhase.COMPLETED, LifecyclePhase.COMPLETED),
    Phase.FAILED: (LifecyclePhase.FAILED, LifecyclePhase.FAILED),
    Phase.CANCELLED: (LifecyclePhase.CANCELLED, LifecyclePhase.CANCELLED),
}
"""The phase of a session's executable and compute, and that of its storage and data."""


def phase_options(phase: Phase) -> tuple[Phase, ...]:
    """Return the phases to which the owner may move a session now."""
    if phase is Phase.OFFERED:
        return Phase.ACCEPTED, Phase.REJECTED
    return (Phase.CANCELLED,) if phase in LIVE else ()


_DECISION = EnumOption(path="phase", values=[*phase_options(Phase.OFFERED)])


def session_document(
    record: SessionRecord, base: str, moves: Moves | None = None, *, now: float | None = None
) -> dict[str, Any]:
    """Return a session as plain data, its URLs below ``base``, as it is ``now`` (None: at its last change)."""
    document: dict[str, Any] = msgspec.json.decode(record.document)
    meta = document.setdefault("meta", {})
    meta["uuid"] = record.uuid
    meta["url"] = f"{base}/sessions/{record.uuid}"
    meta["created"] = time_text(record.created)
    meta["modified"] = time_text(record.modified)
    if record.messages:
        meta["messages"] = msgspec.to_builtins(record.messages)
    if options := phase_options(record.phase):
        meta["options"] = [msgspec.to_builtins(EnumOption(path="phase", values=[*options]))]
    document["phase"] = record.phase
    if record.phase is Phase.OFFERED and record.expires is not None:
        document["expires"] = instant_text(record.expires)
    if connectors := _connectors(record):
        document["connectors"] = connectors
    _tell_components(document, record.phase)
    if record.outlook is not None and record.started is None and record.phase in LIVE:
        _tell_outlook(document, record.outlook)
    if moves or record.started is not None:
        _tell_real_times(document, record, moves or {})
    if record.wants.reserved:
        tell_use(document, record, record.modified if now is None else now)
    return document


def offered_document(offer: NewOffer, draft: ScheduledSession, now: float, base: str) -> ScheduledSession:
    """Complete the draft of an offer that was booked this moment; it reads as ``session_document`` would tell it."""
    meta = draft.meta
    assert meta is not None
    meta.url = f"{base}/sessions/{offer.uuid}"
    meta.created = meta.modified = _moment(now)
    meta.messages = list(offer.messages) or None
    meta.options = [_DECISION]
    draft.phase = Phase.OFFERED
    draft.expires = utc(offer.expires)
    of_work, of_things = _COMPONENT[Phase.OFFERED]
    draft.executable.phase = draft.compute.phase = of_work
    for element in (*(draft.storage or ()), *(draft.data or ())):
        element.phase = of_things
    return draft


def offerset_document(record: OfferSetRecord, offers: Sequence[object], base: str) -> dict[str, Any]:
    """Return an offer set as plain data with its offers."""
    document: dict[str, Any] = msgspec.json.decode(record.document)
    document["meta"]["url"] = f"{base}/offersets/{record.uuid}"
    if offers:
        document["offers"] = list(offers)
    return document


def time_text(posix: float) -> str:
    """Return POSIX seconds as RFC 3339, to a millisecond, as documents of the model are written."""
    return _moment(posix).replace(tzinfo=None).isoformat() + "Z"


def _moment(posix: float) -> datetime:
    return utc(round(posix, 3))


def _connectors(record: SessionRecord) -> list[dict[str, Any]]:
    """What a driver told of them; once the job has ended they lead nowhere."""
    over = record.phase in FINAL or record.phase is Phase.RELEASING
    return [msgspec.to_builtins(_finished(connector) if over else connector) for connector in record.connectors or ()]


def _finished(connector: Connector) -> Connector:
    return Connector(kind=connector.kind, protocol=connector.protocol, status="FINISHED")


def _tell_components(document: dict[str, Any], phase: Phase) -> None:
    of_work, of_things = _COMPONENT[phase]
    for name in _PARTS:
        if name in document:
            document[name]["phase"] = of_work
    for name in _LISTS:
        for element in document.get(name, ()):
            element["phase"] = of_things


def _tell_outlook(document: dict[str, Any], outlook: Outlook) -> None:
    """Say when a job that waits in a queue is expected to start by now."""
    start = interval_text(outlook.start, outlook.latest)
    for part in (document, *(document[name] for name in _PARTS if name in document)):
        schedule = part.setdefault("schedule", {})
        schedule["available"] = {**schedule.get("available", {}), "start": start}


def _tell_real_times(document: dict[str, Any], record: SessionRecord, moves: Moves) -> None:
    """Put what happened in the place of what was planned, as far as it has happened."""
    schedule = document.setdefault("schedule", {})
    _tell_span(schedule, "preparing", moves.get(Phase.PREPARING), moves.get(Phase.AVAILABLE))
    ended = record.ended if record.ended is not None else moves.get(Phase.RELEASING)
    if record.started is not None:
        start = int(record.started)
        available = {**schedule.get("available", {}), "start": interval_text(start, start)}
        if ended is not None:
            available["duration"] = duration_text(max(int(ended) - start, 0))
        schedule["available"] = available
        for name in _PARTS:
            if name in document:
                document[name].setdefault("schedule", {})["available"] = dict(available)
    final = moves.get(Phase.COMPLETED) or moves.get(Phase.FAILED)
    _tell_span(schedule, "releasing", moves.get(Phase.RELEASING), final)


def _tell_span(schedule: dict[str, Any], name: str, begun: float | None, done: float | None) -> None:
    if begun is None:
        return
    span = {**schedule.get(name, {}), "start": instant_text(int(begun))}
    if done is not None:
        span["duration"] = duration_text(max(int(done) - int(begun), 0))
    schedule[name] = span
