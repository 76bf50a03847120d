"""``/admin/approvals``: firm time that waits for an operator's word."""

from __future__ import annotations

import falcon
import msgspec

from ebhpc.api.access import Access, Readable
from ebhpc.api.answers import ApprovalItem, ApprovalList
from ebhpc.api.broker import Broker
from ebhpc.api.problems import Problem, malformed, not_found
from ebhpc.api.rendering import session_document
from ebhpc.api.sessions import is_uuid
from ebhpc.api.wire import answer, base_url, read_body
from ebhpc.model import Message, MessageKind, message
from ebhpc.model.times import duration_text, instant_text
from ebhpc.store import SessionRecord, decide, get_session, pending_approvals

LONGEST_REASON = 500


class Approvals(Readable):
    """``/admin/approvals``."""

    access = Access.ADMINISTRATORS

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer the sessions that wait, the most urgent first."""
        broker = self._broker
        with broker.store.read() as tx:
            waiting = pending_approvals(tx)
        base = base_url(req, broker.config.api)
        answer(req, resp, ApprovalList(approvals=[approval_item(record, base) for record in waiting]))


class Approval:
    """``/admin/approvals/{uuid}``."""

    access = Access.ADMINISTRATORS

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def on_post(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Approve a session, or refuse it, which ends it."""
        broker = self._broker
        approved, reason = wanted_decision(read_body(req, broker.config.api))
        with broker.store.read() as tx:
            record = get_session(tx, uuid) if is_uuid(uuid) else None
        if record is None:
            raise not_found(f"session {uuid}")
        operator, now = req.context.identity.username, broker.clock()
        decided = decide(
            broker.store,
            uuid,
            approved=approved,
            operator=operator,
            reason=reason,
            told=decision_message(record, approved=approved, reason=reason),
            now=now,
            audit=broker.audit.entry(req, "approve" if approved else "refuse", "session", uuid, detail=reason or ""),
        )
        if decided is None:
            raise not_found(f"session {uuid}")
        if not decided.done:
            raise _waits_for_nothing(decided.session)
        answer(req, resp, session_document(decided.session, base_url(req, broker.config.api), now=now))


def approval_item(record: SessionRecord, base: str) -> ApprovalItem:
    """Return what an operator needs to know of a session that waits."""
    assert record.approval is not None, "only those that wait are listed"
    executable = msgspec.json.decode(record.document).get("executable", {})
    return ApprovalItem(
        session=record.uuid,
        url=f"{base}/sessions/{record.uuid}",
        name=executable.get("meta", {}).get("name"),
        executable=executable.get("kind", ""),
        owner=record.username,
        platform=record.platform,
        phase=record.phase.value,
        start=instant_text(record.start),
        duration=duration_text(record.duration),
        nodes=[share.node for share in record.allocations],
        deadline=instant_text(record.approval.deadline),
    )


def wanted_decision(raw: object) -> tuple[bool, str | None]:
    """Return what a body decides: whether it approves, and why.

    Raises:
        Problem: 400, with a message for each thing that is wrong.
    """
    if not isinstance(raw, dict):
        raise malformed([message(MessageKind.INPUT_SYNTAX, "expected a mapping with decision and reason", path="")])
    problems = []
    decision, reason = raw.get("decision"), raw.get("reason")
    if decision not in ("approve", "refuse"):
        problems.append(_invalid("/decision", "approve or refuse"))
    if reason is not None and not (
        isinstance(reason, str) and reason.isprintable() and 0 < len(reason) <= LONGEST_REASON
    ):
        problems.append(_invalid("/reason", f"a line of 1 to {LONGEST_REASON} characters"))
    problems += [_invalid(f"/{key}", "decision and reason, and nothing else") for key in raw.keys() - _KEYS]
    if problems:
        raise malformed(problems)
    return decision == "approve", reason


_KEYS = frozenset({"decision", "reason"})


def _invalid(path: str, expected: str) -> Message:
    return message(
        MessageKind.INVALID_VALUE, "{path} cannot be used: expected {expected}", path=path, expected=expected
    )


def decision_message(record: SessionRecord, *, approved: bool, reason: str | None) -> Message:
    """Return what the owner is told of an operator's word."""
    if approved:
        text = "an operator of {platform} has approved it"
    else:
        text = "an operator of {platform} has refused it; what was kept for it is given back"
    if reason is None:
        return message(MessageKind.APPROVAL, text, level="INFO" if approved else "ERROR", platform=record.platform)
    return message(
        MessageKind.APPROVAL,
        text + ": {reason}",
        level="INFO" if approved else "ERROR",
        platform=record.platform,
        reason=reason,
    )


def _waits_for_nothing(record: SessionRecord) -> Problem:
    word = record.approval
    if word is not None and word.approved is not None:
        reason = f"{word.operator} has {'approved' if word.approved else 'refused'} it already"
    elif word is not None:
        reason = f"it is {record.phase}"
    else:
        reason = "nobody has to approve it"
    return Problem(
        409,
        "the session {session} does not wait for approval: {reason}",
        kind=MessageKind.CONFLICT,
        session=record.uuid,
        reason=reason,
    )
