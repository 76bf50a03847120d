"""HTCondor's records as ebhpc's snapshot: pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct, field

from ebhpc.model import Allocation, Shape
from ebhpc.planning import FinishedJob, Node, NodeState, Partition, RunningJob, Scheduler, Snapshot, WaitingJob
from ebhpc_htcondor import records
from ebhpc_htcondor.names import session_id, slot_of
from ebhpc_htcondor.states import COMPLETED, HELD, IDLE, LIVE

POOL = "pool"
"""The name of the partition that has all slots."""


class Site(Struct, frozen=True, kw_only=True):
    """What the look is translated for: ``licences``: how many there are of each concurrency limit; ``execute_margin``:
    seconds from a claim to the start of its job.
    """

    platform: str
    prefix: str
    licences: Mapping[str, int] = field(default_factory=dict)
    execute_margin: int = 60


def snapshot(site: Site, look: records.Look, now: int) -> Snapshot:
    """Translate a look at the pool."""
    slots = {slot.name: slot for slot in look.slots if slot.cores and slot.memory}
    ranks = {one.name: one.priority for one in look.submitters}
    waiting = sorted((job for job in look.jobs if job.status in (IDLE, HELD)), key=lambda job: _order(job, ranks))
    groups = tuple(Partition(name=one.name, nodes=one.slots) for one in look.groups)
    return Snapshot(
        platform=site.platform,
        taken=now,
        nodes=tuple(_node(slot) for slot in slots.values()),
        partitions=(Partition(name=POOL, nodes=tuple(slots), default=True), *groups),
        running=tuple(_running(look.jobs, slots, site)),
        waiting=tuple(_waiting(job, site, place) for place, job in enumerate(waiting)),
        finished=tuple(done for job in look.finished if (done := _finished(job)) is not None),
        licences=dict(site.licences),
        # The negotiator matches one job after the other with what is free now, and plans nothing: of the ways that
        # the planner knows this one keeps least for those who cannot start
        scheduler=Scheduler(backfill="greedy", resolution=1),
    )


def _order(job: records.Job, ranks: Mapping[str, float]) -> tuple[float, str, int, int, int]:
    """The negotiator takes submitters by priority, the lowest number first, and of each the jobs by theirs."""
    return (ranks.get(job.submitter, _UNRANKED), job.submitter, -job.priority, job.cluster, job.process)


_UNRANKED = 500.0
"""The priority of a submitter whom the negotiator does not know yet: the best there is, with the default factor."""


def node_state(slot: records.Slot) -> NodeState:
    """Return what a slot's state means for what shall run there."""
    if slot.state in ("Delete", "Shutdown", "Backfill"):
        return NodeState.DOWN
    if slot.draining or slot.state in ("Drained", "Owner"):
        return NodeState.DRAINED
    return NodeState.UP


def _node(slot: records.Slot) -> Node:
    return Node(
        name=slot.name,
        cores=slot.cores,
        memory=slot.memory,
        devices=slot.devices,
        features=slot.features,
        state=node_state(slot),
    )


def limit(job: records.Job, margin: int = 60) -> int | None:
    """Return how long a job may run, by what is trusted most; None: nobody says."""
    if job.execute_limit is not None:
        return job.execute_limit + (margin if job.started is None or job.executing is None else 0)
    return job.job_limit if job.job_limit is not None else job.site_limit


def ends(job: records.Job, margin: int = 60) -> int | None:
    """Return when a running job will have ended; None: nobody says."""
    if job.execute_limit is not None:
        begins = job.executing or (max(job.begin, job.started or 0) if job.begin is not None else job.started)
        return begins + job.execute_limit + (0 if job.executing else margin) if begins else None
    begins = job.started
    if begins is None:
        return None
    most = job.job_limit if job.job_limit is not None else job.site_limit
    return begins + most if most is not None else None


def _running(jobs: Iterable[records.Job], slots: Mapping[str, records.Slot], site: Site) -> Iterator[RunningJob]:
    """Yield the jobs that run, as the schedds say, and what else the machines have given away."""
    told: set[str] = set()
    for job in jobs:
        if job.status not in LIVE or not job.slot:
            continue
        slot = slots.get(slot_of(job.slot))
        if slot is None:
            continue
        told.add(job.slot)
        share = next((one for one in slot.shares if one.name == job.slot), None)
        yield RunningJob(
            id=f"{job.schedd}#{job.id}",
            allocations=(_share(slot, share, job),),
            started=job.executing or job.started or job.submitted,
            ends=ends(job, site.execute_margin),
            session=_session(job, site),
            user=job.owner or None,
            account=_account(job),
            licences=job.licences,
        )
    for slot in slots.values():
        for share in slot.shares:
            if share.name not in told and share.claimed:
                # Claimed, but no schedd that we asked says for whom, or for how long
                yield RunningJob(
                    id=share.name,
                    allocations=(_share(slot, share, None),),
                    started=slot.entered,
                    user=share.owner.partition("@")[0] or None,
                )


def _share(slot: records.Slot, share: records.Share | None, job: records.Job | None) -> Allocation:
    if share is None and job is not None:
        # The machine has not told of it yet
        share = records.Share(name=job.slot, cores=job.cores, memory=job.memory, devices=job.devices)
    assert share is not None
    return Allocation(
        node=slot.name,
        cores=min(share.cores, slot.cores),
        memory=min(share.memory, slot.memory),
        devices=_with_models(share.devices, slot),
    )


def _with_models(devices: Mapping[str, int], slot: records.Slot) -> dict[str, int]:
    """Return devices, GPUs under their model's name too, where all of a slot are of one."""
    found = dict(devices)
    gpus = found.get("gpu", 0)
    for kind, count in slot.devices.items():
        if gpus and kind.startswith("gpu:"):
            found[kind] = min(gpus, count)
    return found


def _session(job: records.Job, site: Site) -> str | None:
    return session_id(job.session) if job.prefix == site.prefix else None


def _account(job: records.Job) -> str | None:
    group = job.submitter.partition("@")[0]
    return group if group and group != job.owner else None


def _waiting(job: records.Job, site: Site, place: int) -> WaitingJob:
    return WaitingJob(
        id=f"{job.schedd}#{job.id}",
        shape=Shape(cores=job.cores, memory=job.memory, devices=job.devices),
        time_limit=limit(job, site.execute_margin),
        submitted=job.submitted,
        begin=job.begin,
        priority=-place,
        partitions=(job.partition or POOL,),
        held=job.status == HELD,
        session=_session(job, site),
        user=job.owner or None,
        account=_account(job),
        licences=job.licences,
    )


def _finished(job: records.Job) -> FinishedJob | None:
    began, ended = job.executing or job.started, job.finished
    if job.status != COMPLETED or began is None or ended is None or ended < began:
        return None
    return FinishedJob(
        id=f"{job.schedd}#{job.id}",
        nodes=1,
        cores=job.cores,
        time_limit=limit(job),
        submitted=job.submitted,
        started=began,
        ended=ended,
        user=job.owner or None,
        account=_account(job),
    )
