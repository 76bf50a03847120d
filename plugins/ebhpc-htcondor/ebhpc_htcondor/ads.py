"""ClassAds as records: pure functions of anything that has ``get``, so that recorded ads do as well as live ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from ebhpc.model import SCRATCH
from ebhpc_htcondor import records
from ebhpc_htcondor.names import SERVICES, device_of, node_name, plain_word


class Ad(Protocol):
    """A ClassAd: ``get`` evaluates the attribute."""

    def get(self, key: str, default: Any = None) -> Any:
        """Return an attribute's value."""


SLOT = (
    *("Name", "Machine", "SlotType", "PartitionableSlot", "DynamicSlot", "State", "Activity", "EnteredCurrentState"),
    *(
        "Cpus",
        "Memory",
        "TotalSlotCpus",
        "TotalSlotMemory",
        "TotalSlotDisk",
        "GPUs",
        "TotalSlotGPUs",
        "AssignedGPUs",
        "MachineResources",
    ),
    *(
        "ChildName",
        "ChildCpus",
        "ChildMemory",
        "ChildDisk",
        "ChildGPUs",
        "ChildRemoteOwner",
        "ChildState",
        "RemoteOwner",
    ),
    *("Draining", "AcceptedWhileDraining", "HasContainer", "OpSysAndVer", "Arch", "MyCurrentTime", "Start"),
    *("EbhpcReservedFor", "EbhpcCheckedAt", "EbhpcKeeps"),
)
"""The attributes of a slot that are asked for, beside those of the pool's own resources and GPUs."""

JOB = (
    *("ClusterId", "ProcId", "JobStatus", "Owner", "User", "AccountingGroup", "EbhpcSession", "EbhpcPrefix"),
    *("RequestCpus", "RequestMemory", "RequestDisk", "RequestGPUs", "QDate", "JobPrio", "EnteredCurrentStatus"),
    *("JobCurrentStartDate", "JobCurrentStartExecutingDate", "DeferralTime", "JobUniverse", "NumJobStarts"),
    *("AllowedExecuteDuration", "AllowedJobDuration", "RemoteHost", "LastRemoteHost", "ConcurrencyLimits"),
    *("HoldReasonCode", "HoldReasonSubCode", "HoldReason", "LastRejMatchReason", "RemoveReason"),
    *("ExitCode", "ExitBySignal", "ExitSignal", "CompletionDate", "AutoClusterId", "RequireGPUs", "StageInFinish"),
    *(f"{name}_HostPort" for name in SERVICES),
)
"""The attributes of a job that are asked for; Requirements are asked for once for each kind of waiting job."""

SUBMITTER = ("Name", "Priority", "IsAccountingGroup")

_GIB = 1 << 20
"""KiB, in which HTCondor counts disk."""

_OWN_RESOURCES = frozenset({"cpus", "memory", "disk", "swap", "gpus"})


def resources(ad: Ad) -> list[str]:
    """Return the names of the pool's own resources on a slot, as ``FPGAs``."""
    words = _text(ad, "MachineResources").split()
    return [word for word in words if word.lower() not in _OWN_RESOURCES and plain_word(word)]


