"""Errors as RFC 9457 problem documents, whose ``messages`` are the standard's MessageItems."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

import falcon
import msgspec

from ebhpc.model import Message, MessageKind, message

CHALLENGE = 'Basic realm="ebhpc", charset="UTF-8"'
"""The ``WWW-Authenticate`` header of an answer 401, where there are no issuers of tokens."""

_KINDS = {
    401: MessageKind.POLICY_REFUSED,
    403: MessageKind.POLICY_REFUSED,
    404: MessageKind.RESOURCE_NOT_FOUND,
    409: MessageKind.CONFLICT,
    413: MessageKind.RESOURCE_LIMIT,
    429: MessageKind.RESOURCE_LIMIT,
    431: MessageKind.RESOURCE_LIMIT,
}
"""What an error that Falcon itself raises is about; those not listed are about what is not supported."""


class Problem(falcon.HTTPError):
    """An error that is answered: its ``status``, a sentence (``detail``), ``messages`` for programs and people.

    Without messages the detail becomes one, of the kind ``kind``.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        messages: Iterable[Message] = (),
        kind: MessageKind | None = None,
        headers: Mapping[str, str] | None = None,
        **values: str | int | Exception,
    ) -> None:
        told = tuple(messages)
        if not told:
            about = kind or _KINDS.get(status, MessageKind.NOT_SUPPORTED)
            told = (message(about, detail, level="ERROR", time=None, **values),)
            detail = str(told[0])
        self.messages = told
        super().__init__(status, title=HTTPStatus(status).phrase, description=detail, headers=dict(headers or {}))

    def document(self) -> dict[str, Any]:
        """Return the problem document as plain data."""
        return {
            "type": "about:blank",
            "title": self.title,
            "status": self.status_code,
            "detail": self.description,
            "messages": msgspec.to_builtins(self.messages),
        }


def problem_of(error: falcon.HTTPError) -> Problem:
    """Return the problem for an error that Falcon raised."""
    if isinstance(error, Problem):
        return error
    status = error.status_code
    detail = error.description or HTTPStatus(status).description or HTTPStatus(status).phrase
    problem = Problem(status, "{reason}", reason=detail)
    problem.headers = error.headers
    return problem


def unauthenticated(reason: str, challenge: str = CHALLENGE) -> Problem:
    """401: who asks is not known; ``challenge`` says how to be known."""
    return Problem(401, "{reason}", reason=reason, headers={"WWW-Authenticate": challenge})


def forbidden(what: str) -> Problem:
    """403: ``what`` is not for who asks."""
    return Problem(403, "{what} is not yours", what=what)


def not_found(what: str) -> Problem:
    """404: there is no ``what``."""
    return Problem(404, "there is no {what}", what=what)


def malformed(messages: Iterable[Message]) -> Problem:
    """400: a document that cannot be read; one message for each thing that is wrong."""
    told = tuple(messages)
    count = "one problem" if len(told) == 1 else f"{len(told)} problems"
    return Problem(400, f"the document cannot be read: {count}", messages=told)
