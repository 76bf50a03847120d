"""What ``ebhpc serve`` and its parts agree on: a part ends in order when ``serve`` does, however that ended."""

from __future__ import annotations

import os
import signal
from collections.abc import MutableMapping

from ebhpc.local.linux import die_with_parent

_SERVED_BY = "EBHPC_SERVED_BY"


def environment_of_parts() -> dict[str, str]:
    """Return the environment of ``serve``'s parts, by which they know whose they are."""
    return {**os.environ, _SERVED_BY: str(os.getpid())}


def end_with_serve(environment: MutableMapping[str, str] = os.environ) -> None:
    """As a part of ``serve``, have the kernel send SIGTERM to this process when ``serve`` ends, by SIGKILL too.

    It holds until this process ends, also where it becomes another program; those that it starts do not know of it.
    """
    parent = environment.pop(_SERVED_BY, "")
    if parent.isdecimal():
        die_with_parent(signal.SIGTERM, int(parent))
