"""The platform: what the core asks of an HTCondor pool, answered.

Each method is a hook of ``ebhpc.hookspecs``, where what it promises is written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from msgspec.structs import replace

from ebhpc import batch
from ebhpc.faults import point
from ebhpc.hookspecs import hookimpl
from ebhpc.model import (
    ClusterCompute,
    Finding,
    Identity,
    Message,
    Observation,
    Output,
    Policy,
    Prepared,
    Promise,
    Request,
    Session,
    SimpleCompute,
)
from ebhpc.planning import Snapshot
from ebhpc.plugins import SessionFailed
from ebhpc_htcondor import carrying, checks
from ebhpc_htcondor.asking import Pool
from ebhpc_htcondor.following import Follower
from ebhpc_htcondor.identities import mapped
from ebhpc_htcondor.refusing import refusals
from ebhpc_htcondor.reserving import Reservations
from ebhpc_htcondor.settings import HTCondorSettings, Mapped
from ebhpc_htcondor.snapshot import Site, snapshot
from ebhpc_htcondor.submitting import Jobs

_LATE = 30
"""Seconds after which a job that has ended is in its schedd's history."""


class HTCondorPlatform:
    """One configured pool. ``pool`` is how it is asked; ``clock`` gives POSIX seconds."""

    def __init__(
        self,
        name: str,
        settings: HTCondorSettings,
        state: Path,
        pool: Pool,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.settings = settings
        self.state = state
        self.pool = pool
        self.clock = clock
        self.site = Site(platform=name, prefix=settings.prefix, licences=settings.licences)
        self.jobs = Jobs(settings, pool, clock)
        self.bringer = carrying.Bringer(settings, pool, clock) if settings.files == "transfer" else None
        self.follower = Follower(settings, pool, clock, bringer=self.bringer)
        self.reservations = Reservations(settings, pool, clock)
        self._ended_until: int | None = None
        self._told: frozenset[tuple[str, str]] = frozenset()

    @hookimpl
    def ebhpc_promises(self) -> Sequence[Promise]:
        # A pool starts jobs when it can; one that keeps times must have been told how
        return ("queue", "reservation") if self.settings.start_expression else ("queue",)

    # --- before an offer -------------------------------------------------------------------------------------

    @hookimpl
    def ebhpc_check(self) -> Iterable[Finding]:
        return list(checks.findings(self))

    @hookimpl
    def ebhpc_refuses(self, request: Request) -> Iterable[Message]:
        options = self.settings.jobs.runtime.device_options
        devices = [kind for kind in request.demand.least.devices if kind.partition(":")[0] in options]
        able = batch.abilities(self.settings.jobs, devices=devices, computes=(SimpleCompute, ClusterCompute))
        if self.settings.files == "transfer":
            able = replace(able, data_schemes=self.settings.native_urls)
        return [*batch.refusals(request, able), *refusals(request, self.settings)]

    @hookimpl
    def ebhpc_policy(self, request: Request, identity: Identity, platform: str) -> Policy | None:
        if mapped(self.settings, identity.username) is not None:
            return None
        return Policy(refusals=(batch.no_account(identity.username, platform),))

    @hookimpl
    def ebhpc_snapshot(self, now: int) -> Snapshot:
        # A job is in the history some time after it has ended
        since = None if self._ended_until is None else self._ended_until - _LATE
        look = self.pool.look(since)
        ended = {(job.schedd, job.id): job for job in look.finished}
        new = tuple(job for key, job in ended.items() if key not in self._told)
        self._ended_until, self._told = now, frozenset(ended)
        self.follower.negotiator = look.negotiator
        return snapshot(self.site, replace(look, finished=new), now)

    # --- a session's life ------------------------------------------------------------------------------------

    @hookimpl
    def ebhpc_hold(self, session: Session) -> str | None:
        if not session.firm:
            return None
        point("htcondor.hold.before", session.uuid)
        held = self.reservations.hold(session, self._who(session))
        point("htcondor.hold.after", session.uuid)
        return held

    @hookimpl
    def ebhpc_release(self, session: Session) -> None:
        if session.firm:
            self.reservations.release(session.uuid)

    @hookimpl
    def ebhpc_prepare(self, session: Session) -> Prepared | None:
        who = self._who(session)
        if self.settings.files == "shared":
            return batch.prepare(session, self.settings.jobs, self.account(who))
        return self.prepared_to_carry(session)

    def prepared_to_carry(self, session: Session, **more: Any) -> Prepared:
        """Prepare a session whose directory no machine sees: it is the broker's alone. ``more`` as `batch.prepare`."""
        jobs = carrying.own(self.settings.jobs)
        return batch.prepare(session, jobs, batch.unix_account(None), data_schemes=self.settings.native_urls, **more)

    @hookimpl
    def ebhpc_submit(self, session: Session) -> str:
        native = self.jobs.submit(session, self._who(session))
        self.follower.expect(session)
        return native

    @hookimpl
    def ebhpc_observe(self, sessions: Sequence[Session]) -> Iterable[Observation]:
        users = {session.uuid: self._owner(session) for session in sessions}
        seen = list(self.follower.observe(sessions, users))
        self.reservations.claimed({one.uuid: self.follower.has_slot(one.uuid) for one in sessions if one.firm})
        return seen

    @hookimpl
    def ebhpc_reconcile(self, sessions: Sequence[Session]) -> None:
        self.jobs.reconcile(sessions)
        self.reservations.reconcile(sessions)

    @hookimpl
    def ebhpc_cancel(self, session: Session) -> None:
        point("htcondor.cancel.before", session.uuid)
        self.jobs.cancel(session, self._known(session))
        self.follower.expect(session)
        point("htcondor.cancel.after", session.uuid)

    @hookimpl
    def ebhpc_cleanup(self, session: Session) -> None:
        self.jobs.clear(session, self._known(session))
        batch.cleanup(session, carrying.jobs(self.settings))

    # --- results ---------------------------------------------------------------------------------------------

    @hookimpl
    def ebhpc_outputs(self, session: Session) -> Iterable[Output]:
        return batch.outputs(session, self.settings.jobs)

    @hookimpl
    def ebhpc_open_output(self, session: Session, name: str) -> BinaryIO | None:
        return batch.open_output(session, self.settings.jobs, name)

    @hookimpl
    def ebhpc_forget(self, session: Session) -> None:
        batch.forget(session, carrying.jobs(self.settings))

    # --- who -------------------------------------------------------------------------------------------------

    def _known(self, session: Session) -> Mapped | None:
        return mapped(self.settings, session.owner.username)

    def _owner(self, session: Session) -> str | None:
        """Return who owns the session's job; None: whoever we are."""
        if self.settings.run_as == "self":
            return None
        who = self._known(session)
        return who.user if who is not None else ""

    def _who(self, session: Session) -> Mapped:
        who = self._known(session)
        if who is None:
            raise SessionFailed(batch.no_account(session.owner.username, self.name))
        return who

    def account(self, who: Mapped) -> batch.Account:
        """Return whose the session's files will be.

        Raises:
            SessionFailed: nobody here knows the user.
        """
        return batch.account_of(who, own=self.settings.run_as == "self")
