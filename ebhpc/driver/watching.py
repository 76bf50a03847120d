"""Following the jobs of a platform: all of them by one call, and a move only where something has changed."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence

from ebhpc.driver.charges import Charge
from ebhpc.driver.decisions import failed_to, next_word, observed, troubled_since
from ebhpc.driver.phases import Step, is_interactive
from ebhpc.driver.writing import Writer, reason_of
from ebhpc.faults import point
from ebhpc.model import Observation
from ebhpc.plugins import Platform, PlatformUnavailable
from ebhpc.store import BrokenDocument, LeaseLost

log = logging.getLogger("ebhpc.driver")

SILENCE = 60.0
"""Seconds that a platform gives no observations before the owners of its sessions are told."""

_WORDS_AT_ONCE = 50
"""How many owners are told in one turn."""


class Watch:
    """Observes the charges of all platforms. ``settle``: for how many seconds a job must be gone."""

    def __init__(self, writer: Writer, platforms: Mapping[str, Platform], *, settle: float) -> None:
        self._writer = writer
        self._platforms = platforms
        self._settle = settle
        self._silent_since: dict[str, float] = {}

    def look(self, name: str, watched: Sequence[Charge]) -> None:
        """Observe charges of one platform and do what follows."""
        asked = {}
        sessions = []
        for charge in watched:
            if not self._writer.charges.take(charge):
                continue
            try:
                sessions.append(self._writer.session(charge))
                asked[charge.record.uuid] = charge
            except BrokenDocument:
                charge.due = min(charge.due, self._writer.clock())  # its step tells the owner
            finally:
                self._writer.put_down(charge)
        if not sessions or not self._writer.holds():
            return
        try:
            point("driver.observe.before", name)
            answers = self._platforms[name].call("ebhpc_observe", sessions=sessions)
            point("driver.observe.after", name)
        except PlatformUnavailable as error:
            self._silent(name, error, list(asked.values()))
            return
        now = self._writer.clock()
        self._writer.answered[name] = now
        self._silent_since.pop(name, None)
        for seen in answers:
            charge = asked.pop(seen.uuid)
            if self._writer.charges.take(charge):
                self._do(charge, lambda charge=charge, seen=seen: self._apply(charge, seen, now))  # type: ignore[misc]
        if asked:
            log.warning(
                "platform %s, ebhpc_observe: no word on %d of %d sessions, such as %s",
                name,
                len(asked),
                len(sessions),
                next(iter(asked)),
            )

    def _apply(self, charge: Charge, seen: Observation, now: float) -> None:
        if seen.state == "GONE":
            charge.gone_since = charge.gone_since if charge.gone_since is not None else now
            settled = now - charge.gone_since >= self._settle
        else:
            charge.gone_since, settled = None, False
        if charge.step is Step.FOLLOW:
            charge.due = math.inf
        session = charge.session
        interactive = is_interactive(charge.record, session.executable if session else None)
        for move in observed(charge.record, seen, now, settled=settled, interactive=interactive):
            self._writer.write(charge, move)

    def _silent(self, name: str, error: PlatformUnavailable, watched: Sequence[Charge]) -> None:
        """Tell the owners of followed sessions, a few in each turn, that nothing is known of their jobs."""
        now = self._writer.clock()
        since = self._silent_since.setdefault(name, now)
        if now - since < SILENCE:
            return
        words = 0
        for charge in watched:
            told_until_then = now < charge.due < math.inf
            if charge.step is not Step.FOLLOW or told_until_then or not self._writer.charges.take(charge):
                continue
            self._do(charge, lambda charge=charge: self._tell(charge, error, since, now))  # type: ignore[misc]
            words += 1
            if words == _WORDS_AT_ONCE:
                return

    def _tell(self, charge: Charge, error: PlatformUnavailable, since: float, now: float) -> None:
        patience = self._writer.patience()
        move = failed_to(charge.record, Step.FOLLOW, reason_of(error), now, patience, since=since)
        self._writer.write(charge, move)
        if charge.step is Step.FOLLOW:
            charge.due = next_word(troubled_since(charge.record, since), now, patience)

    def _do(self, charge: Charge, work: Callable[[], None]) -> None:
        """Work on a charge that was taken, and put it down, whatever happens."""
        uuid = charge.record.uuid
        try:
            work()
        except LeaseLost as error:
            log.debug("session %s: %s", uuid, error, extra={"session": uuid})
            charge.stale = True
        except Exception:  # the next turn observes it again
            log.exception("session %s: an error while following it", uuid, extra={"session": uuid})
        finally:
            self._writer.put_down(charge)
