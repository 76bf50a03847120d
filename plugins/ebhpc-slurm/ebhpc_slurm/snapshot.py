"""Slurm's records as ebhpc's snapshot: pure functions."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime

from msgspec import Struct, field
from msgspec.structs import replace

from ebhpc.model import Allocation, Shape
from ebhpc.planning import (
    FinishedJob,
    Node,
    NodeState,
    Partition,
    Reservation,
    RunningJob,
    Scheduler,
    Snapshot,
    WaitingJob,
)
from ebhpc_slurm import records
from ebhpc_slurm.notation import devices, generic, hosts, licences, resources, task_count
from ebhpc_slurm.states import ENDED, LIVE, reason


class Site(Struct, frozen=True, kw_only=True):
    """What of the cluster is offered: ``partitions`` by preference (none: the default one).

    ``prefix`` begins the names of our own jobs and reservations. ``horizon``: how many seconds ahead
    reservations that repeat are looked at. ``gap``: how many seconds longer than promised ours last.
    """

    platform: str
    prefix: str
    partitions: tuple[str, ...] = ()
    horizon: int = 14 * 86400
    gap: int = 0


class Look(Struct, frozen=True, kw_only=True):
    """What Slurm said."""

    nodes: Sequence[records.Node]
    partitions: Sequence[records.Partition]
    jobs: Sequence[records.Job]
    reservations: Sequence[records.Reservation] = ()
    licences: Mapping[str, int] = field(default_factory=dict)
    ended: Sequence[records.Job] = ()
    settings: Mapping[str, str] = field(default_factory=dict)


def session_of(name: str, prefix: str) -> str | None:
    """Return the session that a job's or reservation's name tells; None: it is not ours."""
    before, dash, rest = name.partition("-")
    if before != prefix or not dash:
        return None
    try:
        found = str(uuid.UUID(rest))
    except ValueError:
        return None
    return found if found == rest else None


def native_name(session: str, prefix: str) -> str:
    """Return the name of a session's job and reservation."""
    return f"{prefix}-{session}"


def offered(partitions: Iterable[records.Partition], wanted: Sequence[str]) -> list[records.Partition]:
    """Return the partitions that are offered, the preferred first."""
    known = {one.name: one for one in partitions}
    if wanted:
        return [known[name] for name in wanted if name in known]
    return [one for one in known.values() if one.default] or list(known.values())[:1]


def snapshot(site: Site, look: Look, now: int) -> Snapshot:
    """Translate a look at the cluster. Only nodes of the offered partitions are in it, and what concerns them."""
    shown = offered(look.partitions, site.partitions)
    members = {name for one in shown for name in hosts(one.nodes)}
    known = {node.name: node for node in look.nodes if node.name in members and not gone(node)}
    nodes = tuple(_node(node) for node in known.values())
    tiers = {one.name: one.tier for one in look.partitions}
    concerned = {one.name for one in look.partitions if not members.isdisjoint(hosts(one.nodes))}
    waiting = sorted(
        (job for job in look.jobs if job.state not in ENDED and not _holds(job)),
        key=lambda job: (-max(tiers.get(name, 1) for name in job.partition.split(",")), -job.priority, job.id),
    )
    exclusive = frozenset(one.name for one in look.partitions if one.exclusive)
    threads = {one.name: fewest_threads(one, known) for one in look.partitions}
    return Snapshot(
        platform=site.platform,
        taken=now,
        nodes=tuple(node for node in nodes if node.cores and node.memory),
        partitions=tuple(_partition(one, known) for one in shown),
        running=tuple(
            job for one in look.jobs if _holds(one) and (job := _running(one, known, site.prefix)) is not None
        ),
        waiting=tuple(
            _waiting(job, site.prefix, exclusive, threads)
            for job in waiting
            if not concerned.isdisjoint(job.partition.split(","))
        ),
        reservations=tuple(
            one for each in look.reservations if each.end > now for one in _reservations(each, known, site, now)
        ),
        finished=tuple(done for one in look.ended if (done := _finished(one, threads)) is not None),
        licences=dict(look.licences),
        scheduler=scheduler(look.settings, gap=site.gap),
    )


_PARAMETER = re.compile(r"(\w+)=(\d+)")


def scheduler(settings: Mapping[str, str], *, gap: int = 0) -> Scheduler:
    """Return how the cluster plans, by its ``SchedulerType`` and ``SchedulerParameters``."""
    has = {name: int(value) for name, value in _PARAMETER.findall(settings.get("SchedulerParameters", ""))}
    if settings.get("SchedulerType", "sched/backfill") != "sched/backfill":
        return Scheduler(backfill="none", gap=gap, limit_step=60, whole_nodes=True)
    return Scheduler(
        backfill="conservative",
        window=has.get("bf_window", 1440) * 60,
        depth=has.get("bf_max_job_test", 500) or None,
        per_user=has.get("bf_max_job_user", 0) or None,
        per_partition=has.get("bf_max_job_part", 0) or None,
        per_array=has.get("bf_max_job_array_resv", 20) or None,
        resolution=max(has.get("bf_resolution", 60), 1),
        gap=gap,
        limit_step=60,
        # Cores of several named nodes cannot be reserved evenly
        whole_nodes=True,
    )


