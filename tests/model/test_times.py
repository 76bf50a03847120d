from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebhpc.model.times import (
    MAX_DURATION,
    duration_text,
    instant_text,
    interval_text,
    parse_duration,
    parse_interval,
    utc,
)
from tests import standard_schema

NOON = 1_896_177_600  # 2030-02-01T12:00:00Z
posix = st.integers(-62_135_596_800, 253_402_300_799)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("P1D", 86_400),
        ("PT90M", 5400),
        ("P1W", 604_800),
        ("P1DT12H", 129_600),
        ("PT2H30M", 9000),
        ("PT0.5H", 1800),
        ("PT1,5S", 2),
        ("PT0.001S", 1),
        ("P0DT1S", 1),
    ],
)
def test_durations_are_read_to_whole_seconds_rounded_up(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["P1M", "P1Y", "P1Y6M", "P2M1D", "P0Y1D"])
def test_months_and_years_are_ambiguous(text: str) -> None:
    with pytest.raises(ValueError, match="ambiguous"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["PT0S", "P0D", "-P1D", "-PT0S"])
def test_a_duration_of_no_or_negative_length_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="above zero"):
        parse_duration(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "P",
        "PT",
        "P1DT",
        "1D",
        "P1",
        "PT1D",
        "P1H",
        "p1d",
        "P1D ",
        " P1D",
        "P٣D",
        "P.D",
        "PT1.5.5S",
        "two hours",
        "P0003-06-04T12:30:05",
        "P" + "1" * 500 + "D",
        "P-1D",
        "PT-1H",
    ],
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not an ISO 8601 duration|is longer"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["P36601D", "P99999999999999D", "PT" + "9" * 90 + "H"])
def test_a_duration_beyond_a_century_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="century"):
        parse_duration(text)


@given(st.integers(1, MAX_DURATION))
def test_every_duration_survives_being_written(seconds: int) -> None:
    assert parse_duration(duration_text(seconds)) == seconds


@given(st.integers(0, MAX_DURATION), posix, posix)
def test_what_is_written_is_what_the_standard_wants(seconds: int, one: int, other: int) -> None:
    start, latest = sorted((one, other))
    schedule = {
        "preparing": {"start": instant_text(start), "duration": duration_text(seconds)},
        "available": {"start": interval_text(start, latest), "duration": duration_text(seconds)},
    }
    standard_schema.validate(schedule, "LifecycleSchedule")


def test_durations_are_written_as_people_write_them() -> None:
    assert [duration_text(seconds) for seconds in (0, 9000, 86_400, 90_061)] == [
        "PT0S",
        "PT2H30M",
        "P1D",
        "P1DT1H1M1S",
    ]
    with pytest.raises(ValueError, match="negative"):
        duration_text(-1)


@pytest.mark.parametrize(
    "text",
    [
        "2030-02-01T12:00:00Z/2030-02-01T14:00:00Z",
        "2030-02-01T12:00:00Z/PT2H",
        "PT2H/2030-02-01T14:00:00Z",
        "2030-02-01T12:00/PT2H",
        "2030-02-01T12:00:00/2030-02-01T14:00:00",
        "2030-02-01T14:00:00+02:00/2030-02-01T09:00:00-05:00",
        "2030-02-01t12:00:00z/PT120M",
        "2030-02-01T17:30:00+05:30/PT2H",
        "2030-02-01T12:00:00.000Z/PT2H",
    ],
)
def test_an_interval_is_read_in_all_its_forms(text: str) -> None:
    assert parse_interval(text) == (NOON, NOON + 7200)


def test_a_date_means_its_first_second() -> None:
    assert parse_interval("2030-02-01/2030-02-02") == (NOON - 43_200, NOON + 43_200)


def test_an_interval_may_be_an_instant() -> None:
    assert parse_interval("2030-02-01T12:00:00Z/PT0S") == (NOON, NOON)
    assert parse_interval(interval_text(NOON, NOON)) == (NOON, NOON)


@pytest.mark.parametrize("fraction", ["0.5", "0.999999", "0.000000001"])
def test_the_ends_of_an_interval_are_rounded_up(fraction: str) -> None:
    text = f"2030-02-01T12:00:0{fraction}Z/PT0S"
    assert parse_interval(text) == (NOON + 1, NOON + 1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "a/b",
        "P1D/P1D",
        "2030-02-01",
        "2030-02-01/",
        "/2030-02-01",
        "2030-02-01/P1M",
        "2030-02-01/-P1D",
        "2030-02-30/P1D",
        "2030-02-01T25:00/P1D",
        "2030-02-01T12:00:60Z/P1D",
        "2030-2-1/P1D",
        "20300201/P1D",
        "2030-02-01/2030-02-02/2030-02-03",
        "2030-02-02/2030-02-01",
        "2030-02-01T12:00:00+25:00/P1D",
        "9999-12-31/P1W",
        "P1D/0001-01-01",
        "0001-01-01T00:00+14:00/P1D",
        "2030-02-01/P99999999D",
    ],
)
def test_what_is_no_interval_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        parse_interval(text)


@given(st.text("0123456789-+:.,TZPDHMSWYtz/", max_size=60) | st.text(max_size=30))
def test_nothing_but_value_errors_comes_of_any_text(text: str) -> None:
    texts = []
    for parse in (parse_duration, parse_interval):
        try:
            parse(text)
        except ValueError as error:
            texts.append(str(error))
    assert all(text.isascii() and text.isprintable() for text in texts)


@given(posix, posix)
def test_every_interval_survives_being_written(one: int, other: int) -> None:
    start, latest = sorted((one, other))
    assert parse_interval(interval_text(start, latest)) == (start, latest)


@given(posix)
def test_an_instant_is_written_in_utc_without_fractions(seconds: int) -> None:
    text = instant_text(seconds)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", text)
    assert datetime.fromisoformat(text) == utc(seconds)


def test_times_beyond_the_calendar_are_refused() -> None:
    assert utc(0) == datetime(1970, 1, 1, tzinfo=UTC)
    for seconds in (253_402_300_800, -62_135_596_801, 10**30, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="years 1 to 9999"):
            utc(seconds)
    with pytest.raises(ValueError, match="before it starts"):
        interval_text(1, 0)
