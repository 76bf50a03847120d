"""Leases of Blazar for our sessions: asked for once, found again by name, deleted always."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ebhpc.faults import point
from ebhpc.model import MessageKind, Session, message
from ebhpc.plugins import SessionFailed
from ebhpc.staging.files import held
from ebhpc_openstack import leases, records
from ebhpc_openstack.asking import Call, CloudFault, Refused, Unanswered
from ebhpc_openstack.cloud import Cloud
from ebhpc_openstack.settings import LeaseSettings

log = logging.getLogger("ebhpc_openstack")

_TRIES = 3
_PAUSE = 2.0
"""How often, and after how many seconds, a lease is asked for again that was given twice."""

_TWICE = "somebody else has asked for the same at the same time"

YOUNG = 600
"""Seconds for which a lease that belongs to no session is left alone: its session may have come after the list."""

LIST = Call(service="reservation", path="/leases")
"""The question for all leases of the project."""

HYPERVISORS = Call(service="hypervisors")

_LATE = "later than current date"
"""Blazar's words for a start that has passed by its clock."""

_NO_ROOM = "not enough hosts available"
"""Its words for a pool that is full then, which it gives as a failure of its own (500)."""


class NotBegun(CloudFault):
    """The session's lease has not begun yet, though it is time: Blazar looks every ten seconds."""

    def __init__(self) -> None:
        super().__init__("its lease has not begun yet")


