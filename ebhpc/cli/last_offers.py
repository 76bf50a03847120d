"""The offers of the last `ebhpc offers`, so that the next command may name one in few letters."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

import click
import msgspec

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SHORTEST = 4

NAMES_OF_SESSIONS = (
    "An offer or session is named by its UUID; those of the last 'ebhpc offers' also by the number in its "
    "table, or by the first letters of the UUID."
)
"""What every command that takes an offer or a session says at the end of its help."""


class LastOffers(msgspec.Struct, frozen=True, kw_only=True):
    """Which broker (its URL) answered, the offer set's UUID, and the offers' in the order of the table."""

    broker: str
    offerset: str | None
    offers: list[str]


def state_file(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the file that remembers, below XDG_STATE_HOME."""
    folder = environment.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(folder) / "ebhpc" / "offers.json"


def remember(last: LastOffers, file: Path) -> None:
    """Write ``last`` to ``file``, whole or not at all, readable by its owner alone.

    Raises:
        OSError: it cannot be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, part = tempfile.mkstemp(dir=file.parent, prefix=".offers-")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(msgspec.json.encode(last))
        Path(part).replace(file)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def recall(file: Path) -> LastOffers | None:
    """Read what was remembered; None where nothing was, or the file holds something else."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=LastOffers)
    except (OSError, msgspec.DecodeError):
        return None


def which(text: str, broker: str, file: Path) -> str:
    """Return the UUID that ``text`` means: itself, or a number of the last offers of ``broker``, or
    the end or beginning of the UUID of one.

    Raises:
        click.UsageError: it means none, or several.
    """
    wanted = text.lower()
    if _UUID.fullmatch(wanted):
        return wanted
    last = recall(file)
    if last is None:
        raise click.UsageError(
            f"{text!r} is no UUID, and there are no offers of an earlier 'ebhpc offers' to choose from."
        )
    if last.broker != broker:
        raise click.UsageError(f"{text!r} is no UUID, and the last 'ebhpc offers' asked another broker, {last.broker}.")
    if wanted.isdecimal() and len(wanted) < _SHORTEST:
        number = int(wanted)
        if 1 <= number <= len(last.offers):
            return last.offers[number - 1]
        raise click.UsageError(f"There is no offer {number}: the last 'ebhpc offers' brought {len(last.offers)}.")
    if len(wanted) < _SHORTEST:
        raise click.UsageError(f"{text!r} is too short: give at least {_SHORTEST} letters of the UUID.")
    # UUIDs of one moment begin alike, so the end is what is shown
    found = [uuid for uuid in last.offers if uuid.lower().endswith(wanted)]
    found = found or [uuid for uuid in last.offers if uuid.lower().startswith(wanted)]
    if len(found) == 1:
        return found[0]
    raise click.UsageError(
        f"{text!r} is the end or beginning of {'several' if found else 'none'} of the UUIDs of the last 'ebhpc offers'."
        + ("" if found else " Give the whole UUID.")
    )
