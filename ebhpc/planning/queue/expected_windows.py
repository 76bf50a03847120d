"""Windows that are not guaranteed: when a request would start if it were queued now."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from ebhpc.model import Limits, Message, MessageKind, message
from ebhpc.model.sessions import Allocation, Demand, Shape, Window
from ebhpc.model.times import duration_text, instant_text
from ebhpc.planning.queue.estimator import CONFIDENCE, Expectation, NeverStartsError
from ebhpc.planning.queue.forecast import Outlooks
from ebhpc.planning.queue.newcomers import able_classes, placed_in

LEAST_CONFIDENCE = 0.5
"""A request that starts in time less probably than this is refused."""

_NO_LIMITS = Limits()
_MIB_PER_GIB = 1024


class Outlook(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When a session whose start is not guaranteed is expected to begin, POSIX seconds.

    The start lies in [``start``, ``latest``] with probability ``confidence``, as probably before ``expected`` as after.
    ``said`` is when this was found.
    """

    start: int
    latest: int
    expected: int
    confidence: float
    said: int


class _Answer(Struct, frozen=True):
    """What is known of a demand: the expectation, seconds from ``Forecast.taken``; the chance to start in time."""

    expectation: Expectation
    in_time: float


def expected_windows(
    outlooks: Outlooks,
    demand: Demand,
    *,
    now: int,
    limit: int = 3,
    limits: Limits = _NO_LIMITS,
    offer_lifetime: int = 300,
    lead: int = 0,
    user: str | None = None,
    account: str | None = None,
) -> list[Window]:
    """Find up to ``limit`` windows for a demand that is queued now; none where it hardly starts in time.

    ``expected`` is the least share; ``largest`` the most that is asked for and that the nodes have, where that is more.
    ``start``, ``expected`` and ``latest`` are the 10th, 50th and 90th percentile of the start, ``latest`` with
    ``offer_lifetime`` added, for who accepts late; ``end`` is the latest start that the request allows, and its
    duration. Where the request allows no start as late as ``latest``, that is cut, and ``confidence`` says less.
    The nodes are not known yet: allocations have an empty name.

    Args:
        outlooks: the platform's newest forecast.
        demand: what is wanted.
        now: POSIX seconds.
        limit: how many windows at most.
        limits: the site's, ``cores``, ``memory`` and ``devices`` for each node.
        offer_lifetime: seconds that the user has to accept.
        lead: seconds that the platform needs to prepare before it can queue the job.
        user: who asks, as the batch system calls them.
        account: for whom, as the batch system calls them.
    """
    demand = _within(demand, now, limits)
    windows: list[Window] = []
    for label, share in (("expected", demand.least), ("largest", _largest(outlooks, demand, limits))):
        if share is None or len(windows) >= limit or _exceeds(share, limits, demand):
            continue
        wanted = replace(demand, least=share)
        answer = _answer(outlooks, wanted, now=now, lead=lead, user=user, account=account)
        if answer is None or answer.in_time < LEAST_CONFIDENCE:
            continue
        windows.append(_window(outlooks, wanted, answer, label, now=now, lead=lead, lifetime=offer_lifetime))
    return windows


def why_not_expected(
    outlooks: Outlooks,
    demand: Demand,
    *,
    now: int,
    limits: Limits = _NO_LIMITS,
    lead: int = 0,
    user: str | None = None,
    account: str | None = None,
) -> Message:
    """Say why there is no expected window."""
    platform = outlooks.forecast.platform
    demand = _within(demand, now, limits)
    answer = _answer(outlooks, demand, now=now, lead=lead, user=user, account=account)
    if answer is None:
        return message(
            MessageKind.NO_WINDOW,
            "in the queue of {platform} it would never start: it asks for more than the nodes have that are up",
            platform=platform,
        )
    taken = outlooks.forecast.taken
    return message(
        MessageKind.NO_WINDOW,
        "in the queue of {platform} it would most likely start at {expected}, and at {latest} at the latest that is"
        " asked for by a chance of {chance} only",
        platform=platform,
        expected=instant_text(max(taken + answer.expectation.median, demand.earliest)),
        latest=instant_text(demand.latest),
        chance=f"{answer.in_time:.0%}",
    )


def outlook_of(window: Window, *, now: int) -> Outlook:
    """Return what a window that is not firm promises."""
    expected = window.start if window.expected is None else window.expected
    confidence = CONFIDENCE if window.confidence is None else window.confidence
    return Outlook(start=window.start, latest=window.latest, expected=expected, confidence=confidence, said=now)


