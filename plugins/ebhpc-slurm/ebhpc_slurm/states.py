"""Every state and reason of Slurm's, and what it means for a session. docs/operators/slurm.md shows these tables."""

from __future__ import annotations

import re
from typing import Literal

from msgspec import Struct

from ebhpc.model import MessageKind
from ebhpc.model.messages import Level

Seen = Literal["PENDING", "RUNNING", "SUCCEEDED", "FAILED"]


class State(Struct, frozen=True):
    """What a state of a job means: for the session, and in words for its user (none: nothing is to be told)."""

    seen: Seen
    words: str = ""
    kind: MessageKind = MessageKind.PROGRESS
    level: Level = "INFO"


def _failed(words: str, kind: MessageKind = MessageKind.FAILED) -> State:
    return State("FAILED", words, kind, "ERROR")


STATES: dict[str, State] = {
    "PENDING": State("PENDING"),
    "CONFIGURING": State("PENDING", "the cluster makes the job's nodes ready"),
    "POWER_UP_NODE": State("PENDING", "the cluster powers the job's nodes up"),
    "REQUEUED": State("PENDING", "the cluster has put the job back into its queue", level="WARN"),
    "REQUEUE_FED": State("PENDING", "the cluster has put the job back into its queue", level="WARN"),
    "REQUEUE_HOLD": State("PENDING", "the cluster has put the job back into its queue, and holds it", level="WARN"),
    "SPECIAL_EXIT": State("PENDING", "the cluster holds the job after a special exit code", level="WARN"),
    "RESV_DEL_HOLD": State("PENDING", "the job is held: its reservation was deleted, or has ended", level="WARN"),
    "EXPEDITING": State("PENDING", "the cluster starts the job anew", level="WARN"),
    "RUNNING": State("RUNNING"),
    "COMPLETING": State("RUNNING"),
    "STAGE_OUT": State("RUNNING"),
    "SIGNALING": State("RUNNING"),
    "RESIZING": State("RUNNING"),
    "SUSPENDED": State("RUNNING", "the cluster has suspended the job", level="WARN"),
    "STOPPED": State("RUNNING", "the cluster has stopped the job", level="WARN"),
    "UPDATE_DB": State("RUNNING"),
    "COMPLETED": State("SUCCEEDED"),
    "FAILED": _failed(""),
    "TIMEOUT": _failed("the cluster ended the job at its time limit", MessageKind.TIME_LIMIT),
    "DEADLINE": _failed("the cluster ended the job at its deadline", MessageKind.TIME_LIMIT),
    "OUT_OF_MEMORY": _failed("the job wanted more memory than it had", MessageKind.RESOURCE_LIMIT),
    "CANCELLED": _failed("the job was cancelled on the cluster"),
    "NODE_FAIL": _failed("a node of the job's failed"),
    "BOOT_FAIL": _failed("a node of the job's did not boot"),
    "LAUNCH_FAILED": _failed("the cluster could not launch the job"),
    "RECONFIG_FAIL": _failed("a node of the job's could not be configured"),
    "PREEMPTED": _failed("the cluster ended the job for one of higher priority"),
    "REVOKED": _failed("the cluster runs the job no more: another cluster of its federation took it"),
}
"""The states, in Slurm's words. FAILED has no words: the exit code says it."""

LIVE = frozenset(name for name, state in STATES.items() if state.seen == "RUNNING")
ENDED = frozenset(name for name, state in STATES.items() if state.seen in ("SUCCEEDED", "FAILED"))


class Reason(Struct, frozen=True):
    """Why a job waits: in words for its user; ``held``, or ``dependent`` on other jobs: it is in nobody's way."""

    words: str
    held: bool = False
    dependent: bool = False


