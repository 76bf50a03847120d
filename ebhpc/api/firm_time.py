"""Offers of firm time under a site's rules: what is found, what it costs the others, what an operator must approve.

Harm takes longer to compute than a plan, so a platform with rules is planned for outside of every lock; the rules that
others could have used up meanwhile are looked at again in the transaction that books (:func:`still_allowed`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import ceil, floor
from zoneinfo import ZoneInfo

from msgspec.structs import replace
from sqlalchemy import Connection

from ebhpc.api.broker import Broker
from ebhpc.api.consulting import Asking, Willing
from ebhpc.config import PlatformConfig
from ebhpc.config.firm_time import FirmRules
from ebhpc.model import Identity, Message, MessageKind, Phase, Quote, SimpleCost, SimpleMetric, Window, kinds, message
from ebhpc.model.times import instant_text
from ebhpc.planning import Timeline
from ebhpc.planning.firm import (
    Asked,
    Harm,
    Pricing,
    Site,
    Span,
    broken_rules,
    firm_windows,
    group_of,
    merged,
    node_hours,
    nodes_of,
    with_bookings_read,
)
from ebhpc.policy import matches
from ebhpc.store import Approval, FirmTimeOf, NewOffer, firm_time_of

_HOUR = 3600
_WEEK = 7 * 86_400


class Ruled:
    """Firm time on one platform for one request: the rules that hold, and what was found under them."""

    def __init__(self, broker: Broker, asking: Asking, one: Willing, timeline: Timeline) -> None:
        self._config = one.platform.config
        self._lifetime = ceil(broker.config.offers.lifetime)
        self._now = int(asking.now)
        rules = rules_of(self._config, asking.identity)
        has: Sequence[Span] = ()
        if rules.node_hours_per_week is not None:
            with broker.store.read() as tx:
                has = _has(tx, asking, self._config.name, timeline)
        self.site = _site(self._config, rules, timeline, self._now, has)
        self.refusals: tuple[Message, ...] = ()
        self._harm: dict[int, Harm] = {}
        self._windows: list[Window] = []

    def windows(self, asked: Asked) -> list[Window]:
        """Return windows that keep to the rules, the cheapest first; none: ``refusals`` may say why."""
        found = firm_windows(asked, self.site)
        self.refusals = found.refusals
        return [self._told(one.window, one.harm) for one in found.windows]

    def kept(self, windows: Iterable[Window]) -> list[Window]:
        """Return those of a plugin's windows that keep to the rules."""
        kept = []
        pricing = Pricing(self.site.timeline, self._now)
        for window in windows:
            if told := broken_rules(window, self.site):
                self.refusals = told
            else:
                kept.append(self._told(window, pricing.harm(window)))
        return kept

    def _told(self, window: Window, harm: Harm) -> Window:
        self._windows.append(window)  # kept, so that no other gets its identity
        self._harm[id(window)] = harm
        return window

    def quote(self, quote: Quote, window: Window) -> Quote:
        """Return a window's quote with what it costs as firm time, and what it costs the others."""
        if not window.firm:
            return quote
        hours = node_hours(window, self.site.timeline.inventory)
        low, high = factors(self.site.rules)
        harm = self._harm[id(window)]
        return Quote(
            costs=(
                *(_charged(cost, low, high) for cost in quote.costs),
                SimpleCost(type=kinds.FIRM_NODE_HOURS, min=round(hours * low, 6), max=round(hours * high, 6)),
            ),
            metrics=(
                *quote.metrics,
                SimpleMetric(type=kinds.IDLE_NODE_HOURS, min=harm.idle, max=harm.idle_most),
                _hours(kinds.QUEUE_DELAY_SUM, harm.delay),
                _hours(kinds.QUEUE_DELAY_WORST, harm.worst),
            ),
        )

    def approval(self, window: Window) -> Approval | None:
        """Return that an operator must approve a window, and until when; None: nobody must."""
        rules = self.site.rules
        hours = node_hours(window, self.site.timeline.inventory)
        needed = rules.approval or (rules.approval_above is not None and hours > rules.approval_above)
        if not window.firm or not needed:
            return None
        deadline = window.start - ceil(self._config.lead)
        if rules.approval_within is not None:
            deadline = min(deadline, self._now + self._lifetime + floor(rules.approval_within))
        return Approval(deadline=max(deadline, self._now + self._lifetime))

    def messages(self, window: Window) -> tuple[Message, ...]:
        """Return what a user must know of a window beside its figures."""
        approval = self.approval(window)
        if approval is None:
            return ()
        return (
            message(
                MessageKind.APPROVAL,
                "an operator of {platform} has to approve this, by {deadline}: accept it, and it is kept for you until"
                " that is decided",
                level="INFO",
                platform=self._config.name,
                deadline=instant_text(approval.deadline),
            ),
        )


