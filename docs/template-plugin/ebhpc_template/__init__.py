"""A platform plugin for ebhpc: runs commands on this host, by the small batch system in ``job.py``.

Copy it, and replace what it says to ``job.py`` by what you say to your batch system.
"""

from __future__ import annotations

import json
import mimetypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from msgspec import Meta, Struct

from ebhpc import hookimpl
from ebhpc.config import read_settings
from ebhpc.model import (
    Allocation,
    Executable,
    Finding,
    Message,
    MessageKind,
    Observation,
    Output,
    Request,
    Session,
    SimpleCompute,
    message,
)
from ebhpc.planning import Node, RunningJob, Snapshot
from ebhpc.plugins import SessionFailed
from ebhpc_template import job as batch


class ShellCommand(Executable, tag="https://example.org/kinds/executable/shell-command.yaml"):
    """A kind of executable of our own: a command and its arguments."""

    command: list[str] | None = None


class TemplateSettings(Struct, frozen=True, kw_only=True):
    """The platform's ``settings:``. Memory in MiB."""

    cores: Annotated[int, Meta(ge=1)] = 1
    memory: Annotated[int, Meta(ge=1)] = 1024


@hookimpl
def ebhpc_kinds() -> list[type]:
    """Add our kind of executable to the data model."""
    return [ShellCommand]


@hookimpl
def ebhpc_platform(kind: str, name: str, settings: Mapping[str, Any], state: Path) -> object | None:
    """Build a platform of our kind."""
    if kind != "template":
        return None
    return TemplatePlatform(name, read_settings(TemplateSettings, settings), state)


