"""Every state of a job and every reason for which one is held, and what it means. docs/operators/htcondor.md shows
these tables; the numbers and names are those of HTCondor's manual (Job ClassAd Attributes)."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from ebhpc.model import MessageKind
from ebhpc.model.messages import Level

Seen = Literal["PENDING", "RUNNING", "SUCCEEDED", "FAILED"]

IDLE, RUNNING, REMOVED, COMPLETED, HELD, TRANSFERRING, SUSPENDED = 1, 2, 3, 4, 5, 6, 7


class State(Struct, frozen=True):
    """What a status means for the session, and in words for its user (none: nothing is to be told)."""

    seen: Seen
    words: str = ""
    level: Level = "INFO"


STATES: dict[int, State] = {
    IDLE: State("PENDING"),
    RUNNING: State("RUNNING"),
    REMOVED: State("FAILED", "the job was removed from the pool", "ERROR"),
    COMPLETED: State("SUCCEEDED"),
    HELD: State("PENDING", "the pool holds the job", "WARN"),
    TRANSFERRING: State("RUNNING"),
    SUSPENDED: State("RUNNING", "the pool has suspended the job", "WARN"),
}

LIVE = frozenset({RUNNING, TRANSFERRING, SUSPENDED})
ENDED = frozenset({REMOVED, COMPLETED})

SPOOLING = 16
"""HoldReasonCode of a job whose files are being sent to the schedd."""


class Hold(Struct, frozen=True):
    """Why a job is held, in words for its user.

    ``final``: nobody will let it go on, so its session has failed; else somebody may, and it counts as waiting.
    """

    words: str
    final: bool = True
    kind: MessageKind = MessageKind.FAILED


HOLDS: dict[int, Hold] = {
    1: Hold("the job's user, or an administrator, holds it", final=False),
    3: Hold("a rule that came with the job holds it"),
    4: Hold("the job's credentials cannot be used"),
    5: Hold("a rule that came with the job cannot be evaluated"),
    6: Hold("the job's program could not be started"),
    7: Hold("the job's output file could not be opened"),
    8: Hold("the job's input file could not be opened"),
    9: Hold("the job's output stream could not be opened"),
    10: Hold("the job's input stream could not be opened"),
    11: Hold("the transfer of the job's files was not confirmed"),
    12: Hold("the job's output files could not be brought back"),
    13: Hold("the job's input files could not be brought to the machine"),
    14: Hold("the job's directory cannot be entered on the machine"),
    15: Hold("the job was submitted on hold", final=False),
    16: Hold("the job's input files are being spooled", final=False),
    17: Hold("the schedd's and the job's versions do not fit together"),
    18: Hold("the transfer of the job's files was not begun as agreed"),
    19: Hold("a hook on the machine could not prepare the job"),
    20: Hold("the job's time to start was missed"),
    21: Hold("the machine holds the job", final=False),
    22: Hold("the job's log file cannot be written"),
    23: Hold("the machine cannot use the account of the job's user"),
    24: Hold("the schedd has no shadow for such a job"),
    25: Hold("the times at which the job shall run again are wrong"),
    26: Hold("a rule of the pool holds the job"),
    27: Hold("a rule of the pool cannot be evaluated for the job"),
    32: Hold("the job's input files are larger than they may be", kind=MessageKind.RESOURCE_LIMIT),
    33: Hold("the job's output files are larger than they may be", kind=MessageKind.RESOURCE_LIMIT),
    34: Hold("the job wanted more than it had of its machine", kind=MessageKind.RESOURCE_LIMIT),
    35: Hold("the job's container image cannot be used"),
    36: Hold("the job could not save its state"),
    45: Hold("the machine's container runtime does not work"),
    46: Hold("the job had its machine for longer than it may", kind=MessageKind.TIME_LIMIT),
    47: Hold("the job ran for longer than it may", kind=MessageKind.TIME_LIMIT),
    48: Hold("a hook of the schedd could not prepare the job"),
    49: Hold("the job's primary group could not be taken on"),
}
"""HoldReasonCode. Those that are not here are taken for final; HTCondor's own words are always told."""


def hold(code: int | None) -> Hold:
    """Return what a hold means."""
    known = HOLDS.get(code or 0)
    return known or Hold(f"the pool holds the job (code {code})")


def state(status: int) -> State | None:
    """Return what a status means; None: nobody knows the number."""
    return STATES.get(status)
