"""What a driver decides for a session: pure data."""

from __future__ import annotations

from msgspec import Struct

from ebhpc.model import Phase
from ebhpc.store import Change


class Move(Struct, frozen=True, kw_only=True):
    """A step's result: the phase to move to (None: it stays), why, and what else changes."""

    there: Phase | None = None
    cause: str
    change: Change = Change()
