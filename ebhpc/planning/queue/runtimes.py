"""How long jobs really run, learned online from those that ended: a distribution of run time over limit.

Users ask for more time than they need, each in a way of his own that changes slowly, so the last jobs of the
same user that asked for the same are the best witnesses (D. Tsafrir, Y. Etsion, D. Feitelson, "Backfilling
Using System-Generated Predictions Rather Than User Runtime Estimates", IEEE TPDS 18(6), 2007, who take the
mean of the last two; here it is the whole distribution). Witnesses are looked for from the closest kind of job to the
widest; each kind gets a share of the weight that grows with how many it knows, and leaves the rest to
the next, as in back-off models of language (the Pitman–Yor process is the theory: Y. W. Teh, 2006). What is left
in the end goes to a prior: ratios spread evenly, and a heap of jobs that are ended by their limit (Mu'alem
and Feitelson, 2001).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable

import numpy as np
from msgspec import Struct

from ebhpc.planning.queue.placement import Floats

STEPS = 64
"""A distribution is told as its quantiles in the middle of so many equal steps."""

_GRID = (np.arange(STEPS) + 0.5) / STEPS
_REMEMBERED = 40
_MOST_KINDS = 12_000
"""So many kinds of jobs are remembered: of more, those that ended last."""

_PRIOR = (*(np.arange(15) / 15 + 1 / 30).tolist(), 1.0, 1.0, 1.0, 1.0, 1.0)
_LONGEST = 1.05
"""Run times above the limit by more than the batch system's grace tell of its clock, not of the job."""

_OVERDUE = 60.0
"""Seconds that a job which has outlived all that is known, and its limit, is expected to go on at first."""


class Asked(Struct, frozen=True, kw_only=True):
    """What is known of a job before it runs: ``size`` in cores, ``limit`` in seconds."""

    size: int
    limit: int
    user: Hashable = None
    account: Hashable = None
    partition: Hashable = None


class RunTimes:
    """Distributions of run time, learned from the jobs that ended, in the order in which they did."""

    __slots__ = ("ended", "known")

    def __init__(self) -> None:
        self.known: dict[Hashable, deque[float]] = {}
        """the last ratios of run time to limit of each kind of job, the kinds in the order of their last end"""
        self.ended = 0

    def end(self, asked: Asked, seconds: float) -> None:
        """Learn that a job ran for so many seconds."""
        ratio = min(max(seconds, 0.0) / max(asked.limit, 1), _LONGEST)
        for kind, _ in _kinds(asked):
            ratios = self.known.pop(kind, None)
            if ratios is None:
                ratios = deque(maxlen=_REMEMBERED)
            ratios.append(ratio)
            self.known[kind] = ratios
        while len(self.known) > _MOST_KINDS:
            del self.known[next(iter(self.known))]
        self.ended += 1

    def remember(self, kind: Hashable, ratios: Iterable[float]) -> None:
        """Take over what was known of a kind of jobs."""
        self.known[kind] = deque(ratios, maxlen=_REMEMBERED)

    def mean_ratio(self, user: Hashable) -> float:
        """Return the mean of run time over limit: of a user's last jobs, else of all; else a half."""
        ratios = self.known.get(("user", user)) or self.known.get("all")
        return sum(ratios) / len(ratios) if ratios else 0.5

    def quantiles(self, asked: Asked) -> Floats:
        """Return the run time's quantiles (seconds) at the STEPS probabilities (i + ½) / STEPS, ascending."""
        left = 1.0
        ratios: list[float] = []
        weights: list[float] = []
        for kind, doubt in _kinds(asked):
            known = self.known.get(kind)
            if known:
                share = left * len(known) / (len(known) + doubt)
                ratios.extend(known)
                weights.extend([share / len(known)] * len(known))
                left -= share
        ratios.extend(_PRIOR)
        weights.extend([left / len(_PRIOR)] * len(_PRIOR))
        values = np.array(ratios)
        order = values.argsort()
        mass = np.array(weights)[order].cumsum()
        found = mass.searchsorted(_GRID * mass[-1])
        quantiles: Floats = values[order[np.minimum(found, len(order) - 1)]] * float(asked.limit)
        return quantiles


def remaining(quantiles: Floats, elapsed: Floats, uniform: Floats) -> Floats:
    """Draw how much longer jobs run that have run for ``elapsed`` seconds; seconds, at least 1.

    ``quantiles`` has shape ``(jobs, STEPS)``, ``elapsed`` ``(jobs,)``, ``uniform`` in [0, 1) ``(jobs, samples)``
    as the answer. Only what is longer than the time elapsed is drawn from. A job that nothing known outlives is
    expected to go on for as long again as it is overdue, because what has lasted tends to last.
    """
    ages = elapsed[:, np.newaxis]
    survivors = (quantiles > ages).sum(axis=1, keepdims=True)
    index = STEPS - survivors + (uniform * survivors).astype(np.int64)
    drawn = np.take_along_axis(quantiles, np.minimum(index, STEPS - 1), axis=1) - ages
    overdue = np.maximum(ages - quantiles[:, -1:], _OVERDUE)
    return np.maximum(np.where(survivors > 0, drawn, 2 * uniform * overdue), 1.0)


def _kinds(asked: Asked) -> tuple[tuple[Hashable, float], ...]:
    """Return the kinds of jobs that a job belongs to, closest first, and how many witnesses weigh as much as doubt."""
    return (
        (("user, size, limit", asked.user, asked.size, asked.limit), 2.0),
        (("user, limit", asked.user, asked.limit), 3.0),
        (("user", asked.user), 5.0),
        (("account, partition", asked.account, asked.partition), 10.0),
        (("limit", asked.limit), 10.0),
        ("all", 10.0),
    )