def outlook_message(outlooks: Outlooks, window: Window, *, now: int) -> Message:
    """Tell a user in words what a window that is not firm promises, and what that builds on."""
    promised = outlook_of(window, now=now)
    return message(
        MessageKind.PROGRESS,
        "{platform} guarantees no start: the job waits in its queue. {tenths} of 10 such jobs start between {start} and"
        " {latest}; most likely around {expected}. This builds on {known} past starts and on the queue as it was"
        " {age} ago",
        level="INFO",
        platform=outlooks.forecast.platform,
        tenths=round(promised.confidence * 10),
        start=instant_text(promised.start),
        latest=instant_text(promised.latest),
        expected=instant_text(promised.expected),
        known=outlooks.estimator.known,
        age=duration_text(max(now - outlooks.forecast.taken, 0)),
    )


def _answer(
    outlooks: Outlooks, demand: Demand, *, now: int, lead: int, user: str | None, account: str | None
) -> _Answer | None:
    """Place a demand into each sample; None: it never starts."""
    forecast = outlooks.forecast
    soonest = max(demand.earliest, now + lead)
    placed = placed_in(outlooks, demand, begin=soonest, now=now, user=user, account=account)
    if placed is None:
        return None
    try:
        expectation, distribution = outlooks.estimator.foresee(placed.simulated, placed.planned, placed.situation, user)
    except NeverStartsError:
        return None
    in_time = 1.0 if demand.latest >= forecast.taken + expectation.latest else 0.0
    if not in_time and demand.latest >= soonest:
        in_time = distribution.by(float(demand.latest - forecast.taken))
    if demand.latest < soonest:
        in_time = 0.0
    return _Answer(expectation, in_time)


def _window(
    outlooks: Outlooks, demand: Demand, answer: _Answer, label: str, *, now: int, lead: int, lifetime: int
) -> Window:
    taken, told = outlooks.forecast.taken, answer.expectation
    soonest = max(demand.earliest, now + lead)
    start = max(taken + told.earliest, soonest)
    expected = min(max(taken + told.median, soonest), demand.latest)
    latest = min(max(taken + told.latest, soonest) + lifetime, demand.latest)
    # What lies before the interval stays outside, what lies beyond the latest start is cut off it
    cut = answer.in_time < 1.0
    confidence = min(max(answer.in_time - (1 - CONFIDENCE) / 2, 0.0), CONFIDENCE) if cut else CONFIDENCE
    return Window(
        start=min(start, expected),
        latest=max(latest, expected),
        end=demand.latest + demand.duration,
        duration=demand.duration,
        allocations=tuple(
            Allocation(
                node="", cores=demand.least.cores, memory=demand.least.memory, devices=dict(demand.least.devices)
            )
            for _ in range(max(demand.nodes, 1))
        ),
        licences={name: count for name, count in demand.licences.items() if count > 0},
        firm=False,
        expected=expected,
        confidence=round(confidence, 3),
        label=label,
    )


def _within(demand: Demand, now: int, limits: Limits) -> Demand:
    latest = demand.latest if limits.horizon is None else min(demand.latest, now + limits.horizon)
    return replace(demand, latest=latest)


def _exceeds(share: Shape, limits: Limits, demand: Demand) -> bool:
    return (
        (limits.cores is not None and share.cores > limits.cores)
        or (limits.memory is not None and share.memory > limits.memory)
        or any(count > limits.devices.get(device, count) for device, count in share.devices.items())
        or (limits.duration is not None and demand.duration > limits.duration)
    )


def _largest(outlooks: Outlooks, demand: Demand, limits: Limits) -> Shape | None:
    """Return the most that is asked for of what some node has; None: it is the least."""
    forecast = outlooks.forecast
    able = able_classes(outlooks, demand)
    found = [one for one, may in zip(forecast.classes, able.tolist(), strict=True) if may]
    if not found:
        return None
    best = max(found, key=lambda one: one.amounts)
    cores, memory, *counts = best.amounts
    devices = dict(zip(forecast.devices, counts, strict=True))

    def most(least: int, wanted: int | None, *caps: int | None) -> int:
        if wanted is None:
            return least
        return max(least, min([wanted, *(cap for cap in caps if cap is not None)]))

    share = Shape(
        cores=most(demand.least.cores, demand.most_cores, cores, limits.cores),
        memory=most(
            demand.least.memory, None if demand.most_memory is None else demand.most_memory, memory, limits.memory
        ),
        devices={
            device: most(count, demand.most_devices.get(device), devices.get(device), limits.devices.get(device))
            for device, count in demand.least.devices.items()
        },
    )
    if share.memory > demand.least.memory:
        share = replace(share, memory=max(demand.least.memory, share.memory // _MIB_PER_GIB * _MIB_PER_GIB))
    return None if share == demand.least else share
