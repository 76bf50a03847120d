"""Reserved time on this host: cores and memory that are kept, and the commands that their user runs in them.

    state/sessions/UUID/
      slot.json        when it begins and ends, how many cores it has, how a command claims them
      inside/N.json    a command: who, since when, how it ended; touched while it runs
      inside/core-N    locked by the command that has one of the slot's cores

Nobody watches a slot: each command (``ebhpc.local.use``) keeps itself to the slot's time, and the platform looks.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from ebhpc.local import cgroups
from ebhpc.local.capacity import Host
from ebhpc.local.places import SessionDirectory
from ebhpc.local.settings import Local
from ebhpc.model import Connector, JobUse, Observation, Session, Usage, kinds
from ebhpc.staging.files import MEBI, read_json, write_json

MOST_LISTED = 200
"""Commands of one slot that are listed one by one; of older ones only the core-hours are told."""


def slot_file(directory: SessionDirectory) -> Path:
    """Return the file that says what a slot is."""
    return directory.path / "slot.json"


def inside(directory: SessionDirectory) -> Path:
    """Return the directory of a slot's commands."""
    return directory.path / "inside"


def open_slot(session: Session, directory: SessionDirectory, settings: Local, host: Host, state: Path) -> None:
    """Make a slot, or set anew when it ends. Safe to repeat."""
    share = session.allocations[0]
    inside(directory).mkdir(mode=0o700, parents=True, exist_ok=True)
    present = read_json(slot_file(directory))
    # A window near now is booked for its latest start; it begins now
    start = session.start if present is None else min(session.start, int(present["start"]))
    group = cgroups.make(directory.name, cores=share.cores, memory=share.memory * MEBI, processes=settings.processes)
    write_json(
        slot_file(directory),
        {
            "uuid": directory.uuid,
            "start": start,
            "end": session.end,
            "cores": share.cores,
            "core_choices": list(host.cores),
            "claims": str(state / "claims"),
            "grace": float(settings.grace),
            "group": {} if group is None else {name: str(path) for name, path in group.directories.items()},
        },
    )


def observe(session: Session, directory: SessionDirectory, platform: str, node: str, now: float) -> Observation:
    """Say what runs, and ran, in a slot."""
    slot = read_json(slot_file(directory))
    if slot is None:
        return Observation(uuid=session.uuid, state="GONE")
    jobs = tuple(sorted(_jobs(directory, now), key=lambda job: (job.started, job.id)))
    usage = Usage(
        jobs=jobs[-MOST_LISTED:],
        more=round(sum(job.core_hours(now) for job in jobs[:-MOST_LISTED]), 6),
        others=len(jobs[:-MOST_LISTED]),
    )
    busy = any(job.ended is None for job in jobs)
    over = not busy and (directory.marked_to_end() or now >= slot["end"])
    return Observation(
        uuid=session.uuid,
        state="SUCCEEDED" if over else "RUNNING" if jobs else "PENDING",
        node=node,
        ended=min(now, float(slot["end"])) if over else None,
        usage=usage,
        connectors=(_connector(directory, platform, over=over),),
    )


def _connector(directory: SessionDirectory, platform: str, *, over: bool) -> Connector:
    use = shlex.join([sys.executable, "-m", "ebhpc.local.use", str(directory.path)])
    return Connector(
        kind=kinds.RESERVATION_CONNECTOR,
        status="FINISHED" if over else "AVAILABLE",
        protocol="LOCAL",
        location=f"local://{platform}/{directory.name}",
        reservation=directory.name,
        commands=[f"{use} -- COMMAND", f"{use} --cores 1 -- COMMAND"],
    )


def _jobs(directory: SessionDirectory, now: float) -> Iterator[JobUse]:
    for file in inside(directory).glob("*.json"):
        try:
            job = json.loads(file.read_text(encoding="utf-8"))
            touched = file.stat().st_mtime
        except (OSError, ValueError):  # it is being written, or somebody has changed it
            continue
        ended = job.get("ended")
        state = "RUNNING" if ended is None else "COMPLETED" if job.get("exit_code") == 0 else "FAILED"
        if ended is None and not _lives(job):
            ended, state = min(touched, now), "KILLED"
        yield JobUse(
            id=file.stem,
            name=str(job.get("name", ""))[:200],
            user=str(job.get("user", ""))[:100],
            cores=int(job["cores"]),
            state=state,
            started=float(job["started"]),
            ended=ended,
            exit_code=job.get("exit_code"),
        )


def _lives(job: dict[str, Any]) -> bool:
    """Whether the process that runs a command lives: its number may be another's by now."""
    try:
        return abs(psutil.Process(int(job["pid"])).create_time() - float(job["pid_started"])) < 1.0
    except psutil.NoSuchProcess:
        return False