def rules_of(config: PlatformConfig, identity: Identity) -> FirmRules:
    """Return the rules of a platform for somebody."""
    firm = config.firm
    assert firm is not None, "asked of platforms with rules"
    return merged(firm, group_of(firm, [matches(group.who, identity) for group in firm.groups]))


def factors(rules: FirmRules) -> tuple[float, float]:
    """Return by how much firm time is charged more than other time, at least and at most: as it is used or not."""
    used = 1.0 if rules.charge_factor is None else rules.charge_factor
    unused = used if rules.unused_charge_factor is None else rules.unused_charge_factor
    return min(used, unused), max(used, unused)


def still_allowed(
    broker: Broker, asking: Asking, configs: Mapping[str, PlatformConfig], latest: Mapping[str, Timeline]
) -> Callable[[Connection, Sequence[NewOffer]], bool] | None:
    """Return what to ask under the lock: do the rules let these offers be made, beside what others booked meanwhile.

    ``latest`` has each platform's timeline as of then; it is looked at when that is asked. None: no platform has rules.
    """
    ruled = {name: config for name, config in configs.items() if config.firm is not None}
    if not ruled:
        return None

    def allowed(tx: Connection, offers: Sequence[NewOffer]) -> bool:
        for name, config in ruled.items():
            windows = [_window(offer) for offer in offers if offer.platform == name and offer.firm]
            if not windows:
                continue
            rules, timeline = rules_of(config, asking.identity), latest[name]
            has = _has(tx, asking, name, timeline) if rules.node_hours_per_week is not None else ()
            site = _site(config, rules, timeline, int(asking.now), has)
            site = with_bookings_read(site)
            for place, window in enumerate(windows):
                beside = (*windows[:place], *windows[place + 1 :])
                if broken_rules(window, replace(site, beside=beside)):
                    return False
        return True

    return allowed


def _site(config: PlatformConfig, rules: FirmRules, timeline: Timeline, now: int, has: Sequence[Span]) -> Site:
    assert config.firm is not None
    return Site(
        platform=config.name,
        rules=rules,
        zone=ZoneInfo(config.firm.zone),
        timeline=timeline,
        now=now,
        has=tuple(has),
        prefer_cheap=config.firm.prefer_cheap,
    )


def _has(tx: Connection, asking: Asking, platform: str, timeline: Timeline) -> list[Span]:
    """Return what firm time a user has; not what the request is to replace."""
    known = timeline.inventory
    replaced = getattr(asking.request.executable, "replaces", None)
    found: list[FirmTimeOf] = firm_time_of(
        tx, asking.identity.uuid, platform, since=int(asking.now) - _WEEK, now=asking.now
    )
    return [
        Span(
            start=each.start,
            end=each.end,
            nodes=nodes_of(each.allocations, known),
            together=each.offerset if each.phase is Phase.OFFERED else "",
        )
        for each in found
        if each.session != replaced
    ]


def _window(offer: NewOffer) -> Window:
    return Window(
        start=offer.start,
        latest=offer.latest,
        end=offer.finish,
        duration=offer.duration,
        allocations=offer.allocations,
    )


def _charged(cost: object, low: float, high: float) -> object:
    """Return a cost in money as it is for firm time; other costs are what they are."""
    if not isinstance(cost, SimpleCost) or cost.type != kinds.MONETARY or cost.min is None or cost.max is None:
        return cost
    return SimpleCost(
        type=cost.type, description=cost.description, min=round(cost.min * low, 9), max=round(cost.max * high, 9)
    )


def _hours(type_: str, seconds: float) -> SimpleMetric:
    hours = round(seconds / _HOUR, 3)
    return SimpleMetric(type=type_, min=hours, max=hours)
