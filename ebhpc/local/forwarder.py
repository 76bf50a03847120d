"""Carries TCP connections from ports of this host to ports of a container, whatever its network is.

    python -m ebhpc.local.forwarder PID FD:PORT…

The listening sockets are made by the supervisor and inherited (FD). This process then enters the network namespace of
the container's process PID: a socket belongs to the namespace it was made in, so the listening ones stay the host's,
and the ones that connect are the container's. No bridge, no packet filter, no privileged helper is needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine

from ebhpc.local import linux

_CHUNK = 1 << 16
_STARTING = 10.0
"""Seconds for which a refused connection is tried again: the container may not listen yet."""

_AT_ONCE = 512
"""Connections carried at the same time; more wait in the kernel's queue."""


def main() -> None:
    """Run until the supervisor ends this process, or ends itself."""
    linux.die_with_parent(signal.SIGKILL, os.getppid())
    pid = int(sys.argv[1])
    listening = {}
    for pair in sys.argv[2:]:
        descriptor, port = pair.split(":")
        listening[int(port)] = socket.socket(fileno=int(descriptor))
    if os.geteuid() != 0:
        # Without privilege, the namespaces of a rootless container open from inside of its user namespace only
        linux.enter_namespace(f"/proc/{pid}/ns/user", linux.CLONE_NEWUSER)
    linux.enter_namespace(f"/proc/{pid}/ns/net", linux.CLONE_NEWNET)
    asyncio.run(_serve(listening))


async def _serve(listening: dict[int, socket.socket]) -> None:
    gate = asyncio.Semaphore(_AT_ONCE)
    servers = [await asyncio.start_server(_carrier(port, gate), sock=listener) for port, listener in listening.items()]
    await asyncio.gather(*(server.serve_forever() for server in servers))


def _carrier(
    port: int, gate: asyncio.Semaphore
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[None, None, None]]:
    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with gate:
            try:
                inner_reader, inner_writer = await _connect(port)
            except OSError:
                writer.close()
                return
            await asyncio.gather(_copy(reader, inner_writer), _copy(inner_reader, writer))
            for end in (writer, inner_writer):
                end.close()
                with contextlib.suppress(OSError):
                    await end.wait_closed()

    return carry


async def _connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    until = asyncio.get_running_loop().time() + _STARTING
    while True:
        for address in ("127.0.0.1", "::1"):
            with contextlib.suppress(OSError):
                return await asyncio.open_connection(address, port)
        if asyncio.get_running_loop().time() > until:
            raise ConnectionRefusedError(f"nothing listens on port {port} of the container")
        await asyncio.sleep(0.1)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy one direction; its end is passed on, the other direction may go on."""
    try:
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        writer.close()


if __name__ == "__main__":
    main()
