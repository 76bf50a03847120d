"""Which windows are found for a demand."""

from __future__ import annotations

from typing import Any

import pytest

from ebhpc.model import Limits, Window
from ebhpc.planning import Partition, Timeline, fits, windows
from tests.planning.examples import (
    DAY,
    GIB,
    HOUR,
    MINUTE,
    NOW,
    booking,
    demand,
    job,
    node,
    reservation,
    share,
    snapshot,
)


def found(timeline: Timeline, wanted: Any, **terms: Any) -> list[Window]:
    """The windows for a demand at NOW, checked to fit together."""
    result = windows(wanted, timeline, now=NOW, **terms)
    assert fits(timeline, result)
    return result


def only(timeline: Timeline, wanted: Any, **terms: Any) -> Window:
    (window,) = found(timeline, wanted, limit=1, **terms)
    return window


def starts(result: list[Window]) -> list[tuple[str, int]]:
    return [(window.label, window.start - NOW) for window in result]


def test_on_an_idle_node_the_earliest_window_starts_now() -> None:
    window = only(Timeline.of(snapshot()), demand(cores=4, duration=HOUR))
    assert window.start == NOW
    assert window.duration == HOUR
    assert window.allocations == (share(cores=4, memory=GIB),)
    assert window.firm


def test_a_window_near_now_is_kept_for_as_long_as_the_user_may_take_to_accept() -> None:
    window = only(Timeline.of(snapshot()), demand(duration=HOUR), offer_lifetime=300, lead=60)
    assert (window.start, window.latest, window.end) == (NOW + 60, NOW + 360, NOW + 360 + HOUR)


def test_a_window_near_now_does_not_reach_over_the_start_interval() -> None:
    window = only(Timeline.of(snapshot()), demand(latest=2 * MINUTE), offer_lifetime=300)
    assert (window.start, window.latest, window.end) == (NOW, NOW + 120, NOW + 120 + HOUR)


def test_a_window_far_enough_away_is_exact() -> None:
    window = only(Timeline.of(snapshot()), demand(earliest=HOUR, duration=HOUR), offer_lifetime=300, lead=60)
    assert (window.start, window.latest, window.end) == (NOW + HOUR, NOW + HOUR, NOW + 2 * HOUR)


def test_a_gap_too_short_for_the_time_to_accept_is_not_offered() -> None:
    timeline = Timeline.of(snapshot(), [booking(1, HOUR + 200, 2 * HOUR)])
    assert only(timeline, demand(duration=HOUR), offer_lifetime=300).start == NOW + 2 * HOUR
    assert only(timeline, demand(duration=HOUR), offer_lifetime=200).start == NOW


def test_the_start_waits_for_what_the_job_that_runs_holds() -> None:
    timeline = Timeline.of(snapshot(running=(job(HOUR, share(cores=6)),)))
    assert only(timeline, demand(cores=4)).start == NOW + HOUR
    assert only(timeline, demand(cores=2)).start == NOW


def test_a_gap_that_is_long_enough_is_used_and_a_shorter_one_is_passed_over() -> None:
    timeline = Timeline.of(
        snapshot(), [booking(1, 0, HOUR), booking(2, HOUR + 30 * MINUTE, 2 * HOUR), booking(3, 3 * HOUR, DAY)]
    )
    assert only(timeline, demand(duration=30 * MINUTE)).start == NOW + HOUR
    assert only(timeline, demand(duration=HOUR)).start == NOW + 2 * HOUR
    assert found(timeline, demand(duration=HOUR + 1)) == []


def test_memory_and_devices_count_like_cores() -> None:
    timeline = Timeline.of(
        snapshot(
            node(cores=8, memory=8 * GIB, gpu=2),
            running=(job(HOUR, share(cores=1, memory=6 * GIB)), job(2 * HOUR, share(cores=1, gpu=2))),
        )
    )
    assert only(timeline, demand(cores=1, memory=2 * GIB)).start == NOW
    assert only(timeline, demand(cores=1, memory=3 * GIB)).start == NOW + HOUR
    assert only(timeline, demand(cores=1, devices={"gpu": 1})).start == NOW + 2 * HOUR


