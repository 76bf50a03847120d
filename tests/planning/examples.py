"""Short forms to write down platforms and demands. The clock of the examples stands at NOW."""

from __future__ import annotations

from ebhpc.model import Allocation, Demand, Shape, Window
from ebhpc.planning import Booking, Node, NodeState, Reservation, RunningJob, Snapshot

NOW = 1_800_000_000
MINUTE = 60
HOUR = 3600
DAY = 24 * HOUR
GIB = 1024


def node(name: str = "n1", cores: int = 8, memory: int = 32 * GIB, state: str = "UP", **devices: int) -> Node:
    return Node(name=name, cores=cores, memory=memory, devices=devices, state=NodeState(state))


def share(name: str = "n1", cores: int = 8, memory: int = 0, **devices: int) -> Allocation:
    return Allocation(node=name, cores=cores, memory=memory, devices=devices)


def job(ends: int | None, *shares: Allocation, session: str | None = None, **more: object) -> RunningJob:
    """A job whose limit is ``ends`` seconds from NOW."""
    limit = None if ends is None else NOW + ends
    return RunningJob(
        id=f"job {ends}",
        allocations=shares or (share(),),
        started=NOW - HOUR,
        ends=limit,
        session=session,
        **more,  # type: ignore[arg-type]
    )


def reservation(start: int, end: int, *shares: Allocation, **more: object) -> Reservation:
    return Reservation(
        name=f"reservation {start}",
        start=NOW + start,
        end=NOW + end,
        allocations=shares or (share(),),
        **more,  # type: ignore[arg-type]
    )


def booking(number: int, start: int, end: int, cores: int = 8, session: str = "", **more: object) -> Booking:
    return Booking(
        id=number,
        session=session or f"session {number}",
        node=str(more.pop("node", "n1")),
        start=NOW + start,
        end=NOW + end,
        cores=cores,
        memory=int(str(more.pop("memory", 0))),
        **more,  # type: ignore[arg-type]
    )


def snapshot(*nodes: Node, taken: int = 0, **more: object) -> Snapshot:
    return Snapshot(platform="here", taken=NOW + taken, nodes=nodes or (node(),), **more)  # type: ignore[arg-type]


def demand(
    cores: int = 4,
    memory: int = GIB,
    duration: int = HOUR,
    earliest: int = 0,
    latest: int = 2 * HOUR,
    devices: dict[str, int] | None = None,
    **more: object,
) -> Demand:
    """A demand whose start interval is told in seconds from NOW."""
    return Demand(
        least=Shape(cores=cores, memory=memory, devices=devices or {}),
        duration=duration,
        earliest=NOW + earliest,
        latest=NOW + latest,
        **more,  # type: ignore[arg-type]
    )


def window(start: int, end: int, *shares: Allocation, **more: object) -> Window:
    return Window(
        start=NOW + start,
        latest=NOW + start,
        end=NOW + end,
        duration=end - start,
        allocations=shares or (share(),),
        **more,  # type: ignore[arg-type]
    )
