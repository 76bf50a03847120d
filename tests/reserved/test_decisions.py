"""What follows for reserved time from what is observed: warnings before it is given back, and its ends."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from ebhpc.driver import reserved
from ebhpc.driver.moves import Move
from ebhpc.model import Allocation, Connector, JobUse, Message, Observation, Phase, Usage
from ebhpc.store import SessionRecord, Wants

BEGIN, HOUR = 1_900_000_000, 3600


def record(**given: Any) -> SessionRecord:
    """Reserved time of four hours on two nodes, which stands."""
    base: dict[str, Any] = {
        "uuid": "u",
        "offerset": "o",
        "position": 0,
        "owner": "w",
        "username": "ada",
        "platform": "here",
        "phase": Phase.AVAILABLE,
        "created": 0.0,
        "modified": 0.0,
        "start": BEGIN,
        "latest": BEGIN,
        "finish": BEGIN + 4 * HOUR,
        "duration": 4 * HOUR,
        "firm": True,
        "allocations": tuple(Allocation(node=name, cores=4, memory=1024) for name in ("n1", "n2")),
        "document": b"{}",
        "unfinished": True,
        "native": "r",
        "held": "r",
        "wants": Wants(reserved=True, idle=HOUR),
    }
    return SessionRecord(**{**base, **given})


def seen(*jobs: JobUse, state: Any = None, **more: Any) -> Observation:
    return Observation(uuid="u", state=state or ("RUNNING" if jobs else "PENDING"), usage=Usage(jobs=jobs), **more)


def job(started: float, ended: float | None = None, cores: int = 2) -> JobUse:
    return JobUse(id=str(started), cores=cores, started=BEGIN + started, ended=None if ended is None else BEGIN + ended)


def follow(present: SessionRecord, observation: Observation, now: float) -> tuple[SessionRecord, tuple[Move, ...]]:
    """What becomes of a session, as the store would have it."""
    moves = reserved.observed(present, observation, BEGIN + now, settled=True)
    for move in moves:
        change = move.change
        present = replace(
            present,
            phase=move.there or present.phase,
            messages=(*present.messages, *change.messages),
            usage=change.usage or present.usage,
            started=change.started or present.started,
            outcome=change.outcome or present.outcome,
        )
    return present, moves


def templates(messages: tuple[Message, ...]) -> list[str]:
    return [str(one) for one in messages]


def test_a_first_job_makes_it_running_and_what_is_known_already_moves_nothing() -> None:
    present = record()
    assert follow(present, seen(), -HOUR)[1] == ()
    present, moves = follow(present, seen(job(60)), 61)
    assert [move.there for move in moves] == [Phase.RUNNING]
    assert present.started == BEGIN
    assert follow(present, seen(job(60)), 120)[1] == ()
    present, moves = follow(present, seen(job(60, 90)), 121)
    assert [move.there for move in moves] == [None]
    assert present.usage == Usage(jobs=(job(60, 90),))


def test_connectors_are_told_once() -> None:
    connector = Connector(status="AVAILABLE", reservation="r")
    moves = reserved.observed(record(), seen(connectors=(connector,)), BEGIN - 100, settled=True)
    assert [move.change.connectors for move in moves] == [(connector,)]
    assert reserved.observed(record(connectors=(connector,)), seen(connectors=(connector,)), BEGIN, settled=True) == ()


def test_idle_time_is_warned_of_and_then_given_back() -> None:
    present = record()
    assert follow(present, seen(), 49 * 60)[1] == ()
    present, moves = follow(present, seen(), 50 * 60)  # ten minutes before
    assert "is given back at 2030-03-17T18:46:40Z" in str(moves[0].change.messages[0])
    assert follow(present, seen(), 59 * 60)[1] == ()
    present, moves = follow(present, seen(), 60 * 60)
    assert [move.there for move in moves] == [Phase.RUNNING, Phase.RELEASING]
    assert present.outcome is Phase.COMPLETED
    assert "0.0 of its 8.0 core-hours" in templates(present.messages)[-1]


def test_nothing_is_given_back_without_a_warning_that_was_early_enough() -> None:
    # The driver was away for hours: the warning comes first, and its ten minutes are waited for
    present, moves = follow(record(), seen(), 3 * HOUR)
    assert [move.there for move in moves] == [None]
    assert follow(present, seen(), 3 * HOUR + 599)[1] == ()
    present, _ = follow(present, seen(), 3 * HOUR + 601)
    assert present.phase is Phase.RELEASING


def test_use_makes_a_warning_void() -> None:
    present, _ = follow(record(), seen(), 50 * 60)
    present, _ = follow(present, seen(job(51 * 60)), 51 * 60)
    present, _ = follow(present, seen(job(51 * 60)), 70 * 60)
    assert present.phase is Phase.RUNNING
    present, _ = follow(present, seen(job(51 * 60, 71 * 60)), 71 * 60)
    assert follow(present, seen(job(51 * 60, 71 * 60)), 100 * 60)[1] == ()
    present, moves = follow(present, seen(job(51 * 60, 71 * 60)), 122 * 60)
    assert len(moves) == 1  # another warning
    present, _ = follow(present, seen(job(51 * 60, 71 * 60)), 133 * 60)
    assert present.phase is Phase.RELEASING


def test_before_its_begin_nothing_is_idle() -> None:
    assert follow(record(), seen(), -1)[1] == ()
    assert follow(record(wants=Wants(reserved=True)), seen(), 3 * HOUR)[1] == ()


def test_its_end_tells_how_much_of_it_was_used() -> None:
    present = record(phase=Phase.RUNNING, started=float(BEGIN), wants=Wants(reserved=True))
    jobs = (job(0, HOUR, cores=8), job(3 * HOUR))
    present, moves = follow(present, seen(*jobs), 4 * HOUR)
    assert [move.there for move in moves] == [None, Phase.RELEASING]
    assert "10.0 of its 32.0 core-hours were used, by 2 jobs" in templates(present.messages)[-1]


def test_a_reservation_that_is_gone_or_lost_fails_the_session() -> None:
    gone = Observation(uuid="u", state="GONE")
    assert reserved.observed(record(), gone, BEGIN + 1, settled=False) == ()
    for observation in (gone, seen(state="FAILED")):
        present, moves = follow(record(), observation, 1)
        assert moves[-1].there is Phase.RELEASING
        assert present.outcome is Phase.FAILED


def test_time_near_now_ends_as_long_after_it_is_held_as_was_asked_for() -> None:
    near = record(latest=BEGIN + 300, finish=BEGIN + 300 + 4 * HOUR)
    assert reserved.fixed_finish(near, BEGIN + 10.2) == BEGIN + 11 + 4 * HOUR
    assert reserved.fixed_finish(near, BEGIN - 1000) == BEGIN + 4 * HOUR
    assert reserved.fixed_finish(near, BEGIN + 400) is None  # late: it ends as it was booked
    fixed = replace(near, finish=BEGIN + 11 + 4 * HOUR)
    assert reserved.fixed_finish(fixed, BEGIN + 60) is None
    assert reserved.begin_of(fixed) == BEGIN + 11
