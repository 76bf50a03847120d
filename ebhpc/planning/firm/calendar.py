"""When a site promises nothing, and which week it is: clock times of its zone as intervals of POSIX seconds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from ebhpc.config.firm_time import DAYS, Closed, Hours

_A_DAY = timedelta(days=1)


class Interval(NamedTuple):
    """From ``start`` to ``end``, half open, POSIX seconds."""

    start: int
    end: int


def local(instant: int, zone: ZoneInfo) -> datetime:
    """Return an instant as the zone's clocks show it."""
    return datetime.fromtimestamp(instant, zone)


def outside_hours(hours: Sequence[Hours], zone: ZoneInfo, start: int, end: int) -> list[Interval]:
    """Return the parts of [``start``, ``end``) that lie in none of the hours, in order."""
    inside = []
    day, last = local(start, zone).date() - _A_DAY, local(end, zone).date() + _A_DAY
    while day <= last:
        inside += [
            Interval(_at(day, each.from_, zone), _at(day + _A_DAY if each.to < each.from_ else day, each.to, zone))
            for each in hours
            if DAYS[day.weekday()] in each.days
        ]
        day += _A_DAY
    return between(joined(inside), start, end)


def closed_times(closed: Iterable[Closed], zone: ZoneInfo) -> list[tuple[Interval, Closed]]:
    """Return the times that a site has closed, as intervals."""
    return [(Interval(each.start.posix(zone), each.end.posix(zone)), each) for each in closed]


def weeks(zone: ZoneInfo, start: int, end: int) -> list[Interval]:
    """Return the weeks, Monday to Sunday, that [``start``, ``end``) touches."""
    first = local(start, zone).date()
    monday = first - timedelta(days=first.weekday())
    found = []
    while (begin := _at(monday, 0, zone)) < end:
        monday += timedelta(days=7)
        found.append(Interval(begin, _at(monday, 0, zone)))
    return found


def joined(intervals: Iterable[Interval]) -> list[Interval]:
    """Return intervals in order, those that touch as one."""
    found: list[Interval] = []
    for each in sorted(each for each in intervals if each.start < each.end):
        if found and each.start <= found[-1].end:
            found[-1] = Interval(found[-1].start, max(found[-1].end, each.end))
        else:
            found.append(each)
    return found


def between(intervals: Iterable[Interval], start: int, end: int) -> list[Interval]:
    """Return what of [``start``, ``end``) lies in none of the intervals, which are in order and do not touch."""
    found = []
    for each in intervals:
        if each.start > start:
            found.append(Interval(start, min(each.start, end)))
        start = max(start, each.end)
    if start < end:
        found.append(Interval(start, end))
    return [each for each in found if each.start < each.end]


def _at(day: date, minutes: int, zone: ZoneInfo) -> int:
    """Return the instant at which a clock shows so many minutes since midnight; a clock that is moved shows it once."""
    extra, rest = divmod(int(minutes), 24 * 60)
    moment = datetime.combine(day + extra * _A_DAY, time(rest // 60, rest % 60), zone)
    return int(moment.timestamp())
