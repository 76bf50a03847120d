"""What an estimator has learned, as bytes: for the database, so that it outlives the process and others can use it.

All of it is bounded: the last 6000 cases and their trees, the last kinds of jobs with the last runs of each, the
promises that are open. A few hundred kilobytes on a busy site.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Hashable
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from ebhpc.planning.queue.calibration import Levels
from ebhpc.planning.queue.estimator import EarlyStart, Expectation, Outcome, Promise, StartEstimator
from ebhpc.planning.queue.forest import Kept


class LearnedUnreadableError(ValueError):
    """The bytes are nothing that this version of ebhpc has learned; it has to begin anew."""


_FORM = b"L1"
"""The first bytes; another number whenever what follows, or what it means, changes."""

_LARGEST = 64 * 2**20
"""Bytes that it may have when unpacked."""


class _Case(Struct, frozen=True, array_like=True):
    """An open promise; the arrays as lists."""

    id: str
    made: int
    features: list[float]
    scale: float
    intervals: list[list[float]]
    expectation: Expectation
    user: Any
    settled: bool


class _Learned(Struct, frozen=True, kw_only=True):
    seed: int
    levels: Levels
    scores: list[float]
    shift: float
    recent: list[tuple[Any, float]]
    ratios: list[tuple[Any, float]]
    """of all jobs, and of the users in ``recent``: the mean run time over limit"""
    counts: tuple[int, int, int, int]
    arrays: dict[str, bytes]
    outcomes: list[Outcome]
    driver: msgspec.Raw
    """what only the driver needs: an encoded ``_Memory``"""


class _Memory(Struct, frozen=True, kw_only=True):
    ended: int
    kinds: list[tuple[Any, bytes]]
    promises: list[_Case]
    finished: list[str]
    early: list[tuple[int, int, _Case]] = []
    """starts that are to be learned from: when (POSIX seconds), the wait (seconds), and what was promised"""


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(_Learned)
_MEMORY = msgspec.msgpack.Decoder(_Memory)

_DTYPES: dict[str, Any] = {
    "features": np.float32,
    "targets": np.float64,
    "leaves": np.uint16,
    "tree": np.uint8,
    "node": np.uint16,
    "split": np.uint8,
    "cuts": np.float64,
    "waits": np.float64,
    "shifts": np.float64,
}
_RATIOS = np.float16


def pack_learned(estimator: StartEstimator) -> bytes:
    """Return what an estimator has learned in compact form."""
    kept = estimator.forest.kept()
    known = len(kept.targets)
    arrays = {name: getattr(kept, name) for name in _DTYPES if name not in ("waits", "shifts")}
    arrays |= {"waits": estimator.waits[:known], "shifts": estimator.shifts[:known]}
    run_times = estimator.run_times
    memory = _Memory(
        ended=run_times.ended,
        kinds=[(kind, np.array(ratios, dtype=_RATIOS).tobytes()) for kind, ratios in run_times.known.items()],
        promises=[_case(id, promise) for id, promise in estimator.promises.items()],
        finished=list(estimator.finished),
        early=[(one.due, one.wait, _case("", one.promise)) for one in sorted(estimator.early)],
    )
    learned = _Learned(
        seed=estimator.seed,
        levels=estimator.levels,
        scores=estimator.scores.tolist(),
        shift=estimator.shift,
        recent=list(estimator.recent.items()),
        ratios=[
            (kind, sum(ratios) / len(ratios))
            for kind in ("all", *(("user", user) for user in estimator.recent))
            if (ratios := run_times.known.get(kind))
        ],
        counts=(kept.count, kept.place, kept.since, kept.oldest),
        arrays={name: array.astype(_DTYPES[name]).tobytes() for name, array in arrays.items()},
        outcomes=list(estimator.outcomes),
        driver=msgspec.Raw(_ENCODER.encode(memory)),
    )
    return _FORM + zlib.compress(_ENCODER.encode(learned), level=1)


def unpack_learned(packed: bytes, *, to_learn: bool = True) -> StartEstimator:
    """Return an estimator that goes on where another was; ``to_learn`` False: it only has to answer.

    Raises:
        LearnedUnreadableError: the bytes are damaged, or of another version of ebhpc.
    """
    if not packed.startswith(_FORM):
        raise LearnedUnreadableError("it is none, or of another version of ebhpc")
    try:
        unzip = zlib.decompressobj()
        plain = unzip.decompress(packed[len(_FORM) :], _LARGEST)
        if not unzip.eof:
            raise LearnedUnreadableError("it is cut off, or too large")
        learned = _DECODER.decode(plain)
        return _estimator(learned, _MEMORY.decode(learned.driver) if to_learn else None)
    except LearnedUnreadableError:
        raise
    except (zlib.error, msgspec.MsgspecError, ValueError, KeyError, TypeError) as error:
        raise LearnedUnreadableError(f"it is damaged: {error}") from error


def _estimator(learned: _Learned, memory: _Memory | None) -> StartEstimator:
    count, place, since, oldest = learned.counts
    # Other numbers than those drawn already: what grows now must not repeat them
    estimator = StartEstimator(seed=learned.seed, begun=count)
    arrays = {name: np.frombuffer(learned.arrays[name], dtype=kind) for name, kind in _DTYPES.items()}
    known = len(arrays["targets"])
    waits, shifts = arrays.pop("waits"), arrays.pop("shifts")
    if known:
        arrays["features"] = arrays["features"].reshape(known, -1)
        arrays["leaves"] = arrays["leaves"].reshape(-1, known)
        estimator.forest.go_on(Kept(count=count, place=place, since=since, oldest=oldest, **arrays))
        estimator.waits[:known], estimator.shifts[:known] = waits, shifts
    if len(learned.scores) != len(estimator.scores):
        raise ValueError("another number of scores")
    estimator.levels, estimator.shift = learned.levels, learned.shift
    estimator.scores[:] = learned.scores
    estimator.recent.update((_hashable(user), shift) for user, shift in learned.recent)
    estimator.outcomes = deque(learned.outcomes, estimator.outcomes.maxlen)
    if memory is None:
        for kind, ratio in learned.ratios:
            estimator.run_times.remember(_hashable(kind), [ratio])
    else:
        estimator.run_times.ended = memory.ended
        for kind, ratios in memory.kinds:
            estimator.run_times.remember(
                _hashable(kind), np.frombuffer(ratios, dtype=_RATIOS).astype(np.float64).tolist()
            )
        estimator.promises.update((case.id, _promise(case)) for case in memory.promises)
        estimator.finished.update(dict.fromkeys(memory.finished))
        # In order as they are, they are a heap
        estimator.early = [
            EarlyStart(due, number, wait, _promise(case)) for number, (due, wait, case) in enumerate(memory.early)
        ]
        estimator.numbered = len(estimator.early)
    return estimator


def _case(id: str, promise: Promise) -> _Case:
    return _Case(
        id,
        promise.made,
        promise.features.tolist(),
        promise.scale,
        promise.intervals.tolist(),
        promise.expectation,
        promise.user,
        promise.settled,
    )


def _promise(case: _Case) -> Promise:
    return Promise(
        case.made,
        np.array(case.features),
        case.scale,
        np.array(case.intervals),
        case.expectation,
        _hashable(case.user),
        case.settled,
    )


def _hashable(value: Any) -> Hashable:
    """Return a key as it was before it was a list."""
    return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else value
