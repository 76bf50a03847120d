"""What follows for a session: from a hook's answer, an observation, a failure, or from time alone.

Pure functions: they get a stored session and give moves, which the driver writes one after another.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from ebhpc.driver import reserved
from ebhpc.driver.moves import Move
from ebhpc.driver.notices import at, lasting, new_ones, notice, progress, timed
from ebhpc.driver.phases import BEFORE_ITS_JOB, MACHINE, WATCHED, Step, end_of, latest_start, missed, next_step
from ebhpc.model import Connector, Message, MessageKind, Observation, Phase
from ebhpc.planning.queue import Outlook
from ebhpc.store import Change, SessionRecord


class Patience(Struct, frozen=True, kw_only=True):
    """How long the driver tries, seconds; ``jitter`` in [0, 1) spreads retries apart."""

    first: float
    most: float
    give_up: float
    give_up_cleanup: float
    jitter: float = 0.0

    def delay(self, failures: int) -> float:
        """The wait after the n-th failure in a row."""
        return min(self.first * 2.0 ** min(failures - 1, 60), self.most) * (1 + self.jitter / 4)


def reached(record: SessionRecord, step: Step, now: float, *, lead: int) -> Move:
    """The move that follows a step's success, to the phase that the machine names."""
    there = MACHINE[step].success
    assert there is not None
    if record.wants.reserved:
        told = progress(now, "the time is booked on {platform}", platform=record.platform)
        messages = (told,) if there is Phase.WAITING else ()
        return Move(there=there, cause=MACHINE[step].words, change=Change(messages=messages, attempt=0))
    if not record.firm:
        return Move(
            there=there, cause=MACHINE[step].words, change=Change(messages=(_queued(record, there, now),), attempt=0)
        )
    match there:
        case Phase.WAITING:
            begin = max(now, record.start - lead)
            told = progress(
                now,
                "the session is booked on {platform}; preparing it begins at {begin}",
                platform=record.platform,
                begin=at(begin),
            )
        case Phase.PREPARING:
            told = progress(now, "what the session needs is being prepared")
        case _:
            told = progress(
                now,
                "all is ready; the job starts at {start}" if record.start > now else "all is ready",
                **({"start": at(record.start)} if record.start > now else {}),
            )
    return Move(there=there, cause=MACHINE[step].words, change=Change(messages=(told,), attempt=0))


def _queued(record: SessionRecord, there: Phase, now: float) -> Message:
    """What to tell of a session that has come a step nearer to the batch system's queue."""
    match there:
        case Phase.WAITING:
            return progress(
                now,
                "{platform} reserves nothing for the session: its job will wait in the queue",
                platform=record.platform,
            )
        case Phase.PREPARING:
            return progress(now, "what the session needs is being prepared")
        case _:
            return progress(now, "all is ready; the job goes into the queue")


def moved(record: SessionRecord, told: Outlook | None, outlook: Outlook, now: float) -> Message | None:
    """What to tell of a new expectation of when a queued job starts; None: it is much like the one ``told``.

    Much is ten minutes, and a quarter of what there is left to wait.
    """
    latest = latest_start(record)
    late = outlook.expected > latest
    if told is not None:
        much = max(_MUCH, (max(told.expected, outlook.expected) - now) / 4)
        if abs(outlook.expected - told.expected) < much and late == (told.expected > latest):
            return None
    interval = {"expected": at(outlook.expected), "start": at(outlook.start), "end": at(outlook.latest)}
    if late:
        return notice(
            now,
            MessageKind.TIME_LIMIT,
            "WARN",
            "the job is now expected to start around {expected} (between {start} and {end}): later than {latest}, the"
            " latest start that was asked for, when it is taken out of the queue",
            **interval,
            latest=at(latest),
        )
    return progress(now, "the job is now expected to start around {expected} (between {start} and {end})", **interval)


_MUCH = 600.0


def too_late(record: SessionRecord, now: float) -> Move:
    """The end of a session that could not start in its time."""
    if not record.firm:
        waited = notice(
            now,
            MessageKind.FAILED,
            "ERROR",
            "the job had not started by {latest}, the latest start that was asked for; it waits no longer",
            latest=at(latest_start(record)),
        )
        return Move(there=Phase.FAILED, cause="missed its start", change=_ends(waited))
    told = notice(
        now,
        MessageKind.FAILED,
        "ERROR",
        "the session missed its start: it should have started by {latest}, and its booking ends at {finish}",
        latest=at(record.latest),
        finish=at(record.finish),
    )
    return Move(there=Phase.FAILED, cause="missed its start", change=_ends(told))


