"""The sessions that a driver has leased: what it remembers of them between its turns.

All of it can be made again from the database; what is only here (since when a job is gone, how often its end was
asked for) begins anew after a restart.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

from ebhpc.driver.phases import Step, next_step
from ebhpc.model import Session
from ebhpc.planning.queue import Outlook
from ebhpc.store import SessionRecord


class Charge:
    """A leased session. Whoever works on it has ``busy``; without it, nothing here may be changed."""

    __slots__ = ("asked", "busy", "due", "gone_since", "record", "session", "stale", "told", "unsure")

    def __init__(self, record: SessionRecord) -> None:
        self.record = record
        self.session: Session | None = None
        """as its platform sees it; made when it is first needed"""
        self.due = 0.0
        """when its step runs next, POSIX seconds; infinity: observations alone move it"""
        self.busy = False
        self.stale = False
        """somebody else changed it while it was busy"""
        self.unsure = False
        """an earlier try of its step had no answer and may have been carried out"""
        self.asked = 0
        """how often its job's end was asked for"""
        self.told: Outlook | None = record.outlook or record.promised
        """of when its job starts, what its owner was told last"""
        self.gone_since: float | None = None
        """since when its batch system has not known its job"""

    @property
    def step(self) -> Step | None:
        """What to do next."""
        return next_step(self.record)

    @property
    def observed(self) -> bool:
        """Whether its job is looked at each turn."""
        step = self.step
        return step is Step.FOLLOW or (step is Step.END and self.asked > 0)

    def put(self, record: SessionRecord) -> None:
        """Take the session as it is now; where something else is to be done, that is due at once."""
        before = self.step
        if record.allocations != self.record.allocations:
            self.session = None
        self.record = record
        after = self.step
        if after is not before:
            self.asked = 0
            self.due = math.inf if after is Step.FOLLOW else 0.0


class Charges:
    """All leased sessions of a driver; safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_uuid: dict[str, Charge] = {}

    def __len__(self) -> int:
        return len(self._by_uuid)

    def __contains__(self, uuid: str) -> bool:
        return uuid in self._by_uuid

    def admit(self, record: SessionRecord) -> Step | None:
        """Take on a session that was claimed, or one again that somebody changed meanwhile.

        Returns the step that runs for it at the moment.
        """
        with self._lock:
            charge = self._by_uuid.get(record.uuid)
            if charge is None:
                charge = self._by_uuid[record.uuid] = Charge(record)
                charge.due = math.inf if charge.step is Step.FOLLOW else 0.0
            elif charge.busy:
                charge.stale = True
                return charge.step
            else:
                charge.put(record)
                if charge.step is not Step.FOLLOW:
                    charge.due = 0.0
            return None

    def take(self, charge: Charge) -> bool:
        """Begin to work on a charge. False: somebody does, or it is no charge any more."""
        with self._lock:
            if charge.busy or self._by_uuid.get(charge.record.uuid) is not charge:
                return False
            charge.busy = True
            return True

    def put_down(self, charge: Charge, *, keep: bool) -> None:
        """End to work on a charge; ``keep`` False: it is no charge any more."""
        with self._lock:
            charge.busy = False
            if not keep:
                self._by_uuid.pop(charge.record.uuid, None)

    def drop(self, uuids: frozenset[str]) -> None:
        """Forget charges that nobody works on."""
        with self._lock:
            for uuid in uuids:
                charge = self._by_uuid.get(uuid)
                if charge is not None and not charge.busy:
                    del self._by_uuid[uuid]

    def where(self, wanted: Callable[[Charge], bool]) -> list[Charge]:
        """Charges that nobody works on and that are ``wanted``."""
        with self._lock:
            return [charge for charge in self._by_uuid.values() if not charge.busy and wanted(charge)]

    def uuids(self) -> frozenset[str]:
        """All of them."""
        with self._lock:
            return frozenset(self._by_uuid)
