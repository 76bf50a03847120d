"""Which past cases are like this one: an online forest of random trees that answers with weights.

A forest tells how much each remembered case counts for a new one: the share of the leaves that the two have
in common (N. Meinshausen, "Quantile Regression Forests", JMLR 7, 2006). The trees are extremely randomised
(P. Geurts, D. Ernst, L. Wehenkel, "Extremely randomized trees", Machine Learning 63, 2006): of a few random
cuts at each node the one is taken after which the targets vary least. Old trees are replaced by new ones a few at
a time, and each new case goes into its leaves at once, so that the forest follows what changes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ebhpc.planning.queue.placement import Floats, Integers

_TREES = 40
_DEPTH = 12
_CUTS = 10
_SMALLEST = 5
_REPLACED = 4
_EVERY = 60
"""So many new cases after which ``_REPLACED`` trees are replaced."""

_FIRST = 60
"""Cases before the first trees are grown."""

_NODES = 2**_DEPTH


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """What a forest remembers: how far it has come, its cases, and of its trees (``tree``, ``node``) the cuts."""

    count: int
    place: int
    since: int
    oldest: int
    features: NDArray[np.float32]
    targets: Floats
    leaves: NDArray[np.uint16]
    tree: NDArray[np.uint8]
    node: NDArray[np.uint16]
    split: NDArray[np.uint8]
    cuts: Floats


class Forest:
    """Remembers the last ``capacity`` cases: features of shape ``(features,)`` and a target each."""

    __slots__ = (
        "_cuts",
        "_features",
        "_leaves",
        "_next",
        "_oldest",
        "_random",
        "_since",
        "_split",
        "_targets",
        "count",
    )

    def __init__(self, features: int, capacity: int, random: np.random.Generator) -> None:
        self._features: Floats = np.zeros((capacity, features))
        self._targets: Floats = np.zeros(capacity)
        self._leaves: NDArray[np.int32] = np.full((_TREES, capacity), -1, dtype=np.int32)
        # Nodes as in a heap: those below node n are 2n + 1 and 2n + 2; a leaf has feature -1
        self._split: NDArray[np.int32] = np.full((_TREES, 2 * _NODES), -1, dtype=np.int32)
        self._cuts: Floats = np.zeros((_TREES, 2 * _NODES))
        self._random = random
        self._next = self._since = self._oldest = 0
        self.count = 0

    def kept(self) -> Kept:
        """Return what it remembers, to go on later."""
        known = min(self.count, len(self._targets))
        used = [np.flatnonzero(split >= 0) for split in self._split]
        tree = np.repeat(np.arange(_TREES), [len(nodes) for nodes in used])
        node = np.concatenate(used)
        return Kept(
            count=self.count,
            place=self._next,
            since=self._since,
            oldest=self._oldest,
            features=self._features[:known].astype(np.float32),
            targets=self._targets[:known].copy(),
            leaves=self._leaves[:, :known].astype(np.uint16),
            tree=tree.astype(np.uint8),
            node=node.astype(np.uint16),
            split=self._split[tree, node].astype(np.uint8),
            cuts=self._cuts[tree, node],
        )

    def go_on(self, kept: Kept) -> None:
        """Go on from what another has remembered, which had the same shape.

        Raises:
            ValueError: it does not fit.
        """
        known = min(kept.count, len(self._targets))
        if (
            kept.features.shape != (known, self._features.shape[1])
            or kept.targets.shape != (known,)
            or kept.leaves.shape != (_TREES, known)
            or not 0 <= kept.place < len(self._targets)
            or not len(kept.tree) == len(kept.node) == len(kept.split) == len(kept.cuts)
            or (len(kept.tree) and (kept.tree.max() >= _TREES or kept.node.max() >= _NODES))
            or (len(kept.split) and kept.split.max() >= self._features.shape[1])
        ):
            raise ValueError("another kind of forest")
        self.count, self._next, self._since, self._oldest = kept.count, kept.place, kept.since, kept.oldest
        self._features[:known], self._targets[:known] = kept.features, kept.targets
        self._leaves[:, :known] = kept.leaves
        self._split[kept.tree, kept.node] = kept.split
        self._cuts[kept.tree, kept.node] = kept.cuts

    @property
    def grown(self) -> bool:
        """Whether there are trees; before, :meth:`weights` has nothing to say."""
        return self.count >= _FIRST

    def learn(self, features: Floats, target: float) -> int:
        """Remember a case and return its place, in which a later case may follow when all places are taken."""
        place = self._next
        self._next = (place + 1) % len(self._targets)
        self._features[place], self._targets[place] = features, target
        self.count += 1
        if self.count < _FIRST:
            return place
        self._leaves[:, place] = self._leaf(features)
        self._since += 1
        # With little history each case changes much, so all trees are grown anew again and again
        if self.count == _FIRST or (self.count < 20 * _EVERY and self.count % _EVERY == 0):
            self._grow(range(_TREES))
        elif self._since >= _EVERY:
            self._since = 0
            self._grow([(self._oldest + index) % _TREES for index in range(_REPLACED)])
            self._oldest = (self._oldest + _REPLACED) % _TREES
        return place

    def weights(self, features: Floats) -> Floats:
        """Return the weight of each place, which sum to 1; only when :attr:`grown`."""
        known = min(self.count, len(self._targets))
        shared = self._leaves[:, :known] == self._leaf(features)[:, np.newaxis]
        sizes = shared.sum(axis=1)
        found = sizes > 0
        weights: Floats = (np.where(found, 1.0 / np.maximum(sizes, 1), 0.0) / found.sum()) @ shared
        return weights

    def _leaf(self, features: Floats) -> NDArray[np.int32]:
        trees = np.arange(_TREES)
        node = np.zeros(_TREES, dtype=np.int64)
        for _ in range(_DEPTH):
            feature = self._split[trees, node]
            below = 2 * node + 1 + (features[feature] > self._cuts[trees, node])
            node = np.where(feature >= 0, below, node)
        return node.astype(np.int32)

    def _grow(self, which: range | list[int]) -> None:
        """Grow the trees of these numbers from all cases, level by level, all trees of a level at once."""
        trees = np.array(which)
        known = min(self.count, len(self._targets))
        cases = np.tile(np.arange(known), len(trees))
        root = np.repeat(np.arange(len(trees)) * 2 * _NODES, known)
        node = root.copy()
        target = self._targets[cases]
        split = np.full(len(trees) * 2 * _NODES, -1, dtype=np.int32)
        cuts = np.zeros(len(split))
        live = np.ones(len(node), dtype=bool)
        for _ in range(_DEPTH - 1):
            rows = np.flatnonzero(live)
            if not len(rows):
                break
            nodes, member = np.unique(node[rows], return_inverse=True)
            chosen, cut, gain = self._best(cases[rows], target[rows], member, len(nodes))
            good = gain > 0
            split[nodes[good]], cuts[nodes[good]] = chosen[good], cut[good]
            moves = good[member]
            going = rows[moves]
            up = self._features[cases[going], chosen[member[moves]]] > cut[member[moves]]
            base = root[going]
            node[going] = base + 2 * (node[going] - base) + 1 + up
            live[rows[~moves]] = False
        self._split[trees] = split.reshape(len(trees), -1)
        self._cuts[trees] = cuts.reshape(len(trees), -1)
        self._leaves[trees, :known] = (node - root).reshape(len(trees), known)

    def _best(self, cases: Integers, target: Floats, member: Integers, nodes: int) -> tuple[Integers, Floats, Floats]:
        """Return for each node the best of some random cuts: feature, cut, and how much it explains (0: none)."""
        total = np.bincount(member, minlength=nodes).astype(float)
        summed = np.bincount(member, target, nodes)
        squares = np.bincount(member, target * target, nodes)
        spread = squares - summed * summed / total
        worth = (total >= 2 * _SMALLEST) & (spread > 1e-9 * np.maximum(squares, 1e-9))
        best = np.zeros(nodes)
        feature = np.zeros(nodes, dtype=np.int64)
        cut = np.zeros(nodes)
        for _ in range(_CUTS):
            tried = self._random.integers(self._features.shape[1], size=nodes)
            values = self._features[cases, tried[member]]
            low = np.full(nodes, np.inf)
            high = np.full(nodes, -np.inf)
            np.minimum.at(low, member, values)
            np.maximum.at(high, member, values)
            at = low + (high - low) * self._random.random(nodes)
            up = values > at[member]
            above = np.bincount(member[up], minlength=nodes).astype(float)
            sum_above = np.bincount(member[up], target[up], nodes)
            below = total - above
            fair = worth & (above >= _SMALLEST) & (below >= _SMALLEST)
            gain = np.where(
                fair,
                sum_above**2 / np.maximum(above, 1)
                + (summed - sum_above) ** 2 / np.maximum(below, 1)
                - summed * summed / total,
                0.0,
            )
            better = gain > best
            best = np.where(better, gain, best)
            feature = np.where(better, tried, feature)
            cut = np.where(better, at, cut)
        return feature, cut, best
