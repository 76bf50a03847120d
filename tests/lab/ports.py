"""Ports on loopback that several labs on one machine share out among themselves.

A claim is a socket in Linux's abstract namespace: it belongs to the same network namespace as the ports themselves,
and the kernel gives it up when its holder ends, however that ends. The ports are below those that the kernel hands out
for outgoing connections.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

_FIRST, _END = 11000, 32000
_STEP = 50


@contextlib.contextmanager
def ports(count: int) -> Iterator[range]:
    """Claim ``count`` neighbouring ports that nobody listens on; RuntimeError where there are none."""
    steps = -(-count // _STEP)
    blocks = range((_END - _FIRST) // _STEP)
    for start in range(len(blocks) - steps + 1):
        with contextlib.ExitStack() as claims:
            if not all(_claim(claims, block) for block in blocks[start : start + steps]):
                continue
            found = range(_FIRST + start * _STEP, _FIRST + start * _STEP + count)
            if all(_free(port) for port in found):
                yield found
                return
    raise RuntimeError(f"no {count} neighbouring ports are free between {_FIRST} and {_END}")


def _claim(claims: contextlib.ExitStack, block: int) -> bool:
    claim = claims.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    try:
        claim.bind(f"\0ebhpc-lab-ports-{block}")
    except OSError:
        return False
    return True


def _free(port: int) -> bool:
    with socket.socket() as probe:
        # As the daemons do: a port whose last connections still linger is free
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
