"""A session as a submit description: pure functions. docs/operators/htcondor.md shows the same as a table."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from ebhpc.batch import SessionDirectory
from ebhpc.model import SCRATCH, Session
from ebhpc_htcondor.names import plain_word, resource_name, string
from ebhpc_htcondor.settings import HTCondorSettings, Mapped
from ebhpc_htcondor.universe import is_run_by_pool
from ebhpc_htcondor.universe import requirements as is_asked_by

SCRIPT = "job.sh"
"""The job's script in the session's directory."""

KIB = 1024
PREPARING = 300
"""Seconds that a claim may last beside the job's own: containers' images, and the clearing up."""

ABANDONED = 3600
"""Seconds after which a job that is of no more use takes itself away, where no broker does."""


def description(
    session: Session,
    settings: HTCondorSettings,
    who: Mapped,
    directory: SessionDirectory,
    *,
    now: float,
    files: Mapping[str, str] | None = None,
) -> str:
    """Return the submit description of a session's job; ``files``: lines in place of those for a shared directory.

    Raises:
        ValueError: something of the request cannot be said to HTCondor; the platform should have refused it.
    """
    lines = {
        **(files if files is not None else shared(directory)),
        "notification": "never",
        "getenv": "False",
        "kill_sig": "SIGTERM",
        "want_graceful_removal": "True",
        "job_max_vacate_time": str(math.ceil(settings.jobs.grace + 15)),
        "+EbhpcSession": string(session.uuid),
        "+EbhpcPrefix": string(settings.prefix),
        "+EbhpcUser": string(session.owner.username),
        "+EbhpcName": string(session.name or ""),
        "+JobBatchName": string(f"{settings.prefix}-{session.uuid}"),
        **amounts(session, settings),
        **times(session, settings, now),
        **whose(session, settings, who),
    }
    wanted = requirements(session, settings)
    if wanted:
        lines["requirements"] = wanted
    if settings.rank:
        lines["rank"] = settings.rank
    if session.licences:
        lines["concurrency_limits"] = limits(session.licences)
    lines |= settings.submit
    for name, value in lines.items():
        if "\n" in value or "\r" in value or "\0" in value:
            raise ValueError(f"{name} has more than one line")
    return "".join(f"{name} = {value}\n" for name, value in lines.items())


def shared(directory: SessionDirectory) -> dict[str, str]:
    """Return the lines of a job that finds its files where the broker has them."""
    return {
        "universe": "vanilla",
        "executable": "/bin/sh",
        "arguments": f'"{directory.path / SCRIPT}"',
        "transfer_executable": "False",
        "should_transfer_files": "NO",
        "initialdir": str(directory.path),
        "output": "/dev/null",
        "error": str(directory.log),
    }


def amounts(session: Session, settings: HTCondorSettings) -> dict[str, str]:
    """Return what the job asks of its slot. A model of GPUs is a condition on the GPUs, beside their number.

    Names of resources are told apart without regard to case, so that ``fpgas`` asks for ``FPGAs``.
    """
    share = session.allocations[0]
    scratch = share.devices.get(SCRATCH, 0) * 1024
    lines = {
        "request_cpus": str(share.cores),
        "request_memory": str(share.memory),
        "request_disk": str(max(scratch, settings.disk_mib) * KIB),
    }
    gpus = share.devices.get("gpu", 0)
    for kind, count in share.devices.items():
        base, colon, model = kind.partition(":")
        if base == "gpu":
            gpus = max(gpus, count)
            if colon and count:
                lines["require_gpus"] = of_model(model)
        elif kind != SCRATCH and count:
            if not resource_name(kind):
                raise ValueError(f"no resource of the pool's: {kind!r}")
            lines[f"request_{kind}"] = str(count)
    if gpus:
        lines["request_gpus"] = str(gpus)
    return lines


def of_model(model: str) -> str:
    """Return a condition on GPUs: their model's name, in which ``_`` stands for a space too."""
    return f'regexp("^{pattern(model).replace("_", "[ _]")}$", DeviceName)'


