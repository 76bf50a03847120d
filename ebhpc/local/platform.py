"""The platform: what the core asks of this host, answered.

Each method is a hook of ``ebhpc.hookspecs``, where what it promises is written.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import ebhpc
from ebhpc.config import SettingsError, SettingsProblem
from ebhpc.faults import point
from ebhpc.hookspecs import hookimpl
from ebhpc.local import checks, payload, remains, slots
from ebhpc.local.capacity import capacity, this_host
from ebhpc.local.engine import Engine, EngineSearch
from ebhpc.local.notebooks import NotebookSearch
from ebhpc.local.places import SessionDirectory, session_directory
from ebhpc.local.preparing import Preparation, prepare
from ebhpc.local.refusals import abilities
from ebhpc.local.removal import remove
from ebhpc.local.settings import Local
from ebhpc.local.supervisor import Launch, settle
from ebhpc.model import (
    Connector,
    DockerContainer,
    Finding,
    Message,
    MessageKind,
    Observation,
    Output,
    Prepared,
    Request,
    ReservedTime,
    Session,
    message,
)
from ebhpc.planning import Node, Snapshot
from ebhpc.plugins import SessionFailed
from ebhpc.staging import outputs
from ebhpc.staging.files import Busy, held, mark, read_json, write_json
from ebhpc.staging.locations import file_name
from ebhpc.staging.refusals import refusals
from ebhpc.staging.volumes import label, places

_LAUNCHING = 30.0
"""Seconds within which a supervisor has begun, or its launch has failed."""


class LocalPlatform:
    """One configured platform of kind ``local``.

    Raises:
        SettingsError: the settings offer more than the host has, or name a user that it has not.
    """

    def __init__(self, name: str, settings: Local, state: Path) -> None:
        self.name = name
        self.settings = settings
        self.state = state
        self.host = this_host()
        self.offered = capacity(settings, self.host)
        self.node = settings.node or self.host.name
        self.engines = EngineSearch(settings.runtime)
        self.notebooks = NotebookSearch(settings)
        try:
            payload.account(settings)
        except KeyError:
            raise SettingsError(
                SettingsProblem(path=("settings", "user"), text=f"this host has no user {settings.user!r}")
            ) from None

    # --- before an offer -------------------------------------------------------------------------------------

    @hookimpl
    def ebhpc_check(self) -> Iterable[Finding]:
        return list(checks.findings(self))

    @hookimpl
    def ebhpc_refuses(self, request: Request) -> Iterable[Message]:
        return list(
            refusals(
                request,
                abilities(request.executable, self.settings, self.offered, self.host, self.engines, self.notebooks),
            )
        )

    @hookimpl
    def ebhpc_snapshot(self, now: int) -> Snapshot:
        node = Node(
            name=self.node,
            cores=self.offered.cores,
            memory=self.offered.memory,
            devices=self.offered.devices,
            features=(self.host.architecture, self.host.system),
        )
        return Snapshot(platform=self.name, taken=now, nodes=(node,))

    # --- a session's life ------------------------------------------------------------------------------------

    @hookimpl
    def ebhpc_hold(self, session: Session) -> str | None:
        # There is no batch system that could keep anything: the broker's own booking is all
        if not isinstance(session.executable, ReservedTime):
            return None
        if session.extends is not None:
            directory = self._of(session.extends)
            self._refuse_ended(directory)
            slots.open_slot(session, directory, self.settings, self.host, self.state)
            return session.extends
        return self._directory(session).name

    @hookimpl
    def ebhpc_release(self, session: Session) -> None:
        return None

    @hookimpl
    def ebhpc_prepare(self, session: Session) -> Prepared | None:
        directory = self._directory(session)
        directory.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A call that was given up may still be at work: its lock says so, and the next try comes later
        with held(directory.prepare_lock, wait=False):
            self._refuse_ended(directory)
            if isinstance(session.executable, ReservedTime):
                return None
            work = Preparation(
                session=session,
                directory=directory,
                settings=self.settings,
                state=self.state,
                engine=self.engines.engine,
            )
            return Prepared(messages=prepare(work))

    @hookimpl
    def ebhpc_submit(self, session: Session) -> str:
        directory = self._directory(session)
        if not directory.path.is_dir():
            raise FileNotFoundError(f"session {session.uuid} was not prepared")
        with held(directory.launch_lock):
            if directory.started.exists():
                return directory.name
            self._refuse_ended(directory)
            if isinstance(session.executable, ReservedTime):
                slots.open_slot(session, directory, self.settings, self.host, self.state)
                return directory.name
            self._write_job(session, directory)
            point("local.launch.before", session.uuid)
            outcome = self._launch(directory)
            point("local.launch.after", session.uuid)
        if outcome == Launch.ENDED:
            self._refuse_ended(directory)
        return directory.name

    @hookimpl
    def ebhpc_observe(self, sessions: Sequence[Session]) -> Iterable[Observation]:
        return [self._observe(session) for session in sessions]

    @hookimpl
    def ebhpc_cancel(self, session: Session) -> None:
        directory = self._directory(session)
        if not directory.path.is_dir():
            return
        point("local.cancel.before", session.uuid)
        mark(directory.cancel)
        point("local.cancel.after", session.uuid)

    @hookimpl
    def ebhpc_cleanup(self, session: Session) -> None:
        directory = self._directory(session)
        if not directory.path.is_dir():
            return
        point("local.cleanup.before", session.uuid)
        mark(directory.closed)  # from here on nobody prepares, and no supervisor begins
        with contextlib.ExitStack() as stack:
            for lock in (directory.launch_lock, directory.prepare_lock, directory.alive_lock):
                stack.enter_context(_held_soon(lock, float(self.settings.grace) * 2 + 5))
            job = read_json(directory.job)
            container = (job or {}).get("container")
            left = remains.end(directory.uuid, directory.name, container)
            if left:
                raise RuntimeError(f"session {session.uuid}: {', '.join(left)} cannot be ended")
            engine = self._engine_of(session)
            self._keep_storage(session, directory, engine)
            for path in (directory.work, directory.stage, directory.storage, slots.inside(directory)):
                remove(path, engine)
            self._prune(directory, engine)
            for path in (directory.job, directory.running, slots.slot_file(directory)):
                path.unlink(missing_ok=True)
        point("local.cleanup.after", session.uuid)

    # --- results ---------------------------------------------------------------------------------------------

    @hookimpl
    def ebhpc_outputs(self, session: Session) -> Iterable[Output]:
        return list(outputs.listed(self._directory(session).output))

    @hookimpl
    def ebhpc_open_output(self, session: Session, name: str) -> BinaryIO | None:
        return outputs.opened(self._directory(session).output, name)

    @hookimpl
    def ebhpc_forget(self, session: Session) -> None:
        directory = self._directory(session)
        if not directory.path.is_dir():
            return
        if directory.lives():
            raise RuntimeError(f"session {session.uuid} still runs")
        point("local.forget.before", session.uuid)
        remove(directory.path, self._engine_of(session))
        point("local.forget.after", session.uuid)

    # --- how -------------------------------------------------------------------------------------------------

    def _directory(self, session: Session) -> SessionDirectory:
        # Time that goes on has the directory of the session that had it before
        return session_directory(self.state, session.uuid) if session.held is None else self._of(session.held)

    def _of(self, name: str) -> SessionDirectory:
        return session_directory(self.state, name.removeprefix("ebhpc-"))

    def _engine_of(self, session: Session) -> Engine | None:
        return self.engines.engine() if isinstance(session.executable, DockerContainer) else None

    def _refuse_ended(self, directory: SessionDirectory) -> None:
        if directory.marked_to_end():
            raise SessionFailed(
                message(MessageKind.FAILED, "The session was ended before its job began.", level="INFO")
            )

    def _write_job(self, session: Session, directory: SessionDirectory) -> None:
        engine = self._engine_of(session)
        try:
            job = payload.job(
                session,
                directory,
                self.settings,
                self.host,
                engine,
                self.name,
                self.state / "claims",
            )
        except LookupError as error:
            raise SessionFailed(
                message(MessageKind.FAILED, "The job cannot be started: {why}.", why=str(error))
            ) from None
        if isinstance(session.executable, DockerContainer) and engine is not None:
            self._write_environment(session.executable, directory, engine)
        write_json(directory.job, job)

    def _write_environment(self, executable: DockerContainer, directory: SessionDirectory, engine: Engine) -> None:
        """Hand the container's environment to the engine by files: a command line is for all to see."""
        plain, secrets = payload.engine_variables(executable, engine)
        file = directory.stage / "environment"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with open(os.open(file, flags, 0o600), "w", encoding="utf-8", newline="") as lines:
            lines.writelines(f"{name}={value}\n" for name, value in plain.items())
        for at, value in enumerate(secrets.values()):
            name = payload.secret_name(directory, at)
            with contextlib.suppress(Exception):
                engine.call("secret", "rm", name)
            engine.call("secret", "create", name, "-", stdin=value.encode("utf-8"))

    def _launch(self, directory: SessionDirectory) -> Launch:
        """Start the supervisor, which outlives this process, and wait until it has begun.

        Raises:
            RuntimeError: it could not begin. Nothing runs, and the call may be repeated.
        """
        package = Path(ebhpc.__file__).parent.parent
        environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TZ") if name in os.environ}
        environment |= {"PYTHONPATH": str(package), "PYTHONDONTWRITEBYTECODE": "1"}
        with open(os.open(directory.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)) as log:
            launcher = subprocess.Popen(
                [sys.executable, "-P", "-m", "ebhpc.local.supervisor", str(directory.path)],
                cwd="/",
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            try:
                code = launcher.wait(_LAUNCHING)
            except subprocess.TimeoutExpired:
                launcher.kill()
                launcher.wait()
                code = Launch.BROKEN
        if code not in (Launch.STARTED, Launch.TAKEN, Launch.ENDED):
            if directory.started.exists():
                return Launch.STARTED
            last = directory.log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
            raise RuntimeError(f"the supervisor of session {directory.uuid} did not begin: {last or code}")
        return Launch(code)

    def _observe(self, session: Session) -> Observation:
        directory = self._directory(session)
        if isinstance(session.executable, ReservedTime):
            return slots.observe(session, directory, self.name, self.node, time.time())
        if not directory.started.exists():
            state = "PENDING" if directory.path.is_dir() and _launching(directory) else "GONE"
            return Observation(uuid=session.uuid, state=state)  # type: ignore[arg-type]  # one of two literals
        status = read_json(directory.status)
        if status is None and not directory.lives():
            status = read_json(directory.status) or self._settle(directory)
        if status is not None:
            return self._ended(session, status)
        running = read_json(directory.running) or {}
        return Observation(
            uuid=session.uuid,
            state="RUNNING",
            node=self.node,
            started=running.get("started"),
            connectors=_connectors(running),
        )

    def _settle(self, directory: SessionDirectory) -> dict[str, Any]:
        """The supervisor is gone, all of it, as after a restart of the host: end what is left, and say so."""
        settle(directory, read_json(directory.job), "the host restarted, or somebody killed it")
        return read_json(directory.status) or {}

    def _ended(self, session: Session, status: dict[str, Any]) -> Observation:
        said = [
            message(words["kind"], words["template"], level=words["level"], **words["values"])
            for words in status.get("messages") or ()
        ]
        return Observation(
            uuid=session.uuid,
            state="SUCCEEDED" if status.get("state") == "SUCCEEDED" else "FAILED",
            exit_code=status.get("exit_code"),
            node=self.node,
            started=status.get("started"),
            ended=status.get("ended"),
            messages=tuple(said),
            connectors=_connectors(status),
        )

    def _keep_storage(self, session: Session, directory: SessionDirectory, engine: Engine | None) -> None:
        """Move what the job wrote to its storage among the results; staged data is not one."""
        status = read_json(directory.status) or {}
        staged = places(session.storage, session.data)
        taken: set[str] = set()
        for at, element in enumerate(session.storage):
            name = file_name(label(element, str(at)), str(at))
            name = name if name not in taken else f"{at}-{name}"
            taken.add(name)
            source = directory.storage / str(at)
            if at not in (status.get("kept_storage") or ()) or not source.is_dir():
                continue
            for place in staged:
                if place.storage == at:
                    remove(source / place.name, engine)
            directory.kept_storage.mkdir(mode=0o700, exist_ok=True)
            if any(source.iterdir()):
                os.replace(source, directory.kept_storage / name)

    def _prune(self, directory: SessionDirectory, engine: Engine | None) -> None:
        """Forget the session's image; remove it where the site wants that and no other session needs it."""
        image = read_json(directory.image)
        if image is None:
            return
        with held(self.state / "images.lock"):
            directory.image.unlink(missing_ok=True)
            if not self.settings.runtime.prune_images or engine is None:
                return
            for other in (self.state / "sessions").glob("*/image.json"):
                if (read_json(other) or {}).get("name") == image["name"]:
                    return
            engine.remove_image(str(image["name"]))


def _connectors(status: dict[str, Any]) -> tuple[Connector, ...]:
    return tuple(
        Connector(status=one["status"], protocol=one["protocol"], location=one["location"])
        for one in status.get("connectors") or ()
    )


def _launching(directory: SessionDirectory) -> bool:
    """Whether somebody launches the supervisor at this moment."""
    try:
        with held(directory.launch_lock, wait=False, make=False):
            return False
    except Busy:
        return True
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _held_soon(lock: Path, patience: float) -> Any:
    """Hold a lock that its holder is about to give up.

    Raises:
        Busy: it has not within ``patience`` seconds.
    """
    until = time.monotonic() + patience
    while True:
        try:
            with held(lock, wait=False):
                yield
                return
        except Busy:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


__all__ = ["LocalPlatform"]
