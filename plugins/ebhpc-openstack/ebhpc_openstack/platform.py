"""The platform: what the core asks of a cloud, answered.

Each method is a hook of ``ebhpc.hookspecs``, where what it promises is written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

from ebhpc import batch
from ebhpc.faults import point
from ebhpc.hookspecs import hookimpl
from ebhpc.model import (
    ClusterCompute,
    Finding,
    Message,
    Observation,
    Output,
    Prepared,
    Promise,
    Request,
    Session,
    SimpleCompute,
)
from ebhpc.planning import Snapshot
from ebhpc_openstack import checks, console, leases, results
from ebhpc_openstack.asking import LoginHost
from ebhpc_openstack.cloud import Cloud
from ebhpc_openstack.following import Follower
from ebhpc_openstack.forwarding import Forwards
from ebhpc_openstack.launching import Launches
from ebhpc_openstack.leasing import Leases
from ebhpc_openstack.refusing import refusals
from ebhpc_openstack.settings import OpenStackSettings
from ebhpc_openstack.snapshot import Site, snapshot
from ebhpc_openstack.states import status


class OpenStackPlatform:
    """One project of a cloud.

    ``host`` is how it is asked, ``forwards`` are the ports of this host that lead to servers, where there are such;
    ``clock`` gives POSIX seconds.
    """

    def __init__(
        self,
        name: str,
        settings: OpenStackSettings,
        state: Path,
        host: LoginHost,
        *,
        forwards: Forwards | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.settings = settings
        self.state = state
        self.host = host
        self.clock = clock
        self.site = Site(
            platform=name,
            prefix=settings.prefix,
            flavors=settings.flavors,
            zones=settings.zones,
            devices=settings.devices,
            volumes=settings.volumes.through == "cinder",
        )
        self.cloud = Cloud(host, settings.prefix, storage=settings.volumes.through == "cinder")
        leasing = None
        if settings.leases is not None and settings.leases.offered:
            leasing = Leases(settings.leases, self.cloud, settings.prefix, state, clock)
        self.launches = Launches(settings, self.cloud, clock, leases=leasing)
        self.follower = Follower(settings, self.cloud, self.launches, clock, forwards=forwards)
        self.forwards = forwards

    @hookimpl
    def ebhpc_promises(self) -> Sequence[Promise]:
        # Where others may take what is free, nothing can be kept
        return ("reservation", "queue") if self.settings.capacity == "own" else ("queue",)

    # --- before an offer -------------------------------------------------------------------------------------

    @hookimpl
    def ebhpc_check(self) -> Iterable[Finding]:
        return list(checks.findings(self))

    @hookimpl
    def ebhpc_refuses(self, request: Request) -> Iterable[Message]:
        options = self.settings.jobs.runtime.device_options
        devices = [kind for kind in request.demand.least.devices if kind.partition(":")[0] in options]
        able = batch.abilities(self.settings.jobs, devices=devices, computes=(SimpleCompute, ClusterCompute))
        return [*batch.refusals(request, able), *refusals(request, self.settings)]

    @hookimpl
    def ebhpc_snapshot(self, now: int) -> Snapshot:
        look = self.cloud.look()
        self.launches.learn(look)
        seen = snapshot(look, self.site, now, self.follower.refusals)
        return seen if self.settings.leases is None else leases.left(seen, self.settings.leases)

    # --- a session's life ------------------------------------------------------------------------------------

    @hookimpl
    def ebhpc_prepare(self, session: Session) -> Prepared | None:
        return batch.prepare(session, self.settings.jobs, batch.unix_account(None))

    @hookimpl
    def ebhpc_submit(self, session: Session) -> str:
        native = self.launches.submit(session)
        self.follower.expect()
        return native

    @hookimpl
    def ebhpc_observe(self, sessions: Sequence[Session]) -> Iterable[Observation]:
        return list(self.follower.observe(sessions))

    @hookimpl
    def ebhpc_cancel(self, session: Session) -> None:
        point("openstack.delete.before", session.uuid)
        batch.mark_cancelled(batch.session_directory(self.settings.jobs.root, session.uuid))
        self._take_away(session)
        point("openstack.delete.after", session.uuid)

    @hookimpl
    def ebhpc_cleanup(self, session: Session) -> None:
        self._take_away(session)
        batch.cleanup(session, self.settings.jobs)

    @hookimpl
    def ebhpc_reconcile(self, sessions: Sequence[Session]) -> None:
        self.launches.reconcile(sessions)
        if self.forwards is not None:
            self.forwards.end_others({session.uuid for session in sessions})

    # --- results ---------------------------------------------------------------------------------------------

    @hookimpl
    def ebhpc_outputs(self, session: Session) -> Iterable[Output]:
        return batch.outputs(session, self.settings.jobs)

    @hookimpl
    def ebhpc_open_output(self, session: Session, name: str) -> BinaryIO | None:
        return batch.open_output(session, self.settings.jobs, name)

    @hookimpl
    def ebhpc_forget(self, session: Session) -> None:
        batch.forget(session, self.settings.jobs)

    def _take_away(self, session: Session) -> None:
        """Delete a session's servers; what a job that has ended has told is taken before that."""
        servers = self.launches.of_sessions([session.uuid]).get(session.uuid, [])
        directory = batch.session_directory(self.settings.jobs.root, session.uuid)
        lives = [one.id for one in servers if status(one.status).seen in ("UP", "OFF")]
        if lives and directory.path.is_dir() and not results.has_ended(directory):
            for text in self.cloud.consoles(lives).values():
                told = console.told(text, session.uuid)
                if told.ended is not None:
                    results.ended(directory, told, servers[0].name, {})
        if self.forwards is not None:
            self.forwards.end(session.uuid)
        self.launches.give_back([session.uuid])
        self.launches.delete(servers)
        self.launches.volumes.delete_of([session.uuid])
        self.follower.expect()
