"""What a user wants to know of a session, picked from its document; None where that does not say."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from ebhpc.model import (
    EnumOption,
    Message,
    MetricItem,
    Range,
    SimpleCost,
    SimpleMetric,
    SimpleSession,
    UnknownElement,
    kinds,
)
from ebhpc.model.times import parse_duration, parse_interval, utc


def uuid_of(session: SimpleSession) -> str:
    """Return the session's UUID; an empty text for a broker that gives none."""
    return (session.meta.uuid if session.meta else None) or ""


def name_of(session: SimpleSession) -> str:
    """Return the name of the session, or else of what it executes."""
    for component in (session, session.executable):
        meta = getattr(component, "meta", None)
        if meta is not None and meta.name:
            return str(meta.name)
    return ""


def messages_of(component: Any) -> Sequence[Message]:
    """Return a component's messages."""
    meta = getattr(component, "meta", None)
    return (meta.messages if meta is not None else None) or ()


def start_of(session: SimpleSession) -> tuple[datetime, datetime] | None:
    """Return the interval in which the session starts."""
    schedule = getattr(session, "schedule", None)
    if schedule is None or schedule.available is None or not schedule.available.start:
        return None
    text = schedule.available.start
    try:
        start, latest = parse_interval(text if "/" in text else f"{text}/PT0S")
    except ValueError:
        return None
    return utc(start), utc(latest)


def duration_of(session: SimpleSession) -> timedelta | None:
    """Return how long the session may run."""
    schedule = getattr(session, "schedule", None)
    if schedule is None or schedule.available is None or not schedule.available.duration:
        return None
    try:
        return timedelta(seconds=parse_duration(schedule.available.duration))
    except ValueError:
        return None


def cores_of(session: SimpleSession) -> int | None:
    """Return the cores that the session gets for certain."""
    return _least(getattr(session.compute, "cores", None))


def memory_of(session: SimpleSession) -> int | None:
    """Return the memory, GiB, that the session gets for certain."""
    return _least(getattr(session.compute, "memory", None))


def price_of(session: SimpleSession) -> float | None:
    """Return the most that the session may cost in money."""
    for cost in session.costs or ():
        if isinstance(cost, SimpleCost) and cost.type == kinds.MONETARY:
            return cost.max if cost.max is not None else cost.min
    return None


def words_of_items(items: Sequence[Any] | None) -> str:
    """Say costs or metrics: ``monetary 1.5 to 2, energy 0.3``."""
    return ", ".join(
        f"{_short_type(item)} {_words_of_range(item.min, item.max)}"
        for item in items or ()
        if isinstance(item, SimpleCost | SimpleMetric)
    )


def words_of_range_of(items: Sequence[Any] | None, type_: str) -> str:
    """Say the cost or metric of a type: ``1.5 to 2``; nothing where there is none."""
    for item in items or ():
        if isinstance(item, SimpleCost | SimpleMetric) and item.type == type_:
            return _words_of_range(item.min, item.max)
    return ""


def _least(range_: Range | None) -> int | None:
    if not isinstance(range_, Range):
        return None
    return range_.min if range_.min is not None else range_.max


def _short_type(item: SimpleCost | MetricItem) -> str:
    return (item.type or "").rpartition(":")[2].rpartition("/")[2]


def _words_of_range(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return f"up to {high:g}" if high is not None else f"at least {low:g}" if low is not None else "?"
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def words_of_kind(component: Any) -> str:
    """Return the last part of a component's kind: ``jupyter-notebook``, and its name where it has one."""
    kind = component.kind if isinstance(component, UnknownElement) else kind_of(component)
    word = (kind or "unknown").rpartition("/")[2].removesuffix(".yaml")
    meta = getattr(component, "meta", None)
    return f"{word} {meta.name}" if meta is not None and meta.name else word


def words_of_component(component: Any) -> str:
    """Return a component's kind, name and phase."""
    phase = getattr(component, "phase", None)
    return f"{words_of_kind(component)}, {phase}" if phase else words_of_kind(component)


def possible_phases(session: SimpleSession) -> list[str]:
    """Return the phases that the broker says a client may ask for now."""
    options = (session.meta.options if session.meta else None) or ()
    return [
        value
        for option in options
        if isinstance(option, EnumOption) and option.path.lstrip("/") == "phase"
        for value in option.values
    ]


def kind_of(component: Any) -> str | None:
    """Return the kind URI of a component's type."""
    tag = getattr(getattr(type(component), "__struct_config__", None), "tag", None)
    return tag if isinstance(tag, str) else None