def slot(ad: Ad, own: Sequence[str] = (), features: Iterable[str] = ()) -> records.Slot | None:
    """Return a slot; None: a dynamic one, which its parent tells of.

    ``own`` are names of the pool's own resources, ``features`` what the slot has beside what its ad says by itself.
    """
    name = _text(ad, "Name")
    if not name or ad.get("DynamicSlot") is True:
        return None
    partitionable = ad.get("PartitionableSlot") is True
    devices = {device_of(one): count for one in own if (count := _count(ad, f"TotalSlot{one}"))}
    if scratch := _count(ad, "TotalSlotDisk") // _GIB:
        devices[SCRATCH] = scratch
    gpus = _gpus(ad)
    if gpus:
        devices["gpu"] = gpus
        for model, count in _models(ad).items():
            devices[f"gpu:{model}"] = min(count, gpus)
    cores = _count(ad, "TotalSlotCpus") or _count(ad, "Cpus")
    memory = _count(ad, "TotalSlotMemory") or _count(ad, "Memory")
    state = _text(ad, "State")
    kept = ad.get("EbhpcReservedFor")
    checked = ad.get("EbhpcCheckedAt")
    clock = ad.get("MyCurrentTime")
    free = (_count(ad, "Cpus"), _count(ad, "Memory"))
    if not partitionable and state == "Claimed":
        free = (0, 0)
    return records.Slot(
        name=node_name(name),
        machine=_text(ad, "Machine"),
        cores=cores,
        memory=memory,
        devices=devices,
        free_cores=free[0],
        free_memory=free[1],
        features=tuple(dict.fromkeys(filter(plain_word, (_text(ad, "Arch"), _text(ad, "OpSysAndVer"), *features)))),
        partitionable=partitionable,
        state=state,
        activity=_text(ad, "Activity"),
        draining=state == "Drained" or ad.get("Draining") is True,
        taking=ad.get("Start") is not False,
        shares=tuple(_shares(ad, own, partitionable=partitionable, cores=cores, memory=memory, devices=devices)),
        entered=_count(ad, "EnteredCurrentState"),
        kept=tuple(one for one in kept if isinstance(one, str)) if isinstance(kept, list) else (),
        keeps=tuple(word if word == "GPUs" else device_of(word) for word in _text(ad, "EbhpcKeeps").split()),
        checked=checked if isinstance(checked, int) else None,
        containers=ad.get("HasContainer") is True,
        clock=clock if isinstance(clock, int) else None,
    )


def _gpus(ad: Ad) -> int:
    return _count(ad, "TotalSlotGPUs") or _count(ad, "GPUs")


def _models(ad: Ad) -> dict[str, int]:
    """Return how many GPUs of which model: each has an ad of its own, whose name the list of them tells."""
    names = ad.get("AssignedGPUs")
    found: dict[str, int] = {}
    for name in re.split(r"[,\s]+", names) if isinstance(names, str) else ():
        tells = ad.get(gpu_attribute(name)) if name else None
        model = tells.get("DeviceName") if tells is not None and hasattr(tells, "get") else None
        if isinstance(model, str) and (word := model.replace(" ", "_")) and plain_word(word):
            found[word] = found.get(word, 0) + 1
    return found


def gpu_attribute(name: str) -> str:
    """Return the attribute of a slot that tells the properties of a GPU."""
    return f"GPUs_{re.sub(r'[^A-Za-z0-9_]', '_', name)}"