def lateness(record: SessionRecord, now: float) -> tuple[Message, ...]:
    """What to tell of a start after the latest one that was promised; nothing where it is in time."""
    if now <= record.latest or not record.firm:
        return ()
    gets = end_of(record, now) - now
    return (
        notice(
            now,
            MessageKind.TIME_LIMIT,
            "WARN",
            "the session starts {late} after its latest start {latest}; it gets {gets} of its {duration}",
            late=lasting(now - record.latest),
            latest=at(record.latest),
            gets=lasting(gets),
            duration=lasting(record.duration),
        ),
    )


def refused(step: Step, messages: tuple[Message, ...], now: float) -> Move:
    """The end of a session that its platform says can never succeed."""
    told = timed(messages, now) or (
        notice(now, MessageKind.FAILED, "ERROR", "the session failed while {doing}", doing=MACHINE[step].words),
    )
    return Move(there=Phase.FAILED, cause=f"failed while {MACHINE[step].words}", change=_ends(*told))


def _ends(*messages: Message, ended: float | None = None, exit_code: int | None = None) -> Change:
    return Change(messages=messages, outcome=Phase.FAILED, attempt=0, ended=ended, exit_code=exit_code)


# --- failures that may pass --------------------------------------------------------------------------------------


def failed_to(
    record: SessionRecord,
    step: Step,
    reason: str,
    now: float,
    patience: Patience,
    *,
    answered: float = 0.0,
    since: float | None = None,
    pause: float = 0.0,
) -> Move:
    """A step that got no answer: try again later, tell the owner now and then, at last give up.

    ``answered``: when the platform last answered anything. ``since``: when the trouble began, where the session
    does not say. ``pause``: seconds that the platform is left alone anyway.
    """
    failures = record.attempt + 1
    since = troubled_since(record, since if since is not None else now)
    if step in BEFORE_ITS_JOB and missed(record, now):
        return too_late(record, now)
    cleanup_alone_fails = step is Step.CLEAN and answered > since
    if now - since >= (patience.give_up_cleanup if cleanup_alone_fails else patience.give_up):
        return _given_up(record, step, reason, since, now)
    delay = max(patience.delay(failures), pause)
    told: tuple[Message, ...] = ()
    # A session that is followed comes here rarely (see ``next_word``); the others tell of the 1st, 2nd, 4th … failure.
    if step is Step.FOLLOW or failures & (failures - 1) == 0:
        told = (
            notice(
                now,
                MessageKind.PLATFORM_UNAVAILABLE,
                "WARN",
                "{platform} failed while {doing}: {reason}; it is tried again",
                platform=record.platform,
                doing=MACHINE[step].words,
                reason=reason,
                since=at(since),
                tries=failures,
            ),
        )
    return Move(
        cause=reason,
        change=Change(
            messages=told,
            attempt=failures,
            troubled=since,
            # A job that is followed or being ended is observed all the while, so the driver keeps it.
            due=None if step in WATCHED else now + delay,
            unlease=step not in WATCHED,
        ),
    )


def troubled_since(record: SessionRecord, otherwise: float) -> float:
    """When the present step's failures began."""
    return otherwise if record.attempt == 0 or record.troubled is None else record.troubled


def next_word(since: float, now: float, patience: Patience, *, first: float = 60.0) -> float:
    """When to tell a followed session's owner again that its platform is silent: at growing intervals."""
    after = first
    while since + after <= now:
        after *= 2
    giving_up = since + patience.give_up
    return min(since + after, giving_up) if giving_up > now else now


def _given_up(record: SessionRecord, step: Step, reason: str, since: float, now: float) -> Move:
    told = notice(
        now,
        MessageKind.PLATFORM_UNAVAILABLE,
        "ERROR",
        "{platform} has failed since {since} while {doing}, which is given up: {reason}",
        platform=record.platform,
        doing=MACHINE[step].words,
        reason=reason,
        since=at(since),
    )
    cause = f"gave up {MACHINE[step].words}"
    if step is Step.END:
        # Whether the job lives nobody can say; what can be cleaned up is.
        return Move(cause=cause, change=Change(messages=(told,), attempt=0, ended=now, submitting=False))
    if step is Step.CLEAN:
        there = Phase.FAILED if record.phase is Phase.RELEASING else None
        return Move(there=there, cause=cause, change=Change(messages=(told,), finished=True, attempt=0))
    return Move(there=Phase.FAILED, cause=cause, change=_ends(told))


