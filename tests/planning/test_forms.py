"""The forms in which planning's data leave it: the compact snapshot, and what is free as plain data."""

from __future__ import annotations

import msgspec
import pytest

from ebhpc.planning import (
    SnapshotUnreadableError,
    Timeline,
    decode_snapshot,
    encode_snapshot,
    occupancy,
)
from tests.planning.examples import GIB, HOUR, NOW, booking, job, node, share, snapshot


def test_a_snapshot_is_small_in_its_compact_form() -> None:
    nodes = [node(f"node-{number:04}") for number in range(1000)]
    full = snapshot(*nodes, running=tuple(job(number, share(f"node-{number:04}")) for number in range(1000)))
    encoded = encode_snapshot(full)
    assert decode_snapshot(encoded) == full
    assert len(encoded) < len(msgspec.json.encode(full)) / 5


@pytest.mark.parametrize("damaged", [b"", b"S", b"S0abc", b"S1", b"S1abc", encode_snapshot(snapshot())[:-9]])
def test_damaged_or_foreign_bytes_are_told_from_a_snapshot(damaged: bytes) -> None:
    with pytest.raises(SnapshotUnreadableError):
        decode_snapshot(damaged)


def test_occupancy_is_plain_data_in_steps_node_by_node_and_in_total() -> None:
    timeline = Timeline.of(
        snapshot(node("n1", gpu=1), node("n2", state="DOWN"), node("n3"), licences={"solver": 2}),
        [booking(1, HOUR, 2 * HOUR, cores=6, memory=GIB, licences={"solver": 1}), booking(2, 0, 9, node="n3")],
    )
    shown = msgspec.json.decode(msgspec.json.encode(occupancy(timeline, NOW + 60, NOW + 3 * HOUR)))
    assert (shown["platform"], shown["start"], shown["end"]) == ("here", NOW + 60, NOW + 3 * HOUR)
    assert [(each["name"], each["state"], each["cores"]) for each in shown["nodes"]] == [
        ("n1", "UP", 8),
        ("n2", "DOWN", 8),
        ("n3", "UP", 8),
    ]
    assert shown["nodes"][0]["steps"] == [
        {"start": NOW + 60, "cores": 8, "memory": 32 * GIB, "devices": {"gpu": 1}},
        {"start": NOW + HOUR, "cores": 2, "memory": 31 * GIB, "devices": {"gpu": 1}},
        {"start": NOW + 2 * HOUR, "cores": 8, "memory": 32 * GIB, "devices": {"gpu": 1}},
    ]
    assert [step["cores"] for step in shown["nodes"][1]["steps"]] == [0]
    assert [(step["start"] - NOW, step["cores"]) for step in shown["total"]] == [
        (60, 16),
        (HOUR, 10),
        (2 * HOUR, 16),
    ]
    assert shown["licences"] == [
        {"start": NOW + 60, "free": {"solver": 2}},
        {"start": NOW + HOUR, "free": {"solver": 1}},
        {"start": NOW + 2 * HOUR, "free": {"solver": 2}},
    ]


def test_occupancy_of_an_empty_interval_or_platform_has_no_steps() -> None:
    nothing = occupancy(Timeline.of(snapshot()), NOW, NOW)
    assert (nothing.total, nothing.nodes[0].steps) == ((), ())
    empty = Timeline.of(snapshot().__class__(platform="here", taken=NOW, nodes=()))
    assert occupancy(empty, NOW, NOW + HOUR).total == ()
