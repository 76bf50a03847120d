"""Reserved time asked for in the place of other reserved time: the same nodes for longer, or other windows.

A session's nodes are its own until its end, so going on with them takes only the time behind that: this is what
is looked at and booked. When the new session stands it has both. Any other window takes nothing of the old one's.
"""

from __future__ import annotations

from math import ceil

from msgspec.structs import replace

from ebhpc.api.broker import Broker
from ebhpc.api.consulting import Asking, Willing
from ebhpc.model import LIVE, Demand, Message, MessageKind, Phase, Request, ReservedTime, Window, message
from ebhpc.planning import Timeline, fits
from ebhpc.plugins import Platform
from ebhpc.store import SessionRecord, get_session

EXTENSION = "extension"
"""The label of a window that goes on with the nodes of the session that it replaces."""


def replaced_session(broker: Broker, request: Request, owner: str) -> tuple[SessionRecord | None, tuple[Message, ...]]:
    """Return the session that a request is to replace, and why it cannot be; None and nothing: it replaces none."""
    wanted = request.executable
    if not isinstance(wanted, ReservedTime) or wanted.replaces is None:
        return None, ()
    with broker.store.read() as tx:
        found = get_session(tx, wanted.replaces)
    if found is None or found.owner != owner:
        return None, (_refusal("you have no session {uuid}", wanted.replaces, MessageKind.RESOURCE_NOT_FOUND),)
    if not found.wants.reserved:
        return None, (_refusal("the session {uuid} is no reserved time", wanted.replaces, MessageKind.INVALID_VALUE),)
    if found.phase not in LIVE or found.finish <= broker.clock():
        return None, (_refusal("the session {uuid} has ended", wanted.replaces, MessageKind.CONFLICT),)
    return found, ()


def _refusal(template: str, uuid: str, kind: MessageKind) -> Message:
    return message(kind, template, path="/executable/replaces", uuid=uuid)


def extension_windows(broker: Broker, asking: Asking, one: Willing, timeline: Timeline, demand: Demand) -> list[Window]:
    """Return the window that goes on with the nodes of the session that is replaced; none: it is not to be had."""
    old = asking.replaced
    if old is None or old.platform != one.platform.name or old.held is None:
        return []
    if old.phase not in (Phase.AVAILABLE, Phase.RUNNING) or not _suits(old, demand):
        return []
    now = int(asking.now)
    start = max(now, old.finish - old.duration, demand.earliest)
    # Until somebody has accepted it, it begins later and later: also where its time is to begin in a moment
    settled = now + ceil(broker.config.offers.lifetime) + ceil(one.platform.config.lead)
    latest = max(start, min(settled, demand.latest))
    if start > demand.latest or start + demand.duration <= old.finish:
        return []
    window = Window(
        start=start,
        latest=latest,
        end=latest + demand.duration,
        duration=demand.duration,
        allocations=old.allocations,
        label=EXTENSION,
    )
    return [window] if fits(timeline, [taken(asking, one, window)]) else []


def _suits(old: SessionRecord, demand: Demand) -> bool:
    """Whether what a session has is what is asked for."""
    if len(old.allocations) != demand.nodes or old.wants.features != demand.features:
        return False
    if (old.wants.licences, old.wants.partition) != (demand.licences, demand.partition):
        return False
    least = demand.least
    for share in old.allocations:
        enough = share.cores >= least.cores and share.memory >= least.memory
        devices = all(share.devices.get(device, 0) >= count for device, count in least.devices.items())
        whole = demand.exclusive or len(old.allocations) > 1
        most = demand.most_cores is None or whole or share.cores <= demand.most_cores
        if not (enough and devices and most):
            return False
    return True


def taken(asking: Asking, one: Willing, window: Window) -> Window:
    """Return what a window takes of what is free: of an extension, the time behind the session that it replaces."""
    old = asking.replaced
    if old is None or window.label != EXTENSION:
        return window
    scheduler = one.known.timeline.snapshot.scheduler
    # Behind the old session its platform keeps a gap, which is not needed between the two
    begin = old.finish + (scheduler.gap if scheduler is not None else 0)
    begin = min(begin, window.end - 1)
    return replace(window, start=begin, latest=begin, duration=window.end - begin)


def booked_from(asking: Asking, window: Window) -> int | None:
    """Return when the booking of a window begins; None: at its start."""
    return asking.replaced.finish if asking.replaced is not None and window.label == EXTENSION else None


def held_before_shown(platform: Platform, window: Window) -> bool:
    """Whether a platform reserves a window before it is offered. What goes on is lengthened once accepted."""
    if platform.config.reserve_at != "offer" or not window.firm or window.label == EXTENSION:
        return False
    return platform.implements("ebhpc_hold")
