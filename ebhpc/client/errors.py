"""What can go wrong between a client and a broker, as exceptions that carry the broker's own messages."""

from __future__ import annotations

from ebhpc.model import Message


class BrokerError(Exception):
    """A call did not give what was asked for.

    ``summary`` says what happened in one line, ``status`` is the HTTP status (None: no answer), ``messages``
    are those of the broker's problem document, each with the JSON pointer of the element meant as its value
    ``path``.
    """

    def __init__(self, summary: str, *, status: int | None = None, messages: tuple[Message, ...] = ()) -> None:
        super().__init__(summary)
        self.summary = summary
        self.status = status
        self.messages = messages

    def __str__(self) -> str:
        return "\n".join([self.summary, *(f"  {line}" for line in self._lines())])

    def _lines(self) -> list[str]:
        return [
            f"{path}: {text}" if (path := (item.values or {}).get("path")) else text
            for item in self.messages
            if (text := str(item)) != self.summary
        ]


class Unreachable(BrokerError):
    """No broker answered there, or it said that it cannot answer now. Nothing was changed."""


class NoAnswer(Unreachable):
    """The call was sent and no answer came: it may have been carried out, now or later."""


class NotAuthorised(BrokerError):
    """The broker does not know the caller (401), or does not let the caller do this (403)."""


class NotFound(BrokerError):
    """The broker has nothing of that name."""


class Unsupported(NotFound):
    """The endpoint is not part of the standard, and this broker does not have it."""


class Conflict(BrokerError):
    """What was asked is not possible in the session's present phase; nothing was changed."""


class Refused(BrokerError):
    """The broker found the document that it was sent malformed, too large, or impossible to run."""


class BadAnswer(BrokerError):
    """The answer is not what the standard says, or the broker failed (5xx)."""
