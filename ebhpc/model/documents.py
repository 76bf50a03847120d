"""The documents that travel: requests, sessions, offer sets."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from ebhpc.model import kinds
from ebhpc.model.elements import Component, Schedule, Wire
from ebhpc.model.phases import Phase


class RequestedItem(Wire):
    """When and for how long: ``duration`` ISO 8601, ``start`` an ISO 8601 interval."""

    duration: str | None = None
    start: str | None = None


class RequestedSchedule(Wire):
    """The schedule block of a request."""

    requested: RequestedItem | None = None


class ExecutionRequest(Wire):
    """A request for offers. Elements are Structs of their kind, or UnknownElement."""

    executable: Any = None
    compute: Any = None
    storage: list[Any] | None = None
    data: list[Any] | None = None
    schedule: RequestedSchedule | None = None
    costs: list[Any] | None = None
    metrics: list[Any] | None = None


class Connector(Wire):
    """A way to reach a running session; ``location`` is a URL.

    Of our own, for reserved time: the batch system's name of the ``reservation``, the ``partition`` that its nodes are
    in, and the ``commands`` that use it, each a line to type.
    """

    kind: str | None = None
    status: Literal["PREPARING", "AVAILABLE", "FINISHED"] | None = None
    protocol: str | None = None
    location: str | None = None
    reservation: str | None = None
    partition: str | None = None
    commands: list[str] | None = None


class ExecutionSession(Component):
    """Base of all sessions."""


class SimpleSession(ExecutionSession, tag=kinds.SIMPLE_SESSION):
    """A session without a schedule."""

    phase: Phase | None = None
    expires: datetime | None = None
    executable: Any = None
    compute: Any = None
    storage: list[Any] | None = None
    data: list[Any] | None = None
    connectors: list[Connector] | None = None


class ScheduledSession(SimpleSession, tag=kinds.SCHEDULED_SESSION):
    """A session with a schedule: what ebhpc offers."""

    schedule: Schedule | None = None


class OfferSet(Component, tag=kinds.OFFERSET):
    """The answer to a request."""

    result: Literal["YES", "NO"] | None = None
    description: str | None = None
    offers: list[Any] | None = None
