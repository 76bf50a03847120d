"""How rules name URLs, hosts, images and kinds, so that no way of writing one leads around a rule."""

from __future__ import annotations

import posixpath
import re
from fnmatch import fnmatchcase
from urllib.parse import unquote, urlsplit

from msgspec import Struct

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


def image_matches(pattern: str, name: str) -> bool:
    """Whether an image's name, as ``quay.io/astro/tools``, is one that is meant."""
    return fnmatchcase(name, pattern)


def kind_matches(pattern: str, kind: str) -> bool:
    """Whether a kind ends with the words of a pattern, as ``docker-container``."""
    plain = kind.removesuffix(".yaml")
    return pattern == "*" or re.search(rf"(?:^|/){re.escape(pattern.removesuffix('.yaml'))}$", plain) is not None


def _below(top: str, path: str) -> bool:
    return top == "/" or path.rstrip("/") == top or path.startswith(top + "/")
