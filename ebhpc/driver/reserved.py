"""What follows for reserved time from an observation: nothing of ours runs in it, its user's jobs come and go.

It is AVAILABLE when its reservation stands, RUNNING from its first job on, and over when its time is, when nobody used
it for as long as was agreed, when its user ends it, or when another session replaces it.
"""

from __future__ import annotations

import math
from datetime import UTC

from ebhpc.driver.moves import Move
from ebhpc.driver.notices import at, lasting, new_ones, notice, progress
from ebhpc.model import Message, MessageKind, Observation, Phase, Usage
from ebhpc.store import Change, SessionRecord

LONGEST_WARNING = 600.0
"""Seconds before idle time is given back that its user is warned, at most; half of the time agreed on, where less."""

_HOUR = 3600
_NOTHING = Usage()
_WARNING = (
    "nothing has run in the reserved time since {since}; it is given back at {until}, unless something runs before"
)


def begin_of(record: SessionRecord) -> int:
    """When the time begins, POSIX seconds: fixed with its end, when it is held."""
    return record.finish - record.duration


def fixed_finish(record: SessionRecord, now: float) -> int | None:
    """When the time ends, POSIX seconds, where it begins now: a window near now is booked for the latest start.

    None: as it is booked.
    """
    finish = min(record.finish, max(record.start, math.ceil(now)) + record.duration)
    return finish if finish < record.finish else None


def stands(record: SessionRecord, now: float) -> Message:
    """What to tell when the reservation stands."""
    return progress(
        now,
        "the reservation stands on {platform}, from {start} to {end}; the session's connectors say how to use it",
        platform=record.platform,
        start=at(begin_of(record)),
        end=at(record.finish),
    )


def observed(record: SessionRecord, seen: Observation, now: float, *, settled: bool) -> tuple[Move, ...]:
    """The moves that follow from an observation of a reservation that stands; none where it says nothing new."""
    if seen.state == "GONE":
        return _gone(record, now) if settled else ()
    usage = seen.usage if seen.usage is not None else record.usage or _NOTHING
    moves = _news(record, seen, usage, now)
    if seen.state == "FAILED":
        lost = notice(now, MessageKind.FAILED, "ERROR", "the reservation could not be kept")
        return (*moves, *_over(record, usage, now, (lost,), "its reservation was lost", Phase.FAILED))
    ended = seen.ended if seen.ended is not None else now
    if seen.state == "SUCCEEDED" or now >= record.finish:
        told = _summary(record, usage, min(ended, record.finish), now)
        return (*moves, *_over(record, usage, now, (told,), "its time is over", Phase.COMPLETED))
    return (*moves, *_idle(record, usage, now))


def _news(record: SessionRecord, seen: Observation, usage: Usage, now: float) -> tuple[Move, ...]:
    """What is new of a reservation that goes on; its first job makes it RUNNING."""
    messages = new_ones(record.messages, seen.messages, now)
    connectors = seen.connectors if seen.connectors != record.connectors else None
    if record.attempt:
        messages += (progress(now, "{platform} answers again", platform=record.platform),)
    change = Change(
        messages=messages,
        connectors=connectors,
        usage=usage if usage != (record.usage or _NOTHING) else None,
        attempt=0,
    )
    if record.phase is Phase.AVAILABLE and (usage.jobs or usage.others):
        first = min((job.started for job in usage.jobs), default=now)
        told = progress(now, "a job runs in the reserved time since {since}", since=at(first))
        begun = Change(
            messages=(told, *messages),
            connectors=connectors,
            usage=usage,
            started=float(begin_of(record)),
            node=seen.node,
            attempt=0,
        )
        return (Move(there=Phase.RUNNING, cause="its first job runs", change=begun),)
    if messages or connectors is not None or change.usage is not None or record.attempt:
        return (Move(cause="observed", change=change),)
    return ()


def _over(
    record: SessionRecord, usage: Usage, now: float, told: tuple[Message, ...], cause: str, outcome: Phase
) -> tuple[Move, ...]:
    """The end of reserved time. Where nothing ran in it, the machine's way still leads through RUNNING."""
    through: tuple[Move, ...] = ()
    if record.phase is Phase.AVAILABLE and not (usage.jobs or usage.others):
        begun = Change(started=float(min(begin_of(record), now)), attempt=0)
        through = (Move(there=Phase.RUNNING, cause=f"{cause}, and nothing ran in it", change=begun),)
    change = Change(messages=told, outcome=outcome, attempt=0)
    return (*through, Move(there=Phase.RELEASING, cause=cause, change=change))


def _summary(record: SessionRecord, usage: Usage, end: float, now: float) -> Message:
    kept = sum(share.cores for share in record.allocations) * max(0.0, end - begin_of(record)) / _HOUR
    return progress(
        now,
        "the reserved time is over: {used} of its {kept} core-hours were used, by {jobs} jobs",
        used=round(usage.core_hours(end, begin_of(record)), 2),
        kept=round(kept, 2),
        jobs=len(usage.jobs) + usage.others,
    )


def _idle(record: SessionRecord, usage: Usage, now: float) -> tuple[Move, ...]:
    """Warn of time that nobody uses, and give it back; never without the warning, and some time after it."""
    limit, begin = record.wants.idle, begin_of(record)
    since = usage.idle_since(begin)
    if limit is None or since is None or now < begin:
        return ()
    lead = min(LONGEST_WARNING, limit / 2)
    if now < since + limit - lead:
        return ()
    warned = max((_when(one) for one in record.messages if one.template == _WARNING), default=-math.inf)
    if warned < since:
        until = max(since + limit, now + lead)
        told = notice(now, MessageKind.TIME_LIMIT, "WARN", _WARNING, since=at(since), until=at(until))
        return (Move(cause="idle", change=Change(messages=(told,))),)
    if now < max(since + limit, warned + lead):
        return ()
    back = notice(
        now,
        MessageKind.TIME_LIMIT,
        "WARN",
        "nothing has run in the reserved time for {idle}: what is left of it, up to {end}, is given back",
        idle=lasting(now - since),
        end=at(record.finish),
    )
    return _over(record, usage, now, (back, _summary(record, usage, now, now)), "nobody used it", Phase.COMPLETED)


def _when(one: Message) -> float:
    if one.time is None:
        return -math.inf
    return one.time.replace(tzinfo=one.time.tzinfo or UTC).timestamp()


def _gone(record: SessionRecord, now: float) -> tuple[Move, ...]:
    told = notice(
        now,
        MessageKind.FAILED,
        "ERROR",
        "{platform} does not know the reservation {native} any more, and it could not be made again",
        platform=record.platform,
        native=record.native or "",
    )
    usage = record.usage or _NOTHING
    return _over(record, usage, now, (told,), "its reservation is gone", Phase.FAILED)
