"""Our reservations: made, found again, deleted, and brought in line with the sessions."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Container, Sequence
from pathlib import Path

from msgspec.structs import replace

from ebhpc.model import MessageKind, Session, message
from ebhpc.planning import NodeState
from ebhpc.plugins import SessionFailed
from ebhpc_slurm import promises, records, reserved
from ebhpc_slurm.looking import Cluster
from ebhpc_slurm.notation import hosts
from ebhpc_slurm.settings import Mapped, SlurmSettings
from ebhpc_slurm.snapshot import native_name, node_state, session_of
from ebhpc_slurm.states import ENDED
from ebhpc_slurm.transport import Refused, Slurm, SlurmFault, Why

log = logging.getLogger("ebhpc_slurm")

NEVER = frozenset({Why.BUSY, Why.USER, Why.NOT_PERMITTED, Why.ACCOUNT, Why.PLACE, Why.LICENCES, Why.TIME, Why.LIMIT})
"""Refusals that will not be otherwise for the same window. An unknown user is refused like one without rights."""

_LESS = (60.0, 0.0)
"""Gaps to be content with, seconds: with the first a job still has all its time, if it starts at once."""

ORPHANED = 60.0
"""Seconds after which what was found without a session, and still is, is deleted: a session may have been new."""

BEHIND = 600
"""Seconds that a reservation's start may lie in the past."""


class Made:
    """The sessions for which this broker may have made something on the cluster: a file for each.

    Another broker whose operator chose the same prefix has others: what we have not made we do not delete.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def note(self, session: str) -> None:
        """Note that something is about to be made for a session."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self._folder / session).touch()

    def forget(self, session: str) -> None:
        """Note that nothing of a session is left."""
        (self._folder / session).unlink(missing_ok=True)

    def __contains__(self, session: object) -> bool:
        return (self._folder / str(session)).exists()


