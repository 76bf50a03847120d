"""When Slurm is asked for what: its jobs at each look, the rest in turn, so that a look stays cheap."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ebhpc_slurm import records
from ebhpc_slurm.snapshot import Look
from ebhpc_slurm.states import ENDED
from ebhpc_slurm.transport import Slurm, SlurmFault

TURNS = ("nodes", "reservations", "nodes", "partitions", "nodes", "licences", "nodes", "configuration")
"""What is asked beside the jobs, look by look. Everything else than nodes and jobs changes when an operator wants."""

KEPT = 240
"""Seconds for which Slurm keeps a job that has ended (MinJobAge is 300 by default)."""


class Cluster:
    """What is known of the cluster, refreshed by ``look``; safe for several threads."""

    def __init__(self, slurm: Slurm, clock: Callable[[], float], age: float = 0.0) -> None:
        self._slurm = slurm
        self._age = age
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, Any] = {}
        self._turn = 0
        self._ended_until: int | None = None
        self._skew = 0

    def look(self, now: int) -> Look:
        """Ask for the jobs, and for what has its turn; at first for all.

        Raises:
            SlurmFault: there was no answer.
        """
        with self._lock:
            self._refresh()
            # Those who follow our jobs ask for all as well, and more often
            jobs = self._slurm.jobs(age=self._age)
            ended = self._newly_ended(jobs, now)
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

    def partitions(self) -> Sequence[records.Partition]:
        """Return the partitions as they were when last asked for."""
        found: Sequence[records.Partition] = self._get("partitions")
        return found

    def nodes(self, *, fresh: bool = False) -> Mapping[str, records.Node]:
        """Return the nodes as they were when last asked for; ``fresh``: as they are."""
        return {node.name: node for node in self._get("nodes", fresh=fresh)}

    def _get(self, name: str, *, fresh: bool = False) -> Any:
        known = None if fresh else self._known.get(name)
        if known is None:
            known = self._known[name] = self._asked()[name]()
        return known

    def _refresh(self) -> None:
        asked = self._asked()
        # What we do not know yet, and what has its turn
        turn = TURNS[self._turn % len(TURNS)]
        for name, ask in asked.items():
            if name not in self._known or name == turn:
                self._known[name] = ask()
        self._turn += 1

    def skew(self) -> int:
        """Return by how many seconds the controller's clock is ahead of ours; a second or two is none."""
        return self._skew

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

    def _newly_ended(self, jobs: Sequence[records.Job], now: int) -> Sequence[records.Job]:
        """Return jobs that ended since the last look, from the accounting where the controller has forgotten some."""
        since, self._ended_until = self._ended_until, now
        if since is None:
            return ()
        source = jobs
        if now - since > KEPT:
            try:
                source = self._slurm.ended(since)
            except SlurmFault:  # no accounting, or not now: there is less to learn from
                source = jobs
        return [job for job in source if job.state in ENDED and job.ends is not None and since <= job.ends < now]
