"""What ``ebhpc check`` says of a cluster: each answer comes from asking Slurm, or from a job that really ran."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ebhpc import batch
from ebhpc.model import Finding, Level
from ebhpc.plugins import SessionFailed
from ebhpc_slurm import promises, records
from ebhpc_slurm.identities import mapped
from ebhpc_slurm.notation import hosts
from ebhpc_slurm.pyslurm_client import Pyslurm
from ebhpc_slurm.settings import Mapped
from ebhpc_slurm.snapshot import node_state, offered
from ebhpc_slurm.states import ENDED
from ebhpc_slurm.transport import Refused, SlurmFault, Why

if TYPE_CHECKING:
    from ebhpc_slurm.platform import SlurmPlatform

OLDEST = (24, 11)
"""The oldest Slurm whose answers we read."""

SKEW = 5
"""Seconds that the controller's clock may differ."""

WAIT = 25.0
"""Seconds that the test job has."""

TIDYING = 3
"""Seconds that a job's runner has, after ``jobs.grace``, to take away what the job has left."""

_YEAR = 365 * 86400


def findings(platform: SlurmPlatform) -> Iterator[Finding]:
    """Yield what was looked at, and how it is; the rest is not looked at where the controller does not answer."""
    try:
        configuration = platform.slurm.configuration()
        nodes, partitions = platform.slurm.nodes(), platform.slurm.partitions()
    except SlurmFault as fault:
        yield from _silent(platform, fault)
        return
    yield from _version(platform, configuration)
    yield from _patience(platform, configuration)
    yield _clock(platform, configuration)
    yield from _partitions(platform, partitions, nodes)
    yield from _pyslurm(platform, configuration)
    yield from _identities(platform)
    who = _somebody(platform)
    shown = [
        one
        for one in offered(partitions, platform.settings.partitions)
        if one.state == "UP" and (who is None or who.account is None or promises.allows(one, who.account))
    ]
    if who is None or not shown:
        yield from batch.check(platform.settings.jobs)
        return
    yield _rights(platform, who, shown[0], nodes)
    try:
        account = platform.account(who)
    except SessionFailed as error:
        yield _finding("ERROR", "identities", str(error), "give the user's number as uid")
        return
    yield from batch.check(platform.settings.jobs, account)
    yield from _probe(platform, who, account, shown[0])


def _finding(level: Level, subject: str, text: str, advice: str = "") -> Finding:
    return Finding(level=level, subject=subject, text=text, advice=advice)


def _silent(platform: SlurmPlatform, fault: SlurmFault) -> Iterator[Finding]:
    text = str(fault)
    advice = "look whether slurmctld runs, and whether this host's slurm.conf is the cluster's"
    if "munge" in text.lower() or "auth" in text.lower():
        advice = "look whether munged runs here, with the cluster's key"
    elif "cannot be started" in text or "No such file" in text or "not found" in text:
        advice = "install Slurm's commands here, or name the host that has them as ssh"
    elif "pyslurm" in text:
        advice = "name the Python that has pyslurm as pyslurm, or use the transport commands"
    yield _finding("ERROR", "slurm", f"no answer: {text}", advice)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())


def _version(platform: SlurmPlatform, configuration: records.Configuration) -> Iterator[Finding]:
    version = configuration.settings.get("SLURM_VERSION", "")
    cluster = configuration.settings.get("ClusterName", "")
    if _numbers(version) < OLDEST:
        yield _finding("ERROR", "slurm", f"{cluster} runs {version}", "24.11 or newer is needed")
    else:
        yield _finding("INFO", "slurm", f"{cluster} runs {version}")
    if configuration.settings.get("SchedulerType") != "sched/backfill":
        yield _finding("WARN", "slurm", "the scheduler plans nothing ahead", "set SchedulerType=sched/backfill")
    if configuration.settings.get("AccountingStorageType", "") in ("", "accounting_storage/none"):
        age = configuration.settings.get("MinJobAge", "")
        text = f"there is no accounting: what became of jobs is forgotten after {age}"
        yield _finding("WARN", "slurm", text, "run slurmdbd")