def test_what_is_not_wanted_may_be_overcommitted() -> None:
    timeline = Timeline.of(snapshot(node(memory=GIB), running=(job(None, share(cores=1, memory=2 * GIB)),)))
    assert only(timeline, demand(cores=1, memory=0)).start == NOW
    assert found(timeline, demand(cores=1, memory=1)) == []


@pytest.mark.parametrize("state", ["DRAINED", "DOWN"])
def test_nodes_that_are_not_up_take_nothing_new(state: str) -> None:
    timeline = Timeline.of(snapshot(node("n1", state=state), node("n2")))
    assert only(timeline, demand()).allocations[0].node == "n2"
    assert found(Timeline.of(snapshot(node(state=state))), demand()) == []
    assert found(Timeline.of(snapshot(node(state=state))), demand(cores=0, memory=0)) == []


def test_a_window_ends_before_maintenance_begins() -> None:
    timeline = Timeline.of(snapshot(reservations=(reservation(HOUR, 90 * MINUTE, maintenance=True),)))
    assert only(timeline, demand(duration=HOUR), offer_lifetime=0).start == NOW
    assert only(timeline, demand(duration=HOUR + 1), offer_lifetime=0).start == NOW + 90 * MINUTE


def test_a_window_lies_inside_the_start_interval() -> None:
    timeline = Timeline.of(snapshot(), [booking(1, 0, 2 * HOUR)])
    assert only(timeline, demand(earliest=HOUR, latest=2 * HOUR)).start == NOW + 2 * HOUR
    assert found(timeline, demand(earliest=HOUR, latest=2 * HOUR - 1)) == []
    assert only(timeline, demand(earliest=3 * HOUR, latest=3 * HOUR)).start == NOW + 3 * HOUR


def test_an_interval_that_ends_before_anything_can_be_prepared_has_no_window() -> None:
    timeline = Timeline.of(snapshot())
    assert found(timeline, demand(latest=59), lead=60) == []
    assert only(timeline, demand(latest=60), lead=60).start == NOW + 60


def test_the_duration_is_rounded_up_to_what_the_batch_system_can_express() -> None:
    assert only(Timeline.of(snapshot()), demand(duration=61), granularity=60).duration == 120
    assert only(Timeline.of(snapshot()), demand(duration=120), granularity=60).duration == 120
    assert only(Timeline.of(snapshot()), demand(duration=0)).duration == 1


def test_the_snapshot_may_be_minutes_old_or_from_a_clock_ahead_of_ours() -> None:
    for taken in (-10 * MINUTE, 10 * MINUTE):
        timeline = Timeline.of(snapshot(taken=taken, running=(job(HOUR),)))
        assert only(timeline, demand()).start == NOW + HOUR


def test_the_windows_are_the_earliest_the_longest_and_the_largest() -> None:
    timeline = Timeline.of(snapshot(node(cores=8, memory=32 * GIB)))
    wanted = demand(cores=1, memory=GIB, most_cores=4, most_memory=8 * GIB, duration=HOUR)
    earliest, longest, largest = found(timeline, wanted, longest=12 * HOUR)
    assert [each.label for each in (earliest, longest, largest)] == ["earliest", "longest", "largest"]
    assert earliest.allocations == (share(cores=1, memory=GIB),)
    assert (longest.duration, longest.allocations) == (12 * HOUR, (share(cores=1, memory=GIB),))
    assert (largest.duration, largest.allocations) == (HOUR, (share(cores=4, memory=8 * GIB),))


def test_the_longest_window_keeps_to_the_limits_and_to_the_next_booking() -> None:
    timeline = Timeline.of(snapshot(), [booking(1, 5 * HOUR, 6 * HOUR)])
    wanted = demand(duration=HOUR, latest=HOUR)

    def duration(**terms: Any) -> int:
        return next(window.duration for window in found(timeline, wanted, **terms) if window.label == "longest")

    assert duration() == 5 * HOUR - 300
    assert duration(granularity=HOUR) == 4 * HOUR
    assert duration(limits=Limits(duration=2 * HOUR)) == 2 * HOUR
    assert duration(limits=Limits(duration=3 * HOUR), longest=90 * MINUTE) == 90 * MINUTE


