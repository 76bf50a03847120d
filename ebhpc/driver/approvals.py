"""Sessions that an operator must approve: they are held, and wait to be prepared until that is decided."""

from __future__ import annotations

from ebhpc.driver.moves import Move
from ebhpc.driver.notices import at, notice
from ebhpc.driver.phases import Step
from ebhpc.model import MessageKind, Phase
from ebhpc.store import Change, SessionRecord


def waits_for_approval(record: SessionRecord, step: Step) -> bool:
    """Whether a session cannot take its next step before an operator has approved it."""
    return step is Step.WAIT and record.approval is not None and record.approval.approved is None


def not_approved(record: SessionRecord, now: float) -> Move:
    """The end of a session that nobody approved in time."""
    assert record.approval is not None
    told = notice(
        now,
        MessageKind.APPROVAL,
        "ERROR",
        "no operator of {platform} approved it by {deadline}; what was kept for it is given back",
        platform=record.platform,
        deadline=at(record.approval.deadline),
    )
    return Move(
        there=Phase.FAILED,
        cause="not approved in time",
        change=Change(messages=(told,), outcome=Phase.FAILED, attempt=0),
    )
