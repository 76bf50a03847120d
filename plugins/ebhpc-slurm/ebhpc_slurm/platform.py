"""The platform: what the core asks of a Slurm cluster, answered.

Each method is a hook of ``ebhpc.hookspecs``, where what it promises is written.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

from ebhpc import batch
from ebhpc.faults import point
from ebhpc.hookspecs import hookimpl
from ebhpc.model import (
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
)
from ebhpc.planning import Snapshot
from ebhpc.plugins import SessionFailed
from ebhpc_slurm import checks
from ebhpc_slurm.following import Follower
from ebhpc_slurm.holding import Made, Reservations
from ebhpc_slurm.identities import mapped
from ebhpc_slurm.looking import Cluster
from ebhpc_slurm.settings import Mapped, SlurmSettings
from ebhpc_slurm.snapshot import Site, native_name, snapshot
from ebhpc_slurm.submitting import Jobs
from ebhpc_slurm.transport import Slurm

log = logging.getLogger("ebhpc_slurm")


class SlurmPlatform:
    """One configured cluster. ``slurm`` is how it is asked; ``clock`` gives POSIX seconds."""

    def __init__(
        self, name: str, settings: SlurmSettings, state: Path, slurm: Slurm, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.name = name
        self.settings = settings
        self.state = state
        self.slurm = slurm
        self.clock = clock
        self.site = Site(
            platform=name,
            prefix=settings.prefix,
            partitions=settings.partitions,
            horizon=int(settings.horizon),
            gap=math.ceil(settings.gap),
        )
        self.made = Made(state / "made")
        self.cluster = Cluster(slurm, clock)
        self.reservations = Reservations(settings, slurm, self.cluster, clock)
        self.jobs = Jobs(settings, slurm, self.cluster, self.reservations, clock)
        self.follower = Follower(settings, slurm)

    @hookimpl
    def ebhpc_promises(self) -> Sequence[Promise]:
        return ("reservation", "queue")

    # --- before an offer -------------------------------------------------------------------------------------

    @hookimpl
    def ebhpc_check(self) -> Iterable[Finding]:
        return list(checks.findings(self))

    @hookimpl
    def ebhpc_refuses(self, request: Request) -> Iterable[Message]:
        options = self.settings.jobs.runtime.device_options
        devices = [kind for kind in request.demand.least.devices if kind.partition(":")[0] in options]
        return list(batch.refusals(request, batch.abilities(self.settings.jobs, devices=devices)))

    @hookimpl
    def ebhpc_policy(self, request: Request, identity: Identity, platform: str) -> Policy | None:
        if mapped(self.settings, identity.username) is not None:
            return None
        return Policy(refusals=(batch.no_account(identity.username, platform),))

    @hookimpl
    def ebhpc_snapshot(self, now: int) -> Snapshot:
        return snapshot(self.site, self.cluster.look(now), now)

    # --- a session's life ------------------------------------------------------------------------------------

    @hookimpl
    def ebhpc_hold(self, session: Session) -> str | None:
        if not session.firm:
            return None
        who = self._who(session)
        self.made.note(session.uuid)
        point("slurm.hold.before", session.uuid)
        held = self.reservations.hold(session, who)
        point("slurm.hold.after", session.uuid)
        return held

    @hookimpl
    def ebhpc_release(self, session: Session) -> None:
        never = session.held is None and session.phase in ("REJECTED", "EXPIRED")
        if never and self.settings.reserve_at != "offer":
            return
        if session.firm:
            point("slurm.release.before", session.uuid)
            self.reservations.release(native_name(session.uuid, self.settings.prefix))
            point("slurm.release.after", session.uuid)
        self.made.forget(session.uuid)

    @hookimpl
    def ebhpc_prepare(self, session: Session) -> Prepared | None:
        account = self.account(self._who(session))
        return batch.prepare(session, self.settings.jobs, account, node_variable="SLURMD_NODENAME")

    @hookimpl
    def ebhpc_submit(self, session: Session) -> str:
        who = self._who(session)
        self.made.note(session.uuid)
        native = self.jobs.submit(session, who)
        self.follower.expect(session)
        return native

    @hookimpl
    def ebhpc_observe(self, sessions: Sequence[Session]) -> Iterable[Observation]:
        users = {session.uuid: who.user for session in sessions if (who := self._known(session)) is not None}
        return list(self.follower.observe(sessions, users))

    @hookimpl
    def ebhpc_cancel(self, session: Session) -> None:
        point("slurm.cancel.before", session.uuid)
        self.jobs.cancel(session, self._known(session))
        self.follower.expect(session)
        point("slurm.cancel.after", session.uuid)

    @hookimpl
    def ebhpc_cleanup(self, session: Session) -> None:
        self.jobs.cancel_doubles(session, self._known(session))
        batch.cleanup(session, self.settings.jobs)

    @hookimpl
    def ebhpc_reconcile(self, sessions: Sequence[Session]) -> None:
        self.jobs.reconcile(sessions, self.made)
        self.reservations.reconcile(sessions, self._known, self.made)

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

    # --- who -------------------------------------------------------------------------------------------------

    def _known(self, session: Session) -> Mapped | None:
        return mapped(self.settings, session.owner.username)

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