def _shares(
    ad: Ad, own: Sequence[str], *, partitionable: bool, cores: int, memory: int, devices: dict[str, int]
) -> Iterable[records.Share]:
    if not partitionable:
        if _text(ad, "State") in ("Claimed", "Preempting"):
            owner = _text(ad, "RemoteOwner")
            yield records.Share(name=_text(ad, "Name"), cores=cores, memory=memory, devices=devices, owner=owner)
        return
    names, held = _list(ad, "ChildName"), _list(ad, "ChildCpus")
    lists = {
        "memory": _list(ad, "ChildMemory"),
        "owner": _list(ad, "ChildRemoteOwner"),
        "state": _list(ad, "ChildState"),
    }
    disk = [-(-_whole(one) // _GIB) for one in _list(ad, "ChildDisk")]
    counted = {
        SCRATCH: disk,
        "gpu": _list(ad, "ChildGPUs"),
        **{device_of(one): _list(ad, f"Child{one}") for one in own},
    }
    for at, name in enumerate(names):
        yield records.Share(
            name=str(name),
            cores=_whole(_at(held, at)),
            memory=_whole(_at(lists["memory"], at)),
            devices={kind: count for kind, counts in counted.items() if (count := _whole(_at(counts, at)))},
            owner=owner if isinstance(owner := _at(lists["owner"], at), str) else "",
            claimed=_at(lists["state"], at) in ("Claimed", "Preempting"),
        )


def job(ad: Ad, schedd: str, own: Sequence[str] = (), limits: Sequence[str] = ()) -> records.Job | None:
    """Return a job; None: it is of a universe whose jobs run on no slot. ``limits``: attributes that tell one."""
    if ad.get("JobUniverse") in (7, 12):  # scheduler and local: they run beside the schedd
        return None
    get: Callable[..., Any] = ad.get
    gpus = _count(ad, "RequestGPUs")
    devices = {"gpu": gpus} if gpus else {}
    if scratch := -(-_count(ad, "RequestDisk") // _GIB):
        devices[SCRATCH] = scratch
    for one in own:
        if count := _count(ad, f"Request{one}"):
            devices[device_of(one)] = count
    submitter = _text(ad, "User")
    group = _text(ad, "AccountingGroup")
    if group and "@" in submitter:
        submitter = group if "@" in group else f"{group}@{submitter.rpartition('@')[2]}"
    signalled = get("ExitBySignal") is True
    return records.Job(
        schedd=schedd,
        cluster=_count(ad, "ClusterId"),
        process=_count(ad, "ProcId"),
        status=_count(ad, "JobStatus"),
        owner=_text(ad, "Owner"),
        submitter=submitter,
        session=_text(ad, "EbhpcSession"),
        prefix=_text(ad, "EbhpcPrefix"),
        cores=_count(ad, "RequestCpus") or 1,
        memory=_count(ad, "RequestMemory"),
        devices=devices,
        submitted=_count(ad, "QDate"),
        spooled=_instant(get("StageInFinish")),
        priority=_whole(get("JobPrio")),
        entered=_count(ad, "EnteredCurrentStatus"),
        started=_instant(get("JobCurrentStartDate")),
        executing=_instant(get("JobCurrentStartExecutingDate")),
        finished=_instant(get("CompletionDate")),
        begin=_instant(get("DeferralTime")),
        execute_limit=_instant(get("AllowedExecuteDuration")),
        job_limit=_instant(get("AllowedJobDuration")),
        site_limit=next((found for name in limits if (found := _instant(get(name))) is not None), None),
        starts=_count(ad, "NumJobStarts"),
        slot=_text(ad, "RemoteHost") or _text(ad, "LastRemoteHost"),
        hold_code=_number(get("HoldReasonCode")),
        hold_subcode=_number(get("HoldReasonSubCode")),
        hold_reason=_text(ad, "HoldReason")[:1000],
        reject_reason=_text(ad, "LastRejMatchReason").strip()[:300],
        remove_reason=_text(ad, "RemoveReason")[:300],
        exit_code=None if signalled else _number(get("ExitCode")),
        exit_signal=_number(get("ExitSignal")) if signalled else None,
        licences=limits_of(_text(ad, "ConcurrencyLimits")),
        suspended=get("JobStatus") == 7,
        ports={name: port for name in SERVICES if (port := _count(ad, f"{name}_HostPort")) and port < 65536},
    )


def submitter(ad: Ad) -> records.Submitter | None:
    """Return who submits; None: a group, which only sums up."""
    if ad.get("IsAccountingGroup") is True:
        return None
    priority = ad.get("Priority")
    return records.Submitter(
        name=_text(ad, "Name"), priority=float(priority) if isinstance(priority, int | float) else 0.0
    )


def limits_of(text: str) -> dict[str, int]:
    """Return concurrency limits, ``matlab,ansys:2``, with their counts."""
    found = {}
    for word in text.split(","):
        name, _, count = word.strip().partition(":")
        if plain_word(name):
            try:
                found[name.lower()] = max(round(float(count)), 1) if count else 1
            except ValueError:
                continue
    return found


# --- values ------------------------------------------------------------------------------------------------------


def _text(ad: Ad, name: str) -> str:
    value = ad.get(name)
    return value if isinstance(value, str) else ""


def _whole(value: object) -> int:
    """Return a number, rounded down; 0 for what is none."""
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15 else 0


def _count(ad: Ad, name: str) -> int:
    return max(_whole(ad.get(name)), 0)


def _number(value: object) -> int | None:
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _instant(value: object) -> int | None:
    """Return an instant or a duration; what is none, or 0, is None."""
    return _whole(value) or None


def _list(ad: Ad, name: str) -> list[Any]:
    value = ad.get(name)
    return value if isinstance(value, list) else []


def _at(values: Sequence[Any], place: int) -> Any:
    return values[place] if place < len(values) else None