def test_where_nothing_limits_the_duration_there_is_no_longest_window() -> None:
    assert "longest" not in dict(starts(found(Timeline.of(snapshot()), demand())))


def test_there_is_no_longest_window_where_the_limit_is_what_was_asked() -> None:
    result = found(Timeline.of(snapshot()), demand(duration=HOUR), limits=Limits(duration=HOUR))
    assert "longest" not in dict(starts(result))


def test_the_largest_window_takes_a_later_start_where_more_is_free() -> None:
    timeline = Timeline.of(snapshot(running=(job(HOUR, share(cores=6)),)))
    result = found(timeline, demand(cores=1, most_cores=8, duration=30 * MINUTE, latest=HOUR))
    largest = next(window for window in result if window.label == "largest")
    assert (largest.start, largest.allocations[0].cores) == (NOW + HOUR, 8)


def test_a_maximum_above_what_the_platform_has_is_lowered_to_it() -> None:
    timeline = Timeline.of(snapshot(node(cores=8), running=(job(2 * HOUR, share(cores=1)),)))
    result = found(timeline, demand(cores=1, most_cores=1000, latest=HOUR))
    assert max(window.allocations[0].cores for window in result) == 6


def test_memory_grows_by_whole_gibibytes() -> None:
    timeline = Timeline.of(snapshot(node(memory=5000)))
    result = found(timeline, demand(cores=1, memory=512, most_memory=9 * GIB, earliest=HOUR))
    assert [window.allocations[0].memory for window in result if window.label == "largest"] == [4 * GIB]


def test_cores_and_memory_grow_together_before_one_of_them_takes_all_that_it_can() -> None:
    timeline = Timeline.of(
        snapshot(
            node("memory", cores=8, memory=64 * GIB),
            node("cores", cores=64, memory=8 * GIB),
            node("both", cores=32, memory=32 * GIB),
        )
    )
    wanted = demand(cores=4, memory=4 * GIB, most_cores=64, most_memory=64 * GIB)
    result = found(timeline, wanted, limit=6)
    assert [window.allocations[0].node for window in result if window.label == "largest"] == ["both"]


def test_the_largest_window_is_the_one_with_the_larger_part_of_every_range() -> None:
    timeline = Timeline.of(
        snapshot(
            node("even", cores=8, memory=17 * GIB),
            node("uneven", cores=17, memory=6 * GIB),
        )
    )
    wanted = demand(cores=1, memory=GIB, most_cores=17, most_memory=17 * GIB, earliest=HOUR, latest=HOUR)
    result = found(timeline, wanted, limit=2)
    assert [(each.label, each.allocations) for each in result] == [
        ("earliest", (share("even", 1, GIB),)),
        ("largest", (share("even", 7, 16 * GIB),)),
    ]


def test_the_largest_window_is_the_largest_of_all_partitions() -> None:
    timeline = Timeline.of(
        snapshot(
            node("n1", cores=18),
            node("n2", cores=33),
            partitions=(Partition(name="a", nodes=("n1",), default=True), Partition(name="b", nodes=("n2",))),
            running=(job(DAY, share("n1", cores=0)), job(DAY, share("n2", cores=15))),
        )
    )
    result = found(timeline, demand(cores=1, most_cores=33, earliest=HOUR, latest=HOUR), limit=2)
    assert [(each.label, each.allocations) for each in result] == [
        ("earliest", (share("n1", 1, GIB),)),
        ("largest", (share("n2", 18, GIB),)),
    ]


def test_the_sites_limits_bound_each_nodes_share() -> None:
    timeline = Timeline.of(snapshot(node(cores=8, gpu=4)))
    wanted = demand(cores=1, most_cores=8, most_devices={"gpu": 4})
    result = found(timeline, wanted, limits=Limits(cores=3, devices={"gpu": 1}))
    assert [window.allocations for window in result if window.label == "largest"] == [
        (share(cores=3, memory=GIB, gpu=1),)
    ]
    assert found(timeline, demand(cores=4), limits=Limits(cores=3)) == []
    assert found(timeline, demand(memory=2 * GIB), limits=Limits(memory=GIB)) == []


