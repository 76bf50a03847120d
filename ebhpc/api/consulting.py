"""Who can run a request: each platform is asked on its own threads, all at the same time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from ebhpc import tracing
from ebhpc.api.broker import Broker
from ebhpc.api.reserving import reserved_time_refusals
from ebhpc.api.timelines import Known
from ebhpc.model import Identity, Limits, Message, MessageKind, Request, message
from ebhpc.planning import why_never
from ebhpc.plugins import Platform, PlatformUnavailable, merge_policies
from ebhpc.policy import NO_RULES
from ebhpc.store import AuditEntry, SessionRecord

ASK_TIMEOUT = 5.0
"""Seconds that a platform has for saying whether it can run a request, where its own timeout is not shorter."""


class Asking(Struct, frozen=True, kw_only=True):
    """Who asks for what, when (POSIX seconds), and how many offers are wanted at most (None: as configured).

    ``replaced`` is the session whose reserved time the request is to extend or to move.

    Where an offer is accepted at once, ``check`` and ``audit`` go with that (see ``store.accept``).
    """

    request: Request
    identity: Identity
    now: float
    warnings: tuple[Message, ...] = ()
    replaced: SessionRecord | None = None
    most: int | None = None
    check: Callable[[Any, Any], None] | None = None
    audit: AuditEntry | None = None


class Willing(Struct, frozen=True, kw_only=True):
    """A platform that can run a request, within ``limits``, by what is ``known`` of it."""

    platform: Platform
    limits: Limits
    known: Known


def willing_platforms(
    broker: Broker, asking: Asking, *, again: bool = False
) -> tuple[list[Willing], tuple[Message, ...]]:
    """Ask all platforms at the same time; return those that can run the request, and why the others cannot.

    ``again``: what was known a moment ago has turned out to be out of date.
    """
    broker.timelines.expire_due(asking.now)
    # Behind a session that goes on is free what its booking says now: it may have been shortened only just
    newly = again or asking.replaced is not None
    timelines = broker.timelines.current(asking.now) if newly else broker.timelines.lately(asking.now)
    names = list(broker.platforms)

    def consult(name: str) -> tuple[Willing | None, tuple[Message, ...]]:
        return _consult(broker, asking, broker.platforms[name], timelines[name])

    if len(names) > 1:
        with ThreadPoolExecutor(len(names)) as threads:
            answers = list(threads.map(tracing.carried(consult), names))
    else:
        answers = [consult(name) for name in names]
    messages = [
        of_platform(name, item) if len(names) > 1 else item
        for name, (_, told) in zip(names, answers, strict=True)
        for item in told
    ]
    if not names:
        messages.append(message(MessageKind.PLATFORM_UNAVAILABLE, "this broker has no platform"))
    return [willing for willing, _ in answers if willing is not None], tuple(messages)


def _consult(
    broker: Broker, asking: Asking, platform: Platform, known: Known | PlatformUnavailable
) -> tuple[Willing | None, tuple[Message, ...]]:
    ruling = broker.rules.judge(asking.request, asking.identity, platform.name, asking.now)
    if ruling.refusals and not broker.rules.may_use(asking.identity, platform.name):
        return None, ruling.refusals
    if isinstance(known, PlatformUnavailable):
        return None, (unavailable(broker, known),)
    try:
        refusals, own = platform.call_each(
            [
                ("ebhpc_refuses", {"request": asking.request}),
                (
                    "ebhpc_policy",
                    {"request": asking.request, "identity": asking.identity, "platform": platform.name},
                ),
            ],
            timeout=min(platform.config.timeout, ASK_TIMEOUT),
        )
        site = broker.policies.site(asking.request, asking.identity, platform.name)
    except PlatformUnavailable as error:
        return None, (unavailable(broker, error),)
    policy = merge_policies([own, site] if ruling is NO_RULES else [own, site, ruling])
    refusals = (*refusals, *reserved_time_refusals(asking.request, platform.config, platform.promises))
    if refusals or policy.refusals:
        never = why_never(asking.request.demand, known.timeline, limits=policy.limits)
        told = {(item.kind, _path(item)) for item in refusals}
        return None, (*refusals, *policy.refusals, *(item for item in never if (item.kind, _path(item)) not in told))
    return Willing(platform=platform, limits=policy.limits, known=known), ()


def unavailable(broker: Broker, error: PlatformUnavailable) -> Message:
    broker.measures.platform_failed(error.platform)
    return message(
        MessageKind.PLATFORM_UNAVAILABLE,
        "the platform {platform} is not available now: {reason}",
        platform=error.platform,
        reason=error.reason,
    )


def of_platform(name: str, item: Message) -> Message:
    """Name the platform that a message is from, unless it does so itself."""
    values = item.values or {}
    if values.get("platform") == name:
        return item
    return replace(
        item,
        template="{platform}: " + (item.template or ""),
        values={**values, "platform": name},
        filled=f"{name}: {item}",
    )


def _path(item: Message) -> str | None:
    return (item.values or {}).get("path")
