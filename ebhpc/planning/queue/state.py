"""A queue as the estimator sees it: quantities that are free, jobs that run, jobs that wait in order."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field

import numpy as np
from msgspec import Struct

from ebhpc.planning.queue.grid import Group
from ebhpc.planning.queue.placement import Floats
from ebhpc.planning.queue.runtimes import Asked


class Runs(Struct, frozen=True, kw_only=True):
    """A job that runs: since when (POSIX seconds), what it occupies (one amount for each quantity)."""

    id: str
    asked: Asked
    started: int
    takes: tuple[float, ...]


class Waits(Struct, frozen=True, kw_only=True):
    """A job that waits: what must be free for it to start, what it then occupies; ``begin``: not before.

    ``groups``: it is looked at only among the first so many that wait of each; ``head_of``: whose first waiting job
    it can be, where with EASY backfill only the first is planned.
    """

    id: str
    asked: Asked
    submitted: int
    needs: tuple[float, ...]
    takes: tuple[float, ...]
    begin: int | None = None
    groups: tuple[Group, ...] = ()
    head_of: Hashable = None
    reserved: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class QueueState:
    """A queue at the instant ``now`` (POSIX seconds).

    ``capacity`` and ``free`` have shape ``(quantities,)``; ``free`` is what nobody has now. ``waiting`` stands in the
    scheduler's order. ``known_times`` (seconds from now, ``(changes,)``) and ``known_amounts`` (``(changes,
    quantities)``) tell what becomes free or is taken at known times, as by reservations. ``backfill`` and ``window``
    are those of :class:`~ebhpc.planning.snapshot.Scheduler`.
    """

    now: int
    capacity: Floats
    free: Floats
    running: tuple[Runs, ...]
    waiting: tuple[Waits, ...]
    known_times: Floats = field(default_factory=lambda: np.zeros(0))
    known_amounts: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    backfill: str = "conservative"
    window: int | None = None

    @property
    def plain(self) -> bool:
        """Whether a place is kept free for each waiting job, wherever it starts, in the order of the queue."""
        return (
            self.backfill not in ("easy", "greedy")
            and self.window is None
            and not any(job.groups or not job.reserved for job in self.waiting)
        )

    def asked(self) -> Iterator[tuple[str, Asked]]:
        """Yield the id of each job, and what it asked for."""
        for running in self.running:
            yield running.id, running.asked
        for waiting in self.waiting:
            yield waiting.id, waiting.asked
