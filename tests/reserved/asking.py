"""What tests of reserved time ask of a broker."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Callable
from typing import Any

import httpx

from ebhpc.model import kinds

Session = dict[str, Any]


def reserved(*, cores: int = 2, seconds: int = 60, start: str | None = None, **more: Any) -> dict[str, Any]:
    """A request for reserved time."""
    requested = {"duration": f"PT{seconds}S"} | ({"start": start} if start is not None else {})
    return {
        "executable": {"kind": kinds.RESERVED_TIME, "meta": {"name": "a tutorial"}, **more},
        "compute": {"kind": kinds.CLUSTER_COMPUTE, "cores": {"min": cores, "max": cores}, "memory": {"min": 1}},
        "schedule": {"requested": requested},
    }


def offers(http: httpx.Client, wanted: dict[str, Any]) -> list[Session]:
    """The offers for a request."""
    answer = http.post("/requests", json=wanted)
    assert answer.status_code == 303, answer.text
    found: list[Session] = answer.json().get("offers", [])
    assert found, answer.text
    return found


def update(http: httpx.Client, uuid: str, phase: str) -> None:
    change = {"kind": "uri:enum-value-update", "path": "phase", "value": phase}
    answer = http.post(f"/sessions/{uuid}", json=change)
    assert answer.status_code == 200, answer.text


def accepted(http: httpx.Client, wanted: dict[str, Any]) -> str:
    """Accept the first offer for a request; return its UUID."""
    uuid = str(offers(http, wanted)[0]["meta"]["uuid"])
    update(http, uuid, "ACCEPTED")
    return uuid


def session(http: httpx.Client, uuid: str) -> Session:
    answer = http.get(f"/sessions/{uuid}")
    assert answer.status_code == 200, answer.text
    found: Session = answer.json()
    return found


def until(http: httpx.Client, uuid: str, wanted: Callable[[Session], Any], seconds: float = 40) -> Session:
    """Look at a session until it is as wanted."""
    deadline = time.monotonic() + seconds
    while not wanted(found := session(http, uuid)):
        assert time.monotonic() < deadline, (found["phase"], words(found))
        time.sleep(0.1)
    return found


def in_phase(*phases: str) -> Callable[[Session], bool]:
    return lambda found: found["phase"] in phases


def words(found: Session) -> list[str]:
    return [one["message"] for one in found["meta"].get("messages", ())]


def metric(found: Session, kind: str) -> float:
    (amount,) = [one["min"] for one in found["metrics"] if one["type"] == kind]
    return float(amount)


def use(found: Session, *command: str, cores: int | None = None) -> subprocess.Popen[str]:
    """Type the line that a session's connector names."""
    (connector,) = found["connectors"]
    line = connector["commands"][0 if cores is None else 1].replace("--cores 1", f"--cores {cores}")
    line = line.replace("COMMAND", shlex.join(command))
    return subprocess.Popen(
        ["/bin/sh", "-c", line], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
