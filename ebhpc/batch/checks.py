"""What ``ebhpc check`` says about the sessions' root and, by a test job that the plugin submits, about the nodes."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Iterator

from ebhpc.batch.access import AccessFailed, Account, arrange, open_door, shared_group
from ebhpc.batch.directory import SessionDirectory
from ebhpc.batch.ending import left_directory
from ebhpc.batch.runtimes import program
from ebhpc.batch.settings import JobSettings
from ebhpc.model import Finding
from ebhpc.staging.files import GIBI
from ebhpc.staging.removal import remove

_MARK = "ebhpc-probe: "
_OLDEST = (3, 8)
_SKEW = 5.0
"""Seconds that a node's clock may differ, the time between its saying and our hearing included."""

_LOOK = """
import json, os, shutil, subprocess, sys, time
wanted = json.loads(sys.argv[1])
found = {"python": list(sys.version_info[:3]), "time": time.time(), "node": os.uname()[1], "uid": os.geteuid()}
found["root"] = os.path.exists(wanted["token"])
found["writes"] = True
try:
    with open(wanted["write"], "w") as file:
        file.write("written")
except OSError as error:
    found["writes"] = error.strerror
found["programs"] = {name: shutil.which(name) for name in wanted["programs"]}
if wanted["notebook"]:
    try:
        done = subprocess.run(wanted["notebook"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120)
        found["notebook"] = None if done.returncode == 0 else done.stdout.decode("utf-8", "replace").strip()[-300:]
    except (OSError, subprocess.TimeoutExpired) as error:
        found["notebook"] = str(error)
print(wanted["mark"] + json.dumps(found))
"""

_LOOK_FOR_NOTEBOOKS = """
import sys
import nbclient, nbconvert, nbformat
from jupyter_client.kernelspec import KernelSpecManager
KernelSpecManager().get_kernel_spec(sys.argv[1])
"""


def check(settings: JobSettings, account: Account | None = None) -> Iterator[Finding]:
    """Say how the sessions' root is on the broker's host; ``account``: a user whose jobs would run."""
    root = settings.root
    try:
        root.mkdir(mode=0o711, parents=True, exist_ok=True)
        probe = probe_directory(settings, f"probe-{os.getpid()}")
        _make(probe)
    except OSError as error:
        yield Finding(
            level="ERROR",
            subject="jobs.root",
            text=f"{root} cannot be written: {error.strerror}",
            advice="give the directory to the user that the broker runs as",
        )
        return
    try:
        free = shutil.disk_usage(root).free
        low = free < settings.default_storage_gib * GIBI
        yield Finding(level="WARN" if low else "INFO", subject="jobs.root", text=f"{root} has {free // GIBI} GiB free")
        yield from _left(settings)
        yield from _doors(settings)
        if account is not None:
            yield _access(settings, account, probe)
    finally:
        remove(probe.path)


def _make(probe: SessionDirectory) -> None:
    for part in (probe.path, probe.storage, probe.report):
        part.mkdir(mode=0o700, exist_ok=True)
    for file in (probe.job, probe.runner):
        file.touch()


def _left(settings: JobSettings) -> Iterator[Finding]:
    left = left_directory(settings)
    count = len(list(left.iterdir())) if left.is_dir() else 0
    if count:
        yield Finding(
            level="WARN",
            subject="jobs.root",
            text=f"{left} holds {count} directories that their users have shut",
            advice="look, and remove them as root",
        )


def _doors(settings: JobSettings) -> Iterator[Finding]:
    """The users must get through to the root."""
    if settings.access == "own":
        return
    for place in (settings.root, *settings.root.parents):
        if not place.stat().st_mode & 0o001:
            yield Finding(
                level="ERROR",
                subject="jobs.root",
                text=f"users cannot pass through {place} to their sessions",
                advice=f"chmod o+x {place}",
            )


def _access(settings: JobSettings, account: Account, probe: SessionDirectory) -> Finding:
    try:
        if settings.access == "group":
            shared_group(settings, account)
        arrange(probe, settings, account, writable=[probe.report], shut=[])
        open_door(probe, settings, account)
    except (AccessFailed, OSError) as error:
        return Finding(
            level="ERROR",
            subject="jobs.access",
            text=f"a session's directory cannot be opened to {account.name}: {error}",
            advice="see the documentation of jobs.access: acl, group, own",
        )
    return Finding(level="INFO", subject="jobs.access", text=f"{settings.access}: {account.name} gets into sessions")


