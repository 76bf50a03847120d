"""URLs that users give: which are understood, and files that they name on this host."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from ebhpc.config import Network
from ebhpc.staging.reach import WHY, literal_out_of_reach

_CHECKSUM = re.compile(r"(sha256|sha384|sha512|sha1|md5)=([0-9a-fA-F]+)")
_LENGTHS = {"md5": 32, "sha1": 40, "sha256": 64, "sha384": 96, "sha512": 128}


class LocationError(Exception):
    """A URL that cannot be used; the text says why, ``forbidden`` that it is a site's rule."""

    def __init__(self, text: str, *, forbidden: bool = False) -> None:
        self.forbidden = forbidden
        super().__init__(text)


class Location(Struct, frozen=True, kw_only=True):
    """A URL that has been read.

    ``url`` is without its fragment; ``checksum`` is what a fragment ``#sha256=…`` says: the algorithm and the
    hexadecimal digits. ``file`` is set for a ``file:`` URL.
    """

    url: str
    scheme: str
    name: str
    checksum: tuple[str, str] | None = None
    file: Path | None = None


def read_location(
    url: str, roots: Sequence[Path], schemes: Sequence[str] = (), *, private: Sequence[Network] | None = None
) -> Location:
    """Read a URL: http, https, file below one of ``roots``, or one of the other ``schemes``.

    ``private``: the networks that are not public and that an address in it may lie in; None: any address may stand.

    Raises:
        LocationError: it is none of these.
    """
    if any(ord(char) < 32 or char == "\x7f" for char in url) or len(url) > 8192:
        raise LocationError("it is no URL")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise LocationError(f"it is no URL: {error}") from None
    scheme = parts.scheme.lower()
    name = file_name(unquote(parts.path).rpartition("/")[2])
    checksum = _checksum(parts.fragment)
    plain = url.partition("#")[0]
    if scheme in ("http", "https"):
        if not host:
            raise LocationError("it names no host")
        if private is not None and literal_out_of_reach(host, private):
            raise LocationError(WHY, forbidden=True)
        return Location(url=plain, scheme=scheme, name=name, checksum=checksum)
    if scheme == "file":
        if host not in (None, "", "localhost"):
            raise LocationError("a file: URL cannot name another host")
        path = Path(unquote(parts.path))
        if not path.is_absolute() or "\0" in str(path):
            raise LocationError("it names no absolute path")
        if not _below(os.path.realpath(path), roots):
            raise LocationError("the file is not below one of the site's file roots", forbidden=True)
        return Location(url=plain, scheme=scheme, name=name, checksum=checksum, file=path)
    if scheme in schemes:
        return Location(url=plain, scheme=scheme, name=name, checksum=checksum)
    known = ", ".join(["http", "https", "file", *schemes])
    raise LocationError(f"its scheme {scheme!r} is not among {known}" if scheme else "it is no absolute URL")


def open_below(path: Path, roots: Sequence[Path]) -> int:
    """Open a file for reading, and make sure that what was opened lies below one of ``roots``.

    Raises:
        OSError: it cannot be opened.
        LocationError: symbolic links led elsewhere, or it is no regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not _below(os.readlink(f"/proc/self/fd/{descriptor}"), roots):
            raise LocationError("the file is not below one of the site's file roots", forbidden=True)
        if not os.path.isfile(f"/proc/self/fd/{descriptor}"):
            raise LocationError("it is no regular file")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def file_name(text: str, otherwise: str = "data") -> str:
    """Return a name that is safe for a file in a directory of ours, as near to ``text`` as possible."""
    clean = "".join(char for char in text if char.isprintable() and char not in "/\0")
    encoded = clean.encode("utf-8", "replace")[:200].decode("utf-8", "ignore")
    return otherwise if encoded in ("", ".", "..") else encoded


def _below(path: str, roots: Sequence[Path]) -> bool:
    return any(Path(path).is_relative_to(os.path.realpath(root)) for root in roots)


def _checksum(fragment: str) -> tuple[str, str] | None:
    match = _CHECKSUM.fullmatch(fragment)
    if match is None:
        return None
    if len(match[2]) != _LENGTHS[match[1]]:
        raise LocationError(f"{match[1]} has {_LENGTHS[match[1]]} hexadecimal digits, not {len(match[2])}")
    return match[1], match[2].lower()
