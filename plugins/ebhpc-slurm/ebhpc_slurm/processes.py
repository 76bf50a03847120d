"""Running a program on this host, or on another over SSH: words, never a shell's line; with a time limit."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from ebhpc_slurm.settings import Ssh
from ebhpc_slurm.transport import NotReached, Unanswered

if TYPE_CHECKING:
    import paramiko

_PASSED = ("PATH", "HOME", "USER", "LOGNAME", "TZ")


class Ran(Struct, frozen=True):
    """How a program ended, and what it printed."""

    code: int
    out: bytes
    err: bytes


class Programs(Protocol):
    """Where programs run."""

    def run(self, words: Sequence[str], *, data: bytes = b"", seconds: float) -> Ran:
        """Run a program to its end.

        Raises:
            Unanswered: it took longer, or the connection was lost: what it asked for may be carried out.
            NotReached: it could not be started.
        """

    def close(self) -> None:
        """End connections."""


class ThisHost:
    """Programs of this host, each behind the words of ``prefix``, with an environment of their own."""

    def __init__(self, prefix: Sequence[str] = (), environment: Mapping[str, str] = {}) -> None:
        self._prefix = tuple(prefix)
        kept = {name: os.environ[name] for name in _PASSED if name in os.environ}
        self.environment = {"PATH": os.defpath, "LC_ALL": "C.UTF-8", **kept, **environment}

    def command(self, words: Sequence[str]) -> list[str]:
        """Return the words by which a program starts."""
        return [*self._prefix, *words]

    def run(self, words: Sequence[str], *, data: bytes = b"", seconds: float) -> Ran:
        """Run a program; one that takes too long is killed with all that it started."""
        try:
            process = subprocess.Popen(
                self.command(words),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self.environment,
                cwd="/",
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise NotReached(f"{words[0]} cannot be started: {error}") from None
        try:
            out, err = process.communicate(data, timeout=seconds)
        except subprocess.TimeoutExpired:
            raise Unanswered(f"{_program(words)} did not answer within {seconds:g} s") from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.kill()
                process.wait()
        return Ran(process.returncode, out, err)

    def close(self) -> None:
        """There is nothing to end."""


class OverSsh:
    """Programs of another host. Its key must be known; the connection is kept, and made anew when it is lost."""

    def __init__(self, ssh: Ssh, environment: Mapping[str, str] = {}) -> None:
        self._ssh = ssh
        self._environment = {"LC_ALL": "C.UTF-8", **environment}
        self._lock = threading.Lock()
        self._client: paramiko.SSHClient | None = None

    def run(self, words: Sequence[str], *, data: bytes = b"", seconds: float) -> Ran:
        """Run a program there; every word is quoted, so that the other host's shell sees words only."""
        import paramiko

        deadline = time.monotonic() + seconds
        variables = [f"{name}={value}" for name, value in self._environment.items()]
        line = shlex.join(["timeout", "-k", "5", f"{seconds:g}", "env", *variables, *words])
        try:
            channel = self._opened(deadline)
        except (paramiko.SSHException, OSError, EOFError) as error:
            self._drop()
            raise NotReached(f"{self._ssh.host} is not reached: {error}") from None
        try:
            channel.settimeout(max(deadline - time.monotonic(), 0.1))
            channel.exec_command(line)  # each word is quoted  # nosec B601
            channel.sendall(data)
            channel.shutdown_write()
            out = _read(channel.recv, channel, deadline)
            err = _read(channel.recv_stderr, channel, deadline)
            if not channel.status_event.wait(max(deadline - time.monotonic(), 0.1)):
                raise TimeoutError
            code = channel.recv_exit_status()
        except TimeoutError:
            raise Unanswered(f"{_program(words)} did not answer within {seconds:g} s") from None
        except (paramiko.SSHException, OSError, EOFError) as error:
            self._drop()
            raise Unanswered(f"the connection to {self._ssh.host} was lost: {error}") from None
        finally:
            channel.close()
        if code == 124:  # the words of timeout(1)
            raise Unanswered(f"{_program(words)} did not answer within {seconds:g} s")
        if code < 0:
            raise Unanswered(f"{_program(words)} was ended on {self._ssh.host}")
        return Ran(code, out, err)

    def close(self) -> None:
        """End the connection."""
        self._drop()

    def _opened(self, deadline: float) -> paramiko.Channel:
        with self._lock:
            client = self._client
            transport = client.get_transport() if client is not None else None
            if transport is None or not transport.is_active():
                client = self._client = self._connected(deadline)
                transport = client.get_transport()
                assert transport is not None
        return transport.open_session(timeout=max(deadline - time.monotonic(), 0.1))

    def _connected(self, deadline: float) -> paramiko.SSHClient:
        import paramiko

        ssh = self._ssh
        client = paramiko.SSHClient()
        client.load_host_keys(str(ssh.known_hosts))
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        left = max(deadline - time.monotonic(), 0.1)
        try:
            client.connect(
                ssh.host,
                port=ssh.port,
                username=ssh.user,
                key_filename=str(ssh.key_file),
                allow_agent=False,
                look_for_keys=False,
                timeout=left,
                banner_timeout=left,
                auth_timeout=left,
            )
        except BaseException:
            client.close()
            raise
        transport = client.get_transport()
        assert transport is not None
        transport.set_keepalive(30)
        return client

    def _drop(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()


def _read(receive: object, channel: paramiko.Channel, deadline: float) -> bytes:
    parts: list[bytes] = []
    while True:
        channel.settimeout(max(deadline - time.monotonic(), 0.1))
        part = receive(1 << 20)  # type: ignore[operator]  # one of the channel's two ways to read
        if not part:
            return b"".join(parts)
        parts.append(part)


def _program(words: Sequence[str]) -> str:
    """Return the program among words that set its environment first."""
    return next((word for word in words if "=" not in word and word != "env"), words[0])
