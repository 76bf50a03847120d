"""Hypothesis strategies for small platforms, bookings and demands around the instant 0."""

from __future__ import annotations

import msgspec
from hypothesis import strategies as st

from ebhpc.model import Allocation, Demand, Limits, Shape
from ebhpc.planning import (
    Booking,
    Node,
    NodeState,
    Partition,
    Reservation,
    RunningJob,
    Scheduler,
    Snapshot,
    WaitingJob,
)
from tests.planning.exhaustive import Asked

NAMES = ("n1", "n2", "n3")
SESSIONS = ("A", "B", "C")
LATEST_EVENT = 40

times = st.integers(-10, LATEST_EVENT)
cores = st.integers(0, 4)
memory = st.sampled_from([0, 512, 1024, 2048, 3000, 4096])
devices = st.dictionaries(st.sampled_from(["gpu"]), st.integers(0, 2))
licences: st.SearchStrategy[dict[str, int]] = st.one_of(
    st.just({}), st.dictionaries(st.just("solver"), st.integers(0, 2))
)

nodes = st.lists(
    st.builds(
        Node,
        name=st.sampled_from(NAMES),
        cores=cores,
        memory=memory,
        devices=devices,
        features=st.sampled_from([(), ("fast",)]),
        state=st.sampled_from([NodeState.UP, NodeState.UP, NodeState.UP, NodeState.DRAINED, NodeState.DOWN]),
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda node: node.name,
).map(tuple)

allocations = st.lists(
    st.builds(
        Allocation,
        node=st.sampled_from([*NAMES, "vanished"]),
        cores=cores,
        memory=memory,
        devices=st.dictionaries(st.sampled_from(["gpu", "unknown"]), st.integers(0, 2), max_size=1),
    ),
    max_size=2,
).map(tuple)

jobs = st.lists(
    st.builds(
        RunningJob,
        id=st.uuids().map(str),
        allocations=allocations,
        started=st.integers(-30, 0),
        ends=st.one_of(st.none(), times),
        session=st.sampled_from([None, None, *SESSIONS]),
        reservation=st.sampled_from([None, None, "r1", "r2", "gone"]),
        licences=licences,
    ),
    max_size=4,
).map(tuple)

reservations = st.lists(
    st.builds(
        Reservation,
        name=st.sampled_from(["r1", "r2", "r3"]),
        start=times,
        end=times,
        allocations=allocations,
        session=st.sampled_from([None, None, *SESSIONS]),
        maintenance=st.booleans(),
        licences=licences,
    ),
    max_size=3,
    unique_by=lambda reservation: reservation.name,
).map(tuple)

partitions = st.one_of(
    st.just(()),
    st.lists(
        st.builds(
            Partition,
            name=st.sampled_from(["short", "long"]),
            nodes=st.lists(st.sampled_from([*NAMES, "vanished"]), unique=True).map(tuple),
            time_limit=st.one_of(st.none(), st.integers(1, 20)),
            default=st.booleans(),
            open=st.sampled_from([True, True, False]),
        ),
        max_size=2,
        unique_by=lambda partition: partition.name,
    ).map(tuple),
)

snapshots = st.builds(
    Snapshot,
    platform=st.just("small"),
    taken=st.integers(-5, 5),
    nodes=nodes,
    partitions=partitions,
    running=jobs,
    reservations=reservations,
    licences=st.one_of(st.just({}), st.just({"solver": 2})),
)


able_nodes = st.lists(
    st.builds(
        Node,
        name=st.sampled_from(NAMES),
        cores=st.integers(3, 4),
        memory=st.sampled_from([3000, 4096, 5000]),
        devices=st.fixed_dictionaries({"gpu": st.integers(1, 2)}),
        features=st.sampled_from([("fast",), ("fast",), ()]),
        state=st.sampled_from([NodeState.UP] * 7 + [NodeState.DRAINED]),
    ),
    min_size=2,
    max_size=3,
    unique_by=lambda node: node.name,
).map(tuple)

small_allocations = st.lists(
    st.builds(
        Allocation,
        node=st.sampled_from(NAMES),
        cores=st.sampled_from([1, 2, 2, 3, 3]),
        memory=st.sampled_from([0, 1024, 3000]),
        devices=st.fixed_dictionaries({"gpu": st.integers(0, 1)}),
    ),
    min_size=1,
    max_size=3,
).map(tuple)

busy_platforms = st.builds(
    Snapshot,
    platform=st.just("busy"),
    taken=st.integers(-5, 5),
    nodes=able_nodes,
    partitions=st.sampled_from(
        [
            (),
            (),
            (
                Partition(name="short", nodes=("n1", "n2"), time_limit=8, default=True),
                Partition(name="long", nodes=("n2", "n3"), priority=1),
            ),
        ]
    ),
    running=st.lists(
        st.builds(
            RunningJob,
            id=st.uuids().map(str),
            allocations=small_allocations,
            started=st.just(-20),
            ends=st.one_of(st.integers(6, 25), st.integers(6, 25), st.none()),
            session=st.sampled_from([None, None, *SESSIONS]),
            licences=st.sampled_from([{}, {}, {"solver": 1}]),
        ),
        min_size=1,
        max_size=3,
    ).map(tuple),
    reservations=st.lists(
        st.builds(
            Reservation,
            name=st.uuids().map(str),
            start=st.integers(-5, 25),
            end=st.integers(0, 40),
            allocations=small_allocations,
            session=st.sampled_from([None, *SESSIONS]),
            maintenance=st.sampled_from([False, False, True]),
        ),
        max_size=2,
    ).map(tuple),
    licences=st.just({"solver": 2}),
)
"""Platforms on which something fits mostly, but not at once."""

platforms = st.one_of(busy_platforms, busy_platforms, busy_platforms, busy_platforms, snapshots)


def bookings(ids: st.SearchStrategy[int] | None = None) -> st.SearchStrategy[Booking]:
    return st.builds(
        Booking,
        id=ids if ids is not None else st.integers(0, 1000),
        session=st.sampled_from([*SESSIONS, "D", "E"]),
        node=st.sampled_from([*NAMES, "vanished"]),
        start=times,
        end=times,
        cores=cores,
        memory=memory,
        devices=st.dictionaries(st.sampled_from(["gpu", "unknown"]), st.integers(0, 2), max_size=1),
        licences=licences,
        expires=st.one_of(st.none(), times),
    )


booking_lists = st.lists(bookings(), max_size=6, unique_by=lambda booking: booking.id)


@st.composite
def busy_booking_lists(draw: st.DrawFn) -> list[Booking]:
    """Draw bookings with short gaps between them."""
    drawn = []
    for number in range(draw(st.integers(0, 8))):
        start = draw(st.integers(-5, 25))
        drawn.append(
            Booking(
                id=number,
                session=draw(st.sampled_from([*SESSIONS, "D", "E"])),
                node=draw(st.sampled_from(NAMES)),
                start=start,
                end=start + draw(st.integers(1, 12)),
                cores=draw(st.integers(1, 4)),
                memory=draw(st.sampled_from([0, 1024, 3000])),
            )
        )
    return drawn


@st.composite
def asked(draw: st.DrawFn) -> tuple[Asked, int, int, int]:
    """Draw a demand with its terms, and ``now``, ``offer_lifetime`` and ``lead``."""
    least = Shape(
        cores=draw(st.sampled_from([0, 1, 2, 2, 3, 3])),
        memory=draw(st.sampled_from([0, 512, 1024, 1024, 2048])),
        devices=draw(st.sampled_from([{}, {}, {}, {"gpu": 0}, {"gpu": 1}])),
    )
    now = draw(st.integers(-5, 8))
    earliest = now + draw(st.integers(-3, 12))
    rarely = draw(st.integers(0, 6)) == 6
    demand = Demand(
        least=least,
        most_cores=draw(st.one_of(st.none(), st.integers(least.cores, 5))),
        most_memory=draw(st.one_of(st.none(), st.sampled_from([least.memory, 3000, 4096]))),
        most_devices=draw(st.dictionaries(st.just("gpu"), st.integers(least.devices.get("gpu", 0), 2))),
        duration=draw(st.integers(0, 9)),
        earliest=earliest,
        latest=earliest + draw(st.integers(3, 20)),
        nodes=draw(st.sampled_from([1, 1, 1, 2, 2, 3])),
        features=("fast",) if rarely else (),
        partition=draw(st.sampled_from([None, None, "short", "long"])) if rarely else None,
        licences=draw(st.sampled_from([{}, {}, {}, {}, {"solver": 1}, {"solver": 2}])),
    )
    limits = Limits()
    if draw(st.integers(0, 3)) == 3:
        limits = Limits(
            cores=draw(st.one_of(st.none(), st.integers(2, 4))),
            memory=draw(st.one_of(st.none(), st.sampled_from([1024, 2500]))),
            devices=draw(st.dictionaries(st.just("gpu"), st.integers(0, 2))),
            duration=draw(st.one_of(st.none(), st.integers(4, 20))),
            horizon=draw(st.one_of(st.none(), st.integers(5, 30))),
        )
    lifetime, lead = draw(st.integers(0, 9)), draw(st.integers(0, 3))
    longest, granularity = draw(st.integers(1, 25)), draw(st.sampled_from([1, 1, 3]))
    gap = draw(st.sampled_from([0, 0, 1, 4]))
    return Asked(demand, now, limits, lifetime, lead, longest, granularity, gap), now, lifetime, lead


@st.composite
def waiting_jobs(draw: st.DrawFn, platform: Snapshot) -> tuple[WaitingJob, ...]:
    """Draw jobs that wait on a platform, some of which can never run there."""
    names = [node.name for node in platform.nodes]
    partitions = [partition.name for partition in platform.partitions]
    jobs = []
    for number in range(draw(st.integers(1, 5))):
        odd = draw(st.integers(0, 7))
        jobs.append(
            WaitingJob(
                id=f"w{number}",
                nodes=draw(st.sampled_from([1, 1, 1, 2, 2, 3])),
                shape=Shape(
                    cores=draw(st.sampled_from([0, 1, 2, 3, 4])),
                    memory=draw(st.sampled_from([0, 1024, 3000])),
                    devices=draw(st.sampled_from([{}, {}, {}, {"gpu": 1}, {"gpu": 0}, {"fpga": 1}])),
                ),
                time_limit=draw(st.one_of(st.integers(0, 12), st.integers(1, 12), st.none())),
                begin=draw(st.integers(-5, 30)) if odd == 1 else None,
                partitions=tuple(draw(st.permutations([*partitions, "none such"])))[: draw(st.integers(1, 3))]
                if partitions and odd != 2
                else (),
                features=("fast",) if odd == 3 else (),
                held=odd == 4 and draw(st.booleans()),
                dependent=odd == 4 and draw(st.booleans()),
                tasks=draw(st.sampled_from([1, 1, 2, 3])),
                at_once=draw(st.sampled_from([None, None, 1, 2])),
                required=tuple(draw(st.sets(st.sampled_from(names), max_size=1))) if odd == 5 else (),
                excluded=tuple(draw(st.sets(st.sampled_from(names), max_size=1))) if odd == 6 else (),
                exclusive=draw(st.integers(0, 5)) == 5,
                licences=draw(st.sampled_from([{}, {}, {}, {"solver": 1}, {"solver": 2}, {"solver": 3}])),
                session=draw(st.sampled_from([None, None, None, None, *SESSIONS, "W"])),
                user=draw(st.sampled_from(["a", "b"])),
            )
        )
    return tuple(jobs)


schedulers = st.one_of(
    st.none(),
    st.builds(
        Scheduler,
        backfill=st.sampled_from(["conservative", "conservative", "easy", "greedy", "none"]),
        window=st.sampled_from([None, None, None, 10, 30]),
        depth=st.sampled_from([None, None, 1, 3]),
        per_user=st.sampled_from([None, None, 1, 2]),
        per_partition=st.sampled_from([None, None, 1, 2]),
        per_array=st.sampled_from([None, None, 1, 2]),
        resolution=st.sampled_from([1, 1, 5]),
    ),
)


@st.composite
def queues(draw: st.DrawFn) -> tuple[Snapshot, int]:
    """Draw a platform with jobs that wait, and the instant of planning."""
    platform = draw(platforms)
    waiting, scheduler = draw(waiting_jobs(platform)), draw(schedulers)
    return msgspec.structs.replace(platform, waiting=waiting, scheduler=scheduler), draw(st.integers(-5, 8))
