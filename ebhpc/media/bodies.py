"""Whole bodies: bytes to plain data, documents to bytes."""

from __future__ import annotations

import codecs
import contextlib

import msgspec

from ebhpc.media.errors import Malformed, TooLarge, UnsupportedMedia
from ebhpc.media.json_text import read_json
from ebhpc.media.limits import MediaLimits
from ebhpc.media.negotiation import form_of, read_content_type
from ebhpc.media.yaml_text import read_yaml, write_yaml
from ebhpc.model.registry import as_plain

DEFAULT_LIMITS = MediaLimits()

# Longest first: the mark of UTF-32LE begins with that of UTF-16LE, and is refused as NUL characters.
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_CHARSETS = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "us-ascii": "utf-8",
    "utf-16": "utf-16-be",
    "utf-16le": "utf-16-le",
    "utf-16be": "utf-16-be",
}
_JSON = msgspec.json.Encoder(enc_hook=as_plain)


def decode(body: bytes, content_type: str | None, limits: MediaLimits = DEFAULT_LIMITS) -> object:
    """Read a body to plain data: dict with string keys, list, str, int, float, bool, None.

    JSON and YAML, by ``content_type`` (a Content-Type header); absent or ``*/*`` means YAML, of which JSON is
    a part. The text is UTF-8, or UTF-16 where the charset or a byte order mark says so.

    Raises:
        UnsupportedMedia: another media type or charset.
        TooLarge: above ``limits.size``.
        Malformed: not what the media type says, or beyond the other limits.
    """
    form, charset = read_content_type(content_type)
    if len(body) > limits.size:
        raise TooLarge(f"the body has {len(body)} bytes, at most {limits.size} are read")
    text = _text(body, charset)
    if not text.strip():
        raise Malformed(1, 1, "the body is empty")
    if form == "json":
        return read_json(text, limits)
    if text.lstrip()[:1] in ("{", "["):
        # Most often it is JSON. That is YAML too, but PyYAML reads it ten times slower, and no surrogate pairs.
        with contextlib.suppress(Malformed):
            return read_json(text, limits)
    return read_yaml(text, limits)


def _text(body: bytes, charset: str | None) -> str:
    encoding = "utf-8" if charset is None else _CHARSETS.get(charset.lower())
    if encoding is None:
        raise UnsupportedMedia(f"the charset {str(charset)[:40]!a} is not read here: send UTF-8")
    for mark, marked in _MARKS:
        if body.startswith(mark):
            body, encoding = body[len(mark) :], marked
            break
    try:
        return body.decode(encoding)
    except UnicodeDecodeError as error:
        before = body[: error.start].decode(encoding, errors="replace")
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        raise Malformed(line, column, f"not text in {encoding.upper()}: {error.reason}") from None


def encode(document: object, media_type: str) -> bytes:
    """Write a document of the model, or plain data, in the form of ``media_type``, as UTF-8.

    Raises:
        ValueError: a media type that is neither JSON nor YAML.
    """
    form = form_of(media_type)
    if form is None:
        raise ValueError(f"no body is written as {media_type}")
    if form == "json":
        return _JSON.encode(document)
    return write_yaml(msgspec.to_builtins(document, enc_hook=as_plain)).encode()
