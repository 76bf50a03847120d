"""The platform: what the core asks of a Slurm cluster, answered.

Each method is a hook of ``ebhpc.hookspecs``, where what it promises is written.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Literal

from msgspec.structs import replace

from ebhpc import batch
from ebhpc.faults import point
from ebhpc.hookspecs import hookimpl
from ebhpc.model import (
    BatchScript,
    Finding,
    Identity,
    Message,
    MessageKind,
    Observation,
    Output,
    Policy,
    Prepared,
    Promise,
    Request,
    ReservedTime,
    Session,
    message,
)
from ebhpc.planning import Snapshot
from ebhpc.plugins import SessionFailed
from ebhpc_slurm import checks, records, reserved
from ebhpc_slurm.following import Follower
from ebhpc_slurm.holding import Made, Reservations
from ebhpc_slurm.identities import mapped
from ebhpc_slurm.looking import Cluster
from ebhpc_slurm.notation import hosts
from ebhpc_slurm.settings import Mapped, SlurmSettings
from ebhpc_slurm.snapshot import Site, native_name, snapshot
from ebhpc_slurm.submitting import Jobs
from ebhpc_slurm.transport import Slurm, SlurmFault

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
        self.cluster = Cluster(slurm, clock, float(settings.look))
        self.reservations = Reservations(settings, slurm, self.cluster, clock)
        self.jobs = Jobs(settings, slurm, self.cluster, self.reservations, clock)
        self.follower = Follower(settings, slurm, self.cluster)
        self.inside = reserved.Inside(slurm, clock, self._threads)
        self.gone_on: dict[str, str] = {}
        """the sessions that reservations belong to which were made for others, by the reservations' names"""

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
        able = batch.abilities(self.settings.jobs, devices=devices, executables=(ReservedTime,), spread=(BatchScript,))
        found = list(batch.refusals(request, able))
        if isinstance(request.executable, ReservedTime):
            found += reserved.unknown_sharers(request.executable, self.settings, self.name)
        return found

    @hookimpl
    def ebhpc_policy(self, request: Request, identity: Identity, platform: str) -> Policy | None:
        who = mapped(self.settings, identity.username)
        if who is not None:
            missing = None
            if isinstance(request.executable, ReservedTime):
                missing = reserved.own_account_missing(request.executable, who)
            return None if missing is None else Policy(refusals=(missing,))
        return Policy(refusals=(batch.no_account(identity.username, platform),))

    @hookimpl
    def ebhpc_snapshot(self, now: int) -> Snapshot:
        found = snapshot(self.site, self.cluster.look(now), now)
        if not self.gone_on:
            return found
        owners = self.gone_on
        return replace(
            found,
            reservations=tuple(
                one if one.name not in owners else replace(one, session=owners[one.name]) for one in found.reservations
            ),
        )

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
        if session.firm:
            point("slurm.release.before", session.uuid)
            self.reservations.release(self.reservations.name(session))
            point("slurm.release.after", session.uuid)
        self.made.forget(session.uuid)

    @hookimpl
    def ebhpc_prepare(self, session: Session) -> Prepared | None:
        account = self.account(self._who(session))
        if reserved.is_reserved(session):
            return None
        return batch.prepare(session, self.settings.jobs, account, node_variable="SLURMD_NODENAME")

    @hookimpl
    def ebhpc_submit(self, session: Session) -> str:
        who = self._who(session)
        self.made.note(session.uuid)
        if reserved.is_reserved(session):
            return self.reservations.hold(session, who)
        native = self.jobs.submit(session, who)
        self.follower.expect(session)
        return native

    @hookimpl
    def ebhpc_observe(self, sessions: Sequence[Session]) -> Iterable[Observation]:
        users = {session.uuid: who.user for session in sessions if (who := self._known(session)) is not None}
        jobs = [session for session in sessions if not reserved.is_reserved(session)]
        kept = [session for session in sessions if reserved.is_reserved(session)]
        there = self.follower.look([session.uuid for session in sessions], reservations=bool(kept))
        return [*self.follower.observe(jobs, users), *self._observe_reserved(kept, there)]

    @hookimpl
    def ebhpc_cancel(self, session: Session) -> None:
        point("slurm.cancel.before", session.uuid)
        if reserved.is_reserved(session):
            self.reservations.release(self.reservations.name(session))
            return
        self.jobs.cancel(session, self._known(session))
        self.follower.expect(session)
        point("slurm.cancel.after", session.uuid)

    @hookimpl
    def ebhpc_cleanup(self, session: Session) -> None:
        if reserved.is_reserved(session):
            return
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

    # --- time that is its user's -----------------------------------------------------------------------------

    def _observe_reserved(self, sessions: Sequence[Session], jobs: Sequence[records.Job]) -> Iterator[Observation]:
        """Say what became of reservations; one that has gone before its time is made again."""
        names = {session.uuid: self.reservations.name(session) for session in sessions}
        own = {session.uuid: native_name(session.uuid, self.settings.prefix) for session in sessions}
        self.gone_on = {name: session for session, name in names.items() if name != own[session]}
        since = {names[session.uuid]: min(session.start, int(self.clock())) - 60 for session in sessions}
        there = self._reservations_of(sessions, names)
        usage = self.inside.usage(since, jobs)
        final = self.cluster.jobs_as_new_as("reservations")
        for session in sessions:
            name = names[session.uuid]
            if name not in there and not final and not reserved.expected(session, self.clock()):
                continue  # what became of the jobs in it is not known yet: at the next look
            seen = reserved.observation(
                session, there.get(name), usage[name], self._known(session), self.name, self.clock()
            )
            if seen.state == "GONE":
                again = self._kept_again(session)
                if again is None:
                    continue  # not now: at the next look
                seen = replace(seen, state=again[0], messages=again[1])
            yield seen

    def _reservations_of(
        self, sessions: Sequence[Session], names: Mapping[str, str]
    ) -> Mapping[str, records.Reservation]:
        """Return the reservations; that one is missing which should be there is not believed of an older answer."""
        if not sessions:
            return {}
        there = self.cluster.reservations()
        if any(names[one.uuid] not in there and reserved.expected(one, self.clock()) for one in sessions):
            there = self.cluster.reservations(fresh=True)
        return there

    def _kept_again(
        self, session: Session
    ) -> tuple[Literal["RUNNING", "PENDING", "FAILED"], tuple[Message, ...]] | None:
        """Make a reservation again that has gone; return what to tell, or None where there is no answer."""
        try:
            self.reservations.hold(session, self._who(session))
        except SessionFailed as error:
            return "FAILED", error.messages
        except SlurmFault as error:
            log.warning("session %s: its reservation is gone, and not made again: %s", session.uuid, error)
            return None
        told = message(
            MessageKind.PROGRESS,
            "The reservation had gone from {platform}, and was made again.",
            level="WARN",
            platform=self.name,
        )
        return ("RUNNING" if session.phase == "RUNNING" else "PENDING"), (told,)

    # --- who -------------------------------------------------------------------------------------------------

    def _threads(self, nodes: str) -> int:
        first = next(iter(hosts(nodes)), "")
        node = self.cluster.nodes().get(first)
        return max(node.threads, 1) if node is not None else 1

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