def test_nothing_starts_beyond_the_sites_horizon() -> None:
    timeline = Timeline.of(snapshot(), [booking(1, 0, HOUR)])
    assert only(timeline, demand(), limits=Limits(horizon=HOUR)).start == NOW + HOUR
    assert found(timeline, demand(), limits=Limits(horizon=HOUR - 1)) == []


def test_more_windows_are_at_later_starts_spread_over_the_interval() -> None:
    result = found(Timeline.of(snapshot()), demand(cores=1, latest=2 * HOUR), limit=4)
    assert starts(result) == [("earliest", 0), ("later", 1800), ("later", 3600), ("later", 5400)]


def test_an_exact_start_on_one_node_gives_one_window() -> None:
    assert len(found(Timeline.of(snapshot()), demand(earliest=HOUR, latest=HOUR), limit=5)) == 1


def test_an_exact_start_on_several_nodes_gives_a_window_on_each() -> None:
    timeline = Timeline.of(snapshot(node("n1"), node("n2"), node("n3")))
    result = found(timeline, demand(earliest=HOUR, latest=HOUR), limit=5)
    assert [(window.label, window.allocations[0].node) for window in result] == [
        ("earliest", "n1"),
        ("elsewhere", "n2"),
        ("elsewhere", "n3"),
    ]


def test_each_window_sees_those_before_it_as_taken() -> None:
    timeline = Timeline.of(snapshot(node(cores=8)))
    result = found(timeline, demand(cores=8, duration=HOUR, latest=2 * HOUR), limit=5, offer_lifetime=0)
    assert starts(result) == [("earliest", 0), ("later", HOUR), ("later", 2 * HOUR)]


def test_no_windows_are_wanted_and_none_are_found() -> None:
    assert found(Timeline.of(snapshot()), demand(), limit=0) == []


def test_several_nodes_start_at_the_same_instant_with_equal_shares() -> None:
    timeline = Timeline.of(
        snapshot(
            node("n1"),
            node("n2"),
            node("n3"),
            running=(job(HOUR, share("n1")), job(90 * MINUTE, share("n2")), job(2 * HOUR, share("n3"))),
        )
    )
    window = only(timeline, demand(cores=8, nodes=2))
    assert window.start == NOW + 90 * MINUTE
    assert window.allocations == (share("n1", 8, GIB), share("n2", 8, GIB))
    assert only(timeline, demand(cores=8, nodes=3)).start == NOW + 2 * HOUR
    assert found(timeline, demand(cores=1, nodes=4)) == []


def test_the_largest_window_of_several_nodes_is_as_large_on_each() -> None:
    timeline = Timeline.of(snapshot(node("n1", cores=16), node("n2", cores=8), node("n3", cores=12)))
    result = found(timeline, demand(cores=2, most_cores=16, nodes=2, earliest=HOUR))
    assert [window.allocations for window in result if window.label == "largest"] == [
        (share("n1", 12, GIB), share("n3", 12, GIB))
    ]


def test_the_longest_window_of_several_nodes_ends_with_the_first_that_is_taken_again() -> None:
    timeline = Timeline.of(
        snapshot(node("n1"), node("n2"), node("n3")),
        [
            booking(1, 4 * HOUR, DAY, node="n1"),
            booking(2, 6 * HOUR, DAY, node="n2"),
            booking(3, 9 * HOUR, DAY, node="n3"),
        ],
    )
    result = found(timeline, demand(cores=1, nodes=2, latest=HOUR), offer_lifetime=0)
    longest = next(window for window in result if window.label == "longest")
    assert (longest.duration, [each.node for each in longest.allocations]) == (6 * HOUR, ["n2", "n3"])


def test_features_are_honoured() -> None:
    plain, fast = node("n1"), node("n2")
    fast = fast.__class__(name="n2", cores=8, memory=32 * GIB, features=("avx512", "ib"))
    timeline = Timeline.of(snapshot(plain, fast))
    assert only(timeline, demand(features=("ib",))).allocations[0].node == "n2"
    assert found(timeline, demand(features=("ib", "arm"))) == []


