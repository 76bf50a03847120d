"""HTCondor asked through a process of its own, with a time limit; and what can go wrong."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ebhpc.batch.beside import Beside, BesideFault
from ebhpc_htcondor import records
from ebhpc_htcondor.settings import HTCondorSettings

T = TypeVar("T")

_START = 10.0
"""Seconds that the process has for loading HTCondor's libraries."""


class PoolFault(Exception):
    """Base of what asking the pool raises."""


class NotReached(PoolFault):
    """The pool was not reached: nothing was carried out."""


class Unanswered(PoolFault):
    """There was no answer in time: what was asked may be carried out, now or later."""


class Refused(PoolFault):
    """The pool said no, in its words."""


class NotPermitted(Refused):
    """We may not."""


class Impossible(Refused):
    """What was asked can never be."""


NOT_REACHED = (
    "failed to connect",
    "unable to locate",
    "no schedd is named",
    "knows no schedd",
    "failed to find",
    "couldn't contact",
    "failed communication with collector",
    "failed to communicate",
    "communication error",
    "unable to connect",
    "failed to fetch ads",
    "failed to start command",
)
"""What the bindings say when they reached nobody."""

NOT_PERMITTED = (
    "authentication",
    "authenticate",
    "permission denied",
    "denied authorization",
    "not authorized",
    "token",
    "security",
)
"""What they say when somebody did not let us in."""


def fault(kind: str, text: str) -> PoolFault:
    """Return what an exception of the bindings means."""
    words = text.lower()
    if "failed to create job ad" in words:
        return Impossible(text)
    if kind == "PermissionError" or any(some in words for some in NOT_PERMITTED):
        return NotPermitted(text)
    if any(some in words for some in NOT_REACHED):
        return NotReached(text)
    return Refused(text)


class _Answer(msgspec.Struct):
    ok: msgspec.Raw = msgspec.Raw(b"\xc0")
    fault: str | None = None
    error: str = ""


def environment(settings: HTCondorSettings, tokens: Path | None = None) -> dict[str, str]:
    """Return the environment of a process that asks: HTCondor's configuration, and no more of ours than it needs.

    ``tokens``: a directory with the only token that it has: it is to be that user, and nobody else.
    """
    kept = {
        name: os.environ[name] for name in ("PATH", "HOME", "LANG", "PYTHONPATH", "VIRTUAL_ENV") if name in os.environ
    }
    directory = tokens or settings.token_directory
    parameters = {
        "COLLECTOR_HOST": settings.collector,
        "CONDOR_HOST": settings.collector,
        "UID_DOMAIN": settings.domain,
        "FILESYSTEM_DOMAIN": settings.domain,
        "SEC_CLIENT_AUTHENTICATION_METHODS": "IDTOKENS, SCITOKENS, SSL, FS",
        "SEC_CLIENT_AUTHENTICATION": "OPTIONAL",
        "TOOL_DEBUG": "",
        # One request needs several exchanges; our own limit ends the process where these do not
        "QUERY_TIMEOUT": str(max(int(settings.answer_within), 1)),
        **({"SEC_TOKEN_DIRECTORY": str(directory)} if directory is not None else {}),
        **settings.parameters,
    }
    if tokens is not None:
        # Where schedd and broker are on one host, its file system would prove who the broker is, not the user
        parameters |= {
            "SEC_TOKEN_SYSTEM_DIRECTORY": str(tokens),
            "SEC_CLIENT_AUTHENTICATION_METHODS": "IDTOKENS",
            "SEC_CLIENT_AUTHENTICATION": "REQUIRED",
        }
    return {
        **kept,
        **{f"_CONDOR_{name}": value for name, value in parameters.items()},
        "CONDOR_CONFIG": str(settings.condor_config) if settings.condor_config is not None else "ONLY_ENV",
        "EBHPC_SCHEDD": settings.schedd or "",
    }


