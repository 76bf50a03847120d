"""What hooks answer is held to their contract: nonsense makes the platform unavailable, and the reason says why."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from typing import Any

import numpy
import pytest

from ebhpc.model import (
    Allocation,
    Finding,
    Limits,
    Message,
    Observation,
    Output,
    Policy,
    Prepared,
    Quote,
    SimpleCost,
    SimpleMetric,
    Window,
    kinds,
    message,
)
from ebhpc.planning import Node, Reservation, RunningJob, Snapshot
from ebhpc.plugins import PlatformUnavailable
from tests.plugins.batch import OWNER, platform, request, session

S = session()
NODE = Node(name="n1", cores=4, memory=4096, devices={"gpu": 2})
SHARE = Allocation(node="n1", cores=1, memory=1024)
REFUSAL = message("urn:not-supported", "no {what}", what="way", path="/executable")

ARGUMENTS: dict[str, dict[str, Any]] = {
    "ebhpc_check": {},
    "ebhpc_refuses": {"request": request()},
    "ebhpc_policy": {"request": request(), "identity": OWNER, "platform": "batch"},
    "ebhpc_windows": {"request": request(), "timeline": None, "now": 900, "limit": 2},
    "ebhpc_costs": {"request": request(), "window": None},
    "ebhpc_snapshot": {"now": 900},
    "ebhpc_observe": {"sessions": [S, session("other")]},
    "ebhpc_open_output": {"session": S, "name": "stdout"},
}


def answer(hook: str, value: Any) -> Any:
    """Return what a call of ``hook`` gives when the plugin answers ``value``."""
    batch = platform({hook: lambda *arguments: value}, full=True)
    return batch.call(hook, **ARGUMENTS.get(hook, {"session": S}))


def window(**changes: Any) -> Window:
    fields = {"start": 1000, "latest": 1000, "end": 1600, "duration": 600, "allocations": (SHARE,)}
    return Window(**(fields | changes))


def snapshot(**changes: Any) -> Snapshot:
    return Snapshot(**({"platform": "batch", "taken": 1, "nodes": (NODE,)} | changes))


def cost(**changes: Any) -> Quote:
    return Quote(costs=(SimpleCost(**({"type": kinds.MONETARY, "min": 1.0, "max": 2.0} | changes)),))


def output(**changes: Any) -> list[Output]:
    return [Output(**({"name": "out/a.txt", "size": 3, "media_type": "text/plain"} | changes))]


async def coroutine() -> None:
    """Stand for a hook that was written as a coroutine."""


GOOD: list[tuple[str, Any, Any]] = [
    ("ebhpc_check", [Finding(level="INFO", subject="a", text="b")], (Finding(level="INFO", subject="a", text="b"),)),
    ("ebhpc_refuses", iter([REFUSAL]), (REFUSAL,)),
    ("ebhpc_refuses", [], ()),
    ("ebhpc_policy", None, None),
    ("ebhpc_policy", Policy(limits=Limits(cores=3)), Policy(limits=Limits(cores=3))),
    ("ebhpc_windows", [window(), window(start=2000, latest=3000, end=3600)], None),
    ("ebhpc_costs", cost(), cost()),
    ("ebhpc_costs", Quote(metrics=(SimpleMetric(type="urn:x", min=1, max=1),)), None),
    ("ebhpc_snapshot", snapshot(), snapshot()),
    ("ebhpc_snapshot", snapshot(nodes=[NODE]), snapshot()),
    ("ebhpc_hold", None, None),
    ("ebhpc_hold", "resv_7", "resv_7"),
    ("ebhpc_prepare", None, None),
    ("ebhpc_prepare", Prepared(messages=(REFUSAL,)), Prepared(messages=(REFUSAL,))),
    ("ebhpc_submit", "4711", "4711"),
    ("ebhpc_observe", (Observation(uuid=S.uuid, state="RUNNING", started=1.5) for _ in range(1)), None),
    ("ebhpc_outputs", output(), tuple(output())),
    ("ebhpc_cancel", None, None),
    ("ebhpc_forget", None, None),
]


@pytest.mark.parametrize(("hook", "value", "expected"), GOOD)
def test_an_answer_that_keeps_to_the_contract_arrives(hook: str, value: Any, expected: Any) -> None:
    arrived = answer(hook, value)
    if expected is not None or value is None:
        assert arrived == expected
    else:
        assert arrived


def test_an_opened_output_arrives_as_it_is() -> None:
    file = io.BytesIO(b"abc")
    assert answer("ebhpc_open_output", file) is file
    assert answer("ebhpc_open_output", None) is None


BAD: list[tuple[str, Any, str]] = [
    ("ebhpc_check", None, "an iterable of Finding, got None"),
    ("ebhpc_check", [Finding(level="BAD", subject="a", text="b")], "a Finding with a wrong field"),  # type: ignore[arg-type]
    ("ebhpc_refuses", None, "an iterable of Message, got None"),
    ("ebhpc_refuses", "no", "an iterable of Message, got str 'no'"),
    ("ebhpc_refuses", True, "an iterable of Message, got bool True"),
    ("ebhpc_refuses", ["no"], "expected a Message, got str 'no'"),
    ("ebhpc_refuses", {"a": 1}, "an iterable of Message, got dict"),
    ("ebhpc_refuses", [Message(kind=3)], "a Message with a wrong field: Expected `str | null`, got `int`"),  # type: ignore[arg-type]
    ("ebhpc_refuses", (REFUSAL for _ in itertools.count()), "more than 100000 of Message"),
    ("ebhpc_policy", True, "expected a Policy, got bool True"),
    ("ebhpc_policy", Policy(limits=Limits(cores=-1)), "the limit cores is negative"),
    ("ebhpc_policy", Policy(limits=Limits(devices={"gpu": -1})), "a limit of devices is negative"),
    ("ebhpc_policy", Policy(limits=Limits(cores="many")), "a Policy with a wrong field"),  # type: ignore[arg-type]
    ("ebhpc_windows", (window() for _ in range(1)), "expected a sequence of Window, got generator"),
    ("ebhpc_windows", [1], "expected a Window, got int 1"),
    ("ebhpc_windows", [window()] * 3, "3 windows where 2 were asked for"),
    ("ebhpc_windows", [window(duration=599)], "a window of 599 s where 600 s were asked for"),
    ("ebhpc_windows", [window(start=800)], r"a window that starts in \[800, 1000\], outside of \[1000, 5000\]"),
    ("ebhpc_windows", [window(latest=5001, end=9000)], "outside of"),
    ("ebhpc_windows", [window(start=1500, end=9000)], "outside of"),
    ("ebhpc_windows", [window(end=1599)], "ends at 1599, before its latest start plus its duration"),
    ("ebhpc_windows", [window(allocations=())], "without allocations"),
    ("ebhpc_windows", [window(allocations=(Allocation(node="a", cores=-1, memory=1),))], "negative quantity"),
    ("ebhpc_windows", [window(allocations=(Allocation(node="a", cores=0, memory=0),))], "allocation of nothing"),
    ("ebhpc_windows", [window(confidence=1.5)], "confidence 1.5"),
    ("ebhpc_windows", [window(start=1000.5)], "a Window with a wrong field"),
    ("ebhpc_costs", None, "expected a Quote, got None"),
    ("ebhpc_costs", Quote(costs=[]), "expected a tuple of CostItem"),  # type: ignore[arg-type]
    ("ebhpc_costs", Quote(costs=(1,)), "expected a CostItem, got int 1"),
    ("ebhpc_costs", cost(type=None), "a SimpleCost without a type"),
    ("ebhpc_costs", cost(min=3.0), "from 3.0 to 2.0"),
    ("ebhpc_costs", cost(max=float("nan")), "of nan"),
    ("ebhpc_costs", cost(max="much"), "a SimpleCost with a wrong field"),
    ("ebhpc_snapshot", None, "expected a Snapshot, got None"),
    ("ebhpc_snapshot", snapshot(platform="other"), "a snapshot of the platform 'other', expected 'batch'"),
    ("ebhpc_snapshot", snapshot(taken=-1), "a snapshot taken at -1"),
    ("ebhpc_snapshot", snapshot(nodes=(NODE, NODE)), "two nodes named n1"),
    ("ebhpc_snapshot", snapshot(nodes=(Node(name="a", cores=0, memory=1),)), "node 'a' with 0 cores"),
    ("ebhpc_snapshot", snapshot(nodes=(Node(name="", cores=1, memory=1),)), "node ''"),
    (
        "ebhpc_snapshot",
        snapshot(nodes=(Node(name="a", cores=1, memory=1, devices={"gpu": -1}),)),
        "devices",
    ),
    ("ebhpc_snapshot", snapshot(nodes=(Node(name="a", cores=numpy.int64(1), memory=1),)), "a wrong field"),  # type: ignore[arg-type]
    (
        "ebhpc_snapshot",
        snapshot(running=(RunningJob(id="1", started=1, allocations=(Allocation(node="a", cores=-1, memory=1),)),)),
        "negative quantity",
    ),
    (
        "ebhpc_snapshot",
        snapshot(reservations=(Reservation(name="r", start=2, end=1, allocations=()),)),
        "reservation r ends before it starts",
    ),
    ("ebhpc_hold", "", "1 to 255 printable letters"),
    ("ebhpc_hold", 7, "a native identifier, a string, got int 7"),
    ("ebhpc_prepare", "done", "expected a Prepared, got str 'done'"),
    ("ebhpc_submit", None, "a native identifier, a string, got None"),
    ("ebhpc_submit", 4711, "a native identifier, a string, got int 4711"),
    ("ebhpc_submit", "", "1 to 255 printable letters"),
    ("ebhpc_submit", "a\nb", "1 to 255 printable letters"),
    ("ebhpc_submit", "x" * 256, "1 to 255 printable letters"),
    ("ebhpc_observe", None, "an iterable of Observation, got None"),
    ("ebhpc_observe", Observation(uuid=S.uuid, state="RUNNING"), "an iterable of Observation, got Observation"),
    ("ebhpc_observe", [Observation(uuid="alien", state="RUNNING")], "alien, which was not asked for"),
    ("ebhpc_observe", [Observation(uuid=S.uuid, state="RUNNING")] * 2, "two observations of"),
    ("ebhpc_observe", [Observation(uuid=S.uuid, state="DONE")], "an Observation with a wrong field"),  # type: ignore[arg-type]
    ("ebhpc_observe", [Observation(uuid=S.uuid, state="RUNNING", started=float("inf"))], "wrong field|the time inf"),
    ("ebhpc_observe", [Observation(uuid=S.uuid, state="RUNNING", ended=-1.0)], "the time -1.0"),
    ("ebhpc_cancel", True, "expected None, got bool True"),
    ("ebhpc_cleanup", 0, "expected None, got int 0"),
    ("ebhpc_release", "x", "expected None"),
    ("ebhpc_forget", [], "expected None"),
    ("ebhpc_outputs", ["stdout"], "expected an Output, got str 'stdout'"),
    ("ebhpc_outputs", output() * 2, "two outputs named"),
    ("ebhpc_outputs", output(name="../etc/passwd"), "a relative path"),
    ("ebhpc_outputs", output(name="/etc/passwd"), "a relative path"),
    ("ebhpc_outputs", output(name="a//b"), "a relative path"),
    ("ebhpc_outputs", output(name=""), "a relative path"),
    ("ebhpc_outputs", output(name="a\0b"), "a relative path"),
    ("ebhpc_outputs", output(size=-1), "of -1 bytes"),
    ("ebhpc_outputs", output(media_type="text"), "of media type 'text'"),
    ("ebhpc_outputs", output(media_type="text/plain\r\nX: y"), "of media type"),
    ("ebhpc_open_output", io.StringIO("a"), "open for reading bytes"),
    ("ebhpc_open_output", b"abc", "open for reading bytes"),
]


@pytest.mark.parametrize(("hook", "value", "reason"), BAD)
def test_nonsense_makes_the_platform_unavailable(hook: str, value: Any, reason: str) -> None:
    with pytest.raises(PlatformUnavailable, match=reason) as raised:
        answer(hook, value)
    assert raised.value.reason.startswith("answered what its contract does not allow: ")


@pytest.mark.parametrize("hook", ["ebhpc_cancel", "ebhpc_submit", "ebhpc_refuses", "ebhpc_open_output"])
def test_a_hook_that_is_a_coroutine_is_nonsense(hook: str) -> None:
    value = coroutine()
    with pytest.raises(PlatformUnavailable, match="got coroutine"):
        answer(hook, value)
    value.close()


def test_an_answer_that_raises_while_it_is_looked_at_is_the_plugins_fault() -> None:
    class Rude:
        def __iter__(self) -> None:
            raise RuntimeError("go away")

        def __repr__(self) -> str:
            raise RuntimeError("no name")

    hooks: list[tuple[str, Callable[[], Any]]] = [("ebhpc_refuses", Rude), ("ebhpc_submit", Rude)]
    for hook, make in hooks:
        with pytest.raises(PlatformUnavailable, match="RuntimeError"):
            answer(hook, make())


def test_a_snapshot_of_ten_thousand_nodes_is_checked_in_a_fraction_of_a_second() -> None:
    nodes = tuple(Node(name=f"n{at}", cores=64, memory=262144) for at in range(10_000))
    assert len(answer("ebhpc_snapshot", snapshot(nodes=nodes)).nodes) == 10_000