# --- nodes and partitions ----------------------------------------------------------------------------------------

_DOWN = frozenset({"DOWN", "ERROR", "INVALID_REG", "INVALID", "NOT_RESPONDING", "POWERING_DOWN"})
_DRAINED = frozenset({"DRAIN", "DRAINING", "DRAINED", "FAIL", "REBOOT_ISSUED", "REBOOT_REQUESTED"})
_GONE = frozenset({"FUTURE"})


def gone(node: records.Node) -> bool:
    """Whether a node only stands in the configuration."""
    return not _GONE.isdisjoint(node.states)


def node_state(states: Iterable[str]) -> NodeState:
    """Return what a node's states mean for what shall run there.

    A node of unknown state, as after a restart of the controller, and one that is powered down, are UP: Slurm
    starts jobs there.
    """
    words = frozenset(states)
    if words & _DOWN:
        return NodeState.DOWN
    return NodeState.DRAINED if words & _DRAINED else NodeState.UP


def _node(node: records.Node) -> Node:
    return Node(
        name=node.name,
        cores=node.cpus // node.threads,
        memory=node.memory,
        devices=generic(node.gres),
        features=node.features,
        state=node_state(node.states),
    )


def fewest_threads(one: records.Partition, known: Mapping[str, records.Node]) -> int:
    """Return how many threads each core of a partition's nodes has at least."""
    return min((known[name].threads for name in hosts(one.nodes) if name in known), default=1)


def most_threads(one: records.Partition, known: Mapping[str, records.Node]) -> int:
    """Return how many threads a core of a partition's nodes has at most."""
    return max((known[name].threads for name in hosts(one.nodes) if name in known), default=1)


def _partition(one: records.Partition, known: Mapping[str, records.Node]) -> Partition:
    return Partition(
        name=one.name,
        nodes=tuple(name for name in hosts(one.nodes) if name in known),
        time_limit=one.limit,
        default=one.default,
        priority=one.tier,
        open=one.state == "UP",
    )


# --- jobs --------------------------------------------------------------------------------------------------------


def _holds(job: records.Job) -> bool:
    """Whether a job has its nodes: it runs, or they are made ready for it."""
    return job.state in LIVE or (job.state not in ENDED and bool(job.hosts))


