"""Who can run a request: each platform is asked on its own threads, all at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from msgspec import Struct
from msgspec.structs import replace

from ebhpc.api.broker import Broker
from ebhpc.api.timelines import Known
from ebhpc.model import Identity, Limits, Message, MessageKind, Request, message
from ebhpc.planning import why_never
from ebhpc.plugins import Platform, PlatformUnavailable, merge_policies

ASK_TIMEOUT = 5.0
"""Seconds that a platform has for saying whether it can run a request, where its own timeout is not shorter."""


class Asking(Struct, frozen=True, kw_only=True):
    """Who asks for what, when (POSIX seconds), and how many offers are wanted at most (None: as configured)."""

    request: Request
    identity: Identity
    now: float
    warnings: tuple[Message, ...] = ()
    most: int | None = None


class Willing(Struct, frozen=True, kw_only=True):
    """A platform that can run a request, within ``limits``, by what is ``known`` of it."""

    platform: Platform
    limits: Limits
    known: Known


def willing_platforms(broker: Broker, asking: Asking) -> tuple[list[Willing], tuple[Message, ...]]:
    """Ask all platforms at the same time; return those that can run the request, and why the others cannot."""
    timelines = broker.timelines.lately(asking.now)
    names = list(broker.platforms)

    def consult(name: str) -> tuple[Willing | None, tuple[Message, ...]]:
        return _consult(broker, asking, broker.platforms[name], timelines[name])

    if len(names) > 1:
        with ThreadPoolExecutor(len(names)) as threads:
            answers = list(threads.map(consult, names))
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
    policy = merge_policies([own, site])
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
