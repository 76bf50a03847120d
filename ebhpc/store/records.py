"""Rows as frozen Structs, and how they are read from a result."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from ebhpc.model import Allocation, Connector, Message, Phase, Sources, Usage
from ebhpc.planning import Booking
from ebhpc.planning.queue import Outlook


class OfferSetRecord(Struct, frozen=True, kw_only=True):
    """An offer set: ``document`` is its wire JSON without the offers, ``expires`` that of its last offer."""

    uuid: str
    owner: str
    created: float
    expires: int
    document: bytes


class Wants(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a session asks its platform for beside its allocations.

    ``reserved``: nothing is run, the time is its user's. ``idle``: seconds without use after which that is given back.
    ``replaces``: the session that ends when this one stands; ``extends`` is the native name of what that one holds,
    where this one goes on with it on the same nodes. ``sources``: from where its things may be fetched.
    """

    licences: dict[str, int] = {}
    features: tuple[str, ...] = ()
    partition: str | None = None
    exclusive: bool = False
    reserved: bool = False
    idle: int | None = None
    replaces: str | None = None
    extends: str | None = None
    sources: Sources = Sources()


class Approval(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """That an operator must approve a session, by ``deadline`` (POSIX seconds), and what became of it.

    ``approved`` None: nothing is decided yet. ``decided`` is when it was, ``operator`` by whom, a username.
    """

    deadline: int
    approved: bool | None = None
    decided: float | None = None
    operator: str | None = None
    reason: str | None = None


class SessionRecord(Struct, frozen=True, kw_only=True):
    """A session as it is stored; see ``tables.sessions`` for the columns."""

    uuid: str
    offerset: str
    position: int
    owner: str
    username: str
    platform: str
    phase: Phase
    created: float
    modified: float
    expires: int | None = None
    start: int
    latest: int
    finish: int
    duration: int
    firm: bool
    allocations: tuple[Allocation, ...]
    document: bytes
    messages: tuple[Message, ...] = ()
    connectors: tuple[Connector, ...] | None = None
    held: str | None = None
    native: str | None = None
    node: str | None = None
    exit_code: int | None = None
    started: float | None = None
    ended: float | None = None
    outcome: Phase | None = None
    unfinished: bool = False
    submitting: bool = False
    attempt: int = 0
    troubled: float | None = None
    due: float = 0.0
    lease: str | None = None
    lease_until: float | None = None
    kept_until: float | None = None
    promised: Outlook | None = None
    wants: Wants = Wants()
    outlook: Outlook | None = None
    usage: Usage | None = None
    approval: Approval | None = None


class EventRecord(Struct, frozen=True, kw_only=True):
    """One phase move: when, from where to where, why."""

    session: str
    time: float
    previous: Phase
    phase: Phase
    cause: str


_allocations = msgspec.json.Decoder(tuple[Allocation, ...])
_messages = msgspec.json.Decoder(tuple[Message, ...])
_connectors = msgspec.json.Decoder(tuple[Connector, ...])
_counts = msgspec.json.Decoder(dict[str, int])
_outlook = msgspec.json.Decoder(Outlook)
_usage = msgspec.json.Decoder(Usage)
_wants = msgspec.json.Decoder(Wants)
_approval = msgspec.json.Decoder(Approval)
_encode = msgspec.json.Encoder().encode


def json_text(value: Any) -> str:
    """A value of the model as JSON text for a column."""
    return _encode(value).decode()


def added_messages(stored: str, messages: tuple[Message, ...]) -> str:
    """Return a stored JSON list of messages with others at its end."""
    added = json_text(messages)
    return added if stored == "[]" else f"{stored[:-1]},{added[1:]}"


def allocations_of(stored: str) -> tuple[Allocation, ...]:
    """Read a stored JSON list of allocations."""
    return _allocations.decode(stored)


def session_of(row: Any) -> SessionRecord:
    """Read a row of ``sessions`` joined with its owner's ``username``."""
    values = dict(row._mapping)
    values["phase"] = Phase(values["phase"])
    values["outcome"] = Phase(values["outcome"]) if values["outcome"] else None
    values["allocations"] = allocations_of(values["allocations"])
    values["messages"] = _messages.decode(values["messages"])
    values["connectors"] = _connectors.decode(values["connectors"]) if values["connectors"] else None
    for name in ("promised", "outlook"):
        values[name] = _outlook.decode(values[name]) if values[name] else None
    values["usage"] = _usage.decode(values["usage"]) if values["usage"] else None
    values["approval"] = _approval.decode(values["approval"]) if values["approval"] else None
    values["wants"] = _wants.decode(values["wants"] or "{}")
    values["document"] = values["document"].encode()
    return SessionRecord(**values)


def booking_of(row: Any) -> Booking:
    """Read a row of ``bookings``."""
    return Booking(
        id=row.id,
        session=row.session,
        node=row.node,
        start=row.start,
        end=row.finish,
        cores=row.cores,
        memory=row.memory,
        devices=_counts.decode(row.devices) if row.devices != "{}" else {},
        licences=_counts.decode(row.licences) if row.licences != "{}" else {},
        expires=row.expires,
    )
