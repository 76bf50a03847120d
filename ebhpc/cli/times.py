"""Times and durations in the words of a user in their own time zone."""

from __future__ import annotations

from datetime import datetime, timedelta

_SOON = timedelta(minutes=10)
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def words_of_duration(length: timedelta) -> str:
    """Say a duration with its two greatest units: ``1 h 30 min``, ``45 s``."""
    rest = round(length.total_seconds())
    sign, rest = ("-", -rest) if rest < 0 else ("", rest)
    parts: list[str] = []
    for seconds, unit in _UNITS:
        count, rest = divmod(rest, seconds)
        if count:
            parts.append(f"{count} {unit}")
        elif parts:
            break
    return sign + " ".join(parts[:2] or ["0 s"])


def words_of_distance(moment: datetime, now: datetime) -> str:
    """Say how far a moment is from now: ``in 50 s``, ``in 5 min``, ``2 h ago``, ``now``."""
    distance = abs(moment - now)
    if distance < timedelta(seconds=1):
        return "now"
    if distance >= _SOON:
        distance = timedelta(minutes=distance // timedelta(minutes=1))
    words = words_of_duration(distance)
    return f"in {words}" if moment > now else f"{words} ago"


def words_of_moment(moment: datetime, now: datetime) -> str:
    """Say a moment in the user's time zone: ``today 14:05``, ``Tue 24 Nov 09:00``; soon ones with seconds."""
    local, today = moment.astimezone(), now.astimezone().date()
    clock = local.strftime("%H:%M:%S" if local.second and abs(moment - now) < _SOON else "%H:%M")
    days = (local.date() - today).days
    if days in (-1, 0, 1):
        return f"{('yesterday', 'today', 'tomorrow')[days + 1]} {clock}"
    day = local.strftime("%a %d %b" if local.year == now.astimezone().year else "%d %b %Y")
    return f"{day} {clock}"


def words_of_interval(start: datetime, end: datetime, now: datetime) -> str:
    """Say when something starts: ``today 14:05``, ``today 14:05 to 14:20``, ``now to 14:20``."""
    beginning = "now" if start <= now <= end and end > start else words_of_moment(start, now)
    if end <= start:
        return beginning
    same_day = start.astimezone().date() == end.astimezone().date()
    finish = words_of_moment(end, now)
    return f"{beginning} to {finish.rpartition(' ')[2] if same_day else finish}"


def zone_name(now: datetime) -> str:
    """Return the name of the user's time zone, as times are shown in it."""
    return now.astimezone().strftime("%Z")
