"""Machines, their load, and questions to their planner, all made up from a seed."""

from __future__ import annotations

import random
from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from ebhpc.model import Allocation, Demand, Shape
from ebhpc.planning import Booking, Node, Partition, RunningJob, Scheduler, Snapshot, WaitingJob

NOW = 1_800_000_000
GIB = 1024
HOUR, DAY = 3600, 86_400


class Machine(Struct, frozen=True, kw_only=True):
    """A snapshot, and the broker's bookings on it."""

    snapshot: Snapshot
    bookings: tuple[Booking, ...]


def nodes_of(count: int) -> tuple[Node, ...]:
    """Make nodes of four kinds: plain, fast, with GPUs, with much memory."""
    nodes = []
    for number in range(count):
        kind = "gpu" if number % 10 == 3 else "fat" if number % 20 == 7 else "fast" if number % 3 == 0 else "plain"
        nodes.append(
            Node(
                name=f"n{number:05}",
                cores=64 if kind == "gpu" else 128,
                memory=(2048 if kind == "fat" else 256 if kind == "plain" else 512) * GIB,
                devices={"gpu": 4} if kind == "gpu" else {},
                features=("fast", "ib") if kind == "fast" else ("ib",) if number % 2 else (),
            )
        )
    return tuple(nodes)


