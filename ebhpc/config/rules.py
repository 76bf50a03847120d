"""The site's own rules: who may use what, how much of it, and what may run."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from msgspec import Meta, Struct

from ebhpc.config.values import Duration

Word = Annotated[str, Meta(min_length=1)]
Some = Annotated[int, Meta(ge=0, le=1_000_000_000)]

GroupName = Annotated[str, Meta(pattern=r"\A[^:\x00-\x1f\x7f]+\Z", description="a name without colons")]
RuleName = Annotated[str, Meta(pattern=r"\A[\w .()/-]{1,80}\Z", description="up to 80 letters, digits, spaces, ._-()/")]

_PORTS = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")


class Who(Struct, frozen=True, kw_only=True):
    """Some of the users: those whom one of the lists names. Nothing listed: everybody."""

    users: tuple[Word, ...] = ()
    """Usernames: ``ada``, or ``issuer:ada`` for an issuer's user."""

    groups: tuple[Word, ...] = ()
    """Groups: the site's own, or ``issuer:group``; entitlements stand here too."""

    issuers: tuple[Word, ...] = ()
    """Names of issuers: all of their users; ``local``: all local accounts."""


EVERYBODY = Who()


class Rule(Struct, frozen=True, kw_only=True):
    """A base: a rule has a name, which refusals tell, and says whom and which platforms it is about."""

    name: RuleName
    """What refusals call it."""

    who: Who = EVERYBODY
    """Whom it is about; absent: everybody."""

    platforms: tuple[Word, ...] = ()
    """Which platforms it is about; absent: all."""


class AccessRule(Rule, frozen=True, kw_only=True):
    """Who may use a platform. The first that fits decides; where there are some and none fits, it is no."""

    allow: bool = True
    """Whether they may."""


class LimitRule(Rule, frozen=True, kw_only=True):
    """How much somebody may have. Of each quantity the first rule that fits and names it decides."""

    per: Literal["user", "group"] = "user"
    """Whether it is for each user, or for all members of a group of ``who`` together."""

    sessions: Some | None = None
    """Sessions that were accepted and have not ended."""

    sessions_per_day: Some | None = None
    """Sessions accepted in 24 hours."""

    core_hours_per_day: Annotated[float, Meta(ge=0)] | None = None
    """Core hours of the sessions accepted in 24 hours: those booked, or, of a session that has ended, those used."""

    outstanding_offers: Some | None = None
    """Offers that are open; each user's, whatever ``per`` is. In place of ``api.max_outstanding_offers``."""

    cores: Some | None = None
    """Cores on each node of a session."""

    memory_gib: Annotated[float, Meta(gt=0)] | None = None
    """Memory on each node of a session, GiB."""

    devices: dict[Word, Some] = {}
    """Devices on each node of a session, by type."""

    duration: Duration | None = None
    """The duration of a session."""

    horizon: Duration | None = None
    """How far from now a session may start."""

    def __post_init__(self) -> None:
        if self.per == "group" and not self.who.groups:
            raise ValueError("per: group needs who.groups, whose members are counted together")


class Allowance(Struct, frozen=True, kw_only=True):
    """What may and may not be: it must match one of ``allow``, where that is given, and none of ``deny``."""

    allow: tuple[Word, ...] | None = None
    """What may be; absent: all that is not denied."""

    deny: tuple[Word, ...] = ()
    """What may not be."""


class Ports(Struct, frozen=True, kw_only=True):
    """Which ports of a container may be published: ``8888`` or ``8000-8999``."""

    allow: tuple[Word, ...] | None = None
    """Those that may; absent: all that are not denied."""

    deny: tuple[Word, ...] = ()
    """Those that may not."""

    def __post_init__(self) -> None:
        for text in (*(self.allow or ()), *self.deny):
            port_range(text)


class ContentRule(Rule, frozen=True, kw_only=True):
    """What may run, and on what data. All that fit hold."""

    executables: Allowance = Allowance()
    """Kinds of executables, by the end of their names, as ``docker-container``."""

    images: Allowance = Allowance()
    """Images: names with ``*``, as ``quay.io/astro/*``, or the beginnings of URLs."""

    registries: Allowance = Allowance()
    """Registries that images come from: hosts, ``*.example.org`` for all below."""

    digests: Allowance = Allowance()
    """Digests of images; with ``allow``, an image needs one."""

    data: Allowance = Allowance()
    """Where data comes from: beginnings of URLs, as ``https://*.example.org/public/``."""

    notebooks: Allowance = Allowance()
    """Where notebooks, and batch scripts that are fetched, come from: beginnings of URLs."""

    ports: Ports = Ports()
    """Which ports a container may publish."""


class OthersRule(Rule, frozen=True, kw_only=True):
    """Who, beside administrators, may see or end sessions that are not theirs; it names somebody."""

    whose: Who = EVERYBODY
    """Whose sessions; absent: everybody's."""

    may: tuple[Literal["see", "end"], ...] = ("see",)
    """What they may."""

    def __post_init__(self) -> None:
        if self.who == EVERYBODY:
            raise ValueError("who: expected users, groups or issuers; api.public_reads lets everybody see sessions")


class SitePolicy(Struct, frozen=True, kw_only=True):
    """The site's rules."""

    groups: dict[GroupName, tuple[Word, ...]] = {}
    """The site's own groups: the usernames in each."""

    administrators: tuple[Who, ...] = ()
    """Who is an administrator, beside the local accounts that are made so."""

    access: tuple[AccessRule, ...] = ()
    """Who may use which platform; absent: everybody, all."""

    limits: tuple[LimitRule, ...] = ()
    """How much somebody may have."""

    content: tuple[ContentRule, ...] = ()
    """What may run."""

    others: tuple[OthersRule, ...] = ()
    """Who may see and end others' sessions."""

    def __post_init__(self) -> None:
        for who in self.administrators:
            if who == EVERYBODY:
                raise ValueError("administrators: expected users, groups or issuers; nothing listed is everybody")
        names = [rule.name for rule in self.rules()]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two rules are called {twice[0]}; refusals tell the name, so give each its own")

    def rules(self) -> list[Rule]:
        """Return all rules."""
        return [*self.access, *self.limits, *self.content, *self.others]


def port_range(text: str) -> range:
    """Read ``8888`` or ``8000-8999``.

    Raises:
        ValueError: it is neither.
    """
    match = _PORTS.fullmatch(text)
    if match:
        low, high = int(match[1]), int(match[2] or match[1])
        if 1 <= low <= high <= 65535:
            return range(low, high + 1)
    raise ValueError(f"expected a port or a range as 8000-8999, got {text!r}")
