"""What every step needs: the session as its platform sees it, its hooks, and the transaction that moves it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from ebhpc.config import Driver as DriverSettings
from ebhpc.driver.charges import Charge, Charges
from ebhpc.driver.decisions import Patience
from ebhpc.driver.moves import Move
from ebhpc.driver.phases import MACHINE, end_of, next_step, when
from ebhpc.faults import point
from ebhpc.model import Phase, Session
from ebhpc.model.registry import Kinds
from ebhpc.plugins import Platform, PlatformUnavailable
from ebhpc.store import (
    BrokenDocument,
    Change,
    LeaseLost,
    SessionRecord,
    Store,
    as_session,
    get_session,
    move,
)

log = logging.getLogger("ebhpc.driver")


class Writer:
    """Calls a session's hooks and writes its moves, as the driver ``incarnation``.

    ``holds`` says whether the driver's leases still hold, ``jitter`` gives numbers in [0, 1).
    """

    def __init__(
        self,
        store: Store,
        platforms: Mapping[str, Platform],
        kinds: Kinds,
        settings: DriverSettings,
        charges: Charges,
        *,
        incarnation: str,
        clock: Callable[[], float],
        jitter: Callable[[], float],
        holds: Callable[[], bool],
    ) -> None:
        self.charges = charges
        self.settings = settings
        self.clock = clock
        self.holds = holds
        self.answered: dict[str, float] = {}
        """when each platform last answered anything, POSIX seconds"""
        self._store = store
        self._platforms = platforms
        self._kinds = kinds
        self._me = incarnation
        self._jitter = jitter

    def platform(self, record: SessionRecord) -> Platform:
        """The session's platform.

        Raises:
            PlatformUnavailable: it is not configured any more.
        """
        platform = self._platforms.get(record.platform)
        if platform is None:
            step = next_step(record)
            hooks = MACHINE[step].hooks if step else ()
            raise PlatformUnavailable(record.platform, hooks[0] if hooks else "", "it is not configured any more")
        return platform

    def lead(self, record: SessionRecord) -> int:
        """How long before the session's start its preparation begins, seconds."""
        platform = self._platforms.get(record.platform)
        return int(platform.config.lead) if platform is not None else 0

    def patience(self) -> Patience:
        """How long to try, with jitter of its own."""
        settings = self.settings
        return Patience(
            first=settings.retry_first,
            most=settings.retry_most,
            give_up=settings.give_up,
            give_up_cleanup=settings.give_up_cleanup,
            jitter=self._jitter(),
        )

    def session(self, charge: Charge) -> Session:
        """The session as its platform sees it; decoded once, and brought up to date.

        Raises:
            BrokenDocument: it cannot be decoded.
        """
        record = charge.record
        if charge.session is None:
            charge.session = as_session(record, self._kinds)
        charge.session = replace(
            charge.session,
            phase=record.phase,
            native=record.native,
            held=record.held,
            attempt=record.attempt + 1,
            started=None if record.started is None else int(record.started),
            end=end_of(record, self.clock()),
        )
        return charge.session

    def call(self, charge: Charge, hook: str) -> Any:
        """Call a hook for a session; one that the platform leaves out answers None.

        Raises:
            PlatformUnavailable, SessionFailed, BrokenDocument: as their names say.
            LeaseLost: no sign of life of ours got through in time, so the session may be another driver's.
        """
        platform = self.platform(charge.record)
        if not platform.implements(hook):
            return None
        session = self.session(charge)
        if not self.holds():
            raise LeaseLost(f"session {session.uuid}: no sign of life got through in time")
        name = hook.removeprefix("ebhpc_")
        point(f"driver.{name}.before", session.uuid)
        answer = platform.call(hook, session=session)
        point(f"driver.{name}.after", session.uuid)
        self.answered[platform.name] = self.clock()
        return answer

    def write(self, charge: Charge, result: Move) -> None:
        """Carry out a move. Where the next step is not for now, the lease is given back in the same transaction.

        Raises:
            LeaseLost: the session is another's, or has changed.
        """
        record, change = charge.record, result.change
        now = self.clock()
        if not change.finished and not change.unlease:
            after = replace(record, phase=result.there or record.phase, native=change.native or record.native)
            following = next_step(after)
            begin = when(after, following, self.lead(after)) if following else 0.0
            if begin - now > self.settings.interval:
                change = replace(change, due=begin, unlease=True)
        try:
            charge.put(self._move(record.uuid, record.phase, result.there, result.cause, change, now))
        except LeaseLost:
            if change.native is not None or change.held is not None:
                self._keep_names(record.uuid, change, now)
            raise
        if result.there is not None:
            log.info(
                "session %s: %s -> %s: %s",
                record.uuid,
                record.phase,
                result.there,
                result.cause,
                extra={"session": record.uuid},
            )

    def _keep_names(self, uuid: str, change: Change, now: float) -> None:
        """Keep the native names of a session that was cancelled while they were made."""
        present = self._load(uuid)
        if present is not None and present.unfinished and present.lease == self._me:
            names = Change(native=change.native, held=change.held, submitting=change.submitting)
            self._move(uuid, present.phase, None, "names", names, now)

    def _move(
        self, uuid: str, here: Phase, there: Phase | None, cause: str, change: Change, now: float
    ) -> SessionRecord:
        return move(self._store, uuid, driver=self._me, here=here, there=there, cause=cause, change=change, now=now)

    def _load(self, uuid: str) -> SessionRecord | None:
        with self._store.read() as tx:
            return get_session(tx, uuid)

    def put_down(self, charge: Charge) -> None:
        """End the work on a charge, and keep it while it is ours."""
        uuid = charge.record.uuid
        if charge.stale:
            try:
                present = self._load(uuid)
            except Exception:  # the database, most likely: the next turn tries again
                log.exception("session %s: could not be read", uuid, extra={"session": uuid})
                self.later(charge)
                self.charges.put_down(charge, keep=True)
                return
            charge.stale = False
            if present is not None:
                charge.put(present)
        record = charge.record
        self.charges.put_down(charge, keep=record.unfinished and record.lease == self._me)

    def later(self, charge: Charge) -> None:
        """Try the step again in a while, without a word in the database."""
        charge.due = self.clock() + self.patience().delay(1)


def reason_of(error: Exception) -> str:
    """A failure in words for a session's owner; details of the broker's own faults are in its log."""
    if isinstance(error, PlatformUnavailable):
        return error.reason
    if isinstance(error, TimeoutError):
        return str(error)
    if isinstance(error, BrokenDocument):
        return "a plugin that the session needs is not loaded"
    return "an internal error of the broker"
