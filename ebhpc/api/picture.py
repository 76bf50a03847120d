"""A platform's calendar as a picture needs it: what is taken of which nodes, from when to when, by what.

Everything that takes nodes is a span over a run of neighbouring nodes; the spans are told as columns of integers, which
compress to a few bytes each. Who sees what: of other people's jobs users see that something is taken, or, where the
site says so, and operators always, each job with its user and account. Of the broker's own sessions all see that
something was promised, and only the owner (and operators) which session it is.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from enum import IntEnum
from itertools import groupby
from typing import NamedTuple

from msgspec import Struct

from ebhpc.api.answers import PicturePartition, PictureSpans, PlatformPictureDocument
from ebhpc.api.timelines import Known
from ebhpc.model import Allocation
from ebhpc.model.times import instant_text
from ebhpc.planning import Booking, NodeState, RunningJob, Snapshot
from ebhpc.planning.queue import Outlooks

_MIB_PER_GIB = 1024
_FOR_EVER = 2**40


class SpanKind(IntEnum):
    """What takes nodes in a picture."""

    RUNNING = 0
    WAITING = 1
    RESERVATION = 2
    MAINTENANCE = 3
    PROMISE = 4
    OFFER = 5


class Span(NamedTuple):
    """A share of ``nodes`` neighbouring nodes from the place ``first``, from ``start`` to ``end`` (POSIX seconds).

    ``expected`` is when a running job probably ends. ``label`` says what it is, and is not for everybody; ``session``
    is the broker's session that it is of.
    """

    first: int
    nodes: int
    start: int
    end: int
    expected: int
    cores: int
    kind: SpanKind
    label: str = ""
    session: str = ""


class Viewer(Struct, frozen=True):
    """Who looks: whether jobs are shown by name, whether all sessions are, and which sessions are the viewer's."""

    names: bool = False
    all_sessions: bool = False
    sessions: frozenset[str] = frozenset()


class Pictures:
    """The spans of each platform's newest state, kept until there is a newer one. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[str, tuple[int, int, tuple[Span, ...]]] = {}

    def spans(self, platform: str, known: Known) -> tuple[Span, ...]:
        """Return all that takes nodes on a platform, sorted by place and start."""
        with self._lock:
            made = self._made.get(platform)
        if made is None or made[:2] != (known.version, known.revision):
            made = known.version, known.revision, tuple(sorted(_spans(known)))
            with self._lock:
                self._made[platform] = made
        return made[2]


def picture_document(
    known: Known, spans: Sequence[Span], viewer: Viewer, *, start: int, end: int
) -> PlatformPictureDocument:
    """Return what ``viewer`` may see of a platform from ``start`` to ``end`` (POSIX seconds)."""
    snapshot = known.timeline.snapshot
    shown = [_seen(one, viewer) for one in spans if one.end > start and one.start < end]
    labels = sorted({one.label for one in shown} | {""})
    sessions = sorted({one.session for one in shown} | {""})
    label_places = {label: place for place, label in enumerate(labels)}
    session_places = {session: place for place, session in enumerate(sessions)}
    nodes = snapshot.nodes
    places = {node.name: place for place, node in enumerate(nodes)}
    firsts = [one.first for one in shown]
    return PlatformPictureDocument(
        platform=snapshot.platform,
        taken=instant_text(snapshot.taken),
        start=instant_text(start),
        end=instant_text(end),
        nodes=[node.name for node in nodes],
        states=[str(node.state) for node in nodes] if any(node.state is not NodeState.UP for node in nodes) else None,
        cores=[node.cores for node in nodes],
        memory=[node.memory // _MIB_PER_GIB for node in nodes],
        partitions=[
            PicturePartition(
                name=partition.name,
                runs=[list(run) for run in _runs(places[name] for name in partition.nodes if name in places)],
            )
            for partition in snapshot.partitions
        ],
        spans=PictureSpans(
            first=[here - before for before, here in zip([0, *firsts], firsts, strict=False)],
            count=[one.nodes for one in shown],
            start=[one.start - start for one in shown],
            length=[min(one.end, end + 1) - one.start for one in shown],
            expected=[max(one.expected - one.start, 0) if one.kind is SpanKind.RUNNING else 0 for one in shown],
            cores=[one.cores for one in shown],
            kind=[int(one.kind) for one in shown],
            label=[label_places[one.label] for one in shown] if len(labels) > 1 else None,
            session=[session_places[one.session] for one in shown] if len(sessions) > 1 else None,
        ),
        labels=labels if len(labels) > 1 else None,
        sessions=sessions if len(sessions) > 1 else None,
    )


def _seen(one: Span, viewer: Viewer) -> Span:
    mine = viewer.all_sessions or one.session in viewer.sessions
    return one._replace(label=one.label if viewer.names else "", session=one.session if mine else "")


# --- what takes nodes ------------------------------------------------------------------------------------------------


def _spans(known: Known) -> Iterable[Span]:
    snapshot = known.timeline.snapshot
    places = {node.name: place for place, node in enumerate(snapshot.nodes)}
    bookings = list(known.timeline.bookings())
    ours = {booking.session for booking in bookings}
    for job in snapshot.running:
        if job.session in ours:
            continue  # its booking tells of it
        label = _label(job.id, job.user, job.account)
        expected = _expected_end(job, snapshot.taken, known.outlooks)
        end = job.ends if job.ends is not None else _FOR_EVER
        yield from _over(
            places, job.allocations, job.started, max(end, snapshot.taken + 60), expected, SpanKind.RUNNING, label
        )
    for held in snapshot.reservations:
        if held.session in ours:
            continue
        kind = SpanKind.MAINTENANCE if held.maintenance else SpanKind.RESERVATION
        yield from _over(places, held.allocations, held.start, held.end, held.end, kind, held.name)
    yield from _planned(snapshot, places, ours)
    yield from _promised(places, bookings)


def _label(*parts: str | None) -> str:
    return " · ".join(part for part in parts if part)


def _expected_end(job: RunningJob, now: int, outlooks: Outlooks | None) -> int:
    """Return when a job will probably end: as its user's jobs did, else at its limit."""
    if job.ends is None:
        return _FOR_EVER
    if outlooks is None:
        return job.ends
    ratio = outlooks.estimator.run_times.mean_ratio(job.user)
    foreseen = job.started + int(ratio * (job.ends - job.started))
    # What has lasted longer than expected lasts, more often than not, about as long again as is left
    return foreseen if foreseen > now else (now + max(job.ends, now)) // 2


