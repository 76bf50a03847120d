"""The process that learns for a driver: ``python -m ebhpc.driver.learning_process FD``.

Tasks come and results go through the socket ``FD``; the process ends when the driver's end of it is closed.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Sequence

from ebhpc.driver.learning import Learner, serve

NICENESS = 10


def main(arguments: Sequence[str]) -> int:
    """Serve the driver that has started this process."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends when the driver does
    os.nice(NICENESS)
    with socket.socket(fileno=int(arguments[0])) as wire:
        serve(wire, Learner())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
