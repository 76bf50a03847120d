"""When a request wants to run, and for how long."""

from __future__ import annotations

from ebhpc.model.documents import RequestedSchedule
from ebhpc.model.messages import MessageKind
from ebhpc.model.reading.findings import Findings
from ebhpc.model.structure import shown
from ebhpc.model.times import instant_text, parse_duration, parse_interval

DEFAULT_DURATION = 2 * 3600
"""Seconds that a request is for if it does not say."""

DEFAULT_WAIT = 2 * 3600
"""Seconds from now in which a request may start if it does not say."""


def read_schedule(schedule: RequestedSchedule | None, now: int, findings: Findings) -> tuple[int, int, int]:
    """Return duration (seconds), earliest and latest start (POSIX seconds); defaults where they are wrong."""
    requested = schedule.requested if schedule else None
    duration, earliest, latest = DEFAULT_DURATION, now, now + DEFAULT_WAIT
    if requested is None:
        return duration, earliest, latest
    if requested.duration is not None:
        try:
            duration = parse_duration(requested.duration)
        except ValueError as error:
            _unreadable("/schedule/requested/duration", error, findings)
    if requested.start is not None:
        try:
            earliest, latest = parse_interval(requested.start)
        except ValueError as error:
            _unreadable("/schedule/requested/start", error, findings)
        else:
            earliest, latest = _from_now_on(requested.start, earliest, latest, now, findings)
    return duration, earliest, latest


def _from_now_on(text: str, earliest: int, latest: int, now: int, findings: Findings) -> tuple[int, int]:
    path = "/schedule/requested/start"
    if latest < now:
        findings.reject(
            MessageKind.INVALID_VALUE,
            "the start interval {value} at {path} lies in the past: it is {now}",
            path,
            value=shown(text),
            now=instant_text(now),
        )
    horizon = now + findings.limits.horizon
    if earliest > horizon:
        findings.reject(
            MessageKind.RESOURCE_LIMIT,
            "the start interval {value} at {path} begins too far ahead: starts up to {limit} are planned",
            path,
            value=shown(text),
            limit=instant_text(horizon),
        )
    return max(earliest, now), min(latest, horizon)


def _unreadable(path: str, error: ValueError, findings: Findings) -> None:
    findings.reject(MessageKind.INVALID_VALUE, "{path} cannot be used: {reason}", path, reason=error)
