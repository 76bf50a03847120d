"""How the cloud is asked: a program of ours on the login host, kept for as long as the SSH connection lasts.

Each question is one round trip whatever the number of calls in it. Nothing of a user's is part of a command there:
calls are JSON on the program's stdin.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct

from ebhpc.batch.ssh import SshConnection, SshFault
from ebhpc_openstack import agent

if TYPE_CHECKING:
    import paramiko

log = logging.getLogger("ebhpc_openstack")

_BOOT = "import sys; exec(compile(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())).decode(), 'ebhpc', 'exec'))"
_LONGEST_SAID = 500


class CloudFault(Exception):
    """Base of what asking raises."""


class NotReached(CloudFault):
    """The cloud was not reached: nothing was carried out."""


class Unanswered(CloudFault):
    """There was no answer in time, or the connection was lost: what was asked may be carried out, now or later."""


class NotLoggedIn(CloudFault):
    """Keystone does not let us in, or the account has no such cloud."""


class Refused(CloudFault):
    """A service said no. ``status``: its HTTP status; the text in its words."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Call(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One call of a service; ``version`` is the API microversion, ``list`` the list whose further pages are wanted."""

    service: str
    path: str = ""
    method: str = "GET"
    version: str = ""
    json: Any = None
    list: str = ""


class Answer(Struct, frozen=True, kw_only=True):
    """A service's answer; ``status`` 0: there was none, and ``fault`` names what went wrong."""

    status: int
    body: Any = None
    fault: str = ""

    def ok(self) -> Any:
        """Return the body.

        Raises:
            CloudFault: there is none.
        """
        if 200 <= self.status < 300:
            return self.body
        raise self.failure()

    def failure(self) -> CloudFault:
        """Return what is wrong, to be raised."""
        text = _words(self.body)
        if self.status == 0:
            if self.fault in _LOGIN:
                return NotLoggedIn(text)
            if self.fault in _NOT_SENT:
                return NotReached(text)
            return Unanswered(f"{self.fault}: {text}")
        if self.status == 401:
            return NotLoggedIn(text)
        if self.status >= 500:
            return Unanswered(f"{self.status}: {text}")
        return Refused(self.status, text)


_LOGIN = frozenset(
    {
        "Unauthorized",
        "ConfigException",
        "OpenStackCloudException",
        "MissingRequiredOptions",
        "NoMatchingPlugin",
        "MissingAuthPlugin",
        "AuthorizationFailure",
        "NotFound",
        "Forbidden",
        "BadRequest",
    }
)
"""What the SDK raises where credentials are missing, wrong, or expired."""

_NOT_SENT = frozenset(
    {"ConnectFailure", "EndpointNotFound", "EmptyCatalog", "DiscoveryFailure", "UnknownConnectionError"}
)
"""What it raises where nothing was sent."""


class Asker(Protocol):
    """What everything else of the plugin asks the cloud through."""

    def ask(self, calls: Sequence[Call], *, seconds: float | None = None) -> list[Answer]:
        """Make calls at the same time, by one round trip.

        Raises:
            NotReached, Unanswered: none of them has an answer.
        """

    def close(self) -> None:
        """End what was started."""