def probe_directory(settings: JobSettings, token: str) -> SessionDirectory:
    """Return the directory of a test job; ``token`` is a name of the caller's choice, of letters, digits and hyphens.

    Raises:
        ValueError: it is none.
    """
    if not token or not token.replace("-", "").isalnum() or not token.isascii():
        raise ValueError(f"{token!r} is no name for a probe")
    return SessionDirectory(settings.root / f".{token}")


def probe_script(settings: JobSettings, account: Account, token: str) -> str:
    """Make the directory of a test job, and return its script; hand its stdout to :func:`probe_findings`.

    Raises:
        AccessFailed, OSError: the directory cannot be made, or opened.
    """
    probe = probe_directory(settings, token)
    _make(probe)
    arrange(probe, settings, account, writable=[probe.report], shut=[])
    open_door(probe, settings, account)
    runtime = settings.runtime
    programs = [] if runtime.kind == "none" else [program(runtime)]
    if runtime.kind == "oci":
        programs += ["umoci", runtime.oci_command[0]]
    python = settings.notebook_python or settings.python
    wanted = {
        "mark": _MARK,
        "token": str(probe.job),
        "write": str(probe.report / "written"),
        "programs": programs,
        "notebook": [python, "-c", _LOOK_FOR_NOTEBOOKS, settings.kernel] if settings.notebooks else None,
    }
    setup = settings.setup.strip("\n")
    call = shlex.join([settings.python, "-I", "-c", _LOOK, json.dumps(wanted)])
    return f"#!/bin/sh\n# ebhpc check\n{setup}\nexec {call}\n"


def probe_findings(text: str, settings: JobSettings, token: str) -> Iterator[Finding]:
    """Say what a test job has found, from its stdout, and remove its directory."""
    probe = probe_directory(settings, token)
    written = (probe.report / "written").exists()
    remove(probe.path)
    lines = [line[len(_MARK) :] for line in text.splitlines() if line.startswith(_MARK)]
    if not lines:
        yield Finding(
            level="ERROR",
            subject="nodes",
            text=f"the test job did not say anything of use: {text.strip()[-300:] or 'no output'}",
            advice=f"{settings.python} must be there on the nodes (jobs.python, jobs.setup)",
        )
        return
    found = json.loads(lines[-1])
    node, python = str(found["node"]), tuple(found["python"])
    version = ".".join(map(str, python))
    yield Finding(
        level="INFO" if python >= _OLDEST else "ERROR",
        subject="nodes.python",
        text=f"{settings.python} on {node} is {version}",
        advice="" if python >= _OLDEST else "name one that is 3.8 or newer as jobs.python",
    )
    if not found["root"]:
        yield Finding(
            level="ERROR",
            subject="nodes.root",
            text=f"{node} does not see {settings.root}, or the user may not",
            advice="jobs.root must be on a file system that the broker and the nodes share",
        )
    elif found["writes"] is not True or not written:
        yield Finding(
            level="ERROR",
            subject="nodes.root",
            text=f"what a job writes on {node} does not arrive in {settings.root}: {found['writes']}",
        )
    else:
        yield Finding(level="INFO", subject="nodes.root", text=f"{node} shares {settings.root}")
    for name, path in found["programs"].items():
        yield Finding(
            level="INFO" if path else "ERROR",
            subject="nodes.containers",
            text=f"{node} has {path}" if path else f"{node} has no {name}: containers cannot run",
            advice="" if path else "see jobs.runtime.program and jobs.setup",
        )
    if settings.notebooks:
        why = found.get("notebook")
        yield Finding(
            level="INFO" if why is None else "WARN",
            subject="nodes.notebooks",
            text=f"{node} runs notebooks" if why is None else f"{node} cannot run notebooks: {why}",
            advice="" if why is None else "see jobs.notebook_python, or set jobs.notebooks: false",
        )


def clock_skew(text: str, started: float, ended: float) -> Finding | None:
    """Compare a node's clock, as its test job told it, with ours: the job ran between ``started`` and ``ended``."""
    lines = [line[len(_MARK) :] for line in text.splitlines() if line.startswith(_MARK)]
    if not lines:
        return None
    told = float(json.loads(lines[-1])["time"])
    skew = max(started - told, told - ended, 0.0)
    return Finding(
        level="INFO" if skew <= _SKEW else "ERROR",
        subject="nodes.clock",
        text=f"the node's clock differs by {skew:.0f} s" if skew > _SKEW else "the node's clock agrees with ours",
        advice="let both keep their time by NTP" if skew > _SKEW else "",
    )


__all__ = ["check", "clock_skew", "probe_directory", "probe_findings", "probe_script"]
