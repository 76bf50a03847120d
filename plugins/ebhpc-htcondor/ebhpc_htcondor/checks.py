"""What ``ebhpc check`` says of a pool: each answer comes from asking HTCondor, or from a job that really ran."""

from __future__ import annotations

import base64
import binascii
import json
import secrets
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ebhpc import batch
from ebhpc.model import Finding, Level
from ebhpc.plugins import SessionFailed
from ebhpc_htcondor import carrying, confining, records
from ebhpc_htcondor.asking import NotPermitted, PoolFault
from ebhpc_htcondor.identities import mapped
from ebhpc_htcondor.names import string
from ebhpc_htcondor.settings import Mapped
from ebhpc_htcondor.states import ENDED, HELD, SPOOLING
from ebhpc_htcondor.submission import KIB, SCRIPT
from ebhpc_htcondor.submitting import write_script

if TYPE_CHECKING:
    from ebhpc_htcondor.platform import HTCondorPlatform

WAIT = 40.0
"""Seconds that the test job has."""


def findings(platform: HTCondorPlatform) -> Iterator[Finding]:
    """Yield what was looked at, and how it is; the rest is not looked at where the collector does not answer."""
    yield from _tokens(platform)
    try:
        daemons = platform.pool.daemons()
        slots = platform.pool.kept()
    except PoolFault as fault:
        yield _silent(platform, fault)
        return
    yield _finding("INFO", "collector", f"{platform.settings.collector} runs {_version(daemons.collector)}")
    yield from _schedd(platform, daemons)
    if not daemons.negotiator:
        yield _finding("ERROR", "negotiator", "the collector knows none", "no job starts until a negotiator runs")
    elif platform.settings.start_expression and daemons.cycle and daemons.cycle >= platform.settings.early:
        text = (
            f"the pool negotiates every {daemons.cycle} s, and jobs have {platform.settings.early:g} s for their claims"
        )
        advice = "make early longer, and lead longer still: sessions with kept starts begin late"
        yield _finding("WARN", "early", text, advice)
    yield from _slots(platform, slots)
    who = _somebody(platform)
    if who is None:
        yield _finding(
            "WARN", "identities", "there is nobody for whom a test job could run", "name users as identities"
        )
        yield from batch.check(platform.settings.jobs)
        return
    try:
        account = platform.account(who)
    except SessionFailed as error:
        yield _finding("ERROR", "identities", str(error), "give the user's number as uid")
        return
    if platform.settings.files == "transfer":
        account = batch.unix_account(None)
        yield _landlock()
    yield from batch.check(carrying.jobs(platform.settings), account)
    if daemons.schedd:
        yield from _probe(platform, who, account)


def _landlock() -> Finding:
    if confining.version():
        return _finding("INFO", "files", "HTCondor carries files, and fetching them is confined (Landlock)")
    text = "this host's kernel has no Landlock: what HTCondor carries cannot be fetched"
    return _finding("ERROR", "files", text, "use files: shared, or a kernel of Linux 5.13 or newer with Landlock")


def _finding(level: Level, subject: str, text: str, advice: str = "") -> Finding:
    return Finding(level=level, subject=subject, text=text, advice=advice)


def _version(text: str) -> str:
    words = text.split()
    return f"HTCondor {words[1]}" if len(words) > 1 else "an unknown HTCondor"


def _silent(platform: HTCondorPlatform, fault: PoolFault) -> Finding:
    where = platform.settings.collector
    if isinstance(fault, NotPermitted):
        advice = "look at the token in token_directory, and at ALLOW_READ of the pool"
        return _finding("ERROR", "collector", f"{where} does not let us in: {fault}", advice)
    return _finding("ERROR", "collector", f"no answer from {where}: {fault}", "look whether the collector runs there")


