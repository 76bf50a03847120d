"""The rules as pure functions: calendars, weeks, shares, and that what the search finds keeps to all of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebhpc.config import SettingsError, read_settings
from ebhpc.config.firm_time import FirmRules, FirmTime
from ebhpc.model import Allocation, Demand, MessageKind, Shape, message
from ebhpc.planning import Booking, Node, Partition, Reservation, Snapshot, Timeline, fits
from ebhpc.planning.firm import Asked, Site, Span, broken_rules, firm_windows, group_of, merged
from ebhpc.planning.firm.bars import Bar, starts_left
from ebhpc.planning.firm.calendar import Interval, outside_hours, weeks
from ebhpc.planning.firm.refusals import lasting

HOUR, DAY = 3600, 86_400
VIENNA = ZoneInfo("Europe/Vienna")


def instant(text: str, zone: str = "Europe/Vienna") -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp())


def rules_of(**given: Any) -> FirmRules:
    return merged(read_settings(FirmTime, given, ""), None)


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"share": 0}, "share"),
        ({"share": 1.5}, "<= 1"),
        ({"node_hours_per_week": -1}, ">= 0"),
        ({"hours": [{"from": "24:30"}]}, "hours[0].from"),
        ({"hours": [{"from": "8:00", "to": "08:00"}]}, "the same time"),
        ({"hours": [{"days": []}]}, "one at least"),
        ({"hours": [{"days": ["monday"]}]}, "hours[0].days"),
        ({"closed": [{"start": "2026-12-24T00:00Z", "end": "2026-12-25"}]}, "without a zone"),
        ({"closed": [{"start": "2026-12-26", "end": "2026-12-25"}]}, "later than start"),
        ({"zone": "Mars/Olympus"}, "Europe/Vienna"),
        ({"zone": "../../etc/passwd"}, "IANA"),
        ({"least_notice": 5}, "unit"),
        ({"groups": [{"share": 1}]}, "who is missing"),
        ({"shares": 0.5}, "shares"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_with_what_was_expected(given: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings(FirmTime, given, "")
    assert words in str(caught.value)


def test_a_group_has_the_platforms_rules_where_it_has_none_of_its_own() -> None:
    groups = [{"who": {"users": ["ada"]}, "share": 1}, {"who": {"groups": ["all"]}, "longest": "1h"}]
    firm = read_settings(FirmTime, {"share": 0.5, "longest": "4h", "groups": groups}, "")
    found = merged(firm, group_of(firm, [True, True]))
    assert (found.share, found.longest) == (1.0, 4 * HOUR)
    assert merged(firm, group_of(firm, [False, True])).longest == HOUR
    assert group_of(firm, [False, False]) is None


# --- calendars -------------------------------------------------------------------------------------------------------


def test_hours_are_those_of_the_clock_on_the_wall_also_when_it_is_moved() -> None:
    hours = rules_of(hours=[{"from": "08:00", "to": "18:00"}]).hours
    assert hours is not None
    # In the night to 2026-10-25 clocks go back: 25 hours
    outside = outside_hours(hours, VIENNA, instant("2026-10-24 12:00"), instant("2026-10-25 12:00"))
    assert outside == [Interval(instant("2026-10-24 18:00"), instant("2026-10-25 08:00"))]
    assert outside[0].end - outside[0].start == 15 * HOUR


def test_hours_over_midnight_and_hours_that_touch_are_one() -> None:
    night = rules_of(hours=[{"days": ["mon"], "from": "22:00", "to": "06:00"}]).hours
    assert night is not None
    monday = instant("2026-11-23 00:00")
    assert outside_hours(night, VIENNA, monday, monday + 2 * DAY) == [
        Interval(monday, monday + 22 * HOUR),
        Interval(monday + 30 * HOUR, monday + 2 * DAY),
    ]
    always = rules_of(hours=[{"from": "00:00", "to": "12:00"}, {"from": "12:00", "to": "24:00"}]).hours
    assert always is not None
    assert outside_hours(always, VIENNA, monday, monday + 30 * DAY) == []


def test_a_week_begins_on_monday_in_the_zone() -> None:
    (week,) = weeks(VIENNA, instant("2026-11-25 12:00"), instant("2026-11-26 12:00"))
    assert week == Interval(instant("2026-11-23 00:00"), instant("2026-11-30 00:00"))
    assert len(weeks(VIENNA, week.start, week.end + 1)) == 2


TOLD = message(MessageKind.POLICY_REFUSED, "no", rule="r")
times = st.integers(0, 60)


@given(
    bars=st.lists(st.tuples(times, times), max_size=4),
    first=times,
    width=times,
    duration=st.integers(1, 20),
    settled=st.integers(-5, 40),
)
def test_the_starts_left_are_those_whose_block_touches_no_bar(
    bars: list[tuple[int, int]], first: int, width: int, duration: int, settled: int
) -> None:
    made = [Bar(start=a, end=b, refusal=TOLD) for a, b in bars if a < b]
    left = starts_left(first, first + width, duration, made, settled=settled)
    allowed = {start for begin, end in left for start in range(begin, end + 1)}
    for start in range(first, first + width + 1):
        end = max(start, settled) + duration
        assert (start in allowed) == all(end <= bar.start or start >= bar.end for bar in made)


def test_durations_are_said_in_words() -> None:
    assert [lasting(seconds) for seconds in (0, 1, 3600, 90_061, 172_800)] == [
        "0 seconds",
        "1 second",
        "1 hour",
        "1 day 1 hour",
        "2 days",
    ]


# --- what is found keeps to the rules --------------------------------------------------------------------------------

NOW = instant("2026-11-23 09:00")
NODES = tuple(Node(name=f"n{number}", cores=4, memory=8192, devices={"gpu": number % 2}) for number in range(6))
NAMES = tuple(node.name for node in NODES)


@st.composite
def sites(draw: st.DrawFn) -> tuple[Site, Demand]:
    def share(name: str) -> Allocation:
        return Allocation(node=name, cores=4, memory=8192)

    spans = st.tuples(st.integers(-3, 40), st.integers(1, 12))
    reservations = tuple(
        Reservation(
            name=f"r{number}",
            start=NOW + begin * HOUR,
            end=NOW + (begin + lasting) * HOUR,
            maintenance=draw(st.booleans()),
            allocations=tuple(share(name) for name in draw(st.sets(st.sampled_from(NAMES), min_size=1, max_size=4))),
        )
        for number, (begin, lasting) in enumerate(draw(st.lists(spans, max_size=3)))
    )
    bookings = [
        Booking(
            id=number,
            session=f"s{number}",
            node=draw(st.sampled_from(NAMES)),
            start=NOW + begin * HOUR,
            end=NOW + (begin + lasting) * HOUR,
            cores=draw(st.sampled_from([1, 2, 4])),
            memory=1024,
        )
        for number, (begin, lasting) in enumerate(draw(st.lists(spans, max_size=6)))
    ]
    partitions = (
        Partition(name="all", nodes=NAMES, default=True),
        Partition(name="half", nodes=NAMES[:3]),
    )
    snapshot = Snapshot(
        platform="p",
        taken=NOW,
        nodes=NODES,
        reservations=reservations,
        partitions=draw(st.sampled_from([(), partitions])),
    )
    timeline = Timeline.of(snapshot, bookings)
    given: dict[str, Any] = {
        "least_notice": draw(st.sampled_from([None, "1h", "5h"])),
        "horizon": draw(st.sampled_from([None, "10h", "30h"])),
        "longest": draw(st.sampled_from([None, "3h", "12h"])),
        "share": draw(st.sampled_from([None, 0.25, 0.5, 0.9, 1.0])),
        "node_hours_per_week": draw(st.sampled_from([None, 0, 3, 8.5, 50])),
        "hours": draw(st.sampled_from([None, [{"from": "08:00", "to": "20:00"}], [{"from": "18:00", "to": "06:00"}]])),
        "closed": draw(st.sampled_from([None, [{"start": "2026-11-23 15:00", "end": "2026-11-24 03:00"}]])),
        "during_maintenance": draw(st.sampled_from([None, False])),
        "most_idle": draw(st.sampled_from([None, 0.5, 5])),
    }
    has = tuple(
        Span(start=NOW + begin * HOUR, end=NOW + (begin + lasting) * HOUR, nodes=draw(st.sampled_from([0.5, 1.0])))
        for begin, lasting in draw(st.lists(spans, max_size=2))
    )
    site = Site(
        platform="p",
        rules=rules_of(**{name: value for name, value in given.items() if value is not None}),
        zone=VIENNA,
        timeline=timeline,
        now=NOW,
        has=has,
        prefer_cheap=draw(st.booleans()),
    )
    begin = draw(st.integers(-2, 20))
    demand = Demand(
        least=Shape(
            cores=draw(st.sampled_from([1, 2, 4])), memory=512, devices=draw(st.sampled_from([{}, {"gpu": 1}]))
        ),
        most_cores=draw(st.sampled_from([None, 4])),
        duration=draw(st.integers(1, 8)) * HOUR,
        earliest=NOW + begin * HOUR,
        latest=NOW + (begin + draw(st.integers(0, 40))) * HOUR,
        nodes=draw(st.integers(1, 3)),
        exclusive=draw(st.sampled_from([False, False, True])),
    )
    if demand.exclusive:
        demand = Demand(
            least=demand.least,
            duration=demand.duration,
            earliest=demand.earliest,
            latest=demand.latest,
            nodes=demand.nodes,
        )
    return site, demand


@settings(max_examples=50, deadline=None)
@given(sites())
def test_what_is_found_fits_keeps_to_every_rule_and_a_refusal_says_why(example: tuple[Site, Demand]) -> None:
    site, demand = example
    found = firm_windows(Asked(demand=demand, lead=60), site)
    chosen = [one.window for one in found.windows]
    assert not (chosen and found.refusals)
    assert fits(site.timeline, chosen)
    for one in found.windows:
        window = one.window
        assert broken_rules(window, site) == ()
        assert window.duration >= demand.duration
        assert demand.earliest <= window.start
        assert window.start <= demand.latest
        assert len({share.node for share in window.allocations}) == demand.nodes
        if site.rules.most_idle is not None:
            assert one.harm.idle <= site.rules.most_idle
        assert 0 <= one.harm.idle <= one.harm.idle_most
    for told in found.refusals:
        values = told.values or {}
        assert getattr(site.rules, values["rule"]) is not None, "a rule that holds"
        assert values["allowed"]


@settings(max_examples=20, deadline=None)
@given(sites())
def test_a_platform_without_rules_offers_what_is_free(example: tuple[Site, Demand]) -> None:
    site, demand = example
    free = Site(platform="p", rules=FirmRules(), zone=VIENNA, timeline=site.timeline, now=NOW)
    found = firm_windows(Asked(demand=demand, lead=60), free)
    assert found.refusals == ()
    if firm_windows(Asked(demand=demand, lead=60), site).windows:
        assert found.windows