def _patience(platform: SlurmPlatform, configuration: records.Configuration) -> Iterator[Finding]:
    """Slurm kills a job's runner with the job: before, the runner must have ended what the job runs."""
    waits, grace = seconds(configuration.settings.get("KillWait", "")), float(platform.settings.jobs.grace)
    if waits is not None and grace + TIDYING > waits:
        text = f"jobs.grace is {grace:g} s, and Slurm kills a job {waits} s after it was cancelled (KillWait): what the"
        text += " job leaves then is not taken away, and containers outside of Slurm's tracking go on"
        yield _finding("WARN", "slurm", text, f"set jobs.grace to {max(1, waits - TIDYING)}s, or make KillWait longer")


def seconds(text: str) -> int | None:
    """Return the seconds of a setting such as ``30 sec``; None where it says something else."""
    number = text.partition(" ")[0]
    return int(number) if number.isdecimal() else None


def _clock(platform: SlurmPlatform, configuration: records.Configuration) -> Finding:
    skew = configuration.now - int(platform.clock())
    if abs(skew) > SKEW:
        text = f"the controller's clock differs by {skew} s"
        return _finding("ERROR", "clock", text, "let both hosts keep their time by NTP")
    return _finding("INFO", "clock", "the controller's clock agrees with ours")


def _partitions(
    platform: SlurmPlatform, partitions: Sequence[records.Partition], nodes: Sequence[records.Node]
) -> Iterator[Finding]:
    wanted = platform.settings.partitions
    known = {one.name for one in partitions}
    for name in wanted:
        if name not in known:
            there = ", ".join(sorted(known))
            yield _finding("ERROR", "partitions", f"there is no partition {name}", f"there are {there}")
    states = {node.name: node_state(node.states) for node in nodes}
    for one in offered(partitions, wanted):
        members = hosts(one.nodes)
        up = sum(states.get(name) == "UP" for name in members)
        if one.state != "UP":
            yield _finding("ERROR", "partitions", f"{one.name} is {one.state}", "open it, or take it out of partitions")
        elif not up:
            yield _finding("ERROR", "partitions", f"none of the {len(members)} nodes of {one.name} is up")
        else:
            yield _finding("INFO", "partitions", f"{one.name}: {up} of {len(members)} nodes are up")
        for name, who in sorted(platform.settings.identities.items()):
            account = who.account or platform.settings.account
            if account is not None and not promises.allows(one, account):
                text = f"{one.name} is closed to {account}, the account of {name}"
                yield _finding("WARN", "partitions", text, "give the user another account, or leave the partition out")


def _pyslurm(platform: SlurmPlatform, configuration: records.Configuration) -> Iterator[Finding]:
    if not isinstance(platform.slurm, Pyslurm):
        return
    about = platform.slurm.worker.about
    ours, theirs = about.get("version", ""), configuration.settings.get("SLURM_VERSION", "")
    text = f"pyslurm {ours} on Python {about.get('python', '')}"
    if _numbers(ours) == _numbers(theirs):
        yield _finding("INFO", "pyslurm", text)
    else:
        yield _finding("WARN", "pyslurm", f"{text} speaks to Slurm {theirs}", "install the pyslurm of that version")


def _identities(platform: SlurmPlatform) -> Iterator[Finding]:
    if not platform.settings.identities and platform.settings.others == "refuse":
        text = "no user of the broker is anybody on the cluster: every request is refused"
        yield _finding("ERROR", "identities", text, "name them as identities, or set others: same-name")


def _somebody(platform: SlurmPlatform) -> Mapped | None:
    """Return somebody for whom things can be tried."""
    return next((mapped(platform.settings, name) for name in sorted(platform.settings.identities)), None)


