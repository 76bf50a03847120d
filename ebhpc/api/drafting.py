"""The fixed part of an offered session, as its wire document: what was asked, and what of it is offered when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from msgspec.structs import replace

from ebhpc.model import (
    GPU,
    SCRATCH,
    ClusterCompute,
    Gpus,
    InstantSchedule,
    IntervalSchedule,
    Metadata,
    Quote,
    Range,
    Request,
    Schedule,
    ScheduledSession,
    SimpleCompute,
    Window,
)
from ebhpc.model.reading import reissue
from ebhpc.model.times import duration_text, instant_text, interval_text, utc

_MIB_PER_GIB = 1024


def session_draft(
    request: Request, window: Window, quote: Quote, *, now: int, lead: int, new_uuid: Callable[[], str]
) -> ScheduledSession:
    """Return the session that offers a window: every element under a new UUID, with what the window gives it.

    The session bears the executable's name. Phases, URLs and messages are added when it is shown.
    """
    asked = reissue(request, new_uuid)
    steps = _Steps(window, now, lead)
    created = utc(now)

    def dated(element: Any, schedule: Schedule) -> Any:
        element.meta.created = created
        return replace(element, schedule=schedule, phase=None, costs=None, metrics=None)

    compute = _given(asked, window)
    costs, metrics = list(quote.costs), list(quote.metrics)
    return ScheduledSession(
        meta=Metadata(uuid=new_uuid(), name=asked.executable.meta.name if asked.executable.meta else None),
        executable=dated(asked.executable, steps.compute),
        compute=replace(dated(compute, steps.compute), costs=costs, metrics=metrics),
        storage=[dated(item, steps.storage) for item in asked.storage] or None,
        data=[dated(item, steps.data) for item in asked.data] or None,
        costs=costs,
        metrics=metrics,
        schedule=steps.session,
    )


def _given(asked: Request, window: Window) -> Any:
    """Return the compute element as it is offered; each of its ranges covers what the nodes have of it."""
    compute, shares = asked.compute, window.allocations
    if asked.demand.exclusive and not window.firm:
        return compute  # nobody knows yet which nodes they will be
    if isinstance(compute, SimpleCompute | ClusterCompute):
        compute = replace(
            compute,
            cores=_range([share.cores for share in shares]),
            memory=_range([share.memory // _MIB_PER_GIB for share in shares]),
        )
    if isinstance(compute, ClusterCompute):
        gpus = _range([share.devices.get(GPU, 0) for share in shares])
        scratch = _range([share.devices.get(SCRATCH, 0) for share in shares])
        model = None if compute.gpus is None else compute.gpus.model
        compute = replace(
            compute,
            nodes=Range(min=len(shares), max=len(shares)),
            gpus=Gpus(min=gpus.min, max=gpus.max, model=model) if gpus.max else None,
            scratch=scratch if scratch.max else None,
        )
    return compute


def _range(amounts: Sequence[int]) -> Range:
    return Range(min=min(amounts), max=max(amounts))


class _Steps:
    """When the parts of a session are prepared, available and released.

    Preparation takes ``lead`` seconds before the start: storage is made in the first quarter, data comes in the next
    two, the rest is the executable's. Instants are those of the earliest start; as much later as the start comes, so
    do they.
    """

    def __init__(self, window: Window, now: int, lead: int) -> None:
        self._window = window
        self._begin = max(now, window.start - lead)
        self._lead = lead
        self._slack = window.latest - window.start
        self._end = window.latest + window.duration

    @cached_property
    def session(self) -> Schedule:
        return self._schedule(0, self._lead, self._end)

    @cached_property
    def storage(self) -> Schedule:
        return self._schedule(0, self._lead // 4, self._end)

    @cached_property
    def data(self) -> Schedule:
        quarter = self._lead // 4
        return self._schedule(quarter, 3 * quarter, self._end)

    @cached_property
    def compute(self) -> Schedule:
        return self._schedule(3 * (self._lead // 4), self._lead, self._end)

    def _schedule(self, prepared_from: int, prepared_to: int, end: int) -> Schedule:
        ready = self._window.start - self._lead + prepared_to
        return Schedule(
            preparing=InstantSchedule(
                start=instant_text(self._begin + prepared_from),
                duration=duration_text(prepared_to - prepared_from),
            ),
            available=IntervalSchedule(
                start=interval_text(ready, ready + self._slack),
                duration=duration_text(self._window.duration + self._lead - prepared_to),
            ),
            releasing=InstantSchedule(start=instant_text(end), duration=duration_text(self._lead)),
        )
