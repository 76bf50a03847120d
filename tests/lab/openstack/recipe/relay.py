"""Carries TCP between the loopbacks of two network namespaces: relay.py FROM TO PORT... listens on the ports in FROM.

Of each connection the other end is the same port in TO. FROM and TO are files of namespaces. Needs Python 3.12.
"""

import asyncio
import os
import socket
import sys


async def copy(reader, writer):
    try:
        while part := await reader.read(1 << 16):
            writer.write(part)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.close()


async def carry(port, reader, writer):
    try:
        further = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        writer.close()
        return
    await asyncio.gather(copy(reader, further[1]), copy(further[0], writer))
    for one in (further[1], writer):
        one.close()


async def main(start, end, *ports):
    # A socket belongs to the namespace that it was made in
    target = os.open(end, os.O_RDONLY)
    with open(start, "rb") as here:
        os.setns(here.fileno(), os.CLONE_NEWNET)
    listeners = []
    for port in map(int, ports):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(50)
        listeners.append((port, listener))
    os.setns(target, os.CLONE_NEWNET)
    servers = [
        await asyncio.start_server(lambda reader, writer, port=port: carry(port, reader, writer), sock=listener)
        for port, listener in listeners
    ]
    await asyncio.gather(*(server.serve_forever() for server in servers))


asyncio.run(main(*sys.argv[1:]))