# --- observations ------------------------------------------------------------------------------------------------


def observed(
    record: SessionRecord, seen: Observation, now: float, *, settled: bool, interactive: bool
) -> tuple[Move, ...]:
    """The moves that follow from an observation; none where it says what the session says already.

    ``settled``: a job that is GONE has been so for long enough to believe it. A call that was not answered
    may still be carried out, and a controller that restarts may know its jobs only after a while.
    """
    step = next_step(record)
    if step is Step.END:
        return _ending(record, seen, now, settled=settled)
    if step is not Step.FOLLOW:
        return ()
    if record.wants.reserved:
        return reserved.observed(record, seen, now, settled=settled)
    match seen.state:
        case "PENDING":
            return _pending(record, seen, now)
        case "RUNNING":
            return _running(record, seen, now, interactive=interactive)
        case "SUCCEEDED" | "FAILED":
            return _ended(record, seen, now, interactive=interactive)
        case "GONE":
            return _gone(record, now) if settled else ()


def _pending(record: SessionRecord, seen: Observation, now: float) -> tuple[Move, ...]:
    # A batch system may put a job that ran back into its queue; the session's phase does not go back.
    if record.phase is Phase.AVAILABLE and missed(record, now):
        return (too_late(record, now),)
    if record.phase is Phase.RUNNING and now >= end_of(record, now):
        return (_time_is_over(record, now, interactive=False),)
    return _news(record, seen, now)


def _running(record: SessionRecord, seen: Observation, now: float, *, interactive: bool) -> tuple[Move, ...]:
    moves = (_starts(record, seen, now),) if record.phase is Phase.AVAILABLE else _news(record, seen, now)
    began = record.started if record.started is not None else (seen.started or now)
    if now >= end_of(replace(record, started=began), now):
        return (*moves, _time_is_over(record, now, interactive=interactive))
    return moves


def _starts(record: SessionRecord, seen: Observation, now: float) -> Move:
    started = seen.started if seen.started is not None else now
    end = end_of(replace(record, started=started), now)
    where = {"node": seen.node} if seen.node else {}
    told = progress(
        now,
        ("the job runs on {node} since {since}" if where else "the job runs since {since}")
        + ", until {end} at the latest",
        since=at(started),
        end=at(end),
        **where,
    )
    return Move(
        there=Phase.RUNNING,
        cause="its job runs",
        change=Change(
            messages=(told, *new_ones(record.messages, seen.messages, now)),
            started=started,
            node=seen.node,
            connectors=seen.connectors,
            booked_until=end,
            attempt=0,
        ),
    )


def _news(record: SessionRecord, seen: Observation, now: float) -> tuple[Move, ...]:
    """What an observation adds to a session that goes on."""
    messages = new_ones(record.messages, seen.messages, now)
    connectors = seen.connectors if seen.connectors != record.connectors else None
    node = seen.node if seen.node != record.node else None
    if record.attempt:
        messages += (progress(now, "{platform} answers again", platform=record.platform),)
    if not messages and connectors is None and node is None and not record.attempt:
        return ()
    change = Change(messages=messages, connectors=connectors, node=node, attempt=0)
    return (Move(cause="observed", change=change),)


def _time_is_over(record: SessionRecord, now: float, *, interactive: bool) -> Move:
    told = notice(
        now,
        MessageKind.TIME_LIMIT,
        "INFO" if interactive else "ERROR",
        "the session's time of {duration} is over; its job is ended",
        duration=lasting(record.duration),
    )
    return Move(
        there=Phase.RELEASING,
        cause="its time is over",
        change=Change(messages=(told,), outcome=Phase.COMPLETED if interactive else Phase.FAILED, attempt=0),
    )


_SLACK = 2.0
"""Seconds by which clocks of the driver and of a batch system may differ about the end of a session."""