def _tokens(platform: HTCondorPlatform) -> Iterator[Finding]:
    """Look at the broker's own tokens: whether there are any, and until when they are good."""
    directory = platform.settings.token_directory
    if directory is None:
        return
    try:
        files = [path for path in sorted(directory.iterdir()) if path.is_file() and not path.name.startswith(".")]
        for path in files:
            if path.stat().st_mode & 0o077:
                yield _finding("WARN", "token", f"{path} is not its owner's alone", f"chmod 600 {path}")
        found = [
            expiry
            for path in files
            for line in path.read_text("ascii", "replace").splitlines()
            if (expiry := _expiry(line))
        ]
    except OSError as error:
        advice = "put a token of the broker's there: condor_token_create"
        yield _finding("ERROR", "token", f"{directory} cannot be read: {error.strerror}", advice)
        return
    if not found:
        yield _finding("ERROR", "token", f"{directory} has no token", "put one there: condor_token_create")
        return
    left = max(found) - platform.clock()
    if left <= 0:
        yield _finding("ERROR", "token", "the broker's token has expired", "put a new one there: condor_token_create")
    elif left < 7 * 86400:
        yield _finding("WARN", "token", f"the broker's token expires in {left / 86400:.1f} days", "put a new one there")
    else:
        yield _finding("INFO", "token", "the broker has a token")


def _expiry(line: str) -> float | None:
    """Return when a token expires (POSIX seconds, infinite where never); None: the line is no token."""
    parts = line.strip().split(".")
    if len(parts) != 3:
        return None
    try:
        payload = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError):
        return None
    expires = payload.get("exp") if isinstance(payload, dict) else None
    return float(expires) if isinstance(expires, int | float) else float("inf")


def _schedd(platform: HTCondorPlatform, daemons: records.Daemons) -> Iterator[Finding]:
    if not daemons.schedd:
        yield _finding("ERROR", "schedd", daemons.write_error, "name the schedd that jobs go to")
        return
    text = f"{daemons.schedd} runs {_version(daemons.schedd_version)}"
    if daemons.may_write:
        yield _finding("INFO", "schedd", f"{text}; there we are {daemons.identity}")
    elif platform.settings.run_as == "token":
        yield _finding("INFO", "schedd", f"{text}; there we may look, and users' tokens submit")
    else:
        why = f": {daemons.write_error}" if daemons.write_error else ""
        advice = "look at the token, and at ALLOW_WRITE of the schedd"
        yield _finding("ERROR", "schedd", f"{text}; we may not submit there{why}", advice)


def _slots(platform: HTCondorPlatform, slots: Sequence[records.Slot]) -> Iterator[Finding]:
    large = [slot for slot in slots if slot.cores >= 1 and slot.memory >= 256]
    if not large:
        yield _finding(
            "ERROR", "slots", "there is no slot that a job of one core could use", "look at slots, and the pool"
        )
        return
    cores = sum(slot.cores for slot in slots)
    yield _finding("INFO", "slots", f"{len(slots)} slots with {cores} cores are offered")
    if platform.settings.jobs.runtime.kind == "apptainer" and not any(slot.containers for slot in slots):
        advice = "install apptainer on the machines, or set jobs.runtime.kind to none"
        yield _finding("WARN", "containers", "no machine says that it can run containers (HasContainer)", advice)
    if platform.settings.start_expression:
        blind = [slot.name for slot in slots if slot.checked is None or slot.checked < platform.clock() - 300]
        if blind:
            advice = "install ebhpc-reservations.conf and ebhpc-reservation there"
            names = ", ".join(blind[:5])
            yield _finding("ERROR", "start_expression", f"{len(blind)} slots do not look what is kept: {names}", advice)
        else:
            yield _finding("INFO", "start_expression", "all machines look what is kept on them")


def _somebody(platform: HTCondorPlatform) -> Mapped | None:
    """Return somebody for whom things can be tried."""
    known = next((mapped(platform.settings, name) for name in sorted(platform.settings.identities)), None)
    if known is None and platform.settings.run_as == "self":
        return Mapped(user=batch.unix_account(None).name)
    return known