def machine(count: int, allocations: int, *, seed: int = 1, days: float = 14.0, busy: bool = True) -> Machine:
    """Fill nodes with running jobs, then with bookings up to ``days`` ahead, never above what a node has.

    Each node has ``allocations / count`` of them. ``busy``: hardly anything is free until then; else about a half.
    """
    pauses = [0] * 20 + [600, HOUR] if busy else [0, 600, HOUR, 3 * HOUR, 12 * HOUR, DAY]
    whole = 0.95 if busy else 0.5
    chance = random.Random(seed)
    nodes = nodes_of(count)
    running: list[RunningJob] = []
    bookings: list[Booking] = []
    per_node = allocations // count
    for node in nodes:
        # Slots of the node follow one another in time: what is in a slot never meets what is in another
        slots = chance.choice([1, 2, 4, 4, 8])
        cores, memory = node.cores // slots, node.memory // slots
        gpus = node.devices.get("gpu", 0)
        free_from = [0] * slots
        for number in range(per_node):
            slot = min(range(slots), key=free_from.__getitem__)
            pause = chance.choice(pauses)
            lasting = int(days * DAY / per_node * slots * chance.uniform(0.5, 1.6))
            begin = free_from[slot] + (pause if number >= slots else 0)
            used = cores if chance.random() < whole else chance.randint(1, cores)
            devices = {"gpu": gpus // slots} if gpus >= slots and chance.random() < 0.8 else {}
            held = memory if chance.random() < whole else chance.randint(1, memory // GIB) * GIB
            if number < slots:
                share = Allocation(node=node.name, cores=used, memory=held, devices=devices)
                begun = NOW - chance.randint(0, HOUR)
                end = NOW + chance.randint(60, max(lasting, 61))
                running.append(RunningJob(id=f"{node.name}-{number}", allocations=(share,), started=begun, ends=end))
                free_from[slot] = end - NOW
            else:
                bookings.append(
                    Booking(
                        id=len(bookings) + 1,
                        session=f"s{len(bookings) + 1}",
                        node=node.name,
                        start=NOW + begin,
                        end=NOW + begin + lasting,
                        cores=used,
                        memory=held,
                        devices=devices,
                    )
                )
                free_from[slot] = begin + lasting
    snapshot = Snapshot(
        platform="bench", taken=NOW, nodes=nodes, partitions=partitions_of(nodes), running=tuple(running)
    )
    return Machine(snapshot=snapshot, bookings=tuple(bookings))


def partitions_of(nodes: Sequence[Node]) -> tuple[Partition, ...]:
    """Make three partitions that share nodes: all, the GPU nodes, and a tenth for short jobs."""
    return (
        Partition(name="batch", nodes=tuple(node.name for node in nodes), default=True, time_limit=30 * DAY),
        Partition(name="gpu", nodes=tuple(node.name for node in nodes if node.devices), priority=1),
        Partition(name="short", nodes=tuple(node.name for node in nodes[::10]), priority=2, time_limit=4 * HOUR),
    )


KINDS = (
    "small",
    "wide",
    "whole node",
    "long",
    "feature",
    "partition",
    "devices",
    "several nodes",
    "many nodes",
    "range",
)
"""The kinds of questions."""


def demands(count: int, *, seed: int = 2) -> list[tuple[str, Demand]]:
    """Make questions, each kind as often as the others."""
    chance = random.Random(seed)
    made = []
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        cores, memory, duration, nodes = chance.choice([1, 2, 4, 8]), chance.choice([1, 4, 16]) * GIB, HOUR, 1
        more: dict[str, object] = {"partition": "batch"}
        devices: dict[str, int] = {}
        match kind:
            case "wide":
                cores, memory, duration = chance.choice([32, 64, 96]), chance.choice([64, 128]) * GIB, 2 * HOUR
            case "whole node":
                cores, memory, duration = 128, 250 * GIB, chance.choice([HOUR, 6 * HOUR, DAY])
            case "long":
                duration = chance.choice([2, 5, 10]) * DAY
            case "feature":
                cores, more["features"] = 16, chance.choice([("fast",), ("ib",), ("fast", "ib")])
            case "partition":
                more["partition"] = chance.choice(["gpu", "short", None])
            case "devices":
                devices, cores = {"gpu": chance.choice([1, 2, 4])}, 8
            case "several nodes":
                cores, memory, nodes = 64, 64 * GIB, chance.choice([2, 4, 8])
            case "many nodes":
                cores, memory, nodes = chance.choice([32, 64]), 32 * GIB, chance.choice([16, 32])
            case "range":
                more |= {"most_cores": chance.choice([16, 64, 128]), "most_memory": chance.choice([64, 256]) * GIB}
                more |= {"partition": chance.choice(["batch", None])}
        begin = chance.choice([0, 0, HOUR, DAY, 3 * DAY])
        lasting = chance.choice([6 * HOUR, DAY, 7 * DAY, 30 * DAY])
        demand = Demand(
            least=Shape(cores=cores, memory=memory, devices=devices),
            duration=duration,
            earliest=NOW + begin,
            latest=NOW + begin + lasting,
            nodes=nodes,
            **more,  # type: ignore[arg-type]
        )
        made.append((kind, demand))
    return made


def with_queue(snapshot: Snapshot, count: int, *, seed: int = 3, scheduler: Scheduler | None = None) -> Snapshot:
    """Return the snapshot with so many jobs waiting, of all sizes, a few for ever."""
    chance = random.Random(seed)
    waiting = []
    for number in range(count):
        nodes = 1 if chance.random() < 0.7 else min(int(2 ** chance.uniform(1, 6)), max(len(snapshot.nodes) // 4, 1))
        cores = chance.choice([1, 4, 16, 32, 64, 128])
        gpu = chance.random() < 0.1
        waiting.append(
            WaitingJob(
                id=str(number),
                nodes=nodes if not gpu else 1,
                shape=Shape(
                    cores=min(cores, 64) if gpu else cores,
                    memory=cores * chance.choice([1, 2]) * GIB,
                    devices={"gpu": chance.choice([1, 2, 4])} if gpu else {},
                ),
                time_limit=None
                if chance.random() < 0.001
                else chance.choice([HOUR, 4 * HOUR, 12 * HOUR, DAY, 2 * DAY]),
                submitted=NOW - chance.randint(0, 7 * DAY),
                partitions=("gpu",) if gpu else ("short",) if chance.random() < 0.05 else ("batch",),
                features=("ib",) if chance.random() < 0.05 and not gpu else (),
                begin=NOW + chance.randint(0, DAY) if chance.random() < 0.02 else None,
                held=chance.random() < 0.01,
                user=f"u{chance.randint(0, 50)}",
            )
        )
    return replace(snapshot, waiting=tuple(waiting), scheduler=scheduler)


def whole_node_machine(count: int, bookings: int, *, seed: int = 6) -> Machine:
    """Make equal nodes, and bookings of whole ones, each node's one after the other."""
    chance = random.Random(seed)
    nodes = tuple(Node(name=f"w{number:04}", cores=64, memory=64 * GIB) for number in range(count))
    made = []
    free_from = dict.fromkeys((node.name for node in nodes), 0)
    for number in range(bookings):
        name = nodes[number % count].name
        begin = free_from[name] + chance.choice([0, HOUR, 6 * HOUR])
        end = begin + chance.randint(1, 24) * HOUR
        free_from[name] = end
        made.append(
            Booking(id=number, session=str(number), node=name, start=NOW + begin, end=NOW + end, cores=64, memory=0)
        )
    return Machine(snapshot=Snapshot(platform="whole", taken=NOW, nodes=nodes), bookings=tuple(made))


def whole_node_queue(snapshot: Snapshot, count: int, *, seed: int = 8) -> Snapshot:
    """Return the snapshot with jobs waiting for whole nodes."""
    chance = random.Random(seed)
    waiting = [
        WaitingJob(
            id=str(number),
            nodes=min(int(2 ** chance.uniform(0, 5)), len(snapshot.nodes)),
            shape=Shape(cores=64, memory=0),
            time_limit=chance.randint(1, 48) * HOUR,
        )
        for number in range(count)
    ]
    return replace(snapshot, waiting=tuple(waiting))
