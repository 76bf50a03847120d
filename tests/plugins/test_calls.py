"""Calling hooks: whatever a plugin does, the caller gets an answer, SessionFailed or PlatformUnavailable, in time."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ebhpc.model import MessageKind, message
from ebhpc.plugins import ABSENT, PlatformUnavailable, SessionFailed
from tests.plugins.batch import platform, request, session

S = session()


class HandClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What hangs until the test is over."""
    event = threading.Event()
    yield event
    event.set()


def hangs(gate: threading.Event) -> Callable[..., None]:
    def hang(*arguments: object) -> None:
        gate.wait(60)

    return hang


def raises(error: BaseException) -> Callable[..., None]:
    def fail(*arguments: object) -> None:
        raise error

    return fail


def eventually(call: Callable[[], Any]) -> Any:
    """Return the answer of a call when the platform gives one, within ten seconds."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return call()
        except PlatformUnavailable:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def test_a_hook_gets_only_the_arguments_that_it_lists() -> None:
    calls = []
    batch = platform({"ebhpc_windows": lambda *given: calls.append(given) or ()}, full=True)
    wanted = request()
    assert batch.call("ebhpc_windows", request=wanted, timeline=None, now=5, limit=2) == ()
    assert calls == [(wanted, 5, 2)]


def test_a_hook_that_may_be_left_out_gives_nothing_and_is_known_to_be_missing() -> None:
    batch = platform()
    assert batch.implements("ebhpc_submit")
    assert not batch.implements("ebhpc_hold")
    assert batch.call("ebhpc_hold", session=S) is None
    assert batch.call("ebhpc_outputs", session=S) == ()
    assert set(ABSENT) == {hook for hook in ABSENT if not batch.implements(hook)}


def test_the_core_is_told_of_its_own_mistakes() -> None:
    batch = platform()
    with pytest.raises(TypeError, match="no hook of a platform"):
        batch.call("ebhpc_sbmit", session=S)
    with pytest.raises(TypeError, match=r"takes \['session'\], got \['sessions'\]"):
        batch.call("ebhpc_submit", sessions=[S])


def test_several_hooks_are_called_in_one_go_those_left_out_among_them() -> None:
    batch = platform()
    answers = batch.call_each(
        [
            ("ebhpc_refuses", {"request": request()}),
            ("ebhpc_policy", {"request": request(), "identity": S.owner, "platform": "batch"}),
            ("ebhpc_submit", {"session": S}),
        ]
    )
    assert answers == [(), None, f"job-{S.uuid}"]


@pytest.mark.parametrize(
    "error", [ValueError("odd"), SystemExit(3), KeyboardInterrupt(), GeneratorExit(), MemoryError()]
)
def test_whatever_a_hook_raises_makes_the_platform_unavailable(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    batch = platform({"ebhpc_submit": raises(error)})
    with caplog.at_level(logging.WARNING), pytest.raises(PlatformUnavailable) as raised:
        batch.call("ebhpc_submit", session=S)
    assert (raised.value.platform, raised.value.hook) == ("batch", "ebhpc_submit")
    assert type(error).__name__ in raised.value.reason
    (record,) = caplog.records
    assert "batch, ebhpc_submit" in record.getMessage()
    assert S.uuid in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    batch = platform({"ebhpc_submit": lambda session: sys.exit("bye")})
    with pytest.raises(PlatformUnavailable, match="SystemExit: bye"):
        batch.call("ebhpc_submit", session=S)


def test_a_generator_that_raises_halfway_makes_the_platform_unavailable() -> None:
    def some(request: object) -> Iterator[object]:
        yield message(MessageKind.NOT_SUPPORTED, "first")
        raise OSError("gone")

    with pytest.raises(PlatformUnavailable, match="OSError: gone"):
        platform({"ebhpc_refuses": some}).call("ebhpc_refuses", request=request())


def test_session_failed_passes_where_it_may_and_carries_its_messages() -> None:
    failed = SessionFailed(message(MessageKind.DIGEST_MISMATCH, "not {it}", it="this"), "a plain word")
    for hook in ("ebhpc_hold", "ebhpc_prepare", "ebhpc_submit"):
        with pytest.raises(SessionFailed) as raised:
            platform({hook: raises(failed)}, full=True).call(hook, session=S)
        first, second = raised.value.messages
        assert (first.kind, str(first)) == (MessageKind.DIGEST_MISMATCH, "not this")
        assert (second.kind, str(second)) == (MessageKind.FAILED, "a plain word")
    with pytest.raises(PlatformUnavailable, match="may not"):
        platform({"ebhpc_cancel": raises(failed)}).call("ebhpc_cancel", session=S)


def test_a_hook_that_hangs_is_given_up_and_the_log_says_where_it_is(
    gate: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    batch = platform({"ebhpc_submit": hangs(gate)}, timeout=0.1)
    begun = time.monotonic()
    with pytest.raises(PlatformUnavailable, match=r"no answer within 0\.1 s"):
        batch.call("ebhpc_submit", session=S)
    assert time.monotonic() - begun < 2
    assert "gate.wait(60)" in caplog.text


def test_a_generator_that_never_ends_is_given_up(gate: threading.Event) -> None:
    def endless(request: object) -> Iterator[object]:
        while not gate.is_set():
            time.sleep(0.01)
            yield message(MessageKind.NOT_SUPPORTED, "again")

    with pytest.raises(PlatformUnavailable, match="no answer within"):
        platform({"ebhpc_refuses": endless}, timeout=0.1).call("ebhpc_refuses", request=request())


def test_when_all_threads_hang_calls_fail_at_once_and_another_platform_answers(gate: threading.Event) -> None:
    batch = platform({"ebhpc_refuses": hangs(gate)}, timeout=0.05, threads=2)
    other = platform()
    for _ in range(2):
        with pytest.raises(PlatformUnavailable, match="no answer"):
            batch.call("ebhpc_refuses", request=request())
    begun = time.monotonic()
    with pytest.raises(PlatformUnavailable, match="all 2 threads hang"):
        batch.call("ebhpc_snapshot", now=1, timeout=30)
    assert time.monotonic() - begun < 1
    assert other.call("ebhpc_refuses", request=request()) == ()


def test_a_platform_answers_again_when_its_hooks_come_back() -> None:
    gate = threading.Event()
    batch = platform({"ebhpc_refuses": hangs(gate)}, timeout=0.05, threads=1)
    with pytest.raises(PlatformUnavailable, match="no answer"):
        batch.call("ebhpc_refuses", request=request())
    with pytest.raises(PlatformUnavailable, match="all 1 threads hang"):
        batch.call("ebhpc_snapshot", now=1)
    gate.set()
    assert eventually(lambda: batch.call("ebhpc_snapshot", now=1)).taken == 1


def test_calls_wait_for_threads_that_are_busy_and_a_call_given_up_in_the_queue_is_never_made() -> None:
    release = threading.Event()
    batch = platform({"ebhpc_observe": lambda sessions: release.wait(20) and []}, threads=1)
    first = threading.Thread(target=lambda: batch.call("ebhpc_observe", sessions=[S], timeout=30))
    first.start()
    time.sleep(0.05)
    with pytest.raises(PlatformUnavailable, match="no thread was free"):
        batch.call("ebhpc_submit", session=S, timeout=0.05)
    release.set()
    first.join()
    assert batch.call("ebhpc_snapshot", now=7).taken == 7
    assert batch.implementation.submitted == []  # type: ignore[attr-defined]


def test_preparing_has_threads_of_its_own_and_its_own_deadline(gate: threading.Event) -> None:
    batch = platform(
        {"ebhpc_prepare": hangs(gate)}, full=True, threads=1, prepare_threads=1, prepare_timeout=0.3, timeout=0.05
    )
    begun = time.monotonic()
    with pytest.raises(PlatformUnavailable, match=r"within 0\.3 s"):
        batch.call("ebhpc_prepare", session=S)
    assert time.monotonic() - begun >= 0.3
    assert batch.call("ebhpc_snapshot", now=1).taken == 1


def test_a_step_of_a_session_is_not_repeated_while_the_first_try_still_runs() -> None:
    release = threading.Event()
    tries = []

    def submit(session: Any) -> str:
        tries.append(session.uuid)
        release.wait(20)
        return "job"

    batch = platform({"ebhpc_submit": submit})
    with pytest.raises(PlatformUnavailable, match="no answer"):
        batch.call("ebhpc_submit", session=S, timeout=0.05)
    with pytest.raises(PlatformUnavailable, match=f"an earlier call for session {S.uuid} has not come back"):
        batch.call("ebhpc_submit", session=S)
    assert batch.call("ebhpc_cancel", session=S) is None
    with pytest.raises(PlatformUnavailable, match="no answer"):
        batch.call("ebhpc_submit", session=session("other"), timeout=0.05)
    release.set()
    assert eventually(lambda: batch.call("ebhpc_submit", session=S)) == "job"
    assert tries == [S.uuid, "other", S.uuid]


def fail_often(batch: Any, times: int) -> None:
    for _ in range(times):
        with pytest.raises(PlatformUnavailable, match="OSError"):
            batch.call("ebhpc_snapshot", now=1)


def test_a_platform_that_keeps_failing_is_left_alone_for_longer_and_longer() -> None:
    clock = HandClock()
    calls = []

    def fail(now: int) -> None:
        calls.append(now)
        raise OSError("down")

    batch = platform({"ebhpc_snapshot": fail}, clock=clock)
    fail_often(batch, 5)
    for pause in (1, 2, 4, 8, 16, 32, 60, 60):
        before = len(calls)
        with pytest.raises(PlatformUnavailable, match="left alone") as raised:
            batch.call("ebhpc_snapshot", now=1)
        assert raised.value.retry_after == pytest.approx(pause)
        clock.now += pause - 0.01
        with pytest.raises(PlatformUnavailable, match="left alone"):
            batch.call("ebhpc_snapshot", now=1)
        assert len(calls) == before
        clock.now += 0.02
        fail_often(batch, 1)
        assert len(calls) == before + 1


def test_one_success_ends_the_pause_and_other_hooks_were_never_paused() -> None:
    clock = HandClock()
    batch = platform({"ebhpc_snapshot": raises(OSError("down"))}, clock=clock)
    working = batch.implementation.replaced  # type: ignore[attr-defined]
    fail_often(batch, 5)
    assert batch.call("ebhpc_refuses", request=request()) == ()
    failing = working.pop("ebhpc_snapshot")
    clock.now += 2
    assert batch.call("ebhpc_snapshot", now=9).taken == 9
    working["ebhpc_snapshot"] = failing
    fail_often(batch, 4)


def test_failures_that_lie_far_apart_leave_the_platform_in_use() -> None:
    clock = HandClock()
    batch = platform({"ebhpc_snapshot": raises(OSError("down"))}, clock=clock)
    for _ in range(20):
        fail_often(batch, 1)
        clock.now += 20


def test_while_one_call_tries_whether_the_platform_is_back_the_others_wait() -> None:
    clock = HandClock()
    batch = platform({"ebhpc_snapshot": raises(OSError("down"))}, clock=clock)
    fail_often(batch, 5)
    clock.now += 1.01
    release = threading.Event()
    batch.implementation.replaced["ebhpc_snapshot"] = lambda now: release.wait(20)  # type: ignore[attr-defined]

    def attempt() -> None:
        with pytest.raises(PlatformUnavailable):
            batch.call("ebhpc_snapshot", now=1)

    trying = threading.Thread(target=attempt)
    trying.start()
    time.sleep(0.05)
    with pytest.raises(PlatformUnavailable, match="left alone"):
        batch.call("ebhpc_snapshot", now=1)
    release.set()
    trying.join()


def test_no_user_can_take_a_platform_away_with_a_document_that_its_plugin_trips_over() -> None:
    batch = platform({"ebhpc_refuses": raises(KeyError("odd"))})
    for _ in range(20):
        with pytest.raises(PlatformUnavailable, match="KeyError"):
            batch.call("ebhpc_refuses", request=request())


def test_a_trivial_hook_costs_less_than_a_tenth_of_a_millisecond() -> None:
    batch = platform()
    wanted = request()
    batch.call("ebhpc_refuses", request=wanted)
    best = 1.0
    for _ in range(20):
        begun = time.perf_counter()
        for _ in range(200):
            batch.call("ebhpc_refuses", request=wanted)
        best = min(best, (time.perf_counter() - begun) / 200)
    assert best < 100e-6


def test_many_callers_at_once_each_get_their_own_answer() -> None:
    batch = platform()
    wrong = []

    def ask(number: int) -> None:
        asked = [1000 * number + at for at in range(100)]
        answered = [batch.call("ebhpc_snapshot", now=now).taken for now in asked]
        if answered != asked:
            wrong.append(number)

    callers = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert wrong == []
