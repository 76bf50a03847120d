"""What the command's exit code tells a script. The documentation has the same table; a test compares them."""

from __future__ import annotations

from enum import IntEnum

from ebhpc.client.errors import BrokerError, Conflict, NotAuthorised, NotFound, Refused, Unreachable
from ebhpc.model.phases import Phase


class Exit(IntEnum):
    """Exit codes of the user commands."""

    DONE = 0
    FAULT = 1
    USAGE = 2
    NO = 3
    FAILED = 4
    ENDED = 5
    UNREACHABLE = 6
    NOT_AUTHORISED = 7
    NOT_POSSIBLE = 8
    INTERRUPTED = 130
    PIPE = 141


MEANINGS = {
    Exit.DONE: "done; a session that was followed has COMPLETED",
    Exit.FAULT: "something went wrong in ebhpc, on this machine, or in the broker",
    Exit.USAGE: "the command line, the configuration or FILE cannot be understood",
    Exit.NO: "the broker said NO, or refused the request as malformed",
    Exit.FAILED: "the session FAILED",
    Exit.ENDED: "the session was CANCELLED or REJECTED, or the offer has EXPIRED",
    Exit.UNREACHABLE: "the broker could not be reached, or did not answer",
    Exit.NOT_AUTHORISED: "not authorised: no or wrong credentials, or someone else's session",
    Exit.NOT_POSSIBLE: "there is no such session, or it does not allow that in its present phase",
    Exit.INTERRUPTED: "interrupted by Ctrl-C or SIGTERM; the session goes on unless it says otherwise",
    Exit.PIPE: "the reader of stdout went away",
}


def exit_of_error(error: BrokerError) -> Exit:
    """Return the exit code for an error of the client."""
    match error:
        case Unreachable():
            return Exit.UNREACHABLE
        case NotAuthorised():
            return Exit.NOT_AUTHORISED
        case NotFound() | Conflict():
            return Exit.NOT_POSSIBLE
        case Refused():
            return Exit.NO
        case _:
            return Exit.FAULT


def exit_of_phase(phase: Phase | None) -> Exit:
    """Return the exit code for a session that was followed and is now in ``phase``."""
    if phase is Phase.FAILED:
        return Exit.FAILED
    if phase in (Phase.CANCELLED, Phase.REJECTED, Phase.EXPIRED):
        return Exit.ENDED
    return Exit.DONE
