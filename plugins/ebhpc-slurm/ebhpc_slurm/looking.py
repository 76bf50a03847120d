"""When Slurm is asked for what: a look is two requests to slurmctld at most, whoever wants to know."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ebhpc_slurm import records
from ebhpc_slurm.snapshot import Look
from ebhpc_slurm.states import ENDED
from ebhpc_slurm.transport import Slurm, SlurmFault

MOST = 2
"""Requests to slurmctld that one look may be; but the very first, which has to learn everything."""

OTHERS = ("nodes", "reservations", "partitions", "licences", "configuration")
"""What is asked for beside the jobs."""

LOOKS = {"nodes": 3, "reservations": 2}
"""After how many looks what changes by itself is asked for again."""

SECONDS = {"partitions": 60.0, "licences": 120.0, "configuration": 300.0}
"""After how long what an operator has to change is asked for again; partitions at once where nodes come or go."""

KEPT = 240
"""Seconds for which Slurm keeps a job that has ended (MinJobAge is 300 by default)."""

AS_LAST_TOLD = 1e9
"""The age in seconds by which any answer that is known does."""


class Cluster:
    """What is known of the cluster, for snapshots and for those who follow jobs; safe for several threads.

    They share their looks, which come no more often than every ``least`` seconds. Where a look cannot be all that is
    due, the jobs are asked for at least at every second one. ``clock`` gives POSIX seconds.
    """

    def __init__(
        self,
        slurm: Slurm,
        clock: Callable[[], float],
        least: float = 0.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._slurm = slurm
        self._least = least
        self._clock = clock
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._known: dict[str, Any] = {}
        self._looks = 0
        self._looked: float | None = None
        self._fault: SlurmFault | None = None
        self._at: dict[str, tuple[int, float]] = {}
        """at which look, and when by the monotonic clock, each was asked for"""
        self._wanted = True
        """whether there was a snapshot since the last look at something else than what is followed"""
        self._jobs_taken = 0
        self._jobs_told = 0
        self._jobs: tuple[int, Sequence[records.Job]] = (0, ())
        """all jobs, and of which answer they are"""
        self._ended_until: int | None = None
        self._skew = 0

    # --- looks -----------------------------------------------------------------------------------------------

    def look(self, now: int) -> Look:
        """Return what is known for a snapshot, after a look where one is due; at first all is asked for.

        Raises:
            SlurmFault: there was no answer, or none at the last look.
        """
        with self._lock:
            self._wanted = True
            if self._due():
                self._look(self._planned(("jobs", *OTHERS)))
            elif self._fault is not None:
                raise self._fault.with_traceback(None)
            missing = [name for name in ("jobs", *OTHERS) if name not in self._at]
            if missing:
                self._look(missing)
            if self._jobs[0] != self._jobs_told:
                self._jobs = (self._jobs_told, self._slurm.jobs(age=AS_LAST_TOLD))
            jobs = self._jobs[1]
            ended = self._newly_ended(jobs, min(now, self._jobs_taken))
            configuration: records.Configuration = self._known["configuration"]
            return Look(
                nodes=self._known["nodes"],
                partitions=self._known["partitions"],
                jobs=jobs,
                reservations=self._known["reservations"],
                licences=self._known["licences"],
                ended=ended,
                settings=configuration.settings,
            )

    def follow(
        self, prefix: str, *, anew: bool = False, reservations: bool = False
    ) -> tuple[int, Sequence[records.Job] | None]:
        """Look where a look is due, and return the number of the newest answer about jobs: a new one is another.

        With it the jobs with ``prefix``, if they were asked for now. ``anew``: they are, whether a look is due or not.
        ``reservations``: these are followed too.

        Raises:
            SlurmFault: there was no answer.
        """
        with self._lock:
            jobs = None
            if anew or not self._jobs_told:
                jobs = self._look(["jobs"], prefix)
            elif self._due():
                followed = ("jobs", "reservations") if reservations else ("jobs",)
                jobs = self._look(self._planned(("jobs", *OTHERS) if self._wanted else followed, followed), prefix)
            return self._jobs_told, jobs

    def _due(self) -> bool:
        return self._looked is None or self._monotonic() - self._looked >= self._least

    def _planned(self, wanted: Sequence[str], followed: Sequence[str] = ()) -> list[str]:
        """Return what of ``wanted`` the next look asks for; ``followed`` is due at each, as far as there is room."""
        overdue = sorted((name for name in OTHERS if name in wanted), key=self._overdue, reverse=True)
        due = [name for name in overdue if self._overdue(name) >= 1 or name in followed]
        # Never twice without the jobs
        postponed = self._looks - self._at.get("jobs", (0, 0.0))[0] > 0
        found: list[str] = []
        left = MOST
        for name in ["jobs", *due] if postponed else [*due, "jobs"]:
            if self._slurm.requests[name] <= left:
                found.append(name)
                left -= self._slurm.requests[name]
        return found

    def _overdue(self, name: str) -> float:
        """Return how old an answer is, of the age at which it is due again; none at all is infinitely old."""
        if name not in self._at:
            return float("inf")
        look, at = self._at[name]
        if name in LOOKS:
            return (self._looks + 1 - look) / LOOKS[name]
        return (self._monotonic() - at) / SECONDS[name]

    def _look(self, names: Sequence[str], prefix: str = "") -> Sequence[records.Job] | None:
        jobs = None
        self._looked = self._monotonic()
        self._looks += 1
        try:
            for name in names:
                if name == "jobs":
                    # As old as the question
                    taken, at = int(self._clock()), (self._looks, self._monotonic())
                    jobs = self._slurm.jobs(prefix)
                    self._jobs_taken, self._at[name] = taken, at
                    self._jobs_told += 1
                    if not prefix:
                        self._jobs = (self._jobs_told, jobs)
                else:
                    self._ask(name)
                    self._wanted = False
        except SlurmFault as fault:
            self._fault = fault
            raise
        self._fault = None
        return jobs

    def _ask(self, name: str) -> Any:
        before = self._known.get(name)
        at = (self._looks, self._monotonic())
        known = self._known[name] = self._asked()[name]()
        self._at[name] = at
        if name == "nodes" and before is not None and {one.name for one in before} != {one.name for one in known}:
            self._at.pop("partitions", None)
        return known

    # --- what is known ---------------------------------------------------------------------------------------

    def partitions(self) -> Sequence[records.Partition]:
        """Return the partitions as they were when last asked for."""
        found: Sequence[records.Partition] = self._get("partitions")
        return found

    def nodes(self, *, fresh: bool = False) -> Mapping[str, records.Node]:
        """Return the nodes as they were when last asked for; ``fresh``: as they are."""
        return {node.name: node for node in self._get("nodes", fresh=fresh)}

    def reservations(self, *, fresh: bool = False) -> Mapping[str, records.Reservation]:
        """Return the reservations by name, as they were when last asked for; ``fresh``: as they are."""
        return {one.name: one for one in self._get("reservations", fresh=fresh)}

    def jobs_as_new_as(self, name: str) -> bool:
        """Whether the jobs were asked for after what ``name`` says, or with it."""
        asked = (self._at.get(each, (0, -math.inf))[1] for each in ("jobs", name))
        return next(asked) >= next(asked)

    def skew(self) -> int:
        """Return by how many seconds the controller's clock is ahead of ours; a second or two is none."""
        return self._skew

    def _get(self, name: str, *, fresh: bool = False) -> Any:
        # No lock: a look that takes its time must not hold up whoever submits
        known = None if fresh else self._known.get(name)
        return self._ask(name) if known is None else known

    def _configuration(self) -> records.Configuration:
        before = self._clock()
        answer = self._slurm.configuration()
        after = self._clock()
        # The controller tells whole seconds, at some instant while we waited
        ahead, behind = answer.now - after, before - answer.now - 1
        self._skew = int(ahead) if ahead > 1 else -int(behind) if behind > 1 else 0
        return answer

    def _asked(self) -> Mapping[str, Callable[[], Any]]:
        slurm = self._slurm
        return {
            "nodes": slurm.nodes,
            "reservations": slurm.reservations,
            "partitions": slurm.partitions,
            "licences": slurm.licences,
            "configuration": self._configuration,
        }

    def _newly_ended(self, jobs: Sequence[records.Job], until: int) -> Sequence[records.Job]:
        """Return jobs that ended since the last answer, from the accounting where the controller has forgotten some."""
        since, self._ended_until = self._ended_until, until
        if since is None:
            return ()
        source = jobs
        if until - since > KEPT:
            try:
                source = self._slurm.ended(since)
            except SlurmFault:  # no accounting, or not now: there is less to learn from
                source = jobs
        return [job for job in source if job.state in ENDED and job.ends is not None and since <= job.ends < until]
