"""Carrying out a session's next step: its hooks, called outside of any transaction, and the move that follows.

Every step can be repeated from its beginning: hooks are safe to repeat by the session's UUID, and a move is written
only while the session is still in its phase and its lease still ours.
"""

from __future__ import annotations

import logging
import math

from msgspec.structs import replace
from sqlalchemy.exc import DBAPIError

from ebhpc import tracing
from ebhpc.driver import replacing, reserved
from ebhpc.driver.approvals import not_approved, waits_for_approval
from ebhpc.driver.charges import Charge
from ebhpc.driver.decisions import (
    cleaned,
    failed_to,
    lateness,
    next_word,
    reached,
    refused,
    too_late,
    troubled_since,
)
from ebhpc.driver.moves import Move
from ebhpc.driver.notices import progress, timed
from ebhpc.driver.phases import BEFORE_ITS_JOB, MACHINE, Step, missed, when
from ebhpc.driver.writing import Writer, reason_of
from ebhpc.model import Message, Phase
from ebhpc.plugins import PlatformUnavailable, SessionFailed
from ebhpc.store import BrokenDocument, Change, LeaseLost, SessionRecord, Store

log = logging.getLogger("ebhpc.driver")


class Steps:
    """Runs the steps of charges, one at a time. ``settle``: the least seconds between two calls to end a job."""

    def __init__(self, store: Store, writer: Writer, *, settle: float) -> None:
        self._store = store
        self._writer = writer
        self._settle = settle

    def run(self, charge: Charge) -> None:
        """Run the next step of a charge that the caller has taken, and put it down, whatever happens."""
        step = charge.step
        uuid = charge.record.uuid
        try:
            if step is not None:
                with tracing.span(f"step {step}", session=uuid, platform=charge.record.platform):
                    self._run(charge, step)
        except LeaseLost as error:
            log.debug("session %s: %s", uuid, error, extra={"session": uuid})
            charge.stale = True
            charge.due = max(charge.due, self._writer.clock() + self._writer.settings.interval)
        except SessionFailed as error:
            assert step is not None
            result = refused(step, error.messages, self._writer.clock())
            change = replace(result.change, submitting=None if charge.unsure else False)
            self._note(charge, replace(result, change=change))
        except (PlatformUnavailable, BrokenDocument) as error:
            self._failed(charge, step, error)
        except DBAPIError:
            log.exception("session %s: the database failed while %s", uuid, step, extra={"session": uuid})
            self._writer.later(charge)
        except Exception as error:  # a bug of ours must not stop the others' sessions
            log.exception("session %s: an error while %s", uuid, step, extra={"session": uuid})
            self._failed(charge, step, error)
        finally:
            self._writer.put_down(charge)

    def interrupt(self, record: SessionRecord) -> None:
        """Tell a platform that still prepares a session that it was cancelled: it need not go on.

        Whether it heeds that is its own affair; the session is cleaned up when ``ebhpc_prepare`` has come back.
        """
        try:
            self._writer.call(Charge(record), "ebhpc_cancel")
        except (PlatformUnavailable, BrokenDocument, LeaseLost) as error:
            log.debug("session %s: %s", record.uuid, error, extra={"session": record.uuid})

    def _run(self, charge: Charge, step: Step) -> None:
        if step in BEFORE_ITS_JOB and self._not_now(charge, step):
            return
        match step:
            case Step.HOLD | Step.WAIT | Step.PREPARE:
                self._get_ready(charge, step)
            case Step.SUBMIT:
                self._submit(charge)
            case Step.FOLLOW:  # its observations come in bulk; here it is only seen whether they can
                self._writer.platform(charge.record)
                self._writer.session(charge)
                charge.due = math.inf
            case Step.END:
                self._end(charge)
            case Step.CLEAN:
                self._clean(charge)

    def _not_now(self, charge: Charge, step: Step) -> bool:
        """Whether it is too late for the step, or too early; either is dealt with."""
        writer = self._writer
        now = writer.clock()
        if missed(charge.record, now):
            writer.write(charge, too_late(charge.record, now))
            return True
        begin = when(charge.record, step, writer.lead(charge.record))
        if now >= begin and waits_for_approval(charge.record, step):
            writer.write(charge, not_approved(charge.record, now))
            return True
        if now < begin:
            if begin - now > writer.settings.interval:
                writer.write(charge, Move(cause="early", change=Change(due=begin, unlease=True)))
            else:
                charge.due = begin
            return True
        return False

    def _get_ready(self, charge: Charge, step: Step) -> None:
        writer = self._writer
        held = None
        messages: tuple[Message, ...] = ()
        if step is Step.HOLD and charge.record.wants.reserved:
            self._fix(charge)
        if step is Step.HOLD and writer.platform(charge.record).implements("ebhpc_hold"):
            self._note_try(charge)
            held = writer.call(charge, "ebhpc_hold")
            if charge.record.wants.extends is not None:
                replacing.take_over_from(self._store, charge.record, writer.clock())
        if step is Step.PREPARE:
            prepared = writer.call(charge, "ebhpc_prepare")
            messages = timed(prepared.messages, writer.clock()) if prepared is not None else ()
        result = reached(charge.record, step, writer.clock(), lead=writer.lead(charge.record))
        change = replace(result.change, held=held, submitting=False, messages=(*messages, *result.change.messages))
        writer.write(charge, replace(result, change=change))

    def _fix(self, charge: Charge) -> None:
        """Fix when reserved time ends, before anything is reserved: at what it was asked for, counted from now."""
        finish = reserved.fixed_finish(charge.record, self._writer.clock())
        if finish is not None:
            self._writer.write(charge, Move(cause="fixed", change=Change(finish=finish, booked_until=finish)))

    def _note_try(self, charge: Charge, *messages: Message) -> None:
        """Note, before a hook is called, that it may make something whose name is lost with its answer.

        Written at each try: whoever lost the lease meanwhile must not come as far as the hook.
        """
        charge.unsure = charge.record.submitting
        self._writer.write(charge, Move(cause="about to ask", change=Change(submitting=True, messages=messages)))

    def _submit(self, charge: Charge) -> None:
        writer = self._writer
        tried_before = charge.record.submitting
        self._note_try(charge, *(() if tried_before else lateness(charge.record, writer.clock())))
        native = writer.call(charge, "ebhpc_submit")
        if charge.record.wants.replaces is not None and charge.record.wants.extends is None:
            replacing.end_replaced(self._store, charge.record, writer.clock())
        words = "the job is with {platform}" if charge.record.firm else "the job waits in the queue of {platform}"
        told = progress(writer.clock(), words, platform=charge.record.platform, native=native)
        if charge.record.wants.reserved:
            told = reserved.stands(charge.record, writer.clock())
        change = Change(native=native, submitting=False, attempt=0, messages=(told,))
        writer.write(charge, Move(cause="submitted", change=change))

    def _end(self, charge: Charge) -> None:
        """Ask for the job's end; when it does not come, ask again, ever more rarely."""
        charge.asked += 1
        self._writer.call(charge, "ebhpc_cancel")
        if charge.asked > 1 and charge.gone_since is None:
            self._failed(charge, Step.END, TimeoutError("its job has not ended yet"))
        else:
            charge.due = self._writer.clock() + self._settle

    def _clean(self, charge: Charge) -> None:
        writer = self._writer
        never_accepted = charge.record.phase in (Phase.REJECTED, Phase.EXPIRED)
        for hook in MACHINE[Step.CLEAN].hooks:
            if hook == "ebhpc_release" or not never_accepted:
                writer.call(charge, hook)
        now = writer.clock()
        writer.write(charge, cleaned(charge.record, now, keep_results=int(writer.settings.keep_results)))

    # --- failures ------------------------------------------------------------------------------------------------

    def _failed(self, charge: Charge, step: Step | None, error: Exception) -> None:
        """Put a step off that got no answer."""
        if step is None:
            return
        writer = self._writer
        record = charge.record
        now = writer.clock()
        patience = writer.patience()
        pause = getattr(error, "retry_after", None) or 0.0
        answered = writer.answered.get(record.platform, 0.0)
        self._note(
            charge,
            failed_to(record, step, reason_of(error), now, patience, answered=answered, pause=pause),
        )
        if charge.step is Step.FOLLOW:
            charge.due = next_word(troubled_since(charge.record, now), now, patience)
        elif charge.step is Step.END:
            wait = patience.delay(charge.record.attempt)
            charge.due = now + max(wait, pause, self._settle if charge.asked > 1 else 0.0)

    def _note(self, charge: Charge, result: Move) -> None:
        """Write what follows from a failure; where that fails as well, try the step again in a while."""
        uuid = charge.record.uuid
        try:
            if result.there is Phase.FAILED or result.cause.startswith("gave up"):
                log.error("session %s: %s", uuid, result.cause, extra={"session": uuid})
            self._writer.write(charge, result)
        except LeaseLost as error:
            log.debug("session %s: %s", uuid, error, extra={"session": uuid})
            charge.stale = True
        except Exception:  # the database, most likely
            log.exception("session %s: could not note a failure", uuid, extra={"session": uuid})
            self._writer.later(charge)
