"""Every status of a server, and what it means for a session (nova/api/openstack/common.py)."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from ebhpc.model import Level


class Status(Struct, frozen=True):
    """``seen``: BUILDING it is being made; UP its guest runs; OFF it has ended, or was ended; LOST: for good.

    ``words`` for the session's owner, none where all is as it should be.
    """

    seen: Literal["BUILDING", "UP", "OFF", "LOST"]
    words: str = ""
    level: Level = "INFO"


STATUSES: dict[str, Status] = {
    "BUILD": Status("BUILDING"),
    "ACTIVE": Status("UP"),
    "SHUTOFF": Status("OFF"),
    "ERROR": Status("LOST", "the server failed", "ERROR"),
    "DELETED": Status("LOST", "the server was deleted", "ERROR"),
    "SOFT_DELETED": Status("LOST", "the server was deleted", "ERROR"),
    "PASSWORD": Status("UP"),
    "REBOOT": Status("UP", "the server was started again, and the job with it ended", "WARN"),
    "HARD_REBOOT": Status("UP", "the server was started again, and the job with it ended", "WARN"),
    "REBUILD": Status("UP", "the server is made anew by the cloud's operators, and the job begins again", "WARN"),
    "RESIZE": Status("UP", "the cloud's operators resize the server", "WARN"),
    "VERIFY_RESIZE": Status("UP", "the cloud's operators resize the server", "WARN"),
    "REVERT_RESIZE": Status("UP", "the cloud's operators resize the server", "WARN"),
    "MIGRATING": Status("UP", "the server moves to another hypervisor", "INFO"),
    "PAUSED": Status("UP", "the cloud's operators have paused the server", "WARN"),
    "SUSPENDED": Status("UP", "the cloud's operators have suspended the server", "WARN"),
    "RESCUE": Status("UP", "the cloud's operators have booted the server for rescue", "WARN"),
    "SHELVED": Status("UP", "the cloud's operators have shelved the server", "WARN"),
    "SHELVED_OFFLOADED": Status("UP", "the cloud's operators have shelved the server", "WARN"),
    "UNKNOWN": Status("UP", "the cloud does not know how the server is: its hypervisor does not answer", "WARN"),
}


def status(name: str) -> Status:
    """Return what a status means; one that nobody knows is that of a server that is there."""
    return STATUSES.get(name, Status("UP", f"the cloud says of the server: {name}", "WARN"))


def no_host(fault: str) -> bool:
    """Whether a server failed because no hypervisor had room for it."""
    return "no valid host" in fault.lower() or "exceeded maximum number of retries" in fault.lower()
