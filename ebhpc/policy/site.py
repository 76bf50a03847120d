"""The site's rules in one place, as the API asks them."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from typing import Literal, TypeVar

from msgspec import Struct
from sqlalchemy import Connection

from ebhpc.config import SitePolicy
from ebhpc.config.rules import EVERYBODY, ContentRule
from ebhpc.model import Allocation, Identity, Message, MessageKind, Policy, Request, Sources, message
from ebhpc.policy.content import refused_content, sources_of
from ebhpc.policy.limits import Allotment, Bound, allotment, exceeded
from ebhpc.policy.people import People, matches
from ebhpc.store import Store
from ebhpc.store.usage import Counted, core_hours_of, count_usage, hold_owner

LATELY = 1.0
"""Seconds for which a count goes for requests; acceptance counts anew, in its own transaction."""

T = TypeVar("T")


class LimitReached(Exception):
    """An offer cannot be accepted: its owner has as much as the site's rules allow. ``why`` says what."""

    def __init__(self, why: Message) -> None:
        self.why = why
        super().__init__(str(why))


class SiteRules:
    """The rules of ``policy``. Safe for threads; one for each worker. What has no rules costs nothing.

    ``most_open`` is how many offers a user may have open where no rule says.
    """

    def __init__(
        self,
        policy: SitePolicy,
        store: Store,
        *,
        most_open: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.people = People(policy)
        self._policy = policy
        self._store = store
        self._most_open = most_open
        self._monotonic = monotonic
        self._counts: OrderedDict[tuple[Bound, float], tuple[float, Counted]] = OrderedDict()
        self.any = bool(policy.access or policy.limits or policy.content)
        self._access = lru_cache(maxsize=4096)(self._access_of)
        self._allotment = lru_cache(maxsize=4096)(self._allotment_of)
        self._content = lru_cache(maxsize=4096)(self._content_of)
        self._sources = lru_cache(maxsize=4096)(self._sources_of)

    # --- before an offer ---------------------------------------------------------------------------------------------

    def judge(self, request: Request, identity: Identity, platform: str, now: float) -> Policy:
        """Return the rules' word on a request on a platform: reasons to refuse it, and limits."""
        if not self.any:
            return NO_RULES
        told = self._access(_as_member(identity), platform)
        if told is not None:
            return Policy(refusals=(told,))
        refusals = list(refused_content(self._content(_as_member(identity), platform), request))
        allotted = self._allotment(_as_member(identity), platform)
        demand = request.demand
        hours = demand.least.cores * demand.nodes * demand.duration / 3600
        for bound in allotted.bounds:
            counted = self._lately(bound, now)
            if (why := exceeded(bound, counted, hours)) is not None:
                refusals.append(why)
        return Policy(refusals=tuple(refusals), limits=allotted.limits)

    def sources(self, identity: Identity, platform: str) -> Sources:
        """Return from where somebody's things may be fetched on a platform, as long as their session lasts."""
        return self._sources(_as_member(identity), platform) if self._policy.content else _ANYWHERE

    def may_use(self, identity: Identity, platform: str) -> bool:
        """Whether somebody may use a platform."""
        return self._access(_as_member(identity), platform) is None

    def most_open(self, identity: Identity) -> int:
        """How many offers somebody may have open, on all platforms together."""
        if not self._policy.limits:
            return self._most_open
        outstanding = self._allotment(_as_member(identity), "").outstanding
        return self._most_open if outstanding is None else outstanding

    # --- when one is accepted ----------------------------------------------------------------------------------------

    def check_acceptance(
        self,
        tx: Connection,
        owner: Identity,
        platform: str,
        allocations: tuple[Allocation, ...],
        duration: int,
        now: float,
    ) -> None:
        """Count in the transaction that accepts, so that no two acceptances exceed a limit together.

        Raises:
            LimitReached: one session more is too much, or its owner may not use the platform any more.
        """
        if not self.any:
            return
        told = self._access(_as_member(owner), platform)
        if told is not None:
            raise LimitReached(told)
        bounds = self._allotment(_as_member(owner), platform).bounds
        if not bounds:
            return
        hold_owner(self._store, tx, owner.uuid)
        hours = core_hours_of(allocations, duration)
        for bound in bounds:
            why = exceeded(bound, count_usage(tx, bound.whose, bound.platforms, now=now), hours)
            if why is not None:
                raise LimitReached(why)

    @property
    def counts(self) -> bool:
        """Whether acceptance has anything to check."""
        return bool(self._policy.limits or self._policy.access)

    # --- others' sessions --------------------------------------------------------------------------------------------

    def may_others(
        self,
        identity: Identity,
        what: Literal["see", "end"],
        platform: str | None,
        owner: Callable[[], Identity | None] | None,
    ) -> str | None:
        """Return the rule by which somebody may see or end a session that is not theirs; None: there is none.

        ``platform`` None: on all; ``owner`` tells whose it is, None: everybody's.
        """
        for rule in self._policy.others:
            if what not in rule.may or not matches(rule.who, identity):
                continue
            if rule.platforms and platform not in rule.platforms:
                continue
            if rule.whose != EVERYBODY:
                whose = owner() if owner is not None else None
                if whose is None or not matches(rule.whose, whose):
                    continue
            return rule.name
        return None

    # --- found once for each user ------------------------------------------------------------------------------------

    def _access_of(self, member: _Member, platform: str) -> Message | None:
        identity = member.identity()
        for rule in self._policy.access:
            if (not rule.platforms or platform in rule.platforms) and matches(rule.who, identity):
                return None if rule.allow else _no_access(platform, f"The site's rule {rule.name!r}")
        return _no_access(platform, "None of the site's rules") if self._policy.access else None

    def _allotment_of(self, member: _Member, platform: str) -> Allotment:
        return allotment(self._policy.limits, self._policy.groups, member.identity(), platform)

    def _content_of(self, member: _Member, platform: str) -> tuple[ContentRule, ...]:
        identity = member.identity()
        return tuple(
            rule
            for rule in self._policy.content
            if (not rule.platforms or platform in rule.platforms) and matches(rule.who, identity)
        )

    def _sources_of(self, member: _Member, platform: str) -> Sources:
        return sources_of(self._content(member, platform))

    def _lately(self, bound: Bound, now: float) -> Counted:
        key, moment = (bound, 0.0), self._monotonic()
        known = self._counts.get(key)
        if known is not None and moment - known[0] < LATELY:
            return known[1]
        with self._store.read() as tx:
            counted = count_usage(tx, bound.whose, bound.platforms, now=now)
        self._counts[key] = (moment, counted)
        while len(self._counts) > 4096:
            self._counts.popitem(last=False)
        return counted


class _Member(Struct, frozen=True):
    """What of an identity rules look at, as a key."""

    uuid: str
    username: str
    groups: tuple[str, ...]

    def identity(self) -> Identity:
        return Identity(uuid=self.uuid, username=self.username, groups=self.groups)


NO_RULES = Policy()
"""The word of rules that there are none of."""

_ANYWHERE = Sources()


def _as_member(identity: Identity) -> _Member:
    return _Member(identity.uuid, identity.username, identity.groups)


def _no_access(platform: str, who: str) -> Message:
    text = "{who} does not let you use {platform}." if who.startswith("The") else "{who} lets you use {platform}."
    return message(MessageKind.POLICY_REFUSED, text, time=None, who=who, platform=platform)
