"""What is wrong with a request, gathered while it is read; the checks of texts that all elements share."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

from ebhpc.model.elements import UnknownElement
from ebhpc.model.messages import Message, MessageKind, message
from ebhpc.model.structure import shown

LARGEST = 2**31 - 1
"""Counts and sizes are below this: sums and products with them stay far inside 64 bits."""

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_SPACE = re.compile(r"\s")
_HOSTED = frozenset({"http", "https", "ftp", "ftps", "s3", "docker", "oras", "ssh", "sftp"})


class RequestLimits(Struct, frozen=True, kw_only=True):
    """How much one request may ask for, whatever the platform.

    ``elements``: storage, data and volume elements together. ``items``: entries of one list or map
    (arguments, environment, ports, image locations). ``name`` and ``text``: characters of a name, and of a
    URL, a path or any other text. ``horizon``: seconds from now to the latest start; a later end of the start
    interval is cut.
    """

    elements: int = 256
    items: int = 1024
    name: int = 255
    text: int = 32_768
    horizon: int = 10 * 366 * 86_400


class Findings:
    """The problems of one request, in the order in which they were found."""

    def __init__(self, limits: RequestLimits) -> None:
        self.limits = limits
        self.problems: list[Message] = []

    def invalid(self, path: str, value: object, expected: str) -> None:
        """Report a value that cannot be."""
        self.problems.append(
            message(
                MessageKind.INVALID_VALUE,
                "{value} at {path} cannot be used: expected {expected}",
                path=path,
                value=shown(value),
                expected=expected,
            )
        )

    def missing(self, path: str, expected: str) -> None:
        """Report a required value that is not there."""
        self.problems.append(
            message(MessageKind.MISSING_VALUE, "{path} is required: {expected}", path=path, expected=expected)
        )

    def reject(self, kind: MessageKind, template: str, path: str, **values: str | int | ValueError) -> None:
        """Report anything else; ``template`` may use ``path`` and the values."""
        texts = {name: str(value) for name, value in values.items()}
        self.problems.append(message(kind, template, level="ERROR", time=None, path=path, **texts))

    def known(self, element: Any, path: str) -> bool:
        """Whether an element's kind is known; report it if not."""
        if not isinstance(element, UnknownElement):
            return True
        self.reject(
            MessageKind.NOT_SUPPORTED,
            "the kind {value} at {path} is not supported here",
            path,
            value=shown(element.kind),
        )
        return False

    def few(self, items: Any, path: str) -> bool:
        """Whether a list or map is within the limits; report it if not."""
        if len(items) <= self.limits.items:
            return True
        self.reject(
            MessageKind.RESOURCE_LIMIT,
            "{path} has {value} entries, at most {limit} are accepted",
            path,
            value=len(items),
            limit=self.limits.items,
        )
        return False

    def text(self, value: str, path: str) -> bool:
        """Whether a text is neither too long nor has a NUL character; report it if not."""
        if len(value) > self.limits.text:
            self.invalid(path, value, f"at most {self.limits.text} characters")
        elif "\0" in value:
            self.invalid(path, value, "a text without NUL characters")
        else:
            return True
        return False

    def line(self, value: str, path: str, expected: str) -> bool:
        """Whether a text is not empty, not too long and without control characters; report it if not."""
        if not self.text(value, path):
            return False
        if not value or _CONTROL.search(value):
            self.invalid(path, value, f"{expected}, not empty and without control characters")
            return False
        return True

    def name(self, value: str, path: str) -> bool:
        """Whether a name can be used; report it if not."""
        if len(value) > self.limits.name:
            self.invalid(path, value, f"a name of at most {self.limits.name} characters")
            return False
        return self.line(value, path, "a name")

    def url(self, value: str | None, path: str) -> None:
        """Report a URL that is not well-formed and absolute; None is no error."""
        if value is None or not self.line(value, path, "a URL"):
            return
        expected = "an absolute URL such as https://example.org/some/file"
        if _SPACE.search(value) or not _SCHEME.match(value):
            self.invalid(path, value, expected)
            return
        try:
            parts = urlsplit(value)
            port = parts.port
        except ValueError:
            self.invalid(path, value, expected)
            return
        hostless = parts.scheme.lower() in _HOSTED and not parts.hostname
        if hostless or port == 0 or not (parts.netloc or parts.path):
            self.invalid(path, value, expected)