class TemplatePlatform:
    """One configured platform: its name, its settings, and a directory for each job under ``state``."""

    def __init__(self, name: str, settings: TemplateSettings, state: Path) -> None:
        self.name = name
        self.settings = settings
        self.jobs = state / "jobs"

    # --- before an offer ---------------------------------------------------------------------------------

    @hookimpl
    def ebhpc_check(self) -> Iterator[Finding]:
        self.jobs.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.jobs).free // 2**20
        yield Finding(
            level="INFO" if free >= 100 else "WARN",
            subject=self.name,
            text=f"{free} MiB free for results in {self.jobs}",
        )

    @hookimpl
    def ebhpc_refuses(self, request: Request) -> Iterator[Message]:
        """Say no to every kind that we do not know; the core knows from the snapshot what is too large."""
        if not isinstance(request.executable, ShellCommand):
            yield not_supported("/executable", "this platform runs shell commands only")
        elif not request.executable.command:
            yield message(MessageKind.MISSING_VALUE, "a shell command needs a command", path="/executable/command")
        if type(request.compute) is not SimpleCompute:
            yield not_supported("/compute", "this platform has simple compute resources only")
        if request.volumes:
            yield not_supported("/compute/volumes", "this platform mounts no volumes")
        if request.storage:
            yield not_supported("/storage", "this platform has no storage")
        if request.data:
            yield not_supported("/data", "this platform fetches no data")

    @hookimpl
    def ebhpc_snapshot(self, now: int) -> Snapshot:
        """One node, and the jobs that run on it; each names its session, so that the core does not count it twice."""
        running = []
        for directory in self._directories():
            if batch.alive(directory) and not (directory / "end.json").exists():
                job = read_json(directory / "job.json")
                running.append(
                    RunningJob(
                        id=directory.name,
                        session=directory.name,
                        started=job["start"],
                        ends=job["end"],
                        allocations=(Allocation(node=self.name, cores=job["cores"], memory=job["memory"]),),
                    )
                )
        node = Node(name=self.name, cores=self.settings.cores, memory=self.settings.memory)
        return Snapshot(platform=self.name, taken=now, nodes=(node,), running=tuple(running))

    # --- a session's life --------------------------------------------------------------------------------

    @hookimpl
    def ebhpc_submit(self, session: Session) -> str:
        """Start the job; a second call finds the claim of the first, and starts nothing."""
        directory = self._directory(session)
        directory.mkdir(parents=True, exist_ok=True)
        if (directory / "cancelled").exists():
            raise SessionFailed("the job was cancelled before it started")
        assert isinstance(session.executable, ShellCommand)
        (share,) = session.allocations
        job = {
            "command": session.executable.command,
            "start": session.start,
            "end": session.end,
            "cores": share.cores,
            "memory": share.memory,
        }
        if not (directory / "claim").exists():
            (directory / "job.json").write_text(json.dumps(job), encoding="utf-8")
            with (directory / "runner.log").open("ab") as log:
                subprocess.run(
                    [sys.executable, "-I", batch.__file__, str(directory)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    check=True,
                )
        return session.uuid

    @hookimpl
    def ebhpc_observe(self, sessions: Sequence[Session]) -> Iterator[Observation]:
        for session in sessions:
            yield self._observe(session)

    def _observe(self, session: Session) -> Observation:
        directory = self._directory(session)
        if not (directory / "claim").exists():
            return Observation(uuid=session.uuid, state="GONE")
        alive = batch.alive(directory)  # before the end is looked for: it is written before the claim is free
        if not (directory / "end.json").exists():
            if not alive:
                lost = message(MessageKind.FAILED, "the job vanished, and nobody knows how it ended")
                return Observation(uuid=session.uuid, state="FAILED", messages=(lost,))
            begun = (directory / "group").exists()
            return Observation(uuid=session.uuid, state="RUNNING" if begun else "PENDING", node=self.name)
        end = read_json(directory / "end.json")
        reason = end["reason"]
        kind = MessageKind.TIME_LIMIT if reason == "time limit" else MessageKind.FAILED
        return Observation(
            uuid=session.uuid,
            state="SUCCEEDED" if end.get("exit") == 0 and reason is None else "FAILED",
            exit_code=end.get("exit"),
            node=self.name,
            started=end.get("started"),
            ended=end["ended"],
            messages=(message(kind, "the command: {reason}", reason=reason),) if reason else (),
        )

    @hookimpl
    def ebhpc_cancel(self, session: Session) -> None:
        """End the job. The mark stays, so that a submission which is still under way starts nothing."""
        directory = self._directory(session)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "cancelled").touch()
        group = directory / "group"
        if group.exists() and batch.alive(directory):
            batch.kill(int(group.read_text(encoding="utf-8")))

    @hookimpl
    def ebhpc_cleanup(self, session: Session) -> None:
        shutil.rmtree(self._directory(session) / "tmp", ignore_errors=True)

    # --- results -----------------------------------------------------------------------------------------

    @hookimpl
    def ebhpc_outputs(self, session: Session) -> Iterator[Output]:
        for name, path in self._outputs(session).items():
            media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
            if name in ("stdout", "stderr"):
                media_type = "text/plain"
            yield Output(name=name, size=path.stat().st_size, media_type=media_type)

    @hookimpl
    def ebhpc_open_output(self, session: Session, name: str) -> BinaryIO | None:
        path = self._outputs(session).get(name)
        return None if path is None else path.open("rb")

    @hookimpl
    def ebhpc_forget(self, session: Session) -> None:
        shutil.rmtree(self._directory(session), ignore_errors=True)

    def _outputs(self, session: Session) -> dict[str, Path]:
        """Return the files that may be given out by name: none outside of the job's directory, by no link."""
        directory = self._directory(session)
        paths = [directory / "stdout", directory / "stderr"]
        if not (directory / "results").is_symlink():
            for folder, _, files in os.walk(directory / "results"):
                paths += (Path(folder, name) for name in files)
        return {str(path.relative_to(directory)): path for path in paths if path.is_file() and not path.is_symlink()}

    def _directory(self, session: Session) -> Path:
        return self.jobs / session.uuid

    def _directories(self) -> list[Path]:
        return sorted(self.jobs.iterdir()) if self.jobs.exists() else []


def not_supported(path: str, reason: str) -> Message:
    """Make a refusal of the element at ``path``."""
    return message(MessageKind.NOT_SUPPORTED, "{reason}", path=path, reason=reason)


def read_json(path: Path) -> dict[str, Any]:
    """Read one of the job's files."""
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return data
