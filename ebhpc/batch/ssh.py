"""A kept SSH connection to a login host: programs run there, and TCP connections made from there.

Host keys are strict: a host whose key is not the known one is not talked to. What runs there is given as words, never
as a line of shell. Needs paramiko.
"""

from __future__ import annotations

import contextlib
import logging
import shlex
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta, Struct

from ebhpc.batch.identities import UnixName
from ebhpc.config import Duration, Seconds

if TYPE_CHECKING:
    import paramiko

log = logging.getLogger(__name__)

Port = Annotated[int, Meta(ge=1, le=65535)]
Host = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9.:-]{0,252}\Z", description="a host's name or address")]

_PAUSES = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0)
"""Seconds without a further try after so many failures in a row."""


class SshHost(Struct, frozen=True, kw_only=True):
    """A host to log in to. One of ``key_file`` and ``agent`` must say how."""

    host: Host
    user: UnixName
    known_hosts: Path
    """A file with the host's key, as ssh-keyscan(1) prints it and somebody has compared it."""

    port: Port = 22
    key_file: Path | None = None
    certificate_file: Path | None = None
    """The certificate that belongs to ``key_file``."""

    agent: bool = False
    """Whether keys of the SSH agent of the broker's environment are tried."""

    def __post_init__(self) -> None:
        if self.key_file is None and not self.agent:
            raise ValueError("expected key_file, or agent: true")
        if self.certificate_file is not None and self.key_file is None:
            raise ValueError("certificate_file needs the key_file that it belongs to")


class SshSettings(SshHost, frozen=True, kw_only=True):
    """The login host, and how the connection is kept."""

    jump: SshHost | None = None
    """The host from which alone the login host is reached."""

    connect_within: Duration = Duration(10)
    keep_alive: Seconds = Seconds(15)


class SshFault(Exception):
    """The host was not reached, or the connection was lost."""


class HostKeyRefused(SshFault):
    """The host's key is unknown, or not the one that is known: somebody else may answer in its place."""


class LoginRefused(SshFault):
    """The host does not let us in."""


class SshConnection:
    """The one connection to a host, made when it is needed and again when it was lost. Threads may share it."""

    def __init__(self, settings: SshSettings, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._clients: list[paramiko.SSHClient] = []
        self._failures = 0
        self._rest_until = 0.0
        self._last: SshFault | None = None

    def run(self, words: Sequence[str], *, seconds: float) -> paramiko.Channel:
        """Start a program there; return the channel to its stdin, stdout and stderr. ``seconds``: for the start.

        Raises:
            SshFault: it was not started.
        """
        import paramiko

        deadline = self._monotonic() + seconds
        transport = self._transport(deadline)
        try:
            channel = transport.open_session(timeout=self._left(deadline))
            channel.settimeout(self._left(deadline))
            channel.exec_command(shlex.join(words))  # each word is quoted  # nosec B601
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise self._lost(transport, error) from None
        return channel

    def reach(self, host: str, port: int, *, seconds: float) -> paramiko.Channel:
        """Connect from there to a TCP port; return the channel to it.

        Raises:
            SshFault: nobody answers there, or the login host was not reached.
        """
        import paramiko

        deadline = self._monotonic() + seconds
        transport = self._transport(deadline)
        try:
            return transport.open_channel("direct-tcpip", (host, port), ("127.0.0.1", 0), timeout=self._left(deadline))
        except paramiko.ChannelException as error:
            raise SshFault(f"{self._settings.host} does not reach {host}:{port}: {error.text}") from None
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise self._lost(transport, error) from None

    def close(self) -> None:
        """End the connection; the next use makes another."""
        with self._lock:
            self._drop()

    @property
    def connected(self) -> bool:
        """Whether there is a connection, as far as we know."""
        transport = self._clients[-1].get_transport() if self._clients else None
        return transport is not None and transport.is_active()

    def _transport(self, deadline: float) -> paramiko.Transport:
        with self._lock:
            transport = self._clients[-1].get_transport() if self._clients else None
            if transport is not None and transport.is_active():
                return transport
            self._drop()
            if self._last is not None and self._monotonic() < self._rest_until:
                raise type(self._last)(str(self._last))
            try:
                found = self._connected(deadline)
            except SshFault as fault:
                pause = _PAUSES[min(self._failures, len(_PAUSES) - 1)]
                self._failures += 1
                self._rest_until, self._last = self._monotonic() + pause, fault
                raise
            self._failures, self._last = 0, None
            return found

    def _connected(self, deadline: float) -> paramiko.Transport:
        settings = self._settings
        deadline = min(deadline, self._monotonic() + float(settings.connect_within))
        through = None
        try:
            if settings.jump is not None:
                jump = self._logged_in(settings.jump, deadline, None)
                through = jump.open_channel(
                    "direct-tcpip", (settings.host, settings.port), ("127.0.0.1", 0), timeout=self._left(deadline)
                )
            return self._logged_in(settings, deadline, through)
        except Exception as error:  # noqa: BLE001  # paramiko raises many kinds; those that are not known go on
            self._drop()
            raise self._fault(error) from None

    def _logged_in(self, host: SshHost, deadline: float, through: paramiko.Channel | None) -> paramiko.Transport:
        import paramiko

        client = paramiko.SSHClient()
        self._clients.append(client)
        client.load_host_keys(str(host.known_hosts))
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        keys = [str(file) for file in (host.certificate_file, host.key_file) if file is not None]
        left = self._left(deadline)
        client.connect(
            host.host,
            port=host.port,
            username=host.user,
            key_filename=keys or None,  # type: ignore[arg-type]  # paramiko takes a list, too
            allow_agent=host.agent,
            look_for_keys=False,
            timeout=left,
            banner_timeout=left,
            auth_timeout=left,
            sock=through,
        )
        transport = client.get_transport()
        if transport is None:
            raise paramiko.SSHException("the connection was lost at once")
        transport.set_keepalive(max(int(self._settings.keep_alive), 1))
        return transport

    def _fault(self, error: Exception) -> Exception:
        """Return what went wrong while connecting, in words for operators."""
        import paramiko

        host = self._settings.host
        if isinstance(error, paramiko.BadHostKeyException):
            text = (
                f"the host key of {error.hostname} has CHANGED: it is not the one in known_hosts; somebody else may "
                "answer in its place, so nothing was sent"
            )
            log.error("%s", text)
            return HostKeyRefused(text)
        if isinstance(error, paramiko.SSHException) and "known_hosts" in str(error):
            log.error("%s", error)
            return HostKeyRefused(f"the host key of {host} is not in known_hosts: nothing was sent")
        if isinstance(error, paramiko.AuthenticationException | paramiko.PasswordRequiredException):
            return LoginRefused(f"{host} does not let {self._settings.user} in: {error}")
        if isinstance(error, paramiko.SSHException | OSError | EOFError | ValueError):
            return SshFault(f"{host} is not reached: {str(error) or type(error).__name__}")
        return error

    def _lost(self, transport: paramiko.Transport, error: BaseException) -> SshFault:
        if not transport.is_active():
            self.close()
        else:
            # It is silent: whether it lives, keep-alives will not say for long
            with contextlib.suppress(Exception):
                transport.close()
        return SshFault(f"the connection to {self._settings.host} was lost: {str(error) or type(error).__name__}")

    def _left(self, deadline: float) -> float:
        return max(deadline - self._monotonic(), 0.1)

    def _drop(self) -> None:
        clients, self._clients = self._clients, []
        for client in reversed(clients):
            client.close()
