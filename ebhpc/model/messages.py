"""Messages to users: the standard's MessageItem, and the one place where they are made."""

from __future__ import annotations

import re
from datetime import datetime
from enum import StrEnum
from typing import Literal

from msgspec import Struct

Level = Literal["DEBUG", "INFO", "WARN", "ERROR", "OTHER"]


class MessageKind(StrEnum):
    """The URNs that say what a message is about, for programs."""

    INPUT_SYNTAX = "urn:input-syntax-fail"
    INVALID_VALUE = "urn:invalid-value"
    MISSING_VALUE = "urn:missing-required-value"
    NOT_SUPPORTED = "urn:not-supported"
    RESOURCE_LIMIT = "urn:resource-limit"
    RESOURCE_NOT_FOUND = "urn:resource-not-found"
    DUPLICATE_RESOURCE = "urn:duplicate-resource"
    EXECUTABLE_REQUIRED = "urn:executable-required"
    DIGEST_MISMATCH = "urn:image-digest-mismatch"
    POLICY_REFUSED = "urn:policy-refused"
    NO_WINDOW = "urn:no-window"
    PLATFORM_UNAVAILABLE = "urn:platform-unavailable"
    UNKNOWN_PROPERTY = "urn:unknown-property"
    CONFLICT = "urn:conflict"
    PROGRESS = "urn:progress"
    FAILED = "urn:execution-failed"
    TIME_LIMIT = "urn:time-limit"
    APPROVAL = "urn:approval"


class Message(Struct, frozen=True, kw_only=True, omit_defaults=True, rename={"filled": "message"}):
    """One MessageItem. ``template`` has ``{name}`` holes that ``values`` fill (messagetemplates.org)."""

    kind: str | None = None
    time: datetime | None = None
    level: Level | None = None
    template: str | None = None
    values: dict[str, str] | None = None
    filled: str | None = None

    def __str__(self) -> str:
        return self.filled or self.template or self.kind or ""


_HOLE = re.compile(r"\{(\w+)\}")


def message(
    kind: str,
    template: str,
    *,
    level: Level = "ERROR",
    time: datetime | None = None,
    **values: object,
) -> Message:
    """Make a message: ``template`` with its ``{name}`` holes filled from ``values``.

    By convention a value named ``path`` is the JSON pointer of the element meant, from the document's root.

    Raises:
        KeyError: a hole that no value fills.
    """
    texts = {name: str(value) for name, value in values.items()}
    filled = _HOLE.sub(lambda hole: texts[hole[1]], template)
    return Message(kind=str(kind), time=time, level=level, template=template, values=texts or None, filled=filled)
