"""Which cores and devices a running session has: a lock on a file for each, which ends with its holder.

Imported by the supervisor: the standard library only.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path


def claim(directory: Path, kind: str, choices: Sequence[int], count: int) -> tuple[list[int], list[int]]:
    """Take ``count`` of ``choices`` (core or device numbers) that nobody else has.

    Returns the numbers, and descriptors that hold them until they are closed. Where too few are free, because the
    site has configured more than the host has, others are shared; never more than there are choices.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    taken: list[int] = []
    descriptors: list[int] = []
    shared: list[int] = []
    for number in choices:
        if len(taken) == count:
            break
        descriptor = os.open(directory / f"{kind}-{number}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            shared.append(number)
        else:
            taken.append(number)
            descriptors.append(descriptor)
    taken += shared[: count - len(taken)]
    return sorted(taken), descriptors