def _share(total: int, nodes: int) -> int:
    """Return each node's part, too large rather than too small where it is not even."""
    return -(-total // max(nodes, 1))


def _shares(job: records.Job, names: Sequence[str], known: Mapping[str, records.Node]) -> Iterator[Allocation]:
    """Yield what a job has on each of its nodes: Slurm tells the sum, so that uneven parts are told too large."""
    tres = resources(job.tres)
    cpus, memory = _share(tres.get("cpu", job.cpus), len(names)), _share(tres.get("mem", 0), len(names))
    has = {name: _share(count, len(names)) for name, count in devices(tres).items()}
    for name in names:
        node = known.get(name)
        if node is not None and job.exclusive:
            yield Allocation(node=name, cores=node.cpus // node.threads, memory=node.memory, devices=generic(node.gres))
        elif node is not None:
            yield Allocation(
                node=name,
                cores=min(_share(cpus, node.threads), node.cpus // node.threads),
                memory=min(memory, node.memory),
                devices={kind: count for kind, count in has.items() if count},
            )


def _number(job: records.Job) -> str:
    return f"{job.array}_{job.task}" if job.task else str(job.id)


def _running(job: records.Job, known: Mapping[str, records.Node], prefix: str) -> RunningJob | None:
    allocations = tuple(_shares(job, hosts(job.hosts), known))
    if not allocations:
        return None
    return RunningJob(
        id=_number(job),
        allocations=allocations,
        started=job.started or job.submitted,
        # Of a node's cores Slurm reserves none from the very second on in which a job's limit ends
        ends=job.ends + 1 if job.ends is not None and job.limit is not None else None,
        session=session_of(job.name, prefix),
        reservation=job.reservation or None,
        user=job.user,
        account=job.account or None,
        partition=job.partition,
        licences=licences(job.licences),
    )


def _cores(cpus: int, job: records.Job, threads: Mapping[str, int]) -> int:
    """Return in how many cores so many of Slurm's CPUs are: each thread of a core counts, and cores are given whole."""
    return _share(cpus, min(threads.get(name, 1) for name in job.partition.split(",")))


def _waiting(job: records.Job, prefix: str, exclusive: frozenset[str], threads: Mapping[str, int]) -> WaitingJob:
    tres = resources(job.tres)
    why = reason(job.reason)
    partitions = tuple(job.partition.split(","))
    tasks, at_once = (1, None) if not job.task or job.task.isdecimal() else task_count(job.task)
    return WaitingJob(
        id=_number(job),
        nodes=max(job.nodes, 1),
        shape=Shape(
            cores=_cores(_share(tres.get("cpu", job.cpus), job.nodes), job, threads),
            memory=_share(tres.get("mem", 0), job.nodes),
            devices={kind: _share(count, job.nodes) for kind, count in devices(tres).items()},
        ),
        time_limit=job.limit,
        submitted=job.submitted,
        begin=(job.started or job.eligible) if job.reason == "BeginTime" else None,
        priority=job.priority,
        partitions=partitions,
        features=wanted_features(job.features),
        held=job.state != "PENDING" or (why.held and not why.dependent) or job.priority == 0,
        session=session_of(job.name, prefix),
        user=job.user,
        account=job.account or None,
        licences=licences(job.licences),
        dependent=why.dependent,
        tasks=max(tasks, 1),
        at_once=at_once,
        reservation=job.reservation or None,
        required=hosts(job.required),
        excluded=hosts(job.excluded),
        exclusive=job.exclusive or not exclusive.isdisjoint(partitions),
    )


_PLAIN = re.compile(r"[A-Za-z0-9_.=-]+")


def wanted_features(expression: str) -> tuple[str, ...]:
    """Return the features that every node of a job must have; of alternatives none is told."""
    words = re.split(r"[&,]", expression)
    return tuple(dict.fromkeys(filter(_PLAIN.fullmatch, words))) if "|" not in expression else ()


def _finished(job: records.Job, threads: Mapping[str, int]) -> FinishedJob | None:
    if job.state not in ENDED or not job.hosts or not job.started or not job.ends or job.ends < job.started:
        return None
    return FinishedJob(
        id=_number(job),
        nodes=max(job.nodes, 1),
        cores=_cores(resources(job.tres).get("cpu", job.cpus), job, threads),
        time_limit=job.limit,
        submitted=job.submitted,
        started=job.started,
        ended=job.ends,
        user=job.user,
        account=job.account or None,
        partition=job.partition,
    )


# --- reservations ------------------------------------------------------------------------------------------------

_DAY = 86400


def _reservations(
    one: records.Reservation, known: Mapping[str, records.Node], site: Site, now: int
) -> Iterator[Reservation]:
    names = hosts(one.nodes)
    tres = resources(one.tres)
    maintenance = "MAINT" in one.flags
    shares = tuple(
        _reserved(known[name], one, _shared_devices(tres, len(names)), whole=maintenance)
        for name in names
        if name in known
    )
    if not shares and not one.licences:
        return
    first = Reservation(
        name=one.name,
        start=one.start,
        end=one.end,
        allocations=shares,
        session=session_of(one.name, site.prefix),
        maintenance=maintenance,
        licences=licences(one.licences),
    )
    for shift in _repeats(one, now + site.horizon):
        yield replace(first, start=first.start + shift, end=first.end + shift)


def _shared_devices(tres: Mapping[str, int], nodes: int) -> dict[str, int]:
    return {kind: _share(count, nodes) for kind, count in devices(tres).items()}


def _reserved(node: records.Node, one: records.Reservation, has: dict[str, int], *, whole: bool) -> Allocation:
    """Return what is reserved on a node. Slurm keeps cores and devices; memory is told in proportion."""
    cores = node.cpus // node.threads
    count = one.cores.get(node.name)
    if whole or count is None or count >= cores:
        return Allocation(node=node.name, cores=cores, memory=node.memory, devices=generic(node.gres))
    return Allocation(node=node.name, cores=count, memory=_share(node.memory * count, max(cores, 1)), devices=has)


def _repeats(one: records.Reservation, until: int) -> Iterator[int]:
    """Yield by how many seconds later the reservation comes, again and again, up to an instant."""
    yield 0
    flags = set(one.flags)
    steps = {"HOURLY": 3600, "DAILY": _DAY, "WEEKDAY": _DAY, "WEEKEND": _DAY, "WEEKLY": 7 * _DAY}
    step = next((steps[flag] for flag in steps if flag in flags), None)
    if step is None:
        return
    for shift in range(step, max(until - one.start, 0) + 1, step):
        # The cluster's calendar: its days are taken to be those of the broker's host
        working = datetime.fromtimestamp(one.start + shift).weekday() < 5  # noqa: DTZ006
        if ("WEEKDAY" in flags and not working) or ("WEEKEND" in flags and working):
            continue
        yield shift
