"""What the supervisor says to podman or docker about a container that it runs.

Imported by the supervisor: the standard library only.
"""

from __future__ import annotations

import json
import subprocess
from typing import Any

_LOOKING = 10
"""Seconds to wait for an answer that changes nothing: the job's limits are not watched meanwhile."""

_ENDING = 60
"""Seconds to wait for a container to be ended and removed."""


class Container:
    """A container by its name, and the engine that has it.

    ``spec`` is job.json's ``container``: ``engine`` (program and options), ``environment`` of the engine,
    ``podman`` (whether it is podman), ``name``, ``secrets`` (the names of podman's secrets that are its own).
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        self.engine: list[str] = spec["engine"]
        self.environment: dict[str, str] = spec["environment"]
        self.podman: bool = spec["podman"]
        self.name: str = spec["name"]
        self.secrets: list[str] = spec["secrets"]

    def inspect(self) -> dict[str, Any] | None:
        """Return what the engine knows of the container; None if there is none, or no answer."""
        result = self._call("container", "inspect", self.name, patience=_LOOKING)
        if result is None or result.returncode != 0:
            return None
        try:
            found = json.loads(result.stdout)
        except ValueError:
            return None
        return found[0] if isinstance(found, list) and found and isinstance(found[0], dict) else None

    def kill(self) -> None:
        """Send SIGKILL to the container's first process."""
        self._call("kill", "--signal", "KILL", self.name)

    def remove(self) -> bool:
        """End and remove the container with its anonymous volumes; True when there is none any more."""
        at_once = ["--time", "0"] if self.podman else []
        self._call("rm", "--force", *at_once, "--volumes", self.name)
        if self.secrets:
            self._call("secret", "rm", *self.secrets)
        result = self._call("container", "inspect", self.name)
        return result is not None and result.returncode != 0

    def _call(self, *words: str, patience: float = _ENDING) -> subprocess.CompletedProcess[bytes] | None:
        try:
            return subprocess.run(
                [*self.engine, *words],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=patience,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None


def was_started(found: dict[str, Any] | None) -> bool:
    """Whether a container, as inspected, has ever run."""
    began = ((found or {}).get("State") or {}).get("StartedAt") or ""
    return bool(began) and not str(began).startswith("0001-")


def ran_out_of_memory(found: dict[str, Any] | None) -> bool:
    """Whether the kernel ended a container, as inspected, for want of memory."""
    return bool(((found or {}).get("State") or {}).get("OOMKilled"))


def first_process(found: dict[str, Any] | None) -> int:
    """Return the PID of a container's first process on this host; 0 if it does not run."""
    return int(((found or {}).get("State") or {}).get("Pid") or 0)


def writable_layers(found: dict[str, Any] | None) -> list[str]:
    """Return the directories on this host that hold what the container itself writes."""
    found = found or {}
    layers = [((found.get("GraphDriver") or {}).get("Data") or {}).get("UpperDir")]
    layers += [mount.get("Source") for mount in found.get("Mounts") or () if mount.get("Type") == "volume"]
    return [layer for layer in layers if layer]


def published_port(found: dict[str, Any] | None, port: int) -> int | None:
    """Return the host's port that the engine publishes the container's TCP ``port`` at."""
    ports = ((found or {}).get("NetworkSettings") or {}).get("Ports") or {}
    for place in ports.get(f"{port}/tcp") or ():
        return int(place["HostPort"])
    return None