class LoginHost:
    """The program on the login host. Threads may ask at the same time."""

    def __init__(
        self,
        connection: SshConnection,
        *,
        cloud: str | None,
        python: Sequence[str],
        within: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.connection = connection
        self._cloud = cloud
        self._python = tuple(python)
        self._within = within
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._running: _Running | None = None
        self.sdk = ""

    def ask(self, calls: Sequence[Call], *, seconds: float | None = None) -> list[Answer]:
        """Make calls at the same time, by one round trip.

        Raises:
            NotReached, Unanswered: none of them has an answer.
        """
        seconds = self._within if seconds is None else seconds
        deadline = self._monotonic() + seconds
        running = self._started(deadline)
        told = running.ask(
            [{name: value for name, value in _plain(call).items() if value} for call in calls],
            max(deadline - self._monotonic(), 0.1),
        )
        return [_answer(one) for one in told]

    def close(self) -> None:
        """End the program, and the connection."""
        with self._lock:
            running, self._running = self._running, None
        if running is not None:
            running.close()
        self.connection.close()

    def _started(self, deadline: float) -> _Running:
        with self._lock:
            if self._running is not None and self._running.alive:
                return self._running
            if self._running is not None:
                self._running.close()
            left = max(deadline - self._monotonic(), 0.1)
            try:
                channel = self.connection.run([*self._python, "-c", _BOOT], seconds=left)
            except SshFault as fault:
                raise NotReached(str(fault)) from fault
            running = _Running(channel)
            hello = {"cloud": self._cloud, "seconds": self._within}
            self.sdk = running.begin(hello, max(deadline - self._monotonic(), 0.1))
            self._running = running
            return running


class _Running:
    """One running program: a thread reads its answers."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel
        channel.settimeout(None)
        self._numbers = itertools.count(1)
        self._sending = threading.Lock()
        self._lock = threading.Lock()
        self._waiting: dict[int, _Expected] = {0: _Expected()}
        self._said = b""
        self.alive = True
        threading.Thread(target=self._read, name="openstack-answers", daemon=True).start()
        threading.Thread(target=self._read_complaints, name="openstack-complaints", daemon=True).start()

    def begin(self, hello: dict[str, Any], seconds: float) -> str:
        """Send the program and its first words; return which SDK is there.

        Raises:
            NotReached: it does not run there.
        """
        text = Path(agent.__file__).read_bytes()
        try:
            self._send(str(len(text)).encode() + b"\n" + text + json.dumps(hello).encode() + b"\n", seconds)
            told = self._wait(0, seconds)
        except Unanswered as fault:
            self.close()
            raise NotReached(
                f"the login host's Python does not run our program: {self._complaint() or fault}"
            ) from None
        if "fault" in told:
            self.close()
            raise NotReached(f"the login host's Python has no openstacksdk: {told.get('text')}")
        return str(told.get("sdk"))

    def ask(self, calls: list[dict[str, Any]], seconds: float) -> list[dict[str, Any]]:
        """Ask one question."""
        number = next(self._numbers)
        with self._lock:
            self._waiting[number] = _Expected()
        try:
            self._send(json.dumps({"id": number, "calls": calls}).encode() + b"\n", seconds)
            answers: list[dict[str, Any]] = self._wait(number, seconds)["answers"]
        finally:
            with self._lock:
                self._waiting.pop(number, None)
        return answers

    def close(self) -> None:
        """End it."""
        self.alive = False
        with contextlib.suppress(Exception):
            self._channel.close()

    def _send(self, data: bytes, seconds: float) -> None:
        with self._sending:
            import paramiko  # slow to import

            try:
                self._channel.sendall(data)
            # Of a connection that is lost at this moment paramiko tells by EOFError, and once it knows by OSError
            except (paramiko.SSHException, OSError, EOFError) as error:
                self.alive = False
                why = str(error) or type(error).__name__
                raise Unanswered(f"the connection to the login host was lost: {why}") from None

    def _wait(self, number: int, seconds: float) -> dict[str, Any]:
        expected = self._waiting[number]
        if not expected.come.wait(seconds):
            raise Unanswered(f"the cloud did not answer within {seconds:.0f} s")
        if expected.told is None:
            raise Unanswered(f"the connection to the login host was lost. {self._complaint()}".strip())
        return expected.told

    def _read(self) -> None:
        buffer = b""
        try:
            while part := self._channel.recv(1 << 18):
                buffer += part
                if b"\n" not in part:
                    continue
                *lines, buffer = buffer.split(b"\n")
                for line in lines:
                    self._take(line)
        except (OSError, ValueError) as error:
            log.warning("the program on the login host: %s", error)
        self.alive = False
        with self._lock:
            for expected in self._waiting.values():
                expected.come.set()

    def _take(self, line: bytes) -> None:
        told = json.loads(line)
        with self._lock:
            expected = self._waiting.get(told.get("id"))
        if expected is not None:
            expected.told = told
            expected.come.set()

    def _read_complaints(self) -> None:
        with contextlib.suppress(OSError):
            while part := self._channel.recv_stderr(4096):
                self._said = (self._said + part)[-2000:]

    def _complaint(self) -> str:
        return " ".join(self._said.decode("utf-8", "replace").split())[-_LONGEST_SAID:]


class _Expected:
    """An answer that is waited for; ``told`` None when it has come: there will be none."""

    def __init__(self) -> None:
        self.come = threading.Event()
        self.told: dict[str, Any] | None = None


def _plain(call: Call) -> dict[str, Any]:
    return {
        "service": call.service,
        "path": call.path,
        "method": call.method,
        "version": call.version,
        "json": call.json,
        "list": call.list,
    }


def _answer(told: dict[str, Any]) -> Answer:
    if "fault" in told:
        return Answer(status=0, fault=str(told["fault"]), body={"text": told.get("text", "")})
    body = told.get("body")
    if isinstance(body, dict) and set(body) == {"status", "body"}:  # ours, of a call that went wrong inside
        return Answer(status=int(body["status"]), body=body["body"])
    return Answer(status=int(told["status"]), body=body)


def _words(body: Any) -> str:
    """Return what a service says of a failure: each says it in a form of its own."""
    found: Any = body
    if isinstance(body, dict):
        if isinstance(body.get("errors"), list) and body["errors"]:
            found = body["errors"][0].get("detail") or body["errors"][0].get("title")
        else:
            inner = body.get("error_message") or next(iter(body.values()), "")  # Blazar has it beside a number
            found = inner.get("message", inner) if isinstance(inner, dict) else inner
    text = " ".join(str(found or "it failed without a word").split())
    return text[:_LONGEST_SAID]
