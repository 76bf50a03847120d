"""What a replay comes to: errors, coverage and width, of the estimator and of the plan on limits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from ebhpc.planning.queue.placement import Floats
from ebhpc.planning.queue.replay import Replayed

_NOTICED = 60
"""Seconds. Jobs that neither waited longer nor were predicted to are left out: anybody predicts those."""


class Errors(Struct, frozen=True, kw_only=True):
    """How far predictions were from real waits, in seconds; ``relative``: the mean over the mean wait.

    ``bias`` is the mean of predicted less real waits: above zero, jobs started earlier than predicted.
    """

    mean: float
    median: float
    p90: float
    relative: float
    bias: float


class Intervals(Struct, frozen=True, kw_only=True):
    """How the promised intervals did: shares of starts inside, before and after them; widths in seconds.

    ``trivial_width`` is the width of the one interval, the same for all jobs and chosen knowing all real waits,
    that leaves out as many of the shortest and of the longest waits and holds as many starts;
    ``trivial_from_now_width`` is that of the one from no wait at all. ``score`` is the mean interval score (T.
    Gneiting, A. Raftery, JASA 102, 2007: the width and, for each start outside, ten times the distance to it),
    ``trivial_score`` the lower one of the two trivial intervals.
    """

    inside: float
    before: float
    after: float
    inside_of_all: float
    mean_width: float
    median_width: float
    trivial_width: float
    trivial_from_now_width: float
    score: float
    trivial_score: float


class Figures(Struct, frozen=True, kw_only=True):
    """A replay in figures.

    All but ``jobs`` and ``inside_of_all`` are of the ``counted`` jobs, that waited or were predicted to wait more
    than a minute by either; ``mean_wait`` is theirs, in seconds. ``expected_by_plan`` and ``planned_by_plan`` leave
    out those that only the estimator had wait: the plan is then seen as if it stood alone.
    """

    jobs: int
    counted: int
    mean_wait: float
    expected: Errors
    planned: Errors
    expected_by_plan: Errors
    planned_by_plan: Errors
    intervals: Intervals


def figures(replayed: Sequence[Replayed], *, promised: float = 0.8) -> Figures | None:
    """Return the figures of a replay; None where no job waited or was predicted to."""
    if not replayed:
        return None
    table = np.array([[job.wait, job.planned, job.earliest, job.median, job.latest] for job in replayed], dtype=float)
    counted = table[(table[:, [0, 1, 3]] > _NOTICED).any(axis=1)]
    if not len(counted):
        return None
    wait, planned, earliest, median, latest = counted.T
    seen_by_plan = counted[(counted[:, :2] > _NOTICED).any(axis=1)]
    of_plan = seen_by_plan if len(seen_by_plan) else counted
    inside = (earliest <= wait) & (wait <= latest)
    outside = 1.0 - float(inside.mean())
    central = np.quantile(wait, [outside / 2, 1 - outside / 2])
    from_now = np.quantile(wait, [0.0, 1 - outside]) * np.array([0.0, 1.0])
    trivial = [
        _score(wait, np.full_like(wait, low), np.full_like(wait, high), promised) for low, high in (central, from_now)
    ]
    return Figures(
        jobs=len(table),
        counted=len(counted),
        mean_wait=float(wait.mean()),
        expected=_errors(median, wait),
        planned=_errors(planned, wait),
        expected_by_plan=_errors(of_plan[:, 3], of_plan[:, 0]),
        planned_by_plan=_errors(of_plan[:, 1], of_plan[:, 0]),
        intervals=Intervals(
            inside=float(inside.mean()),
            before=float((wait < earliest).mean()),
            after=float((wait > latest).mean()),
            inside_of_all=float(((table[:, 2] <= table[:, 0]) & (table[:, 0] <= table[:, 4])).mean()),
            mean_width=float((latest - earliest).mean()),
            median_width=float(np.median(latest - earliest)),
            trivial_width=float(central[1] - central[0]),
            trivial_from_now_width=float(from_now[1]),
            score=_score(wait, earliest, latest, promised),
            trivial_score=min(trivial),
        ),
    )


def _errors(predicted: Floats, wait: Floats) -> Errors:
    missed = np.abs(predicted - wait)
    mean = float(missed.mean())
    return Errors(
        mean=mean,
        median=float(np.median(missed)),
        p90=float(np.quantile(missed, 0.9)),
        relative=mean / max(float(wait.mean()), 1.0),
        bias=float((predicted - wait).mean()),
    )


def _score(wait: Floats, low: Floats, high: Floats, promised: float) -> float:
    missed = np.maximum(low - wait, 0.0) + np.maximum(wait - high, 0.0)
    return float((high - low + 2 / (1 - promised) * missed).mean())
