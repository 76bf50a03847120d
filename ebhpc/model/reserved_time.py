"""Time on nodes that is its user's, who submits to it what he likes. A kind of ours beside the standard's."""

from __future__ import annotations

from msgspec import Struct

from ebhpc.model import kinds
from ebhpc.model.elements import Executable, Wire

_HOUR = 3600


class JobInside(Wire):
    """A job that ran in reserved time, as its batch system tells of it; ``core_hours`` as far as it has run."""

    id: str
    name: str | None = None
    user: str | None = None
    nodes: int | None = None
    cores: int | None = None
    state: str | None = None
    started: str | None = None
    ended: str | None = None
    exit_code: int | None = None
    core_hours: float | None = None


class ReservedTime(Executable, tag=kinds.RESERVED_TIME):
    """Nothing is run: the resources are kept for the session's owner, and for those who share them.

    ``users`` are other users of the broker, ``accounts`` those of the batch system, as the site allows: with both only
    the owner and these users may use it, and only with jobs of these accounts.
    ``idle_release`` (ISO 8601): it is given back when nothing has run in it for so long. ``replaces`` is the UUID of a
    session of the same owner's, also reserved time, that ends when this one stands. ``jobs`` are the broker's to tell.
    """

    users: list[str] | None = None
    accounts: list[str] | None = None
    idle_release: str | None = None
    replaces: str | None = None
    jobs: list[JobInside] | None = None


class JobUse(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A job in reserved time: ``cores`` in all, ``started`` and ``ended`` POSIX seconds, ``state`` in words."""

    id: str
    name: str = ""
    user: str = ""
    nodes: int = 1
    cores: int = 1
    state: str = ""
    started: float
    ended: float | None = None
    exit_code: int | None = None

    def core_hours(self, until: float, since: float = 0.0) -> float:
        """Return what it has used from ``since`` up to ``until`` (POSIX seconds), in core-hours."""
        end = until if self.ended is None else min(self.ended, until)
        return self.cores * max(0.0, end - max(self.started, since)) / _HOUR


class Usage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What ran, and runs, in reserved time: its jobs in the order of their starts.

    ``more``: core-hours of jobs that have ended and are not listed one by one any more; ``others`` is their number.
    """

    jobs: tuple[JobUse, ...] = ()
    more: float = 0.0
    others: int = 0

    def core_hours(self, until: float, since: float = 0.0) -> float:
        """Return what all of them have used from ``since`` up to ``until`` (POSIX seconds), in core-hours."""
        return self.more + sum(job.core_hours(until, since) for job in self.jobs)

    def idle_since(self, begin: float) -> float | None:
        """Return since when nothing has run, POSIX seconds; ``begin`` is when the time began. None: something runs."""
        if any(job.ended is None for job in self.jobs):
            return None
        return max((begin, *(job.ended for job in self.jobs if job.ended is not None)))