def _ended(record: SessionRecord, seen: Observation, now: float, *, interactive: bool) -> tuple[Move, ...]:
    ended = seen.ended if seen.ended is not None else now
    told = new_ones(record.messages, seen.messages, now)
    success = seen.state == "SUCCEEDED"
    never_ran = not success and seen.started is None and seen.exit_code is None
    if record.phase is Phase.AVAILABLE and never_ran:
        told += (notice(now, MessageKind.FAILED, "ERROR", "the job failed before it ran"),)
        return (Move(there=Phase.FAILED, cause="its job failed", change=_ends(*told, ended=ended)),)
    moves: tuple[Move, ...] = ()
    if record.phase is Phase.AVAILABLE:
        moves = (_starts(record, replace(seen, messages=()), now),)
    began = record.started if record.started is not None else seen.started
    limit = end_of(replace(record, started=began), now)
    by_time = not success and (
        ended >= limit - _SLACK or any(one.kind == MessageKind.TIME_LIMIT for one in seen.messages)
    )
    outcome = Phase.COMPLETED if success or (by_time and interactive) else Phase.FAILED
    if by_time and not any(one.kind == MessageKind.TIME_LIMIT for one in (*record.messages, *told)):
        told += (
            notice(
                now,
                MessageKind.TIME_LIMIT,
                "INFO" if interactive else "ERROR",
                "the job was ended when the session's time of {duration} was over",
                duration=lasting(record.duration),
            ),
        )
    elif not success and not by_time:
        told += (_failure(seen, now),)
    else:
        told += (progress(now, "the job has ended"),)
    change = Change(
        messages=told,
        outcome=outcome,
        ended=ended,
        exit_code=seen.exit_code,
        node=seen.node,
        connectors=_finished(seen.connectors if seen.connectors is not None else record.connectors),
        attempt=0,
    )
    cause = "its job succeeded" if success else "its time is over" if by_time else "its job failed"
    return (*moves, Move(there=Phase.RELEASING, cause=cause, change=change))


def _failure(seen: Observation, now: float) -> Message:
    if seen.exit_code is None:
        return notice(now, MessageKind.FAILED, "ERROR", "the job failed")
    return notice(
        now, MessageKind.FAILED, "ERROR", "the job failed with exit code {exit_code}", exit_code=seen.exit_code
    )


def _finished(connectors: tuple[Connector, ...] | None) -> tuple[Connector, ...] | None:
    if not connectors:
        return None
    return tuple(replace(one, status="FINISHED") for one in connectors)


def _gone(record: SessionRecord, now: float) -> tuple[Move, ...]:
    # `ended` stays open: the job is ended by name first, in case that only its record was lost.
    told = notice(
        now,
        MessageKind.FAILED,
        "ERROR",
        "{platform} does not know the job {native} any more; what became of it is unknown",
        platform=record.platform,
        native=record.native or "",
    )
    change = _ends(told)
    there = Phase.RELEASING if record.phase is Phase.RUNNING else Phase.FAILED
    return (Move(there=there, cause="its job is gone", change=change),)


def _ending(record: SessionRecord, seen: Observation, now: float, *, settled: bool) -> tuple[Move, ...]:
    if seen.state in ("PENDING", "RUNNING") or (seen.state == "GONE" and not settled):
        messages = new_ones(record.messages, seen.messages, now)
        return (Move(cause="observed", change=Change(messages=messages)),) if messages else ()
    ended = seen.ended if seen.ended is not None else now
    outcome = None
    if record.outcome is Phase.FAILED and record.phase is Phase.RELEASING and seen.state == "SUCCEEDED":
        # It had succeeded before the driver ended it.
        in_time = seen.ended is not None and seen.ended <= end_of(record, now)
        outcome = Phase.COMPLETED if in_time else None
    change = Change(
        messages=new_ones(record.messages, seen.messages, now),
        ended=ended,
        exit_code=seen.exit_code,
        connectors=_finished(record.connectors),
        usage=seen.usage,
        outcome=outcome,
        submitting=False,
        attempt=0,
    )
    return (Move(cause="its job has ended", change=change),)


# --- the end -----------------------------------------------------------------------------------------------------


def cleaned(record: SessionRecord, now: float, *, keep_results: int) -> Move:
    """The last move: nothing of the session is left but its results, kept for ``keep_results`` seconds."""
    if record.phase in (Phase.REJECTED, Phase.EXPIRED):
        return Move(cause="released", change=Change(finished=True))
    there = (record.outcome or Phase.FAILED) if record.phase is Phase.RELEASING else None
    told = progress(
        now,
        "the session has {ended}; its results are kept until {until}",
        ended={Phase.COMPLETED: "completed", Phase.CANCELLED: "been cancelled"}.get(there or record.phase, "failed"),
        until=at(now + keep_results),
    )
    return Move(
        there=there,
        cause="cleaned up",
        change=Change(messages=(told,), finished=True, kept_until=now + keep_results, attempt=0),
    )
