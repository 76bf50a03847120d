"""Keeping a promise: levels of an interval that correct themselves from what happened.

Each end of the interval is a quantile at a level of its own. Whenever a start lies beyond it, the level moves
outwards, otherwise a little inwards, so that in the long run the promised share of starts lies beyond it whatever
is wrong with the distribution: adaptive conformal inference (I. Gibbs, E. Candès, "Adaptive Conformal
Inference Under Distribution Shift", NeurIPS 2021), on quantiles as in Y. Romano and others, "Conformalized
Quantile Regression", NeurIPS 2019. The steps are larger at first (A. Angelopoulos, R. Barber, S. Bates, "Online
conformal prediction with decaying step sizes", ICML 2024) and never smaller than ``_STEP``, because a site
changes.
"""

from __future__ import annotations

from msgspec import Struct

TAIL = 0.1
"""The share of starts promised to lie before the interval, and the share after it."""

_STEP = 0.01
_FIRST_STEP = 1.0
_NARROWEST, _WIDEST = 0.45, 0.002


class Levels(Struct, frozen=True, kw_only=True):
    """Levels of the interval's ends, each as the share left beyond it, and how many starts have taught them."""

    before: float = TAIL
    after: float = TAIL
    known: int = 0

    def learn(self, *, early: bool, late: bool) -> Levels:
        """Return the levels after a start that was before the interval, after it, or (neither) inside."""
        step = max(_STEP, _FIRST_STEP / (self.known + 50))
        return Levels(
            before=_moved(self.before, step, early),
            after=_moved(self.after, step, late),
            known=self.known + 1,
        )


def _moved(level: float, step: float, missed: bool) -> float:
    return min(max(level + step * (TAIL - missed), _WIDEST), _NARROWEST)
