"""Where the site's rules let things be fetched from: URLs in one way of writing them, and the patterns that name them.

``ebhpc.batch.runner`` has the same for nodes without ebhpc; a test compares the two.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from ebhpc.model import SourceRule

_PORTS = {"http": 80, "https": 443}


class Place(Struct, frozen=True, kw_only=True):
    """A URL in the one way of writing it: lower-case scheme and host, its usual port left out, its path decoded."""

    scheme: str
    host: str
    path: str


def place_of(url: str) -> Place | None:
    """Read a URL; None: it is none."""
    try:
        parts = urlsplit(url.strip())
        scheme, host, port = parts.scheme.lower(), (parts.hostname or "").rstrip(".").lower(), parts.port
    except ValueError:
        return None
    if not scheme:
        return None
    if port is not None and port != _PORTS.get(scheme):
        host = f"{host}:{port}"
    path = unquote(parts.path).replace("\\", "/")
    plain = posixpath.normpath("/" + path.lstrip("/"))
    return Place(scheme=scheme, host=host, path=plain + "/" if path.endswith("/") and plain != "/" else plain)


def place_matches(pattern: str, place: Place) -> bool:
    """Whether a URL begins as a pattern says: ``https://*.example.org/public/``; without scheme: http or https."""
    if pattern == "*":
        return True
    scheme, colon, rest = pattern.partition("://")
    if not colon:
        scheme, rest = "", pattern
    host, slash, path = rest.partition("/")
    if place.scheme != scheme.lower() if scheme else place.scheme not in _PORTS:
        return False
    return host_matches(host, place.host) and (not slash or _below(posixpath.normpath("/" + path), place.path))


def host_matches(pattern: str, host: str) -> bool:
    """Whether a host is the one that is named, or below ``*.example.org``."""
    wanted = pattern.rstrip(".").lower()
    if wanted == "*":
        return True
    return host.endswith(wanted[1:]) if wanted.startswith("*.") else host == wanted


def url_allowed(url: str, allow: Sequence[str] | None, deny: Sequence[str]) -> bool:
    """Whether a URL matches one of ``allow`` (None: any may) and none of ``deny``."""
    place = place_of(url)

    def named(patterns: Sequence[str]) -> bool:
        return (
            place is not None and bool(place.host or place.path) and any(place_matches(one, place) for one in patterns)
        )

    return not named(deny) and (allow is None or named(allow))


def refusing_rule(rules: Sequence[SourceRule], url: str) -> str | None:
    """Return the name of a rule by which a URL may not be fetched; None: there is none."""
    return next((one.rule for one in rules if not url_allowed(url, one.allow, one.deny)), None)


def _below(top: str, path: str) -> bool:
    return top == "/" or path.rstrip("/") == top or path.startswith(top + "/")