REASONS: dict[str, Reason] = {
    "None": Reason("the scheduler has not looked at the job yet"),
    "Priority": Reason("jobs of higher priority wait for the same resources"),
    "Resources": Reason("the resources are not free yet"),
    "Reservation": Reason("the job's reservation has not begun"),
    "BeginTime": Reason("the job's time to begin has not come"),
    "Cleaning": Reason("the job is being cleaned up before it runs again"),
    "Prolog": Reason("the nodes are being made ready"),
    "Licenses": Reason("licences are not free yet"),
    "Dependency": Reason("the job waits for another job", dependent=True),
    "DependencyNeverSatisfied": Reason("the job waits for another job that will never end as it must", dependent=True),
    "JobHeldUser": Reason("the job is held by its user", held=True),
    "JobHeldAdmin": Reason("the job is held by the cluster's operators", held=True),
    "JobHoldMaxRequeue": Reason("the job was started too often, and is held", held=True),
    "job_requeued_in_held_state": Reason("the job is held after it was put back into the queue", held=True),
    "launch_failed_requeued_held": Reason("the job could not be launched, and is held", held=True),
    "ReservationDeleted": Reason("the job's reservation is gone, and the job is held", held=True),
    "BadConstraints": Reason("no node can meet what the job asks for", held=True),
    "PartitionConfig": Reason("the partition cannot take the job", held=True),
    "PartitionNodeLimit": Reason("the job asks for more nodes than the partition gives", held=True),
    "PartitionTimeLimit": Reason("the job asks for more time than the partition gives", held=True),
    "PartitionDown": Reason("the partition is closed for now", held=True),
    "PartitionInactive": Reason("the partition is closed", held=True),
    "AccountNotAllowed": Reason("the partition is closed to the job's account", held=True),
    "QOSNotAllowed": Reason("the partition is closed to the job's QOS", held=True),
    "NodeDown": Reason("a node that the job needs is down"),
    "ReqNodeNotAvail": Reason("a node that the job needs is not available, or is reserved"),
    "Nodes_required_for_job_are_DOWN,_DRAINED_or_reserved_for_jobs_in_higher_priority_partitions": Reason(
        "the nodes that the job needs are down, drained, or kept for others"
    ),
    "JobArrayTaskLimit": Reason("as many tasks of the array run as may run at once"),
    "SystemFailure": Reason("something of the cluster failed", held=True),
    "InvalidAccount": Reason("the job's account does not exist", held=True),
    "InvalidQOS": Reason("the job's QOS does not exist", held=True),
    "DeadLine": Reason("the job's deadline cannot be met", held=True),
    "BurstBufferResources": Reason("the burst buffer is full"),
    "BurstBufferStageIn": Reason("the burst buffer takes the job's files"),
    "FedJobLock": Reason("the clusters of the federation agree on who runs the job"),
}
"""Reasons, in Slurm's words without spaces. Those of limits are not here: see ``reason``."""

_LIMITS = re.compile(
    r"(Assoc|QOS|Max|Account|User|Group)\w*(Limit|Max|PerJob|PerUser|PerAccount|Unk)\w*|QOS\w+|Assoc\w+"
)


def state(word: str) -> State | None:
    """Return what a state means; None: nobody knows the word."""
    return STATES.get(word.partition("+")[0].partition(" ")[0])


def reason(word: str) -> Reason:
    """Return what a job's reason to wait means, in whichever way Slurm spells it."""
    plain = word.strip("()")
    bare = plain.partition(",")[0].replace(" ", "")
    for name in (plain, plain.replace(" ", "_"), bare):
        if name in REASONS:
            return REASONS[name]
    if "was deleted" in plain:
        return REASONS["ReservationDeleted"]
    if "held state" in plain:
        return REASONS["job_requeued_in_held_state"]
    if "requeued held" in plain:
        return REASONS["launch_failed_requeued_held"]
    if plain.startswith("Nodes required"):
        return REASONS["ReqNodeNotAvail"]
    if _LIMITS.fullmatch(bare):
        return Reason(f"a limit of the user, account or QOS is reached ({bare})", held=True)
    return Reason(f"the cluster says: {plain[:200]}")


def exit_code(text: str) -> int | None:
    """Return the exit code of ``code:signal``; a signal counts 128 more, as in a shell."""
    code, _, signal = text.partition(":")
    if not code.isdecimal():
        return None
    return 128 + int(signal) if signal.isdecimal() and int(signal) else int(code)
