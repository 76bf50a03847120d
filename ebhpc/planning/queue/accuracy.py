"""Promises compared with what happened, in a few figures that an operator can see."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from msgspec import Struct

from ebhpc.planning.queue.estimator import Outcome
from ebhpc.planning.queue.placement import Floats


class Start(Struct, frozen=True, kw_only=True):
    """A start that was promised in [``earliest``, ``latest``], most likely at ``expected``, and what became of it.

    POSIX seconds; ``started`` None: the job had not started when it was too late.
    """

    earliest: int
    latest: int
    expected: int
    started: float | None


class Accuracy(Struct, frozen=True, kw_only=True):
    """How well the last ``starts`` were foreseen.

    ``inside``, ``early`` and ``late`` are the shares of starts inside the interval promised, before and after it.
    ``mean_error`` and ``median_error`` are those of the expected start, in seconds, without regard to the sign; so
    is ``planned_error``, the mean error of the plan on limits, where there is one. ``width`` is the interval's mean.
    Jobs that never started count as late and as nothing else.
    """

    starts: int = 0
    inside: float = 0.0
    early: float = 0.0
    late: float = 0.0
    mean_error: float = 0.0
    median_error: float = 0.0
    planned_error: float | None = None
    width: float = 0.0


def accuracy(outcomes: Sequence[Outcome]) -> Accuracy:
    """Return how well starts of ordinary jobs were foreseen."""
    if not outcomes:
        return Accuracy()
    table = np.array([[one.wait, one.earliest, one.median, one.latest, one.planned] for one in outcomes], dtype=float)
    wait, earliest, median, latest, planned = table.T
    return _figures(wait, earliest, latest, median, float(np.abs(planned - wait).mean()))


def accuracy_of_starts(starts: Iterable[Start]) -> Accuracy:
    """Return how well the starts of sessions were promised."""
    table = np.array(
        [[np.inf if one.started is None else one.started, one.earliest, one.expected, one.latest] for one in starts],
        dtype=float,
    )
    if not len(table):
        return Accuracy()
    started, earliest, expected, latest = table.T
    return _figures(np.floor(started), earliest, latest, expected, None)


def _figures(at: Floats, earliest: Floats, latest: Floats, expected: Floats, planned: float | None) -> Accuracy:
    known = np.isfinite(at)
    missed = np.abs(expected - at)[known]
    return Accuracy(
        starts=len(at),
        inside=float(((earliest <= at) & (at <= latest)).mean()),
        early=float((at < earliest).mean()),
        late=float((at > latest).mean()),
        mean_error=float(missed.mean()) if len(missed) else 0.0,
        median_error=float(np.median(missed)) if len(missed) else 0.0,
        planned_error=planned,
        width=float((latest - earliest).mean()),
    )
