"""What a broker says about an error: RFC 9457 problem documents, and what other brokers send instead."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec

from ebhpc.model import Message


def problem_messages(data: Any) -> tuple[Message, ...]:
    """Return the messages of a problem document, or of a component that says in its ``meta`` why."""
    if not isinstance(data, Mapping):
        return ()
    items = data.get("messages")
    if items is None and isinstance(meta := data.get("meta"), Mapping):
        items = meta.get("messages")
    if not isinstance(items, list):
        return ()
    return tuple(_message(item) for item in items)


def problem_summary(data: Any, status: int, path: str) -> str:
    """Say in one line what a broker's error is."""
    if isinstance(data, Mapping):
        for name in ("detail", "title", "error"):
            text = data.get(name)
            if isinstance(text, str) and text:
                return text
    messages = problem_messages(data)
    if messages:
        return str(messages[0])
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "unknown status"
    return f"{path}: the broker answered {status} {phrase}"


def _message(item: Any) -> Message:
    try:
        return msgspec.convert(item, Message, strict=False)
    except msgspec.ValidationError:
        # A broker's message must reach the user even where it is not shaped as the standard says.
        text = item.get("message") if isinstance(item, Mapping) else item
        return Message(filled=str(text if text is not None else item))
