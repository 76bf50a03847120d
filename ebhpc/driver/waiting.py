"""Sessions whose jobs wait in a batch system's queue: when they are expected to start, as of the newest forecast."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ebhpc.driver.charges import Charge
from ebhpc.driver.decisions import moved
from ebhpc.driver.phases import Step
from ebhpc.driver.writing import Writer
from ebhpc.model import Phase
from ebhpc.planning.queue import Expected, Outlook
from ebhpc.planning.queue.estimator import CONFIDENCE
from ebhpc.store import LeaseLost, Store, expected_starts, tell_outlook

log = logging.getLogger("ebhpc.driver")

EVERY = 15.0
"""Seconds between two looks at the forecast."""

_LITTLE = 60.0
"""Seconds by which an expectation must have moved, and a twentieth of what there is left to wait, to be noted."""


class Waiting:
    """Keeps the outlooks of one platform's queued sessions up to date, for the driver ``incarnation``."""

    def __init__(self, store: Store, writer: Writer, platform: str, incarnation: str) -> None:
        self._store = store
        self._writer = writer
        self._platform = platform
        self._me = incarnation
        self._due = 0.0
        self._taken = 0.0

    def refresh(self, charges: Sequence[Charge]) -> None:
        """Note where the newest forecast says something else of queued sessions, and tell owners where it is much."""
        now = self._writer.clock()
        queued = [charge for charge in charges if _queued(charge)]
        # One that has just come into the queue should not wait for its first word
        if not queued or (now < self._due and all(charge.record.outlook for charge in queued)):
            return
        self._due = now + EVERY
        with self._store.read() as tx:
            found = expected_starts(tx, self._platform)
        if found is None or found[0] == self._taken:
            return
        self._taken, starts = found
        for charge in queued:
            expected = starts.get(charge.record.uuid)
            if expected is not None and self._writer.holds() and self._writer.charges.take(charge):
                try:
                    if _queued(charge):
                        self._tell(charge, expected, now)
                except LeaseLost as error:
                    log.debug("session %s: %s", charge.record.uuid, error, extra={"session": charge.record.uuid})
                    charge.stale = True
                except Exception:  # the database, most likely: the next forecast tells it again
                    log.exception(
                        "session %s: its expected start could not be noted",
                        charge.record.uuid,
                        extra={"session": charge.record.uuid},
                    )
                finally:
                    self._writer.put_down(charge)

    def _tell(self, charge: Charge, expected: Expected, now: float) -> None:
        record = charge.record
        soonest = max(int(now), record.start)
        outlook = Outlook(
            start=max(expected.earliest, soonest),
            latest=max(expected.latest, soonest),
            expected=max(expected.median, soonest),
            confidence=CONFIDENCE,
            said=int(now),
        )
        known = record.outlook or record.promised
        told = moved(record, charge.told, outlook, now)
        if told is None and known is not None and not _differ(known, outlook, now):
            return
        charge.put(
            tell_outlook(
                self._store,
                record.uuid,
                driver=self._me,
                outlook=outlook,
                messages=() if told is None else (told,),
                now=now,
            )
        )
        if told is not None:
            charge.told = outlook


def _queued(charge: Charge) -> bool:
    record = charge.record
    return not record.firm and record.phase is Phase.AVAILABLE and charge.step is Step.FOLLOW


def _differ(one: Outlook, other: Outlook, now: float) -> bool:
    little = max(_LITTLE, (other.expected - now) / 20)
    return any(
        abs(first - second) >= little
        for first, second in (
            (one.start, other.start),
            (one.expected, other.expected),
            (one.latest, other.latest),
        )
    )