class Leases:
    """The leases of a project; ``prefix`` is what the names of ours begin with, and ``state`` a directory that all
    processes of a broker on this host share; ``clock`` gives POSIX seconds, and ``pause`` waits for some.
    """

    def __init__(
        self,
        settings: LeaseSettings,
        cloud: Cloud,
        prefix: str,
        state: Path,
        clock: Callable[[], float],
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._settings = settings
        self._cloud = cloud
        self._prefix = prefix
        self._lock = state / "leases.lock"
        self._clock = clock
        self._pause = pause

    def name(self, uuid: str) -> str:
        """Return the name of a session's lease."""
        return f"{self._prefix}-{uuid}"

    def listed(self) -> list[leases.Lease]:
        """Return the project's leases.

        Raises:
            CloudFault: there was no answer, or the account may not see them.
        """
        (answer,) = self._cloud.ask(LIST)
        return leases.leases(answer.ok()["leases"])

    def hold(self, session: Session) -> str:
        """Have a lease for a session, the one that is there if it will do; return its name.

        Raises:
            SessionFailed: Blazar does not give it.
            CloudFault: not now; it may have been made.
        """
        name = self.name(session.uuid)
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        wanted = leases.wanted(session, name, self._settings)
        for _ in range(_TRIES):
            # Blazar gives the same room twice where it is asked twice at the same time
            with held(self._lock):
                taken = self._taken(wanted, session.uuid)
            if taken:
                return name
            self._pause(_PAUSE)
        raise _refusal(_TWICE)

    def _taken(self, wanted: leases.Wanted, uuid: str) -> bool:
        """Have a lease; False: somebody else who asked at the same time has had the same, and leaves it to us."""
        known, capacity = self._seen(wanted.host)
        mine = self._one(wanted, known)
        if mine is None:
            known = self._made(wanted, uuid)
            mine = self._one(wanted, known)
        if mine is None:
            raise Unanswered("a lease was made, and is not there any more")
        crowd = leases.crowding(mine, known, capacity)
        if not crowd:
            return True
        self._delete([mine])
        if all(one.created == mine.created and one.id > mine.id for one in crowd):
            return False
        raise _refusal(_TWICE)

    def _one(self, wanted: leases.Wanted, known: Sequence[leases.Lease]) -> leases.Lease | None:
        """Return the lease that is what is wanted, the first where there are several; its others are deleted."""
        there = [one for one in known if one.name == wanted.name]
        if any(one.status == leases.COMING for one in there):
            raise Unanswered("a lease was asked for, and Blazar has not made it yet")
        now = self._clock()
        good = [one for one in there if leases.serves(one, wanted, now=now)]
        mine = min(good, key=lambda one: (one.created, one.id), default=None)
        self._delete([one for one in there if one != mine])
        return mine

    def _made(self, wanted: leases.Wanted, uuid: str) -> list[leases.Lease]:
        """Make a lease; return all that there are then."""
        why = ""
        point("openstack.lease.before", uuid)
        try:
            self._create(wanted)
        except Refused as refused:
            why = str(refused)
        point("openstack.lease.after", uuid)
        known = self.listed()
        # What was asked for before, without an answer, may be there now, and be what has left no room
        if why and all(one.name != wanted.name for one in known):
            raise _refusal(why)
        return known

    def _seen(self, host: str) -> tuple[list[leases.Lease], Mapping[str, int]]:
        """Return the project's leases, and what a hypervisor has of each resource class, as far as that is told."""
        listed, hypervisors = self._cloud.ask(LIST, HYPERVISORS)
        providers = records.providers(hypervisors.ok()["providers"])
        capacity = next((one.capacity for one in providers if one.name == host), {})
        return leases.leases(listed.ok()["leases"]), capacity

    def _create(self, wanted: leases.Wanted) -> None:
        try:
            self._asked(leases.body(wanted, now=self._clock()))
        except Refused as refused:
            if _LATE not in str(refused):
                raise
            # Its clock is before ours
            self._asked(leases.body(wanted, now=wanted.start))

    def _asked(self, body: Mapping[str, Any]) -> None:
        (answer,) = self._cloud.ask(Call(service="reservation", path="/leases", method="POST", json=body))
        try:
            answer.ok()
        except Unanswered as fault:
            if answer.status == 500 and _NO_ROOM in str(fault).lower():
                raise Refused(500, str(fault).removeprefix("500: ")) from None
            raise

    def release(self, uuid: str) -> None:
        """Delete the leases of a session; Blazar deletes the servers in them, too.

        Raises:
            CloudFault: one at least could not be deleted.
        """
        name = self.name(uuid)
        self._delete(self._named([name]).get(name, ()))

    def flavors(self, sessions: Sequence[Session]) -> dict[str, str | Exception]:
        """Return the flavor of each session's lease, or why there is none (`NotBegun`, `SessionFailed`)."""
        by_name = self._named([self.name(session.uuid) for session in sessions])
        return {session.uuid: _flavor(by_name.get(self.name(session.uuid), ())) for session in sessions}

    def over(self, uuid: str) -> str | None:
        """Return what has become of a session's lease in words, where it gives nothing any more; None: it is there."""
        found = self._named([self.name(uuid)]).get(self.name(uuid), [])
        if any(one.status not in leases.OVER for one in found):
            return None
        return _ended(found)

    def reconcile(self, sessions: Sequence[Session]) -> None:
        """Delete leases of ours that have no session."""
        living = {session.uuid for session in sessions}
        orphans = []
        for one in self.listed():
            uuid = leases.session_of(one.name, self._prefix)
            if uuid is not None and uuid not in living and one.created < self._clock() - YOUNG:
                log.warning("lease %s (session %s) belongs to no session: deleted", one.id, uuid)
                orphans.append(one)
        self._delete(orphans)

    def _named(self, names: Sequence[str]) -> dict[str, list[leases.Lease]]:
        found: dict[str, list[leases.Lease]] = {}
        for one in self.listed():
            if one.name in names:
                found.setdefault(one.name, []).append(one)
        return found

    def _delete(self, some: Iterable[leases.Lease]) -> None:
        calls = [Call(service="reservation", path=f"/leases/{quote(one.id)}", method="DELETE") for one in some]
        for answer in self._cloud.ask(*calls) if calls else ():
            if answer.status != 404:
                answer.ok()


def _refusal(why: str) -> SessionFailed:
    text = "Blazar does not give the lease: {why}."
    return SessionFailed(message(MessageKind.FAILED, text, why=why.rstrip(".")))


def _flavor(found: Sequence[leases.Lease]) -> str | Exception:
    for one in found:
        if one.status == "ACTIVE" and one.reservation:
            return one.reservation
    if any(one.status not in leases.OVER for one in found):
        return NotBegun()
    return SessionFailed(message(MessageKind.FAILED, "{what}.", what=_ended(found)))


def _ended(found: Sequence[leases.Lease]) -> str:
    if not found:
        return "The session's lease is gone: somebody has deleted it"
    if any(one.status == "ERROR" for one in found):
        return "Blazar could not begin or end the session's lease"
    return "Blazar has ended the session's lease"
