"""Ports of servers on an address of the broker's host: forwarded through the login host, which alone reaches them.

A connection of its own carries them, made when the first is needed, so that what users transfer does not hold up what
the cloud is asked.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import threading
from collections.abc import Collection
from typing import TYPE_CHECKING

from ebhpc.batch.ssh import SshConnection, SshFault

if TYPE_CHECKING:
    import paramiko

log = logging.getLogger("ebhpc_openstack")

MOST = 64
"""Connections at the same time to one port of one server; more have to wait."""

_REACHED_WITHIN = 15.0
_PORTION = 1 << 16


class NoPort(Exception):
    """All ports that the site has given for forwarding are taken."""


class Forwards:
    """Ports on one address, each leading to a port of a session's server. Threads may share it.

    ``address`` is this host's, ``ports`` the first and the last one that may be taken.
    """

    def __init__(self, connection: SshConnection, address: str, ports: tuple[int, int]) -> None:
        self._connection = connection
        self._address = address
        self._ports = ports
        self._lock = threading.Lock()
        self._open: dict[str, dict[int, _Forward]] = {}

    def keep(self, uuid: str, host: str, port: int, wanted: int | None = None) -> int:
        """Have a port of this host lead to a port of a session's server; return which one.

        The one that leads there already, else ``wanted`` where it is free, else the first free one.

        Raises:
            NoPort: none is free.
        """
        with self._lock:
            ours = self._open.setdefault(uuid, {})
            there = ours.get(port)
            if there is not None and there.host == host:
                return there.outer
            if there is not None:
                ours.pop(port).close()
            listener = self._listener(wanted)
            forward = _Forward(self._connection, listener, host, port)
            ours[port] = forward
        log.info("session %s: port %d of this host leads to %s:%d", uuid, forward.outer, host, port)
        return forward.outer

    def end(self, uuid: str) -> None:
        """Close the ports of a session, and what goes through them."""
        with self._lock:
            ours = self._open.pop(uuid, {})
        for forward in ours.values():
            forward.close()

    def end_others(self, living: Collection[str]) -> None:
        """Close the ports of all sessions but these."""
        with self._lock:
            gone = [uuid for uuid in self._open if uuid not in living]
        for uuid in gone:
            self.end(uuid)

    def close(self) -> None:
        """Close everything."""
        self.end_others(())
        self._connection.close()

    def prevented(self) -> str | None:
        """Return what keeps ports from being forwarded, in words; None: nothing that can be seen without a server."""
        try:
            self._bound(0).close()
        except OSError as error:
            return f"{self._address} cannot be listened on: {error.strerror}"
        try:
            # Whether anybody answers there does not matter: an sshd that forwards nothing says so at once
            self._connection.reach("127.0.0.1", 9, seconds=_REACHED_WITHIN).close()
        except SshFault as fault:
            return str(fault) if "prohibited" in str(fault).lower() else None
        return None

    def _listener(self, wanted: int | None) -> socket.socket:
        first, last = self._ports
        tried = [wanted] if wanted is not None and first <= wanted <= last else []
        for port in (*tried, *range(first, last + 1)):
            try:
                return self._bound(port)
            except OSError as error:
                if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                    raise NoPort(f"{self._address} cannot be listened on: {error.strerror}") from None
        raise NoPort(f"the ports {first} to {last} of {self._address} are all taken")

    def _bound(self, port: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._address else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            # A broker that starts again takes its ports again, though connections of before still end
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self._address, port))
            listener.listen(MOST)
        except OSError:
            listener.close()
            raise
        return listener


class _Forward:
    """One port. A thread takes connections; each has two threads more, one for each direction."""

    def __init__(self, connection: SshConnection, listener: socket.socket, host: str, port: int) -> None:
        self.host = host
        self.outer = int(listener.getsockname()[1])
        self._port = port
        self._connection = connection
        self._listener = listener
        self._room = threading.BoundedSemaphore(MOST)
        self._lock = threading.Lock()
        self._going: set[socket.socket] = set()
        self._closed = False
        threading.Thread(target=self._take, name=f"openstack-port-{self.outer}", daemon=True).start()

    def close(self) -> None:
        """Take no more connections, and end those that are there."""
        with self._lock:
            self._closed = True
            going = tuple(self._going)
        # Closing alone would not wake the thread that waits for a connection
        for one in (self._listener, *going):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _take(self) -> None:
        while True:
            self._room.acquire()
            try:
                client, _ = self._listener.accept()
            except OSError as error:
                self._room.release()
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ECONNABORTED) and not self._closed:
                    log.warning("port %d: a connection was not taken: %s", self.outer, error)
                    threading.Event().wait(0.5)
                    continue
                return
            # A client that has vanished is to leave its place
            client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            with self._lock:
                if self._closed:
                    client.close()
                    return
                self._going.add(client)
            threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        """Carry one connection both ways until both sides have said all."""
        try:
            channel = self._connection.reach(self.host, self._port, seconds=_REACHED_WITHIN)
            channel.settimeout(None)
            back = threading.Thread(target=_from_server, args=(channel, client), daemon=True)
            back.start()
            _to_server(client, channel)
            back.join()
            channel.close()
        except SshFault as fault:
            log.warning("port %d: a connection was not carried: %s", self.outer, fault)
        finally:
            with self._lock:
                self._going.discard(client)
            client.close()
            self._room.release()


def _to_server(client: socket.socket, channel: paramiko.Channel) -> None:
    try:
        while part := client.recv(_PORTION):
            channel.sendall(part)
        channel.shutdown_write()
    # The other side, or the whole connection, has gone: what is still to be read from it is read by the other thread
    except (OSError, EOFError):
        channel.close()


def _from_server(channel: paramiko.Channel, client: socket.socket) -> None:
    try:
        while part := channel.recv(_PORTION):
            client.sendall(part)
        client.shutdown(socket.SHUT_WR)
    except (OSError, EOFError):
        # Wakes the thread that reads from the client
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)
