"""Every hook that a plugin may implement. This file is the contract between ebhpc and its plugins.

A plugin is a module, or any object, registered with the plugin manager: by an entry point of the group ``ebhpc``, or
as a file in ``--plugins-dir``. It marks its functions with ``@ebhpc.hookimpl``. ``ebhpc_platform`` builds a platform:
an object whose hookimpl *methods* answer for one configured batch system. A hook of a platform may take as long as its
batch system does: the core calls it on a thread, gives up waiting after the platform's ``timeout``, and treats a hook
that raised, hung or answered something else than is written here as that platform being unavailable. A call that was
given up may still be carried out: whatever it makes must be found again by the session's UUID.

Arguments are given by name: an implementation lists only those that it uses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

import pluggy

if TYPE_CHECKING:
    from pathlib import Path

    from ebhpc.model import (
        Finding,
        Identity,
        Message,
        Observation,
        Output,
        Policy,
        Prepared,
        Promise,
        Quote,
        Request,
        Session,
        Window,
    )
    from ebhpc.planning import Snapshot, Timeline

hookspec = pluggy.HookspecMarker("ebhpc")
hookimpl = pluggy.HookimplMarker("ebhpc")


# --- of a plugin -------------------------------------------------------------------------------------------------


@hookspec(firstresult=True)
def ebhpc_platform(kind: str, name: str, settings: Mapping[str, Any], state: Path, lead: float) -> object | None:
    """Build the platform ``name`` of a ``kind`` that this plugin serves, or return None.

    ``settings`` is the platform's ``settings:`` block as plain data, for ``ebhpc.config.read_settings``; ``state`` a
    directory of the platform's own, which lasts; ``lead`` the seconds before a session's start at which its preparation
    begins. No network here: a batch system that is down must not keep the broker from starting.

    Raises:
        ebhpc.config.SettingsError: a setting is wrong; names the key and what was expected.
    """


@hookspec
def ebhpc_kinds() -> Iterable[type]:
    """Return data-model types that the plugin adds: msgspec Structs with a ``kind`` tag, derived from Executable,
    Compute, Storage, VolumeMount, Data, CostItem or MetricItem of ``ebhpc.model``.
    """


# --- of a platform: what it is -----------------------------------------------------------------------------------


@hookspec
def ebhpc_promises() -> Sequence[Promise]:
    """Say what the platform can promise, its best first; asked once, after it was built. No network here.

    ``reservation``: what is booked for a session is kept for it, and it starts on time. ``queue``: the session's job
    waits in the batch system's queue, and its start is expected, not kept; ``ebhpc_snapshot`` then tells of the
    ``scheduler``, the waiting jobs and the finished ones.
    """


# --- of a platform: asked before an offer ------------------------------------------------------------------------


@hookspec
def ebhpc_check() -> Iterable[Finding]:
    """Say whether the platform reaches its batch system and has what it needs, for ``ebhpc check``."""


@hookspec
def ebhpc_refuses(request: Request) -> Iterable[Message]:
    """Say why this platform cannot run the request at all; nothing means that it can.

    A platform must refuse every executable, compute, storage, volume and data kind that it does not know. The message
    has the element's JSON pointer as its value ``path``.
    """


@hookspec
def ebhpc_policy(request: Request, identity: Identity, platform: str) -> Policy | None:
    """Say what the site's rules are for this user and request on ``platform``.

    Implemented by platforms, and by plugins that are no platform: those are asked for every platform.
    """


@hookspec
def ebhpc_windows(request: Request, timeline: Timeline, now: int, limit: int) -> Sequence[Window]:
    """Find up to ``limit`` windows for the request that differ; without this hook the core's planner does it."""


@hookspec
def ebhpc_costs(request: Request, window: Window) -> Quote:
    """Quote costs and metrics for a window; without this hook the rates of the platform's configuration apply."""


@hookspec
def ebhpc_snapshot(now: int) -> Snapshot:
    """Describe the platform's nodes, jobs and reservations as its batch system tells them now."""


# --- of a platform: a session's life -----------------------------------------------------------------------------


@hookspec
def ebhpc_hold(session: Session) -> str | None:
    """Take the batch system's own reservation for the session; return its native name. Safe to repeat.

    Asked again with other allocations, because a node was lost, it takes those instead. Of an offer it is asked where
    the platform's ``reserve_at`` says so.
    """


@hookspec
def ebhpc_release(session: Session) -> None:
    """Give back what ``ebhpc_hold`` took. Safe to repeat, also when nothing was taken."""


@hookspec
def ebhpc_prepare(session: Session) -> Prepared | None:
    """Stage data, pull images, make storage. May take long, may be repeated after a crash, runs on a thread.

    A session that is cancelled meanwhile gets ``ebhpc_cancel``, so that this hook can stop; a call that was given up
    and ends only after ``ebhpc_cleanup`` must leave nothing.

    Raises:
        ebhpc.plugins.SessionFailed: it can never succeed (a digest that differs, data that is not there); its
            messages are the user's. Any other exception is taken for a passing fault and tried again.
    """


@hookspec
def ebhpc_submit(session: Session) -> str:
    """Start the session's job, to end by ``session.end`` at the latest; return its native identifier.

    Safe to repeat: a job that carries the session's UUID is found, and not started a second time.

    Raises:
        ebhpc.plugins.SessionFailed: it can never succeed.
    """


@hookspec
def ebhpc_observe(sessions: Sequence[Session]) -> Iterable[Observation]:
    """Say what became of sessions that were submitted: one observation each, in any order, by as few calls to the
    batch system as possible.
    """


@hookspec
def ebhpc_reconcile(sessions: Sequence[Session]) -> None:
    """Compare the batch system with ``sessions``: all of the platform's that are not done with, whoever drives them.

    Called when a driver starts, and every five minutes. What is marked as the broker's own and belongs to none of them
    is taken away, unless it is younger than a few minutes: its session may have come after the list was made. What a
    batch system that crashed has forgotten may be made again. Safe to repeat.
    """


@hookspec
def ebhpc_cancel(session: Session) -> None:
    """End the session's job, if there is one. Returns when the request is taken; ``ebhpc_observe`` tells the rest."""


@hookspec
def ebhpc_cleanup(session: Session) -> None:
    """Leave nothing of the session behind but its results; called when its job has ended. Safe to repeat."""


# --- of a platform: results --------------------------------------------------------------------------------------


@hookspec
def ebhpc_outputs(session: Session) -> Iterable[Output]:
    """List the session's stdout, stderr and result files."""


@hookspec
def ebhpc_open_output(session: Session, name: str) -> BinaryIO | None:
    """Open one of the session's outputs for reading; None if there is none of that name."""


@hookspec
def ebhpc_forget(session: Session) -> None:
    """Delete the session's results: the site keeps them no longer. Safe to repeat."""
