"""Settings of firm time: what a site lets its users promise themselves.

A rule that is absent does not hold. Clock times and days are those of ``FirmTime.zone``.
"""

from __future__ import annotations

import re
from datetime import date, datetime, time
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from msgspec import Meta, Struct

from ebhpc.config.rules import Who
from ebhpc.config.values import Duration, Seconds

Amount = Annotated[float, Meta(ge=0)]
"""A number from 0."""

Share = Annotated[float, Meta(gt=0, le=1, description="a number above 0, up to 1")]

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]

DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)|24:00")
_A_DAY = 24 * 60


class ClockTime(int):
    """A time of the day in minutes since midnight, 1440 for its end; written ``08:00`` or ``24:00``."""

    @classmethod
    def from_setting(cls, value: object) -> Self:
        """Read a time of the day. YAML takes ``18:00`` without quotes for the number 1080, which is the same here.

        Raises:
            ValueError: it is none.
        """
        if isinstance(value, str) and (found := _CLOCK.fullmatch(value)) is not None:
            return cls(_A_DAY if found[1] is None else int(found[1]) * 60 + int(found[2]))
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _A_DAY:
            return cls(value)
        raise ValueError(f"expected a time of the day such as '08:00', got {value!r}")

    def __str__(self) -> str:
        hours, minutes = divmod(int(self), 60)
        return f"{hours:02}:{minutes:02}"


class LocalTime(str):
    """An instant as the clock on the wall shows it: ``2026-12-24`` (its midnight) or ``2026-12-24 08:00``."""

    __slots__ = ()

    @classmethod
    def from_setting(cls, value: object) -> Self:
        """Read a date, or a date and a time. YAML reads them itself where they have no quotes.

        Raises:
            ValueError: it is none, or it names a zone: all times here are in the same one.
        """
        if isinstance(value, datetime) and value.tzinfo is None:
            return cls(value.isoformat())
        if isinstance(value, date) and not isinstance(value, datetime):
            return cls(datetime.combine(value, time.min).isoformat())
        if isinstance(value, str):
            try:
                read = datetime.fromisoformat(value)
            except ValueError:
                read = None
            if read is not None and read.tzinfo is None:
                return cls(read.isoformat())
        raise ValueError(f"expected a date, or a date and a time, without a zone, as '2026-12-24 08:00', got {value!r}")

    def posix(self, zone: ZoneInfo) -> int:
        """Return the instant in POSIX seconds."""
        return int(datetime.fromisoformat(self).replace(tzinfo=zone).timestamp())


class Zone(str):
    """A time zone by its IANA name, as ``Europe/Vienna``."""

    __slots__ = ()

    @classmethod
    def from_setting(cls, value: object) -> Self:
        """Read a zone.

        Raises:
            ValueError: this machine knows no zone of the name.
        """
        if isinstance(value, str) and value:
            try:
                ZoneInfo(value)
            except (KeyError, ValueError, OSError):
                pass
            else:
                return cls(value)
        raise ValueError(f"expected a time zone by its IANA name, such as Europe/Vienna, got {value!r}")


class Hours(Struct, frozen=True, kw_only=True, rename={"from_": "from"}):
    """Hours of the week; ``to`` before ``from`` is the next morning."""

    days: tuple[Day, ...] = DAYS
    """Days of the week: mon, tue, wed, thu, fri, sat, sun."""

    from_: ClockTime = ClockTime(0)
    """When they begin."""

    to: ClockTime = ClockTime(_A_DAY)
    """When they end."""

    def __post_init__(self) -> None:
        if not self.days:
            raise ValueError("days: expected one at least")
        if self.from_ == self.to:
            raise ValueError("from and to are the same time")


class Closed(Struct, frozen=True, kw_only=True):
    """A time in which nothing is promised."""

    start: LocalTime
    """When it begins."""

    end: LocalTime
    """When it ends."""

    reason: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    """Why, for users."""

    def __post_init__(self) -> None:
        if self.start >= self.end:
            raise ValueError("end must be later than start")


class FirmRules(Struct, frozen=True, kw_only=True):
    """Rules for firm time. None: no rule, and in a group's what the platform says."""

    least_notice: Seconds | None = None
    """How long before its start firm time must be asked for."""

    horizon: Duration | None = None
    """How far ahead firm time may start."""

    longest: Duration | None = None
    """The longest block of firm time."""

    share: Share | None = None
    """The share of a partition's nodes that may be promised at once."""

    node_hours_per_week: Amount | None = None
    """The most node-hours of firm time that one user may have in a week, Monday to Sunday."""

    hours: tuple[Hours, ...] | None = None
    """Hours of the week in which firm time must lie, from start to end."""

    closed: tuple[Closed, ...] | None = None
    """Times in which nothing is promised."""

    during_maintenance: bool | None = None
    """Whether firm time may lie beside maintenance in the same partition; absent: it may."""

    approval: bool | None = None
    """Whether an operator must approve firm time before it is used."""

    approval_above: Amount | None = None
    """Node-hours above which an operator must approve a block."""

    approval_within: Duration | None = None
    """How long after it was accepted a block waits for approval; absent: until its preparation would begin."""

    most_idle: Amount | None = None
    """The most node-hours that a window may be expected to leave idle before its start."""

    most_delay: Duration | None = None
    """The longest delay that a window may cause to a waiting job."""

    most_delay_sum: Duration | None = None
    """The most delay that a window may cause to all waiting jobs together."""

    charge_factor: Amount | None = None
    """By how much more than usual firm time is charged; absent: 1."""

    unused_charge_factor: Amount | None = None
    """By how much more than usual firm time is charged where it stays unused; absent: as ``charge_factor``."""


class GroupRules(FirmRules, frozen=True, kw_only=True):
    """Rules for some users, in place of the platform's."""

    who: Who
    """For whom."""


class FirmTime(FirmRules, frozen=True, kw_only=True):
    """What a site lets its users promise themselves on a platform."""

    zone: Zone = Zone("UTC")
    """The time zone of ``hours``, ``closed`` and the week."""

    prefer_cheap: bool = True
    """Whether windows that disturb least are offered first."""

    groups: tuple[GroupRules, ...] = ()
    """Other rules for some users; of several that name a user the first counts."""
