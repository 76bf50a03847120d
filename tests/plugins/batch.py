"""A platform for tests of the way that hooks are called: a batch system in memory whose every hook can be replaced.

It leaves out time and processes: a job has run as soon as it is submitted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ebhpc
from ebhpc.config import PlatformConfig
from ebhpc.model import (
    Allocation,
    Demand,
    Executable,
    ExecutionRequest,
    Identity,
    JupyterNotebook,
    Message,
    Observation,
    Phase,
    Quote,
    Request,
    Session,
    Shape,
    SimpleCompute,
)
from ebhpc.planning import Node, Snapshot
from ebhpc.plugins import Platform, load_plugins

OWNER = Identity(uuid="8f9d2a38-6d0a-4cf1-9d50-2c8f8fbd9f0a", username="ada")


class Batch:
    """A platform; ``replaced`` are functions that stand in for what its hooks do, by the hook's name."""

    def __init__(self, name: str, replaced: Mapping[str, Callable[..., Any]] | None = None) -> None:
        self.name = name
        self.replaced = dict(replaced or {})
        self.submitted: list[str] = []

    def do(self, hook: str, default: Callable[..., Any], *arguments: object) -> Any:
        return self.replaced.get(hook, default)(*arguments)

    @ebhpc.hookimpl
    def ebhpc_refuses(self, request: Request) -> Sequence[Message]:
        return self.do("ebhpc_refuses", lambda request: (), request)  # type: ignore[no-any-return]

    @ebhpc.hookimpl
    def ebhpc_snapshot(self, now: int) -> Snapshot:
        node = Node(name="n1", cores=4, memory=4096)
        return self.do(  # type: ignore[no-any-return]
            "ebhpc_snapshot", lambda now: Snapshot(platform=self.name, taken=now, nodes=(node,)), now
        )

    @ebhpc.hookimpl
    def ebhpc_submit(self, session: Session) -> str:
        def submit(session: Session) -> str:
            if session.uuid not in self.submitted:
                self.submitted.append(session.uuid)
            return f"job-{session.uuid}"

        return self.do("ebhpc_submit", submit, session)  # type: ignore[no-any-return]

    @ebhpc.hookimpl
    def ebhpc_observe(self, sessions: Sequence[Session]) -> Sequence[Observation]:
        return self.do(  # type: ignore[no-any-return]
            "ebhpc_observe",
            lambda sessions: [Observation(uuid=item.uuid, state="SUCCEEDED") for item in sessions],
            sessions,
        )

    @ebhpc.hookimpl
    def ebhpc_cancel(self, session: Session) -> None:
        return self.do("ebhpc_cancel", lambda session: None, session)  # type: ignore[no-any-return]

    @ebhpc.hookimpl
    def ebhpc_cleanup(self, session: Session) -> None:
        return self.do("ebhpc_cleanup", lambda session: None, session)  # type: ignore[no-any-return]


class FullBatch(Batch):
    """A platform that implements the hooks that may be left out as well."""

    @ebhpc.hookimpl
    def ebhpc_check(self) -> Any:
        return self.do("ebhpc_check", lambda: ())

    @ebhpc.hookimpl
    def ebhpc_policy(self, request: Request, identity: Identity) -> Any:
        return self.do("ebhpc_policy", lambda request, identity: None, request, identity)

    @ebhpc.hookimpl
    def ebhpc_windows(self, request: Request, now: int, limit: int) -> Any:
        return self.do("ebhpc_windows", lambda request, now, limit: (), request, now, limit)

    @ebhpc.hookimpl
    def ebhpc_costs(self, request: Request) -> Any:
        return self.do("ebhpc_costs", lambda request: Quote(), request)

    @ebhpc.hookimpl
    def ebhpc_hold(self, session: Session) -> Any:
        return self.do("ebhpc_hold", lambda session: None, session)

    @ebhpc.hookimpl
    def ebhpc_release(self, session: Session) -> Any:
        return self.do("ebhpc_release", lambda session: None, session)

    @ebhpc.hookimpl
    def ebhpc_prepare(self, session: Session) -> Any:
        return self.do("ebhpc_prepare", lambda session: None, session)

    @ebhpc.hookimpl
    def ebhpc_outputs(self, session: Session) -> Any:
        return self.do("ebhpc_outputs", lambda session: (), session)

    @ebhpc.hookimpl
    def ebhpc_open_output(self, session: Session, name: str) -> Any:
        return self.do("ebhpc_open_output", lambda session, name: None, session, name)

    @ebhpc.hookimpl
    def ebhpc_forget(self, session: Session) -> Any:
        return self.do("ebhpc_forget", lambda session: None, session)


def platform(
    replaced: Mapping[str, Callable[..., Any]] | None = None,
    *,
    full: bool = False,
    clock: Callable[[], float] | None = None,
    **config: Any,
) -> Platform:
    """Return a registered platform ``batch`` whose hooks do what ``replaced`` says."""
    pm = load_plugins()
    implementation = (FullBatch if full else Batch)("batch", replaced)
    pm.register(implementation, name="batch")
    settings = PlatformConfig(name="batch", kind="batch", **config)
    options = {} if clock is None else {"clock": clock}
    return Platform(pm, settings, implementation, **options)


def request(executable: Executable | None = None, *, earliest: int = 1000, latest: int = 5000) -> Request:
    """Return a request for one core and 1 GiB for 600 s."""
    executable = executable or JupyterNotebook(location="https://example.org/a.ipynb")
    return Request(
        document=ExecutionRequest(executable=executable),
        executable=executable,
        compute=SimpleCompute(),
        demand=Demand(least=Shape(cores=1, memory=1024), duration=600, earliest=earliest, latest=latest),
    )


def session(
    uuid: str = "0c8f3f0e-5b5c-4f0f-8a7e-6b1f1d2c3b4a",
    *,
    executable: Executable | None = None,
    platform: str = "batch",
    start: int = 1000,
    end: int = 1600,
) -> Session:
    """Return an accepted session with one core and 1 GiB."""
    return Session(
        uuid=uuid,
        name=None,
        owner=OWNER,
        platform=platform,
        phase=Phase.ACCEPTED,
        executable=executable or JupyterNotebook(location="https://example.org/a.ipynb"),
        compute=SimpleCompute(),
        allocations=(Allocation(node="n1", cores=1, memory=1024),),
        start=start,
        latest=start,
        end=end,
        duration=end - start,
    )


def plugin_file(folder: Path, name: str, text: str) -> Path:
    """Write a plugin to a file of a plugins directory."""
    folder.mkdir(exist_ok=True, parents=True)
    path = folder / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(text, encoding="utf-8")
    return path