def pattern(word: str) -> str:
    """Return a regular expression that a plain word alone matches, without a backslash.

    Raises:
        ValueError: it is no plain word.
    """
    if not plain_word(word.replace("@", "_")):
        raise ValueError(f"expected letters, digits and ._:+-, got {word!r}")
    return re.sub(r"[.+]", lambda found: f"[{found[0]}]", word)


def times(session: Session, settings: HTCondorSettings, now: float) -> dict[str, str]:
    """Return how long the job may run, when it begins, and when it takes itself away."""
    # Where a runner of ours ends the job, the pool's own limit comes after it
    margin = 0.0 if is_run_by_pool(session.executable, settings) else settings.jobs.margin
    limit = math.ceil(session.duration + margin)
    late = session.latest + math.ceil(settings.jobs.margin)
    ahead = max(session.start - math.floor(now), 0)
    # Where files are shared the runner sees that it has begun before
    again = "(JobStatus == 1 && NumJobStarts > 0) || " if once(settings) else ""
    lines = {
        # HTCondor 23.9 holds a job to this one only where it transfers files, and to the next in any case
        "allowed_execute_duration": str(limit),
        "allowed_job_duration": str(limit + PREPARING + (ahead if session.firm else 0)),
        # What nobody follows any more does not stay: not begun in time, held for an hour, or past its end
        "periodic_remove": (
            f"{again}(JobStatus == 1 && NumJobStarts =?= 0 && time() > {late + ABANDONED}) || "
            f"(JobStatus == 5 && time() - EnteredCurrentStatus > {ABANDONED}) || "
            f"(time() > {session.end + math.ceil(settings.jobs.margin) + ABANDONED})"
        ),
    }
    if ahead:
        # The claim comes first, and waits for the time; not in the queue mode, where cores would stand idle
        early = math.ceil(settings.early) if session.firm else 1
        lines |= {
            "deferral_time": str(session.start),
            "deferral_window": str(max(session.latest - session.start, 0) + ABANDONED),
            "deferral_prep_time": str(early),
        }
    return lines


def once(settings: HTCondorSettings) -> bool:
    """Whether the pool itself has to see that no job begins a second time."""
    return settings.files == "transfer" and not settings.jobs.restart


def whose(session: Session, settings: HTCondorSettings, who: Mapped) -> dict[str, str]:
    """Return to whom the job is charged."""
    group = who.group or settings.group
    if group is None:
        return {}
    return {"accounting_group": group, "accounting_group_user": who.user}


def requirements(session: Session, settings: HTCondorSettings) -> str:
    """Return the job's Requirements beside those that HTCondor adds for what it asks; ``""``: none."""
    wanted = [f"({settings.requirements})"] if settings.requirements.strip() else []
    if once(settings):
        wanted.append("((MY.NumJobStarts ?: 0) == 0)")
    wanted += is_asked_by(session.executable, settings)
    wanted += [feature(name, settings) for name in session.features]
    node = session.allocations[0].node
    if node:
        wanted.append(f'regexp("^(slot1(_[0-9]+)?@)?{node_pattern(node)}$", TARGET.Name)')
    return " && ".join(wanted)


def node_pattern(node: str) -> str:
    """Return a regular expression for the slots of a node, the parts that jobs get of it too."""
    slot, at, rest = node.partition("@")
    if re.fullmatch(r"slot\d+", slot) and at:
        return f"{slot}(_[0-9]+)?@{pattern(rest)}"
    return pattern(node)


def feature(name: str, settings: HTCondorSettings) -> str:
    """Return what a feature asks of a slot.

    Raises:
        ValueError: it is no plain word.
    """
    if name in settings.features:
        return f"(({settings.features[name]}) =?= true)"
    if not plain_word(name):
        raise ValueError(f"no feature of the pool's: {name!r}")
    return f"(TARGET.Arch =?= {string(name)} || TARGET.OpSysAndVer =?= {string(name)})"


def limits(licences: Mapping[str, int]) -> str:
    """Return licences as concurrency limits.

    Raises:
        ValueError: a name is no plain word.
    """
    for name in licences:
        if not resource_name(name):
            raise ValueError(f"no concurrency limit: {name!r}")
    return ",".join(f"{name}:{count}" for name, count in sorted(licences.items()) if count)
