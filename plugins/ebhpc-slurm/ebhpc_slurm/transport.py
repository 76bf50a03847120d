"""How Slurm is asked: the one interface of every transport, and what can go wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Protocol

from ebhpc_slurm import records


class SlurmFault(Exception):
    """Base of what a transport raises."""


class NotReached(SlurmFault):
    """Slurm was not reached: nothing was carried out."""


class Unanswered(SlurmFault):
    """There was no answer in time, or none that can be read: what was asked may be carried out, now or later."""


class Why(StrEnum):
    """Why Slurm refused."""

    BUSY = "busy"
    DUPLICATE = "duplicate"
    UNKNOWN = "unknown"
    IN_USE = "in use"
    NOT_PERMITTED = "not permitted"
    TIME = "time"
    USER = "user"
    ACCOUNT = "account"
    PLACE = "place"
    LICENCES = "licences"
    FULL = "full"
    LIMIT = "limit"
    OTHER = "other"


class Refused(SlurmFault):
    """Slurm said no. ``why`` for the program, the text in Slurm's words."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.why = why(text)


REFUSALS: tuple[tuple[str, Why], ...] = (
    ("overlaps with another reservation", Why.BUSY),
    ("Requested nodes are busy", Why.BUSY),
    ("Duplicate reservation name", Why.DUPLICATE),
    ("Requested reservation is in use", Why.IN_USE),
    ("Requested reservation is invalid", Why.UNKNOWN),
    ("Reservation update rejected", Why.IN_USE),
    ("Invalid job id", Why.UNKNOWN),
    ("Job/step already completing or completed", Why.UNKNOWN),
    ("Access denied to requested reservation", Why.NOT_PERMITTED),
    ("Access/permission denied", Why.NOT_PERMITTED),
    ("Invalid user id", Why.NOT_PERMITTED),
    ("User not found", Why.USER),
    ("Unspecified error", Why.USER),  # what a reservation for a user whom the controller does not know gets
    ("Invalid time specified", Why.TIME),
    ("Requested time limit is invalid", Why.LIMIT),
    ("Invalid account", Why.ACCOUNT),
    ("Invalid qos", Why.ACCOUNT),
    ("Job violates accounting/QOS policy", Why.LIMIT),
    ("Invalid node name", Why.PLACE),
    ("Invalid partition name", Why.PLACE),
    ("User's group not permitted to use this partition", Why.ACCOUNT),
    ("Requested partition configuration not available", Why.PLACE),
    ("Requested node configuration is not available", Why.PLACE),
    ("Invalid Trackable RESource", Why.PLACE),
    ("Invalid generic resource", Why.PLACE),
    ("Invalid feature", Why.PLACE),
    ("Invalid license specification", Why.LICENCES),
    ("Slurm temporarily unable to accept job", Why.FULL),
    ("Resource temporarily unavailable", Why.FULL),
)
"""What Slurm says when it refuses, and what that means."""


def why(text: str) -> Why:
    """Say what a refusal means."""
    return next((meaning for words, meaning in REFUSALS if words.lower() in text.lower()), Why.OTHER)


NO_ANSWER = (
    "Socket timed out",
    "Unexpected message received",
    "Zero Bytes were transmitted or received",
    "Transport endpoint is not connected",
    "Message receive failure",
    "Message send failure",
    "Protocol authentication error",
    "Unable to contact slurm controller (read",
)
"""What the clients say when nobody answered: it may still be carried out."""

NO_CONNECTION = (
    "Unable to contact slurm controller",
    "Connection refused",
    "failed to open persistent connection",
    "Problem talking to the database",
    "Slurm backup controller in standby mode",
    "Unable to establish controller machine",
    "Unable to locate",
    "munge",
    "Invalid authentication credential",
    "auth_g_create",
    "Plugin initialization failed",
)
"""What they say when they reached nobody."""


def fault(text: str) -> SlurmFault:
    """Return what a client's complaint means, to be raised."""
    text = " ".join(text.split())[:500] or "it failed without a word"
    if any(words.lower() in text.lower() for words in NO_ANSWER):
        return Unanswered(text)
    if any(words.lower() in text.lower() for words in NO_CONNECTION):
        return NotReached(text)
    return Refused(text)


class Slurm(Protocol):
    """What is asked of Slurm. Every method raises a SlurmFault, and none takes longer than its time limit."""

    requests: Mapping[str, int]
    """How many requests to slurmctld, as ``sdiag`` counts them, a question is: ``jobs``, ``nodes``, …"""

    def version(self) -> str:
        """Return the version of the controller, ``26.05.5``."""

    def configuration(self) -> records.Configuration:
        """Return the controller's settings and clock."""

    def nodes(self) -> Sequence[records.Node]:
        """Return all nodes."""

    def partitions(self) -> Sequence[records.Partition]:
        """Return all partitions."""

    def reservations(self) -> Sequence[records.Reservation]:
        """Return all reservations."""

    def licences(self) -> dict[str, int]:
        """Return how many licences there are by name."""

    def jobs(self, prefix: str = "", age: float = 0.0) -> Sequence[records.Job]:
        """Return the jobs that the controller knows, those included that ended a little while ago.

        An answer that is no older than ``age`` seconds does, whoever asked for it: Slurm tells of all jobs each time.
        ``prefix``: only those whose name, comment or reservation begins so.
        """

    def ended(self, since: int, names: Sequence[str] = ()) -> Sequence[records.Job]:
        """Return jobs that the accounting knows to have run since then; with ``names`` only those.

        Raises:
            Refused: there is no accounting.
        """

    def submit(self, wish: records.Submit) -> int:
        """Submit a job as its user, and return its number."""

    def cancel(self, job: int, user: str) -> None:
        """End a job, whether it waits or runs; it is no error that it has ended already.

        Raises:
            Refused: it may not be ended.
        """

    def reserve(self, wish: records.Reserve) -> None:
        """Make a reservation.

        Raises:
            Refused: ``Why.DUPLICATE`` where one of that name is there already.
        """

    def change_reservation(self, wish: records.Reserve) -> None:
        """Give a reservation that is there other nodes, users or another end; its start stays.

        Raises:
            Refused: ``Why.UNKNOWN`` there is none; ``Why.BUSY`` the nodes or the time are somebody else's.
        """

    def delete_reservation(self, name: str) -> None:
        """Delete a reservation.

        Raises:
            Refused: ``Why.UNKNOWN`` there is none; ``Why.IN_USE`` a job names it.
        """

    def close(self) -> None:
        """End what the transport has started."""
