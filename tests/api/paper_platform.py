"""A platform on paper: it has nodes, and runs nothing. What it leaves out is everything after an offer was accepted.

Each hook that is asked before an offer can be replaced, to fail, hang or answer nonsense; ``outputs`` are files by
their names.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO

import ebhpc
from ebhpc.model import Message, Observation, Output, Policy, Quote, Request, Session, Window
from ebhpc.planning import Node, Snapshot, Timeline


class Paper:
    """A platform with ``nodes``; ``replaced`` are functions that stand in for its hooks, by the hook's name."""

    def __init__(
        self,
        name: str,
        nodes: Sequence[Node],
        replaced: Mapping[str, Callable[..., Any]] | None = None,
        outputs: Mapping[str, tuple[str, bytes]] | None = None,
    ) -> None:
        self.name = name
        self.nodes = tuple(nodes)
        self.replaced = dict(replaced or {})
        self.outputs = dict(outputs or {})

    @ebhpc.hookimpl
    def ebhpc_refuses(self, request: Request) -> Sequence[Message]:
        return self._do("ebhpc_refuses", (), request=request)

    @ebhpc.hookimpl
    def ebhpc_policy(self, request: Request, identity: Any, platform: str) -> Policy | None:
        return self._do("ebhpc_policy", None, request=request, identity=identity)

    @ebhpc.hookimpl
    def ebhpc_snapshot(self, now: int) -> Snapshot:
        return Snapshot(platform=self.name, taken=now, nodes=self.nodes)

    @ebhpc.hookimpl
    def ebhpc_submit(self, session: Session) -> str:
        return f"paper-{session.uuid}"

    @ebhpc.hookimpl
    def ebhpc_observe(self, sessions: Sequence[Session]) -> Sequence[Observation]:
        return [Observation(uuid=session.uuid, state="PENDING") for session in sessions]

    @ebhpc.hookimpl
    def ebhpc_cancel(self, session: Session) -> None:
        """There is nothing to end."""

    @ebhpc.hookimpl
    def ebhpc_cleanup(self, session: Session) -> None:
        """There is nothing to clean."""

    @ebhpc.hookimpl
    def ebhpc_outputs(self, session: Session) -> Sequence[Output]:
        return [
            Output(name=name, size=len(content), media_type=media_type)
            for name, (media_type, content) in self.outputs.items()
        ]

    @ebhpc.hookimpl
    def ebhpc_open_output(self, session: Session, name: str) -> BinaryIO | None:
        found = self.outputs.get(name)
        return None if found is None else io.BytesIO(found[1])

    def _do(self, hook: str, otherwise: Any, **arguments: Any) -> Any:
        replaced = self.replaced.get(hook)
        return otherwise if replaced is None else replaced(**arguments)


class PlanningPaper(Paper):
    """One that plans and quotes by itself."""

    @ebhpc.hookimpl
    def ebhpc_windows(self, request: Request, timeline: Timeline, now: int, limit: int) -> Sequence[Window]:
        return self._do("ebhpc_windows", (), request=request, timeline=timeline, now=now, limit=limit)

    @ebhpc.hookimpl
    def ebhpc_costs(self, request: Request, window: Window) -> Quote:
        return self._do("ebhpc_costs", Quote(), request=request, window=window)
