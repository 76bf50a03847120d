"""What can be wrong with a body or with what a client accepts."""

from __future__ import annotations


class MediaError(Exception):
    """Base of all errors of this package; its text is for the client."""


class UnsupportedMedia(MediaError):
    """A body of a media type or charset that is not read here: 415."""


class NotAcceptable(MediaError):
    """A client that accepts nothing that can be sent: 406."""


class TooLarge(MediaError):
    """A body beyond the limits of size: 413."""


class Malformed(MediaError):
    """A body that is not what its media type says, or beyond the limits of form: 400.

    ``line`` and ``column`` count from 1, in characters; ``what`` is wrong there.
    """

    def __init__(self, line: int, column: int, what: str) -> None:
        super().__init__(f"line {line}, column {column}: {what}")
        self.line = line
        self.column = column
        self.what = what


def malformed_at(text: str, index: int, what: str) -> Malformed:
    """Return the error for what stands at an index of a text."""
    before = text[:index]
    return Malformed(before.count("\n") + 1, index - before.rfind("\n"), what)
