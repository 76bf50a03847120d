"""What the driver tells the owner of a session, in words: each a message with its time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from ebhpc.model import Level, Message, MessageKind, message
from ebhpc.model.times import duration_text, instant_text, utc


def notice(now: float, kind: MessageKind, level: Level, template: str, **values: object) -> Message:
    """A message of the driver's own, with its time (POSIX seconds)."""
    return message(kind, template, level=level, time=utc(now), **values)


def progress(now: float, template: str, **values: object) -> Message:
    """A message of the session's ordinary life."""
    return notice(now, MessageKind.PROGRESS, "INFO", template, **values)


def at(moment: float) -> str:
    """An instant (POSIX seconds) for a message."""
    return instant_text(round(moment))


def lasting(seconds: float) -> str:
    """A duration (seconds) for a message."""
    return duration_text(max(0, round(seconds)))


def timed(messages: Iterable[Message], now: float) -> tuple[Message, ...]:
    """A plugin's messages, those without a time with the present one."""
    return tuple(one if one.time is not None else replace(one, time=utc(now)) for one in messages)


def new_ones(present: Sequence[Message], offered: Iterable[Message], now: float) -> tuple[Message, ...]:
    """Of messages that a plugin gives again and again, those that the session has not: times do not count."""
    offered = tuple(offered)
    if not offered:
        return ()
    known = {_content(one) for one in present}
    found = []
    for one in offered:
        content = _content(one)
        if content not in known:
            known.add(content)
            found.append(one)
    return timed(found, now)


def _content(one: Message) -> tuple[object, ...]:
    return one.kind, one.level, one.template, one.filled, tuple(sorted((one.values or {}).items()))
