"""Long computing beside threads that answer: it is done in portions, with a pause after each.

A thread that computes has the interpreter for itself until it has to give it up, and gets it back soon. With a hundred
thousand jobs to go through, others would wait for it again and again, for seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Pause: TypeAlias = Callable[[], None]
"""Called after each portion: it may sleep."""

PORTION = 500
"""So many items are gone through at a time: about a millisecond."""


def no_pause() -> None:
    """Go on at once: nobody waits."""
