"""The phases of a session and of its components, and the edges between them."""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """A session's phase; INITIAL is only seen inside a transaction."""

    INITIAL = "INITIAL"
    OFFERED = "OFFERED"
    ACCEPTED = "ACCEPTED"
    REJECTED = "REJECTED"
    EXPIRED = "EXPIRED"
    WAITING = "WAITING"
    PREPARING = "PREPARING"
    AVAILABLE = "AVAILABLE"
    RUNNING = "RUNNING"
    RELEASING = "RELEASING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class LifecyclePhase(StrEnum):
    """A component's phase."""

    INITIALIZING = "INITIALIZING"
    WAITING = "WAITING"
    PREPARING = "PREPARING"
    AVAILABLE = "AVAILABLE"
    RUNNING = "RUNNING"
    RELEASING = "RELEASING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


_STEPS = (
    Phase.ACCEPTED,
    Phase.WAITING,
    Phase.PREPARING,
    Phase.AVAILABLE,
    Phase.RUNNING,
    Phase.RELEASING,
)

LIVE = frozenset(_STEPS)
"""Phases of an accepted session that has not ended: the driver moves it."""

FINAL = frozenset({Phase.REJECTED, Phase.EXPIRED, Phase.COMPLETED, Phase.FAILED, Phase.CANCELLED})
"""Phases that a session never leaves."""

EDGES: dict[Phase, frozenset[Phase]] = {
    Phase.INITIAL: frozenset({Phase.OFFERED}),
    Phase.OFFERED: frozenset({Phase.ACCEPTED, Phase.REJECTED, Phase.EXPIRED}),
    **{
        step: frozenset({following, Phase.CANCELLED, Phase.FAILED})
        for step, following in zip(_STEPS, (*_STEPS[1:], Phase.COMPLETED), strict=True)
    },
    **{phase: frozenset() for phase in FINAL},
}
"""Where a session may go from each phase."""


def may_move(here: Phase, there: Phase) -> bool:
    """Whether the machine has the edge ``here`` → ``there``."""
    return there in EDGES[here]