def _rights(
    platform: SlurmPlatform, who: Mapped, partition: records.Partition, nodes: Sequence[records.Node]
) -> Finding:
    """Make a reservation, far away in time, and delete it."""
    members = set(hosts(partition.nodes))
    node = next((one for one in nodes if one.name in members and node_state(one.states) == "UP"), None)
    if node is None:
        return _finding("WARN", "rights", "no node is up on which a reservation could be tried")
    start = int(platform.clock()) + _YEAR
    name = f"{platform.settings.prefix}-check-{secrets.token_hex(4)}"
    wish = records.Reserve(
        name=name,
        start=start,
        end=start + 60,
        user=who.user,
        nodes=(node.name,),
        partition=partition.name,
        cpus=1,
    )
    try:
        platform.slurm.reserve(wish)
        platform.slurm.delete_reservation(name)
    except Refused as refused:
        if refused.why is Why.NOT_PERMITTED:
            advice = (
                "sacctmgr modify user where name=… set adminlevel=Operator, for the user that the broker is to Slurm"
            )
            return _finding("ERROR", "rights", f"we may not make reservations: {refused}", advice)
        if refused.why is Why.USER:
            return _finding("ERROR", "identities", f"the cluster does not know the user {who.user}: {refused}")
        return _finding("ERROR", "rights", f"a reservation on {node.name} cannot be made: {refused}")
    except SlurmFault as fault:
        return _finding("ERROR", "rights", f"a reservation on {node.name} cannot be made: {fault}")
    return _finding("INFO", "rights", f"reservations can be made and deleted, for {who.user}")


def _probe(
    platform: SlurmPlatform, who: Mapped, account: batch.Account, partition: records.Partition
) -> Iterator[Finding]:
    """Run a test job as somebody, and tell what it found on its node."""
    jobs = platform.settings.jobs
    token = f"probe-{secrets.token_hex(8)}"
    begun = platform.clock()
    try:
        directory = batch.probe_directory(jobs, token)
        script = batch.probe_script(jobs, account, token)
        wish = records.Submit(
            name=f"{platform.settings.prefix}-check",
            user=who.user,
            script=promises.with_path(script),
            minutes=1,
            cpus=1,
            memory=256,
            directory="/",
            output=str(directory.log),
            errors=str(directory.log),
            partition=partition.name,
            account=who.account,
            qos=who.qos,
        )
        number = platform.slurm.submit(wish)
    except (SlurmFault, OSError, batch.AccessFailed) as error:
        yield _finding(
            "ERROR",
            "jobs",
            f"a test job as {who.user} cannot be submitted: {error}",
            f"see run_as ({platform.settings.run_as}), and the user's account",
        )
        return
    job = _ended(platform, number)
    if job is None or job.state not in ENDED:
        platform.slurm.cancel(number, who.user)
        state = f"{job.state} ({job.reason})" if job is not None else "unknown"
        text = f"the test job has not ended after {WAIT:.0f} s: {state}"
        yield _finding("WARN", "jobs", text, "look again when the cluster has a free core")
        said = ""
    else:
        said = directory.log.read_text(encoding="utf-8", errors="replace") if directory.log.exists() else ""
        text = f"a job as {who.user} in {partition.name} ended {job.state} on {job.hosts}"
        yield _finding("INFO" if job.state == "COMPLETED" else "ERROR", "jobs", text)
        skew = batch.clock_skew(said, begun, platform.clock())
        if skew is not None:
            yield skew
    yield from batch.probe_findings(said, jobs, token)


def _ended(platform: SlurmPlatform, number: int) -> records.Job | None:
    deadline = time.monotonic() + WAIT
    while True:
        name = f"{platform.settings.prefix}-check"
        job = next((one for one in platform.slurm.jobs(name) if one.id == number), None)
        if (job is not None and job.state in ENDED) or time.monotonic() > deadline:
            return job
        time.sleep(0.5)
