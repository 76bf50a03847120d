"""What ``ebhpc check`` says about a local platform."""

from __future__ import annotations

import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ebhpc.local import cgroups, payload
from ebhpc.local.engine import EngineFailed
from ebhpc.model import Finding
from ebhpc.staging.files import GIBI, MEBI

if TYPE_CHECKING:
    from ebhpc.local.platform import LocalPlatform


def findings(platform: LocalPlatform) -> Iterator[Finding]:
    """Yield what was looked at, and how it is."""
    yield _capacity(platform)
    yield from _state(platform)
    yield _limits()
    yield _notebooks(platform)
    yield from _user(platform)
    yield from _engine(platform)
    yield _apptainer(platform)


def _capacity(platform: LocalPlatform) -> Finding:
    offered, host = platform.offered, platform.host
    text = f"node {platform.node} offers {offered.cores} cores and {offered.memory} MiB"
    if offered.devices:
        text += ", " + ", ".join(f"{count} {kind}" for kind, count in sorted(offered.devices.items()))
    if offered.cores > len(host.cores) or offered.memory > host.memory:
        return Finding(
            level="WARN",
            subject="capacity",
            text=f"{text}; this host has {len(host.cores)} cores and {host.memory} MiB",
            advice="overcommit is for tests and demonstrations",
        )
    return Finding(level="INFO", subject="capacity", text=text)


def _state(platform: LocalPlatform) -> Iterator[Finding]:
    state = platform.state
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = state / f".probe-{uuid.uuid4()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        yield Finding(
            level="ERROR",
            subject="state",
            text=f"{state} cannot be written: {error.strerror}",
            advice="give the directory to the user that the broker runs as",
        )
        return
    free = shutil.disk_usage(state).free
    low = free < platform.settings.default_storage_gib * GIBI
    yield Finding(
        level="WARN" if low else "INFO",
        subject="state",
        text=f"{state} has {free // GIBI} GiB free",
        advice="one session with storage of the default size could fill it" if low else "",
    )


def _limits() -> Finding:
    group = cgroups.make(f"ebhpc-probe-{uuid.uuid4()}", cores=1, memory=64 * MEBI, processes=64)
    if group is None:
        return Finding(
            level="WARN",
            subject="limits",
            text="no control groups: memory is watched four times a second, processor time by affinity alone",
            advice="run as root, or let systemd delegate a group (Delegate=yes)",
        )
    controllers = ", ".join(sorted(group.directories))
    counts = group.counts_memory
    group.remove()
    return Finding(
        level="INFO" if counts else "WARN",
        subject="limits",
        text=f"control groups keep {controllers}" + ("" if counts else "; memory is watched four times a second"),
        advice="" if counts else "let the memory controller be delegated",
    )


def _notebooks(platform: LocalPlatform) -> Finding:
    reason = platform.notebooks.reason()
    if reason is None:
        kernel, python = platform.settings.kernel, platform.notebooks.python
        return Finding(level="INFO", subject="notebooks", text=f"kernel {kernel} by {python}")
    return Finding(
        level="WARN",
        subject="notebooks",
        text=f"notebooks are refused: {reason}",
        advice="install ebhpc[notebook], or name another interpreter as python",
    )


def _user(platform: LocalPlatform) -> Iterator[Finding]:
    user = payload.account(platform.settings)
    if user is None:
        yield Finding(
            level="WARN" if os.geteuid() == 0 else "INFO",
            subject="user",
            text=f"notebooks run as the broker's own user ({os.geteuid()}), and can read what the broker can",
            advice="set user, or let only people whom you trust use this platform" if os.geteuid() == 0 else "",
        )
        return
    for place in (platform.state, *platform.state.parents):
        if place.exists() and not place.stat().st_mode & 0o001:
            yield Finding(
                level="ERROR",
                subject="user",
                text=f"{platform.settings.user} cannot pass through {place} to its sessions",
                advice=f"chmod o+x {place}",
            )


def _engine(platform: LocalPlatform) -> Iterator[Finding]:
    engine = platform.engines.engine()
    if engine is None:
        yield Finding(
            level="WARN",
            subject="containers",
            text=f"containers are refused: {platform.engines.reason}",
            advice="install podman, or name the program as runtime.program",
        )
        return
    try:
        engine.call("ps", "--quiet")
    except EngineFailed as error:
        yield Finding(level="ERROR", subject="containers", text=f"{engine.name} does not work: {error.text[-300:]}")
        return
    runtime = platform.settings.runtime
    ways = runtime.ports if runtime.ports != "auto" else "forward" if engine.forwards else "publish"
    by = runtime.limits if runtime.limits != "auto" else "watch" if engine.rootless else "engine"
    yield Finding(
        level="INFO",
        subject="containers",
        text=f"{engine.program} {engine.version}; network {runtime.network}, ports: {ways}, limits: {by}",
    )
    if runtime.allow_privileged:
        yield Finding(
            level="WARN",
            subject="containers",
            text="privileged containers are allowed: their users own this host",
        )
    for registry in runtime.registries or ():
        yield _registry(registry)


def _registry(registry: str) -> Finding:
    host, colon, port = registry.rpartition(":")
    if not colon or not port.isdecimal():
        host, port = registry, "443"
    host = "registry-1.docker.io" if host == "docker.io" else host.strip("[]")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        return Finding(
            level="WARN", subject="registry", text=f"{registry} cannot be reached: {error.strerror or error}"
        )
    return Finding(level="INFO", subject="registry", text=f"{registry} answers")


def _apptainer(platform: LocalPlatform) -> Finding:
    program = payload.apptainer(platform.settings)
    if program is None:
        return Finding(
            level="INFO",
            subject="apptainer",
            text="Singularity containers are refused: apptainer is not installed",
        )
    return Finding(level="INFO", subject="apptainer", text=program)
