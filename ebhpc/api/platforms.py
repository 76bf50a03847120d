"""``/platforms`` and what is below: what there is to run on, when it is free, and by what it is taken."""

from __future__ import annotations

import gzip
import hashlib
from typing import Any

import falcon
from sqlalchemy import select

from ebhpc import media
from ebhpc.api.access import Access, Readable
from ebhpc.api.answers import (
    PlatformItem,
    PlatformItems,
    TimelineDocument,
    TimelineLicences,
    TimelineNode,
    TimelineStep,
)
from ebhpc.api.broker import Broker
from ebhpc.api.picture import Pictures, Viewer, picture_document
from ebhpc.api.problems import Problem, not_found
from ebhpc.api.rendering import time_text
from ebhpc.api.timelines import Known
from ebhpc.api.wire import answer
from ebhpc.model import LIVE, MessageKind, Phase
from ebhpc.model.times import instant_text, parse_duration
from ebhpc.planning import Availability, Step, occupancy
from ebhpc.plugins import Platform, PlatformUnavailable
from ebhpc.store.tables import sessions

_MIB_PER_GIB = 1024
_SHOWN = 24 * 3600
_MOST = 31 * 24 * 3600
_BEFORE = 3600
"""Seconds before now that a picture shows, too."""

_STEP = 600
"""Seconds; pictures begin at multiples of it."""

_KEPT = 32
"""Answers that a worker keeps, compressed: what one reader is shown, many are."""

_PICTURED = LIVE | {Phase.OFFERED}


class PlatformList(Readable):
    """``/platforms``."""

    access = Access.READERS

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer each platform, what it has, and whether it can be used now."""
        broker = self._broker
        current = broker.timelines.current(broker.clock())
        items = [platform_item(broker.platforms[name], known) for name, known in current.items()]
        answer(req, resp, PlatformItems(platforms=items))


class PlatformTimeline(Readable):
    """``/platforms/{name}/timeline``."""

    access = Access.READERS

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def on_get(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        """Answer what is free on a platform from now on, for a day or for ``duration``."""
        broker = self._broker
        if name not in broker.platforms:
            raise not_found(f"platform {name}")
        duration = _duration(req)
        now = broker.clock()
        known = _known(broker, name, now)
        answer(req, resp, timeline_document(occupancy(known.timeline, int(now), int(now) + duration)))


class PlatformPicture(Readable):
    """``/platforms/{name}/picture``."""

    access = Access.READERS

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._pictures = Pictures()
        self._answers: dict[tuple[Any, ...], bytes] = {}

    def on_get(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        """Answer a platform's calendar from an hour ago on, for a day or for ``duration``."""
        broker, identity = self._broker, req.context.identity
        if name not in broker.platforms:
            raise not_found(f"platform {name}")
        duration = _duration(req)
        now = broker.clock()
        known = _known(broker, name, now)
        # In coarse steps, so that the same is answered for a while
        start = int(now) // _STEP * _STEP - _BEFORE
        admin = identity is not None and identity.admin
        viewer = Viewer(
            names=admin or broker.config.page.others == "jobs",
            all_sessions=admin,
            sessions=self._own(identity.uuid) if identity is not None and not admin else frozenset(),
        )
        form = req.context.media_type
        key = (known.version, known.revision, start, duration, viewer, form)
        resp.etag = hashlib.blake2b(repr((name, *key)).encode(), digest_size=9).hexdigest()
        resp.append_header("Vary", "Accept, Accept-Encoding")
        if resp.headers["etag"] in (req.get_header("If-None-Match") or ""):
            resp.status = 304
            return
        packed = self._answers.get((name, *key))
        if packed is None:
            spans = self._pictures.spans(name, known)
            document = picture_document(known, spans, viewer, start=start, end=start + _BEFORE + duration)
            packed = gzip.compress(media.encode(document, form), compresslevel=5, mtime=0)
            while len(self._answers) >= _KEPT:
                self._answers.pop(next(iter(self._answers)), None)
            self._answers[name, *key] = packed
        resp.content_type = form
        if "gzip" in (req.get_header("Accept-Encoding") or ""):
            resp.set_header("Content-Encoding", "gzip")
            resp.data = packed
        else:
            resp.data = gzip.decompress(packed)

    def _own(self, owner: str) -> frozenset[str]:
        """Which of the sessions in the picture are the reader's."""
        query = select(sessions.c.uuid).where(sessions.c.owner == owner, sessions.c.phase.in_(sorted(_PICTURED)))
        with self._broker.store.read() as tx:
            return frozenset(tx.execute(query).scalars())


def _known(broker: Broker, name: str, now: float) -> Known:
    """Return what is known of a platform that there is.

    Raises:
        Problem: 409, nothing is known of it now.
    """
    known = broker.timelines.one(name, now)
    if isinstance(known, PlatformUnavailable):
        raise Problem(
            409,
            "nothing is known of the platform {platform} now: {reason}",
            kind=MessageKind.PLATFORM_UNAVAILABLE,
            platform=known.platform,
            reason=known.reason,
        )
    return known


def _duration(req: falcon.Request) -> int:
    """Read the query.

    Raises:
        Problem: 400.
    """
    text = req.get_param("duration")
    if text is None:
        return _SHOWN
    try:
        duration = parse_duration(text)
        if duration > _MOST:
            raise ValueError("it is longer than 31 days")
    except ValueError as error:
        raise Problem(
            400,
            "the query parameter {path} cannot be used: {reason}",
            kind=MessageKind.INVALID_VALUE,
            path="duration",
            reason=error,
        ) from None
    return duration


def platform_item(platform: Platform, known: Known | PlatformUnavailable) -> PlatformItem:
    """Return what clients may know of a platform."""
    if isinstance(known, PlatformUnavailable):
        return PlatformItem(name=platform.name, kind=platform.kind, available=False, reason=known.reason)
    snapshot = known.timeline.snapshot
    devices: dict[str, int] = {}
    for node in snapshot.nodes:
        for device, count in node.devices.items():
            devices[device] = devices.get(device, 0) + count
    return PlatformItem(
        name=platform.name,
        kind=platform.kind,
        available=True,
        taken=time_text(snapshot.taken),
        nodes=len(snapshot.nodes),
        cores=sum(node.cores for node in snapshot.nodes),
        memory=sum(node.memory for node in snapshot.nodes) // _MIB_PER_GIB,
        devices=devices,
    )


def timeline_document(free: Availability) -> TimelineDocument:
    """Return what is free as clients see it."""
    return TimelineDocument(
        platform=free.platform,
        taken=instant_text(free.taken),
        start=instant_text(free.start),
        end=instant_text(free.end),
        total=_steps(free.total),
        nodes=[
            TimelineNode(
                name=node.name,
                state=node.state,
                cores=node.cores,
                memory=node.memory // _MIB_PER_GIB,
                devices=node.devices,
                steps=_steps(node.steps),
            )
            for node in free.nodes
        ],
        licences=[TimelineLicences(start=instant_text(step.start), free=step.free) for step in free.licences],
    )


def _steps(steps: tuple[Step, ...]) -> list[TimelineStep]:
    return [
        TimelineStep(
            start=instant_text(step.start),
            cores=step.cores,
            memory=step.memory // _MIB_PER_GIB,
            devices=step.devices,
        )
        for step in steps
    ]
