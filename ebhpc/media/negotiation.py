"""Media types: which form a body has, and which one a client wants (RFC 9110, section 12.5.1)."""

from __future__ import annotations

import re
from typing import Literal

from msgspec import Struct

from ebhpc.media.errors import NotAcceptable, UnsupportedMedia

JSON = "application/json"
YAML = "application/yaml"
PROBLEM_JSON = "application/problem+json"
PROBLEM_YAML = "application/problem+yaml"
_PROBLEMS = (PROBLEM_JSON, PROBLEM_YAML)

Form = Literal["json", "yaml"]

_YAMLS = frozenset({YAML, "text/yaml", "application/x-yaml", "text/x-yaml"})
_TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_TYPE = re.compile(rf"({_TOKEN})/({_TOKEN})")
_PARAMETER = re.compile(rf'\s*({_TOKEN})\s*=\s*({_TOKEN}|"(?:[^"\\]|\\.)*+")\s*')
_QUALITY = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")
_RANGES = re.compile(r'(?:[^,"]++|"(?:[^"\\]++|\\.)*+"?)+')
_SETTINGS = re.compile(r'(?:[^;"]++|"(?:[^"\\]++|\\.)*+"?)+')


class MediaType(Struct, frozen=True):
    """A media type in lower case, and its parameters."""

    name: str
    parameters: dict[str, str]


def parse_media_type(text: str) -> MediaType | None:
    """Read a media type or range with its parameters; None if it is not one."""
    parts = _SETTINGS.findall(text)
    if not parts or not _TYPE.fullmatch(parts[0].strip()):
        return None
    parameters = {}
    for part in parts[1:]:
        match = _PARAMETER.fullmatch(part)
        if match is None:
            return None
        value = match[2]
        if value.startswith('"'):
            value = re.sub(r"\\(.)", r"\1", value[1:-1])
        parameters[match[1].lower()] = value
    return MediaType(parts[0].strip().lower(), parameters)


def form_of(name: str) -> Form | None:
    """Return the form of a media type's bodies, None if it is neither JSON nor YAML."""
    if name == JSON or name.endswith("+json"):
        return "json"
    if name in _YAMLS or name.endswith("+yaml"):
        return "yaml"
    return None


def read_content_type(content_type: str | None) -> tuple[Form, str | None]:
    """Return the form of a body and its charset (None: not given) by its Content-Type; without one it is YAML.

    Raises:
        UnsupportedMedia: neither JSON nor YAML.
    """
    if content_type is None or not content_type.strip():
        return "yaml", None
    media = parse_media_type(content_type)
    form = form_of(media.name) if media else None
    if media is not None and media.name == "*/*":
        form = "yaml"
    if media is None or form is None:
        shown = ascii(content_type[:100])
        raise UnsupportedMedia(f"the media type {shown} is not read here: send {JSON} or {YAML}")
    return form, media.parameters.get("charset")


def negotiate(accept: str | None) -> str:
    """Return the media type to answer with, by the Accept header.

    The highest quality wins; of equal ones the type that is named rather than matched by a wildcard; of these
    YAML. Without a header, or with ``*/*``, it is YAML. A type such as text/yaml or application/x+json is
    answered as it was named. Ranges that cannot be read are passed over.

    Raises:
        NotAcceptable: neither JSON nor YAML is among them.
    """
    if accept is None:
        return YAML
    ranges = [found for found in map(_read_range, _RANGES.findall(accept)) if found is not None]
    if not ranges:
        return YAML
    best: tuple[float, int, int, str] | None = None
    named = [name for name, _ in ranges]
    texts = ["text/yaml"] if "text/*" in named else []
    for name in [YAML, JSON, *texts, *filter(form_of, named)]:
        if name in _PROBLEMS:
            continue
        quality, precision = _judge(name, ranges)
        rank = (quality, precision, 1 if form_of(name) == "yaml" else 0, name)
        if quality > 0 and (best is None or rank[:3] > best[:3]):
            best = rank
    if best is not None:
        return best[3]
    # Whoever accepts only problem documents gets the same form where there is no problem.
    problems = [(quality, name) for name, quality in ranges if quality > 0 and name in _PROBLEMS]
    if problems:
        return JSON if max(problems)[1] == PROBLEM_JSON else YAML
    raise NotAcceptable(f"none of {accept[:200]!a} can be sent: accept {YAML} or {JSON}")


def _read_range(text: str) -> tuple[str, float] | None:
    media = parse_media_type(text)
    if media is None:
        return None
    quality = media.parameters.get("q", "1")
    return (media.name, float(quality)) if _QUALITY.fullmatch(quality) else None


def _judge(name: str, ranges: list[tuple[str, float]]) -> tuple[float, int]:
    """The quality of a media type by the most precise range that matches it, and how precise that is."""
    quality, precision = 0.0, -1
    for pattern, wanted in ranges:
        if pattern == name:
            found = 2
        elif pattern == name.partition("/")[0] + "/*":
            found = 1
        elif pattern == "*/*":
            found = 0
        else:
            continue
        if found > precision or (found == precision and wanted > quality):
            quality, precision = wanted, found
    return quality, precision


def problem_type(media_type: str) -> str:
    """Return the media type of a problem document (RFC 9457) in the form of ``media_type``."""
    return PROBLEM_JSON if form_of(media_type) == "json" else PROBLEM_YAML
