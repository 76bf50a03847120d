"""ISO 8601 durations, intervals and instants to and from POSIX seconds.

Everything here is whole seconds in UTC: a fraction is rounded up, so that a duration is never shorter than
what was asked. Wrong texts raise ValueError with a message that says what was expected; nothing else is ever
raised.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import isodate

MAX_DURATION = 100 * 366 * 86_400
"""Durations above this many seconds, a century, are refused: sums with them stay within 64 bits."""

_LONGEST_TEXT = 100
_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# 9999-12-31T23:59:59Z and 0001-01-01T00:00:00Z: what datetime can express.
_LAST = 253_402_300_799
_FIRST = -62_135_596_800

_DURATION = re.compile(r"P(?=.)[0-9YMWD.,]*(?:T(?=.)[0-9HMS.,]+)?", re.ASCII)
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d(?:[Tt]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:[Zz]|[+-]\d\d(?::?\d\d)?)?)?", re.ASCII)


def utc(posix: float) -> datetime:
    """Return POSIX seconds as a datetime in UTC.

    Raises:
        ValueError: outside of the years 1 to 9999.
    """
    if not _FIRST <= posix <= _LAST:
        raise ValueError(f"{posix} seconds since 1970 is outside of the years 1 to 9999")
    return _EPOCH + timedelta(seconds=posix)


@lru_cache(maxsize=4096)
def instant_text(posix: int) -> str:
    """Return POSIX seconds as an RFC 3339 time, such as 2030-01-31T12:00:00Z.

    Raises:
        ValueError: outside of the years 1 to 9999.
    """
    return utc(posix).replace(tzinfo=None).isoformat() + "Z"


@lru_cache(maxsize=1024)
def duration_text(seconds: int) -> str:
    """Return seconds as an ISO 8601 duration, such as PT2H30M or P1DT1S; a day is 24 hours, zero is PT0S.

    Raises:
        ValueError: a negative number.
    """
    if seconds < 0:
        raise ValueError(f"a duration cannot be negative: {seconds}")
    days, rest = divmod(seconds, 86_400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    date = f"{days}D" if days else ""
    time = "".join(f"{count}{unit}" for count, unit in ((hours, "H"), (minutes, "M"), (rest, "S")) if count)
    return f"P{date}T{time}" if time else f"P{date or 'T0S'}"


def interval_text(start: int, latest: int) -> str:
    """Return the interval from ``start`` to ``latest`` (POSIX seconds): start/end, or start/PT0S.

    Raises:
        ValueError: outside of the years 1 to 9999, or ``latest`` before ``start``.
    """
    if latest < start:
        raise ValueError(f"an interval cannot end ({latest}) before it starts ({start})")
    return f"{instant_text(start)}/{'PT0S' if latest == start else instant_text(latest)}"


def parse_duration(text: str) -> int:
    """Read an ISO 8601 duration, such as PT90M, P1D, P1W or PT0.5H; return seconds, a fraction rounded up.

    Fractions are exact to a microsecond.

    Raises:
        ValueError: not a duration, months or years (their length is ambiguous), zero, negative, above
        MAX_DURATION.
    """
    seconds = _read_duration(text)
    if seconds == 0:
        raise ValueError(f"{_shown(text)} is no time at all; a duration must be above zero")
    return seconds


def _read_duration(text: str) -> int:
    if text.startswith("-"):
        raise ValueError(f"{_shown(text)} is negative; a duration must be above zero")
    if len(text) > _LONGEST_TEXT or not _DURATION.fullmatch(text):
        raise ValueError(f"{_shown(text)} is not an ISO 8601 duration such as PT2H30M or P1D")
    date = text.partition("T")[0]
    if "M" in date or "Y" in date:
        raise ValueError(f"{_shown(text)} is ambiguous: months and years differ in length; use weeks, days or hours")
    try:
        length = isodate.parse_duration(text)
    except OverflowError:
        raise ValueError(f"{_shown(text)} is longer than a century") from None
    except ValueError:  # isodate's own error derives from it
        length = None
    if not isinstance(length, timedelta):
        raise ValueError(f"{_shown(text)} is not an ISO 8601 duration such as PT2H30M or P1D")
    seconds = -(-(length // _MICROSECOND) // 1_000_000)
    if seconds > MAX_DURATION:
        raise ValueError(f"{_shown(text)} is longer than a century")
    return seconds


def parse_interval(text: str) -> tuple[int, int]:
    """Read an ISO 8601 interval, start/end, start/duration or duration/end; return its ends (POSIX seconds).

    A date without a time means its first second; a time without a zone is UTC; a duration may be zero. Both
    ends are rounded up to whole seconds: an interval of less than a second is the instant that follows.

    Raises:
        ValueError: not an interval, its end before its start, an end outside of the years 1 to 9999.
    """
    first, slash, second = text.partition("/") if len(text) <= _LONGEST_TEXT else (text, "", "")
    if not slash or (first.startswith(("P", "-")) and second.startswith(("P", "-"))):
        raise ValueError(
            f"{_shown(text)} is not an ISO 8601 interval such as 2030-01-31T12:00:00Z/2030-01-31T18:00:00Z"
            " or 2030-01-31T12:00:00Z/PT6H"
        )
    if second.startswith(("P", "-")):
        start = _read_instant(first)
        end = start + _read_duration(second)
    elif first.startswith(("P", "-")):
        end = _read_instant(second)
        start = end - _read_duration(first)
    else:
        start, end = _read_instant(first), _read_instant(second)
    if end < start:
        raise ValueError(f"{_shown(text)} ends before it starts")
    utc(start), utc(end)
    return start, end


def _read_instant(text: str) -> int:
    if not _INSTANT.fullmatch(text):
        raise ValueError(f"{_shown(text)} is not an ISO 8601 time such as 2030-01-31T12:00:00Z")
    try:
        moment = datetime.fromisoformat(text.upper())
    except ValueError as error:
        raise ValueError(f"{_shown(text)} is not a time of the calendar: {error}") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    # datetime keeps microseconds and drops what is finer: that is rounded up too, with the rest of the
    # second.
    fraction = re.search(r"[.,](\d+)", text)
    up = fraction is not None and fraction[1].strip("0") != ""
    return (moment.replace(microsecond=0) - _EPOCH) // timedelta(seconds=1) + up


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 60 else text[:57] + "...")
