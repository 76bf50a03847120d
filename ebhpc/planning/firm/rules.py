"""Which rules of firm time hold for somebody, and what a site knows when it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from zoneinfo import ZoneInfo

from msgspec import Struct

from ebhpc.config.firm_time import FirmRules, FirmTime, GroupRules
from ebhpc.model.sessions import Window
from ebhpc.planning.timeline import Timeline

HOUR = 3600

_RULES = FirmRules.__struct_fields__


class Span(Struct, frozen=True, kw_only=True, gc=False):
    """Firm time that somebody has: from ``start`` to ``end`` (POSIX seconds), on so many nodes, parts of them included.

    ``together``: of several spans with the same one the largest counts, as of the offers of a set, of which one is
    accepted at most.
    """

    start: int
    end: int
    nodes: float
    together: str = ""


class Site(Struct, frozen=True, kw_only=True):
    """A platform, its rules for the user who asks, what is promised there, and what the user has already.

    ``beside`` are windows that are promised, too, and that the timeline does not have yet. ``booked`` are its
    bookings as arrays, where they were looked at already (see ``promised.with_bookings_read``).
    """

    platform: str
    rules: FirmRules
    zone: ZoneInfo
    timeline: Timeline
    now: int
    has: tuple[Span, ...] = ()
    beside: tuple[Window, ...] = ()
    booked: Any = None
    prefer_cheap: bool = True


def merged(platform: FirmTime, group: GroupRules | None) -> FirmRules:
    """Return the platform's rules with those of a group in their place, where it has any."""
    if group is None:
        return FirmRules(**{name: getattr(platform, name) for name in _RULES})
    ours = {name: getattr(group, name) for name in _RULES}
    return FirmRules(**{name: getattr(platform, name) if one is None else one for name, one in ours.items()})


def group_of(platform: FirmTime, matching: Sequence[bool]) -> GroupRules | None:
    """Return the first of the platform's groups that is said to match."""
    return next((group for group, fits in zip(platform.groups, matching, strict=True) if fits), None)
