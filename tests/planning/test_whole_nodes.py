"""Nodes that are taken whole, and devices of a model that are counted among all devices, against recounting."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from ebhpc.model import Demand, Limits, MessageKind, Shape
from ebhpc.planning import Booking, NodeState, Snapshot, Timeline, fits, why_never, why_not, windows
from tests.planning import cases
from tests.planning.examples import GIB, HOUR, NOW, booking, demand, job, node, share, snapshot
from tests.planning.exhaustive import Asked, Platform, amount, quantities


class Whole(Asked):
    """A demand for whole nodes."""

    def __init__(self, one: Asked, now: int) -> None:
        wanted = msgspec.structs.replace(one.demand, exclusive=True)
        super().__init__(wanted, now, one.limits, 0, 0, one.longest, one.granularity, one.gap)
        self.first, self.last, self.settled = one.first, one.last, one.settled

    def allowed(self, snapshot: Snapshot) -> bool:
        return True

    def bound(self, quantity: str) -> int | None:
        """The most that a node may have."""
        demand, limits = self.demand, self.limits
        pair = {
            "cores": (demand.most_cores, limits.cores),
            "memory": (demand.most_memory, limits.memory),
        }.get(quantity, (demand.most_devices.get(quantity), limits.devices.get(quantity)))
        return min((one for one in pair if one is not None), default=None)

    def suits(self, snapshot: Snapshot, name: str) -> bool:
        """Whether a node has enough and not too much."""
        (there,) = (one for one in snapshot.nodes if one.name == name)
        return all(
            amount(self.demand.least, quantity) <= amount(there, quantity)
            and ((most := self.bound(quantity)) is None or amount(there, quantity) <= most)
            for quantity in {*quantities(snapshot), *self.demand.least.devices}
        )

    def placements(self, platform: Platform, shape: Shape, duration: int) -> Iterator[tuple[int, tuple[str, ...]]]:
        for start in range(self.first, self.last + 1):
            end = self.latest(start) + duration + self.gap
            if not platform.licensed(self.demand.licences, start, end):
                continue
            for members, cap in self.pools(platform.snapshot):
                if cap is not None and duration > cap:
                    continue
                able = [
                    name
                    for name in members
                    if self.suits(platform.snapshot, name) and untouched(platform, name, start, end)
                ]
                for nodes in combinations(able, self.demand.nodes):
                    yield start, nodes


def untouched(platform: Platform, name: str, start: int, end: int) -> bool:
    """Whether nobody has anything of a node; not even of what it has not."""
    there = platform.node(name)
    return there.state is NodeState.UP and all(
        platform.free(name, time, quantity) >= amount(there, quantity)
        for quantity in quantities(platform.snapshot)
        for time in range(start, end)
    )


def longer(bookings: list[Booking], gap: int) -> list[Booking]:
    return [
        msgspec.structs.replace(one, end=one.end + gap) if one.start < one.end else one for one in bookings
    ]  # fmt: skip


@given(cases.platforms, cases.busy_booking_lists(), cases.asked(), st.integers(1, 5))
@settings(deadline=None, max_examples=300)
def test_whole_nodes_are_free_of_all_others_and_found_as_early_as_there_are_any(
    state: Snapshot, bookings: list[Booking], question: tuple[Asked, int, int, int], limit: int
) -> None:
    one, now, lifetime, lead = question
    asked = Whole(one, now)
    timeline = Timeline.of(state, bookings, gap=asked.gap)
    terms = {"now": now, "limits": asked.limits, "offer_lifetime": lifetime, "lead": lead}
    terms |= {"granularity": asked.granularity}
    found = windows(asked.demand, timeline, limit=limit, longest=asked.longest, apart=2, **terms)
    platform = Platform(state, longer(bookings, asked.gap))
    assert (found[0].start if found else None) == asked.earliest(platform)
    for window in found:
        names = [allocation.node for allocation in window.allocations]
        assert len(set(names)) == len(names) == asked.demand.nodes
        assert window.label != "largest"
        for allocation in window.allocations:
            there = platform.node(allocation.node)
            assert (allocation.cores, allocation.memory) == (there.cores, there.memory)
            assert allocation.devices == {device: count for device, count in there.devices.items() if count}
            assert asked.suits(state, allocation.node)
            assert untouched(platform, allocation.node, window.start, window.end + asked.gap)
        if window.label == "longest":
            assert window.duration == asked.longest_duration(platform, 1000)
        platform.windows.append(msgspec.structs.replace(window, end=window.end + asked.gap))
    assert fits(timeline, found)
    if not found:
        reason = why_not(asked.demand, timeline, **terms)
        assert reason.values is not None
        assert reason.values["path"].startswith("/")
        nodes = tuple(msgspec.structs.replace(each, state=NodeState.UP) for each in state.nodes)
        idle = Platform(msgspec.structs.replace(state, nodes=nodes, running=(), reservations=()), [])
        whenever = Whole(Asked(asked.demand, now, asked.limits, 0, 0, None, asked.granularity), now)
        whenever.first = whenever.last = 0
        if reason.kind != MessageKind.NO_WINDOW or "takes" in reason.filled:
            assert whenever.earliest(idle) is None
        else:
            assert whenever.earliest(idle) is not None


TWO = (node("n1", gpu=2), node("n2", cores=16, memory=64 * GIB))


def test_a_whole_node_is_waited_for_where_half_of_it_is_free() -> None:
    state = snapshot(node(), running=(job(HOUR, share(cores=1)),))
    (found,) = windows(demand(cores=1, exclusive=True), Timeline.of(state), now=NOW, limit=1)
    assert found.start == NOW + HOUR
    assert found.allocations == (share(cores=8, memory=32 * GIB),)


def test_whole_nodes_may_differ() -> None:
    (found,) = windows(demand(cores=2, nodes=2, exclusive=True), Timeline.of(snapshot(*TWO)), now=NOW, limit=1)
    assert found.allocations == (share(memory=32 * GIB, gpu=2), share("n2", cores=16, memory=64 * GIB))


def test_a_share_of_a_node_that_is_taken_whole_is_not_given_away() -> None:
    timeline = Timeline.of(snapshot(node(), node("n2")))
    first = windows(demand(cores=1, exclusive=True), timeline, now=NOW, limit=1)
    others = windows(demand(cores=1), timeline.with_windows(first), now=NOW, limit=1)
    assert {one.node for window in (*first, *others) for one in window.allocations} == {"n1", "n2"}


def refusals(wanted: Demand, limits: Limits | None = None) -> list[tuple[str, str]]:
    found = why_never(wanted, Timeline.of(snapshot(*TWO)), limits=limits or Limits())
    return [((one.values or {})["path"], str(one)) for one in found]


def test_why_no_node_can_be_taken_whole() -> None:
    sentence = "Each node of here that could be taken whole has {} or more, not {}."
    most = demand(exclusive=True, most_cores=7)
    assert refusals(most) == [("/compute/cores/max", sentence.format("8 cores", 7))]
    most = demand(exclusive=True, most_memory=16 * GIB)
    assert refusals(most) == [("/compute/memory/max", sentence.format("32 GiB of memory", 16))]
    gpus = demand(exclusive=True, devices={"gpu": 1})
    assert refusals(gpus, Limits(devices={"gpu": 1})) == [("/compute/gpus/max", sentence.format("2 gpu", 1))]
    apart = demand(exclusive=True, most_cores=8, devices={"gpu": 0}, most_devices={"gpu": 0})
    assert refusals(apart) == [
        ("/compute/exclusive", "No node of here is small enough to be taken whole."),
    ]
    assert refusals(demand(exclusive=True, nodes=2, most_cores=8)) == [
        ("/compute/nodes/min", "2 nodes were asked for; here has 1 such nodes."),
    ]


def test_what_is_in_the_way_of_whole_nodes_is_that_they_are_not_whole() -> None:
    timeline = Timeline.of(snapshot(), [booking(1, 0, 5 * HOUR, cores=1)])
    reason = why_not(demand(cores=1, exclusive=True), timeline, now=NOW)
    assert "has too few whole nodes free" in str(reason)
    assert (reason.values or {})["start"] == "2027-01-15T13:00:00Z"


def test_gpus_of_a_model_grow_with_the_count_of_all() -> None:
    mixed = node(cores=8, **{"gpu": 4, "gpu:a100": 3, "gpu:t4": 1})
    wanted = demand(cores=1, devices={"gpu": 1, "gpu:a100": 1}, most_devices={"gpu": 4, "gpu:a100": 4})
    found = {one.label: one for one in windows(wanted, Timeline.of(snapshot(mixed)), now=NOW, longest=HOUR)}
    assert found["largest"].allocations[0].devices == {"gpu": 3, "gpu:a100": 3}
    alone = windows(wanted, Timeline.of(snapshot(mixed, node("n2"))), now=NOW, longest=HOUR)
    for window in alone:
        assert window.allocations[0].devices["gpu"] == window.allocations[0].devices["gpu:a100"]
