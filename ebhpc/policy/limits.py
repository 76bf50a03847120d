"""How much somebody may have: which rule says so, and whether there is room left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from ebhpc.config.rules import LimitRule
from ebhpc.model import Identity, Limits, Message, MessageKind, message
from ebhpc.policy.people import in_group, matches
from ebhpc.store.usage import Counted, Whose

_COUNTED = ("sessions", "sessions_per_day", "core_hours_per_day")
_SHAPED = ("cores", "memory_gib", "duration", "horizon")
_MIB = 1024


class Bound(Struct, frozen=True, kw_only=True):
    """One limit that counts what there is: the rule, the quantity, its most, whose and where it is counted."""

    rule: str
    quantity: str
    most: float
    whose: Whose
    platforms: tuple[str, ...]
    together: bool


class Allotment(Struct, frozen=True, kw_only=True):
    """All limits of somebody on one platform."""

    bounds: tuple[Bound, ...] = ()
    limits: Limits = Limits()
    outstanding: int | None = None


def allotment(
    rules: Sequence[LimitRule], groups: Mapping[str, tuple[str, ...]], identity: Identity, platform: str
) -> Allotment:
    """Find somebody's limits on a platform: of each quantity those of the first rule that fits and names it.

    Limits of users and of groups are apart: both hold.
    """
    bounds: list[Bound] = []
    shaped: dict[str, float] = {}
    devices: dict[str, int] = {}
    outstanding: int | None = None
    taken: set[tuple[str, str]] = set()
    for rule in rules:
        if not matches(rule.who, identity) or (rule.platforms and platform not in rule.platforms):
            continue
        for quantity in _COUNTED:
            most = getattr(rule, quantity)
            if most is not None and (rule.per, quantity) not in taken:
                taken.add((rule.per, quantity))
                bounds += _bounds(rule, quantity, float(most), groups, identity)
        for quantity in _SHAPED:
            if (most := getattr(rule, quantity)) is not None:
                shaped.setdefault(quantity, float(most))
        for device, count in rule.devices.items():
            devices.setdefault(device, count)
        if outstanding is None:
            outstanding = rule.outstanding_offers
    return Allotment(
        bounds=tuple(bounds),
        limits=Limits(
            cores=_whole(shaped.get("cores")),
            memory=_whole(shaped["memory_gib"] * _MIB) if "memory_gib" in shaped else None,
            devices=devices,
            duration=_whole(shaped.get("duration")),
            horizon=_whole(shaped.get("horizon")),
        ),
        outstanding=outstanding,
    )


def exceeded(bound: Bound, counted: Counted, core_hours: float) -> Message | None:
    """Say why one session more, of so many core hours, is too much; None: it is not."""
    match bound.quantity:
        case "sessions":
            have, more, what = float(counted.live), 1.0, "sessions at a time"
        case "sessions_per_day":
            have, more, what = float(counted.in_a_day), 1.0, "sessions in 24 hours"
        case _:
            have, more, what = counted.core_hours, core_hours, "core hours in 24 hours"
    if have + more <= bound.most + 1e-9:
        return None
    who = "your group together" if bound.together else "you"
    return message(
        MessageKind.POLICY_REFUSED,
        "The site's rule {rule} allows {who} {most} {what}; there are {have} now, and this needs {more}.",
        time=None,
        rule=repr(bound.rule),
        who=who,
        most=f"{bound.most:g}",
        what=what,
        have=f"{have:.4g}",
        more=f"{more:.4g}",
    )


def _bounds(
    rule: LimitRule, quantity: str, most: float, groups: Mapping[str, tuple[str, ...]], identity: Identity
) -> Iterator[Bound]:
    if rule.per == "user":
        owners = [Whose(owner=identity.uuid)]
    else:
        owners = [
            Whose(group=name, usernames=groups.get(name, ()))
            for name in rule.who.groups
            if in_group(name, identity.groups)
        ]
    for whose in owners:
        yield Bound(
            rule=rule.name,
            quantity=quantity,
            most=most,
            whose=whose,
            platforms=rule.platforms,
            together=rule.per == "group",
        )


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