def test_work_without_devices_goes_to_nodes_without_devices() -> None:
    timeline = Timeline.of(snapshot(node("n1", gpu=4), node("n2")))
    assert only(timeline, demand()).allocations[0].node == "n2"
    assert only(timeline, demand(devices={"gpu": 1})).allocations[0].node == "n1"


PARTITIONS = (
    Partition(name="short", nodes=("n1",), time_limit=HOUR, default=True),
    Partition(name="long", nodes=("n2", "gone"), time_limit=DAY),
    Partition(name="closed", nodes=("n3",), open=False),
)


def test_a_partition_that_is_named_is_honoured_with_its_time_limit() -> None:
    timeline = Timeline.of(snapshot(node("n1"), node("n2"), node("n3"), partitions=PARTITIONS))
    assert only(timeline, demand(partition="long")).allocations[0].node == "n2"
    assert only(timeline, demand(partition="short", duration=HOUR)).allocations[0].node == "n1"
    assert found(timeline, demand(partition="short", duration=HOUR + 1)) == []
    assert found(timeline, demand(partition="closed")) == []
    assert found(timeline, demand(partition="none such")) == []


def test_without_a_partition_all_open_ones_are_searched_and_the_default_is_preferred() -> None:
    timeline = Timeline.of(snapshot(node("n1"), node("n2"), node("n3"), partitions=PARTITIONS))
    assert only(timeline, demand(duration=HOUR)).allocations[0].node == "n1"
    assert only(timeline, demand(duration=2 * HOUR)).allocations[0].node == "n2"
    longest = next(each for each in found(timeline, demand(duration=HOUR)) if each.label == "longest")
    assert (longest.duration, longest.allocations[0].node) == (DAY, "n2")


def test_nodes_of_different_partitions_are_not_used_together() -> None:
    timeline = Timeline.of(snapshot(node("n1"), node("n2"), partitions=PARTITIONS))
    assert found(timeline, demand(nodes=2)) == []


def test_licences_are_counted_over_the_whole_platform() -> None:
    timeline = Timeline.of(
        snapshot(
            node("n1"),
            node("n2"),
            licences={"solver": 3},
            running=(job(HOUR, share("n2", cores=1), licences={"solver": 2}),),
        )
    )
    window = only(timeline, demand(licences={"solver": 1}))
    assert (window.start, window.licences) == (NOW, {"solver": 1})
    assert only(timeline, demand(licences={"solver": 2})).start == NOW + HOUR
    assert found(timeline, demand(licences={"solver": 4})) == []
    assert found(timeline, demand(licences={"other": 1})) == []
    taken = timeline.with_bookings([booking(1, 0, 2 * HOUR, cores=0, licences={"solver": 1})])
    assert only(taken, demand(licences={"solver": 1})).start == NOW + HOUR


def test_two_windows_do_not_share_a_licence() -> None:
    timeline = Timeline.of(snapshot(node("n1"), node("n2"), licences={"solver": 1}))
    result = found(timeline, demand(cores=1, licences={"solver": 1}, duration=HOUR), offer_lifetime=0, limit=5)
    assert starts(result) == [("earliest", 0), ("later", HOUR), ("later", 2 * HOUR)]


@pytest.mark.parametrize(
    "wanted",
    [
        demand(cores=10**30),
        demand(memory=10**30),
        demand(duration=10**30),
        demand(earliest=10**30, latest=10**30),
        demand(latest=-(10**30)),
        demand(devices={"unknown": 1}),
        demand(nodes=0),
        demand(nodes=10**9),
        demand(cores=4, most_cores=2),
    ],
)
def test_what_can_never_be_is_no_error_but_no_window(wanted: Any) -> None:
    assert found(Timeline.of(snapshot()), wanted) == []


def test_an_interval_without_end_is_searched_to_the_end_of_time() -> None:
    timeline = Timeline.of(snapshot(), [booking(1, 0, 900 * DAY)])
    assert only(timeline, demand(earliest=-(10**30), latest=10**30)).start == NOW + 900 * DAY


def test_a_platform_without_nodes_has_no_window() -> None:
    assert found(Timeline.of(snapshot().__class__(platform="here", taken=NOW, nodes=())), demand()) == []


