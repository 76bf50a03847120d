"""A session's window as a reservation of Slurm's, and its job's limit within it: pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ebhpc.model import Allocation, ReservedTime, Session
from ebhpc_slurm import records
from ebhpc_slurm.notation import hosts
from ebhpc_slurm.settings import Mapped, SlurmSettings
from ebhpc_slurm.snapshot import native_name, offered

LATE = 10
"""Seconds that may pass between a job's submission and its start: its limit counts from then."""


def partition_of(
    allocations: Sequence[Allocation],
    partitions: Sequence[records.Partition],
    wanted: Sequence[str],
    *,
    named: str | None = None,
    seconds: float,
    account: str | None = None,
) -> records.Partition | None:
    """Return the preferred partition that has all the nodes, allows so many seconds, and lets the account in.

    ``named``: no other will do.
    """
    names = {allocation.node for allocation in allocations if allocation.node}
    for one in offered(partitions, wanted):
        if named is not None and one.name != named:
            continue
        if one.state != "UP" or (one.limit is not None and one.limit < seconds):
            continue
        if account is not None and not allows(one, account):
            continue
        if names <= set(hosts(one.nodes)):
            return one
    return None


def allows(partition: records.Partition, account: str) -> bool:
    """Whether jobs of an account may run in a partition."""
    return account not in partition.denied_accounts and (
        not partition.allowed_accounts or account in partition.allowed_accounts
    )


def reserve(
    session: Session,
    settings: SlurmSettings,
    who: Mapped,
    *,
    partition: str | None,
    gap: float | None = None,
    skew: int = 0,
    others: Sequence[str] = (),
) -> records.Reserve:
    """Return the reservation of a firm session, with some time behind its end (``gap``, else the settings').

    ``skew``: by how many seconds the controller's clock is ahead.
    ``others``: users who share it. Time that is its user's ends on time: the gap is for what Slurm ends late.
    """
    first = session.allocations[0]
    executable = session.executable
    behind = settings.gap if gap is None else gap
    if isinstance(executable, ReservedTime):
        behind = 0
    return records.Reserve(
        name=native_name(session.uuid, settings.prefix),
        start=session.start + skew,
        end=max(session.end + math.ceil(behind), session.start + 60) + skew,
        user=who.user,
        others=tuple(dict.fromkeys(name for name in others if name != who.user)),
        accounts=tuple(executable.accounts or ()) if isinstance(executable, ReservedTime) else (),
        nodes=tuple(allocation.node for allocation in session.allocations),
        partition=partition,
        # A job's CPUs are threads, those of a reservation are cores: of a node with two threads a core, tres=cpu=8
        # takes eight cores, and is then shown as cpu=16
        cpus=first.cores,
        devices=first.devices,
        licences=session.licences,
        # Cores of several nodes cannot be reserved evenly: of n1, n2 and n3 tres=cpu=6 takes 4, 1 and 1
        whole=exclusive(session) or len(session.allocations) > 1,
    )


def exclusive(session: Session) -> bool:
    """Whether a session has whole nodes."""
    return bool(getattr(session.compute, "exclusive", False))


def minutes(session: Session, settings: SlurmSettings, now: float, *, until: float | None = None) -> int:
    """Return the limit of a session's job: what was promised, and what its runner needs to end it by itself.

    ``until``: when its reservation ends. A job whose limit reaches beyond that is not started where another
    reservation follows.
    """
    wanted = math.ceil((session.duration + settings.jobs.margin) / 60)
    if until is None:
        return max(wanted, 1)
    return max(min(wanted, math.floor((until - now - LATE) / 60)), 1)


_PATH = ': "${PATH:=/usr/local/bin:/usr/bin:/bin}"; export PATH; unset SLURM_EXPORT_ENV\n'
"""A job is submitted with nothing of anybody's environment, so that it has no PATH either; its steps get its own."""


def with_path(script: str) -> str:
    """Return a script that has a PATH, and whose first command stands before all that a user may have written."""
    first, newline, rest = script.partition("\n")
    return f"{first}{newline}{_PATH}{rest}"


def submit(
    session: Session,
    settings: SlurmSettings,
    who: Mapped,
    *,
    script: str,
    directory: str,
    log: str,
    limit: int,
    partition: str | None,
    reservation: str | None,
    threads: int = 1,
    begin: int | None = None,
) -> records.Submit:
    """Return the job of a session."""
    first = session.allocations[0]
    return records.Submit(
        name=native_name(session.uuid, settings.prefix),
        user=who.user,
        script=with_path(script),
        minutes=limit,
        cpus=min(allocation.cores for allocation in session.allocations) * threads,
        memory=first.memory,
        devices=first.devices,
        licences=session.licences,
        nodes=len(session.allocations),
        hosts=tuple(allocation.node for allocation in session.allocations if allocation.node),
        directory=directory,
        output=log,
        errors=log,
        partition=partition,
        account=who.account,
        qos=who.qos,
        reservation=reservation,
        begin=begin,
        features=session.features,
        whole=exclusive(session),
    )
