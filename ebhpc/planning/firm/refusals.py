"""Refusals of firm time: each names its rule, and the figure that would have been allowed.

The message's value ``rule`` is the setting's name, ``allowed`` the figure, so that programs find them.
"""

from __future__ import annotations

from math import ceil, floor

from ebhpc.config.firm_time import DAYS, Closed, Hours
from ebhpc.model.messages import Message, MessageKind, message
from ebhpc.model.times import duration_text, instant_text
from ebhpc.planning.firm.calendar import Interval, local
from ebhpc.planning.firm.harm import Harm
from ebhpc.planning.firm.rules import HOUR, Site


def _refusal(site: Site, rule: str, allowed: object, template: str, **values: str) -> Message:
    told = {"rule": rule, "allowed": str(allowed), "platform": site.platform, **values}
    return message(MessageKind.POLICY_REFUSED, template, level="ERROR", time=None, **told)


def lasting(seconds: float) -> str:
    """Say a duration with its two greatest units, as ``2 days 3 hours``."""
    rest = round(seconds)
    parts = []
    for size, unit in ((86_400, "day"), (HOUR, "hour"), (60, "minute"), (1, "second")):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count} {unit}{'s' if count > 1 else ''}")
    return " ".join(parts[:2]) or "0 seconds"


def too_soon(site: Site, latest: int) -> Message:
    """It should start sooner than the least notice allows."""
    notice = ceil(site.rules.least_notice or 0)
    return _refusal(
        site,
        "least_notice",
        duration_text(notice),
        "firm time on {platform} has to be asked for {notice} before it starts: it could start from {earliest} on, and"
        " was asked to start by {latest}",
        notice=lasting(notice),
        earliest=instant_text(site.now + notice),
        latest=instant_text(latest),
    )


def too_far(site: Site, earliest: int) -> Message:
    """It should start beyond the horizon."""
    horizon = floor(site.rules.horizon or 0)
    return _refusal(
        site,
        "horizon",
        duration_text(horizon),
        "firm time on {platform} is promised {horizon} ahead and no further: it could start until {latest}, and was"
        " asked to start from {earliest} on",
        horizon=lasting(horizon),
        latest=instant_text(site.now + horizon),
        earliest=instant_text(earliest),
    )


def too_long(site: Site, duration: int) -> Message:
    """The block is longer than allowed."""
    longest = floor(site.rules.longest or 0)
    return _refusal(
        site,
        "longest",
        duration_text(longest),
        "a block of firm time on {platform} lasts {longest} at most, and {asked} were asked for",
        longest=lasting(longest),
        asked=lasting(duration),
    )


def out_of_hours(site: Site) -> Message:
    """It would lie outside of the hours for firm time."""
    hours = words_of_hours(site.rules.hours or ())
    return _refusal(
        site,
        "hours",
        hours,
        "firm time on {platform} lies within {hours} ({zone}), from its start to its end",
        hours=hours,
        zone=site.zone.key,
    )


def words_of_hours(hours: tuple[Hours, ...]) -> str:
    """Say hours of the week: ``mon-fri 08:00 to 18:00``."""
    return ", ".join(f"{_words_of_days(each)} {each.from_} to {each.to}" for each in hours)


def _words_of_days(hours: Hours) -> str:
    numbers = sorted({DAYS.index(day) for day in hours.days})
    if len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{DAYS[numbers[0]]}-{DAYS[numbers[-1]]}"
    return " ".join(DAYS[number] for number in numbers)


def is_closed(site: Site, when: Interval, closed: Closed) -> Message:
    """It would lie in a time in which nothing is promised."""
    return _refusal(
        site,
        "closed",
        f"until {instant_text(when.start)}, from {instant_text(when.end)}",
        "nothing is promised on {platform} from {start} to {end}: {reason}",
        start=instant_text(when.start),
        end=instant_text(when.end),
        reason=closed.reason or "the site has closed that time",
    )


def in_maintenance(site: Site, when: Interval, partition: str | None) -> Message:
    """It would lie beside maintenance."""
    return _refusal(
        site,
        "during_maintenance",
        f"until {instant_text(when.start)}, from {instant_text(when.end)}",
        "nothing is promised on {where} during its maintenance from {start} to {end}",
        where=site.platform if partition is None else f"the partition {partition} of {site.platform}",
        start=instant_text(when.start),
        end=instant_text(when.end),
    )


def shared_out(site: Site, partition: str | None, nodes: int, promised: float, wanted: float) -> Message:
    """More of a partition would be promised at once than may be; ``promised`` is the least that there is already."""
    share = site.rules.share or 0.0
    left = max(share * nodes - promised, 0.0)
    return _refusal(
        site,
        "share",
        f"{_amount(left)} nodes",
        "of the {nodes} nodes of {where} {most} may be promised at once; {promised} are already, when it is least, so"
        " {left} could be had, and {wanted} were asked for",
        where=site.platform if partition is None else f"the partition {partition} of {site.platform}",
        nodes=str(nodes),
        most=_amount(share * nodes),
        promised=_amount(promised),
        left=_amount(left),
        wanted=_amount(wanted, up=True),
    )


def used_up(site: Site, week: Interval, used: float, wanted: float) -> Message:
    """More of a week would be the user's than may be; node-hours."""
    most = site.rules.node_hours_per_week or 0.0
    left = max(most - used, 0.0)
    return _refusal(
        site,
        "node_hours_per_week",
        f"{_amount(left)} node-hours",
        "one user may have {most} node-hours of firm time a week on {platform}; of the week from {monday} you have"
        " {used}, open offers included, so {left} are left, and this would take {wanted}",
        most=_amount(most),
        monday=local(week.start, site.zone).strftime("%Y-%m-%d"),
        used=_amount(used, up=True),
        left=_amount(left),
        wanted=_amount(wanted, up=True),
    )


def too_harmful(site: Site, least: Harm) -> tuple[Message, ...]:
    """Every window that was found does more harm than the site accepts; ``least`` is that of the least harmful."""
    rules = site.rules
    told = []
    if rules.most_idle is not None and least.idle > rules.most_idle:
        told.append(
            _refusal(
                site,
                "most_idle",
                f"{_amount(rules.most_idle)} node-hours",
                "this would leave {harm} node-hours idle on {platform} before its start, and {most} are accepted",
                harm=_amount(least.idle, up=True),
                most=_amount(rules.most_idle),
            )
        )
    for rule, most, harm, what in (
        ("most_delay", rules.most_delay, least.worst, "a waiting job"),
        ("most_delay_sum", rules.most_delay_sum, least.delay, "the waiting jobs, all together,"),
    ):
        if most is not None and harm > most:
            told.append(
                _refusal(
                    site,
                    rule,
                    duration_text(floor(most)),
                    "this would make {what} on {platform} wait {harm} longer, and {most} are accepted",
                    what=what,
                    harm=lasting(harm),
                    most=lasting(most),
                )
            )
    return tuple(told)


def _amount(value: float, *, up: bool = False) -> str:
    """Say a number with a decimal at most, rounded so that what is allowed is allowed."""
    rounded = (ceil(value * 10 - 1e-6) if up else floor(value * 10 + 1e-6)) / 10
    return f"{rounded:g}"