def test_a_gap_stays_free_between_one_booking_and_the_next() -> None:
    booked = [booking(1, 0, HOUR), booking(2, 3 * HOUR, 4 * HOUR)]
    timeline = Timeline.of(snapshot(), booked, gap=MINUTE)
    wanted = demand(cores=8, latest=DAY)
    assert only(timeline, wanted).start == NOW + HOUR + MINUTE
    assert only(timeline, demand(cores=8, duration=2 * HOUR - 2 * MINUTE, latest=DAY)).start == NOW + HOUR + MINUTE
    assert only(timeline, demand(cores=8, duration=2 * HOUR - 119, latest=DAY)).start == NOW + 4 * HOUR + MINUTE
    window = only(timeline, wanted)
    assert window.end == window.start + HOUR
    later = only(timeline.with_windows([window]), demand(cores=8, duration=10 * MINUTE, latest=DAY))
    assert later.start == window.end + MINUTE


def test_a_gap_stays_free_before_reservations_but_not_behind_jobs() -> None:
    timeline = Timeline.of(snapshot(running=(job(HOUR),), reservations=(reservation(3 * HOUR, 4 * HOUR),)), gap=MINUTE)
    assert only(timeline, demand(duration=2 * HOUR - MINUTE)).start == NOW + HOUR
    assert found(timeline, demand(duration=2 * HOUR - MINUTE + 1)) == []


def test_the_longest_window_leaves_the_gap_before_the_next_booking() -> None:
    timeline = Timeline.of(snapshot(), [booking(1, 5 * HOUR, 6 * HOUR)], gap=MINUTE)
    result = found(timeline, demand(duration=HOUR, latest=HOUR), offer_lifetime=0)
    assert [each.duration for each in result if each.label == "longest"] == [5 * HOUR - MINUTE]


def test_a_timeline_keeps_its_gap_whatever_changes() -> None:
    timeline = Timeline.of(snapshot(), gap=MINUTE).with_bookings([booking(1, 0, HOUR)]).with_snapshot(snapshot())
    assert timeline.free("n1", NOW + HOUR, NOW + HOUR + 60).cores == 0
    assert timeline.free("n1", NOW + HOUR + 60, NOW + DAY).cores == 8
    assert timeline.with_bookings(removed=[1]).free("n1", NOW, NOW + DAY).cores == 8


def test_in_a_partition_without_a_time_limit_a_window_may_last_as_long_as_is_asked() -> None:
    pools = (Partition(name="endless", nodes=("n1",), default=True),)
    timeline = Timeline.of(snapshot(partitions=pools))
    assert only(timeline, demand(duration=3000 * DAY)).duration == 3000 * DAY
    assert "longest" not in dict(starts(found(timeline, demand())))
    assert ("longest", 0) in starts(found(timeline, demand(), longest=DAY))


def test_a_snapshot_whose_jobs_ended_long_ago_by_the_clock_is_believed_that_they_did() -> None:
    timeline = Timeline.of(snapshot(taken=-30 * MINUTE, running=(job(-10 * MINUTE), job(20 * MINUTE, share(cores=1)))))
    assert only(timeline, demand(cores=7)).start == NOW
    assert only(timeline, demand(cores=8)).start == NOW + 20 * MINUTE


def test_a_share_grows_from_nothing_on_the_few_nodes_that_may_be_used() -> None:
    fast = node("fast").__class__(name="fast", cores=8, memory=32 * GIB, devices={"gpu": 1}, features=("fast",))
    others = tuple(node(f"n{number}") for number in range(9))
    timeline = Timeline.of(
        snapshot(*others, fast, running=(job(DAY, share("fast", cores=8)), job(HOUR, share("fast"))))
    )
    wanted = demand(cores=0, memory=0, most_cores=1, most_devices={"gpu": 1}, features=("fast",), latest=2 * HOUR)
    (largest,) = (each for each in found(timeline, wanted) if each.label == "largest")
    assert (largest.start, largest.allocations) == (NOW, (share("fast", cores=0, gpu=1),))
    nothing_to_grow_by = demand(cores=0, memory=0, most_cores=1, features=("fast",), latest=2 * HOUR)
    assert "largest" not in dict(starts(found(timeline, nothing_to_grow_by)))