class Worker:
    """The process. One question at a time; it is started when it is needed, and again when it has ended."""

    def __init__(self, surroundings: Mapping[str, str], *, within: float) -> None:
        self._environment = dict(surroundings)
        self._within = within
        self._lock = threading.Lock()
        self._process: Beside | None = None

    def ask(self, wanted: type[T], question: str, **arguments: object) -> T:
        """Return an answer.

        Raises:
            PoolFault: there was none, or it was no.
        """
        if not self._lock.acquire(timeout=self._within):
            raise NotReached("the process that asks HTCondor is busy with other questions")
        try:
            deadline = time.monotonic() + self._within
            process, fresh = self._started()
            request = msgspec.msgpack.encode((question, arguments))
            try:
                latest = deadline + (_START if fresh else 0)
                process.send(request, latest)
                told = msgspec.msgpack.decode(process.receive(latest), type=_Answer)
            except BesideFault as error:
                self._end()
                raise Unanswered(f"the process that asks HTCondor: {error}") from None
            except msgspec.DecodeError as error:
                self._end()
                raise Unanswered(f"the answer is none: {error}") from None
        finally:
            self._lock.release()
        if told.fault is not None:
            raise fault(told.fault, told.error)
        return msgspec.msgpack.decode(told.ok, type=wanted)

    def cpu_seconds(self) -> float:
        """Return the CPU time that the present process has used."""
        if self._process is None:
            return 0.0
        numbers = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(numbers[11]) + int(numbers[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _started(self) -> tuple[Beside, bool]:
        if self._process is not None and self._process.lives:
            return self._process, False
        self._end()
        try:
            self._process = Beside([sys.executable, "-m", "ebhpc_htcondor.worker"], self._environment)
        except OSError as error:
            raise NotReached(f"the process that asks HTCondor cannot be started: {error}") from None
        return self._process, True

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.end()


class Pool:
    """A pool, asked as the broker, and as its users where jobs are theirs. All methods raise PoolFault."""

    def __init__(self, settings: HTCondorSettings) -> None:
        self._settings = settings
        self.worker = Worker(environment(settings), within=float(settings.answer_within))

    def daemons(self) -> records.Daemons:
        """Return which daemons there are."""
        return self.worker.ask(records.Daemons, "daemons")

    def look(self, since: int | None) -> records.Look:
        """Look at the pool, and at the jobs that ended since."""
        settings = self._settings
        return self.worker.ask(
            records.Look,
            "look",
            slots=settings.slots,
            every=settings.schedds == "all",
            since=since,
            most=settings.history,
            limits=settings.limit_attributes,
            features=settings.features,
        )

    def jobs(self) -> Sequence[records.Job]:
        """Return our jobs in the queue."""
        return self.worker.ask(tuple[records.Job, ...], "jobs", prefix=self._settings.prefix)

    def history(self, sessions: Sequence[str], since: int) -> Sequence[records.Job]:
        """Return jobs of sessions that have left the queue since."""
        return self.worker.ask(tuple[records.Job, ...], "history", sessions=tuple(sessions), since=since)

    def kept(self) -> Sequence[records.Slot]:
        """Return the slots with what their machines keep."""
        return self.worker.ask(tuple[records.Slot, ...], "kept", slots=self._settings.slots)

    def submit(self, description: str, user: str, *, spool: bool = False) -> int:
        """Submit a job as a user, and with ``spool`` send its files to the schedd; return its number."""
        # Sending the files is several exchanges
        within = float(self._settings.answer_within) * (3 if spool else 1)
        return self._as(
            user, records.Submitted, "submit", within, alone=spool, description=description, spool=spool
        ).cluster

    def retrieve(self, jobs: Sequence[str], user: str, directory: Path) -> None:
        """Fetch the files of a user's jobs that have ended from the schedd; nothing is written outside ``directory``.

        Their places stand in the jobs' ads, which are the user's to change: the process that fetches is confined.
        """
        within = float(self._settings.fetch_within)
        self._as(user, int, "retrieve", within, alone=True, jobs=tuple(jobs), directory=str(directory))

    def remove(self, jobs: Sequence[str], user: str, reason: str, only: str = "") -> int:
        """Remove a user's jobs; it is no error that one has gone already. Return how many it were.

        ``only``: an expression; the schedd removes the jobs of which it is true at that moment.
        """
        return self._as(user, int, "act", action="remove", jobs=tuple(jobs), reason=reason, only=only)

    def close(self) -> None:
        """End what was started."""
        self.worker.close()

    def _as(
        self,
        user: str,
        wanted: type[T],
        question: str,
        within: float | None = None,
        *,
        alone: bool = False,
        **arguments: Any,
    ) -> T:
        """Ask as a user; ``alone``: in a process of its own in any case, since it takes long, or does nothing else."""
        seconds = float(self._settings.answer_within) if within is None else within
        if self._settings.run_as == "self":
            if not alone:
                return self.worker.ask(wanted, question, **arguments)
            return self._once(environment(self._settings), seconds, wanted, question, **arguments)
        token = self._token(user)
        # HTCondor remembers who a process is: somebody else needs another process
        with tempfile.TemporaryDirectory(prefix="ebhpc-token-") as folder:
            file = Path(folder) / "token"
            file.touch(mode=0o600)
            file.write_text(f"{token}\n", encoding="ascii")
            return self._once(environment(self._settings, Path(folder)), seconds, wanted, question, **arguments)

    def _once(
        self, surroundings: Mapping[str, str], within: float, wanted: type[T], question: str, **arguments: Any
    ) -> T:
        once = Worker(surroundings, within=within)
        try:
            return once.ask(wanted, question, **arguments)
        finally:
            once.close()

    def _token(self, user: str) -> str:
        words = [word.replace("{user}", user) for word in self._settings.token_command]
        try:
            done = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=float(self._settings.answer_within),
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NotReached(f"token_command cannot be run: {type(error).__name__}") from None
        token = done.stdout.decode("ascii", "replace").strip()
        if done.returncode != 0:
            said = done.stderr.decode("utf-8", "replace").strip()[-300:]
            raise NotReached(f"token_command failed for {user}: {said}")
        if not token or not set(token) <= _TOKEN:
            raise NotReached(f"token_command printed no token for {user}")
        return token


_TOKEN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-=")