class Orphans:
    """What is there without a session, and since when. ``clock`` gives POSIX seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since: dict[str, float] = {}

    def told(self, names: Sequence[str]) -> list[str]:
        """Return those of ``names`` that were without a session a while ago as well."""
        now = self._clock()
        self._since = {name: self._since.get(name, now) for name in names}
        return [name for name, since in self._since.items() if now - since >= ORPHANED]


class Reservations:
    """Our reservations on a cluster."""

    def __init__(self, settings: SlurmSettings, slurm: Slurm, cluster: Cluster, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._slurm = slurm
        self._cluster = cluster
        self._clock = clock
        self._orphans = Orphans(clock)
        self._lock = threading.Lock()

    def hold(self, session: Session, who: Mapped) -> str:
        """Make a session's reservation, or find it; return its name.

        Raises:
            SessionFailed: Slurm does not give these nodes for this time, to this user.
            SlurmFault: not now; it may have been made.
        """
        name = session.extends or self.name(session)
        # The gap lets a job end that Slurm ends late. Where the next reservation leaves none, the job gets less
        most = float(self._settings.gap)
        gaps = [most, *(gap for gap in _LESS if gap < most)]
        for gap in gaps:
            try:
                self._make(self._wish(session, who, gap), goes_on=session.extends is not None)
            except Refused as refused:
                if refused.why is not Why.BUSY:
                    raise _final(refused) from None
                log.info("session %s: no reservation with %d s behind it: %s", session.uuid, gap, refused)
                busy = refused
            else:
                return name
        # Nodes that are not up just now are busy, too, to Slurm: after a restart of the controller for a quarter of a
        # minute. So it is no only if it is no while they are up
        if self._unsettled(session):
            raise busy
        try:
            self._make(self._wish(session, who, gaps[-1]), goes_on=session.extends is not None)
        except Refused as refused:
            raise _final(refused) from None
        return name

    def name(self, session: Session) -> str:
        """Return the name of a session's reservation: its own, or that of the session whose time it goes on with."""
        prefix = self._settings.prefix
        if session.held is not None and session_of(session.held, prefix) is not None:
            return session.held
        return native_name(session.uuid, prefix)

    def find(self, session: Session) -> records.Reservation | None:
        """Return a session's reservation; None: there is none."""
        name = self.name(session)
        return next((one for one in self._slurm.reservations() if one.name == name), None)

    def release(self, name: str) -> None:
        """Delete a reservation, with the jobs that name it. It is no error that there is none."""
        try:
            self._slurm.delete_reservation(name)
        except Refused as refused:
            if refused.why is Why.UNKNOWN:
                return
            if refused.why is not Why.IN_USE:
                raise
            for job in self._slurm.jobs():
                if job.reservation == name and job.state not in ENDED:
                    self._slurm.cancel(job.id, job.user)
            try:
                self._slurm.delete_reservation(name)
            except Refused as again:
                if again.why is not Why.UNKNOWN:
                    raise

    def reconcile(
        self, sessions: Sequence[Session], known: Callable[[Session], Mapped | None], made: Container[str]
    ) -> None:
        """Delete reservations that we have ``made`` and that have no session; make again those that have gone.

        A controller that was killed may have forgotten what it had answered.
        """
        with self._lock:
            there = {
                one.name: uuid
                for one in self._slurm.reservations()
                if (uuid := session_of(one.name, self._settings.prefix)) is not None
            }
            living = {
                name for one in sessions for name in (self.name(one), native_name(one.uuid, self._settings.prefix))
            }
            orphans = [name for name, uuid in there.items() if name not in living and uuid in made]
            for name in self._orphans.told(orphans):
                log.warning("the reservation %s belongs to no session: deleted", name)
                self._quietly(name, lambda name=name: self.release(name))  # type: ignore[misc]
            now = self._clock()
            for session in sessions:
                who = known(session)
                lost = session.held is not None and self.name(session) not in there and session.firm and who is not None
                if lost and session.end > now and session.phase in ("WAITING", "PREPARING", "AVAILABLE"):
                    log.warning("session %s: its reservation is gone: made again", session.uuid)
                    self._quietly(
                        session.uuid,
                        lambda session=session, who=who: self.hold(session, who),  # type: ignore[misc]
                    )

    def _quietly(self, subject: str, work: Callable[[], object]) -> None:
        """One that fails must not keep the others from their turn; it has another."""
        try:
            work()
        except (SlurmFault, SessionFailed) as error:
            log.warning("%s: %s", subject, error, extra={"session": subject})

    def _unsettled(self, session: Session) -> bool:
        """Whether a node of the session's is not up just now."""
        nodes = self._cluster.nodes(fresh=True)
        mine = [nodes[allocation.node] for allocation in session.allocations if allocation.node in nodes]
        return any("UNKNOWN" in node.states or node_state(node.states) is not NodeState.UP for node in mine)

    def _wish(self, session: Session, who: Mapped, gap: float) -> records.Reserve:
        seconds = session.end - session.start
        partition = promises.partition_of(
            session.allocations,
            self._cluster.partitions(),
            self._settings.partitions,
            named=session.partition,
            seconds=min(seconds, session.duration),
            account=who.account,
        )
        if partition is None:
            raise SessionFailed(
                message(MessageKind.FAILED, "No partition has the session's nodes and lets it run for its time.")
            )
        wish = promises.reserve(
            session,
            self._settings,
            who,
            partition=partition.name,
            gap=gap,
            skew=self._cluster.skew(),
            others=reserved.sharers(session, self._settings),
        )
        earliest = int(self._clock()) + self._cluster.skew() - BEHIND // 2
        return replace(wish, name=session.extends or self.name(session), start=max(wish.start, earliest))

    def _make(self, wish: records.Reserve, *, goes_on: bool = False) -> None:
        try:
            self._slurm.reserve(wish)
        except Refused as refused:
            # Ours is in its own way: that it overlaps is told before that its name is taken
            if refused.why not in (Why.DUPLICATE, Why.BUSY):
                raise
            busy = refused if refused.why is Why.BUSY else None
        else:
            return
        there = next((one for one in self._slurm.reservations() if one.name == wish.name), None)
        if there is None and busy is not None:
            raise busy
        if there is not None and fits(there, wish):
            return
        if there is not None and self._changed(wish):
            return
        if there is not None and goes_on:
            # Others' jobs are in it: it is not made anew, and stays as it was
            raise Refused("Requested nodes are busy: the reservation cannot be made longer")
        if there is not None:  # made for another window, or by somebody else under our name
            log.warning("the reservation %s is not as it should be: made anew", wish.name)
            self.release(wish.name)
        self._slurm.reserve(wish)

    def _changed(self, wish: records.Reserve) -> bool:
        """Give a reservation that is there what it shall have, under the jobs in it; whether that could be done."""
        try:
            self._slurm.change_reservation(wish)
        except Refused as refused:
            log.info("the reservation %s cannot be changed: %s", wish.name, refused)
            return False
        there = next((one for one in self._slurm.reservations() if one.name == wish.name), None)
        return there is not None and fits(there, wish)


def _final(refused: Refused) -> Exception:
    """Return what a refusal means for the session: the end, or another try."""
    if refused.why not in NEVER:
        return refused
    return SessionFailed(message(MessageKind.FAILED, "Slurm refused the reservation: {why}.", why=str(refused)))


def fits(there: records.Reservation, wish: records.Reserve) -> bool:
    """Whether a reservation is what is wished for, or as good."""
    return (
        set(hosts(there.nodes)) == set(wish.nodes)
        and set(wish.users) <= set(there.users)
        and there.start <= wish.start + 60
        and there.end >= wish.end
        and all(there.cores.get(node, wish.cpus) >= wish.cpus for node in wish.nodes)
    )