def _over(
    places: dict[str, int],
    allocations: Iterable[Allocation],
    start: int,
    end: int,
    expected: int,
    kind: SpanKind,
    label: str,
    session: str = "",
) -> Iterable[Span]:
    """Yield a span for each run of neighbouring nodes with equal shares."""
    taken = sorted((one.cores, places[one.node]) for one in allocations if one.node in places)
    for cores, same in groupby(taken, key=lambda item: item[0]):
        for first, count in _runs(place for _, place in same):
            yield Span(first, count, start, end, expected, cores, kind, label, session)


def _runs(places: Iterable[int]) -> Iterable[tuple[int, int]]:
    """Yield the first and the length of each run of neighbours."""
    first = last = -2
    for place in sorted(places):
        if place != last + 1:
            if first >= 0:
                yield first, last - first + 1
            first = place
        last = place
    if first >= 0:
        yield first, last - first + 1


def _planned(snapshot: Snapshot, places: dict[str, int], ours: set[str]) -> Iterable[Span]:
    """Yield waiting jobs where they are planned to start."""
    waiting = {job.id: job for job in snapshot.waiting}
    for plan in snapshot.planned:
        if plan.session in ours:
            continue
        job = waiting.get(plan.id)
        label = _label(plan.id, job.user, job.account) if job is not None else plan.id
        runs = sorted(
            (snapshot.nodes[place].cores if plan.whole else plan.shape.cores, place)
            for name in plan.nodes
            if (place := places.get(name)) is not None
        )
        for cores, same in groupby(runs, key=lambda item: item[0]):
            for first, count in _runs(place for _, place in same):
                yield Span(
                    first, count, plan.start, plan.end, plan.end, cores, SpanKind.WAITING, label, plan.session or ""
                )


def _promised(places: dict[str, int], bookings: list[Booking]) -> Iterable[Span]:
    """Yield the broker's own bookings; those of a session on neighbouring nodes are one span."""

    def like(one: Booking) -> tuple[str, int, int, int, bool]:
        return one.session, one.start, one.end, one.cores, one.expires is None

    for (session, start, end, cores, accepted), same in groupby(sorted(bookings, key=like), key=like):
        kind = SpanKind.PROMISE if accepted else SpanKind.OFFER
        for first, count in _runs(places[one.node] for one in same if one.node in places):
            yield Span(first, count, start, end, end, cores, kind, "", session)