def _probe(platform: HTCondorPlatform, who: Mapped, account: batch.Account) -> Iterator[Finding]:
    """Run a test job as somebody, and tell what it found on its machine."""
    settings = platform.settings
    token = f"probe-{secrets.token_hex(8)}"
    begun = platform.clock()
    said = ""
    try:
        directory = batch.probe_directory(settings.jobs, token)
        script = batch.probe_script(carrying.jobs(settings), account, token)
        write_script(directory, script)
        carried = settings.files == "transfer"
        number = platform.pool.submit(_probe_description(platform, directory), who.user, spool=carried)
    except (PoolFault, OSError, batch.AccessFailed) as error:
        advice = f"see run_as ({settings.run_as}), and token_command"
        yield _finding("ERROR", "jobs", f"a test job as {who.user} cannot be submitted: {error}", advice)
        return
    job = _ended(platform, number)
    if carried and job is not None and job.status in ENDED:
        try:
            platform.pool.retrieve([job.id], who.user, directory.path)
        except PoolFault as error:
            yield _finding("ERROR", "files", f"the test job's files cannot be fetched: {error}")
    if job is not None and job.status not in ENDED:
        platform.pool.remove([job.id], who.user, "the test of the execution broker is over")
        why = job.hold_reason or job.reject_reason or "no machine took it"
        level: Level = "ERROR" if job.status == HELD else "WARN"
        yield _finding(level, "jobs", f"the test job has not ended after {WAIT:.0f} s: {why}")
    else:
        log = directory.path / directory.log.name if carried else directory.log
        said = log.read_text("utf-8", "replace") if log.exists() else ""
        yield _finding("INFO", "jobs", f"a job as {who.user} has run")
        skew = batch.clock_skew(said, begun, platform.clock())
        if skew is not None:
            yield skew
    for found in batch.probe_findings(said, settings.jobs, token):
        # Where HTCondor carries the files, no machine has to see that directory
        if not (carried and found.subject == "nodes.root"):
            yield found


def _probe_description(platform: HTCondorPlatform, directory: batch.SessionDirectory) -> str:
    files = {
        "executable": "/bin/sh",
        "arguments": f'"{directory.path / SCRIPT}"',
        "transfer_executable": "False",
        "should_transfer_files": "NO",
        "initialdir": "/",
        "output": str(directory.log),
        "error": str(directory.log),
    }
    if platform.settings.files == "transfer":
        files = {
            **carrying.common(directory),
            "executable": str(directory.path / SCRIPT),
            "transfer_executable": "True",
            "transfer_output_files": '""',
            "output": directory.log.name,
            "error": directory.log.name,
        }
    lines = {
        "universe": "vanilla",
        **files,
        "request_cpus": "1",
        "request_memory": "256",
        "request_disk": str(KIB),
        "notification": "never",
        "allowed_execute_duration": "60",
        "periodic_remove": f"time() > {int(platform.clock()) + 300}",
        "+EbhpcPrefix": string(f"{platform.settings.prefix}-check"),
        **({"requirements": platform.settings.requirements} if platform.settings.requirements else {}),
        **platform.settings.submit,
    }
    return "".join(f"{name} = {value}\n" for name, value in lines.items())


def _ended(platform: HTCondorPlatform, number: int) -> records.Job | None:
    """Return the test job when it has left the queue (None), or as it is after a while."""
    deadline = time.monotonic() + WAIT
    while True:
        jobs = platform.pool.worker.ask(tuple[records.Job, ...], "jobs", prefix=f"{platform.settings.prefix}-check")
        job = next((one for one in jobs if one.cluster == number), None)
        stays = job is not None and job.status == HELD and job.hold_code != SPOOLING
        if job is None or stays or job.status in ENDED or time.monotonic() > deadline:
            return job
        time.sleep(0.5)
