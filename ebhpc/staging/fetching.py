"""Fetching a file to a directory of ours: whole, checked, and within its limits, or not at all.

A transfer that is cut off leaves ``NAME.part``, which the next one starts anew. Checksums: the URL's fragment is
what the user says, and a difference is final; what the server says of its own answer (RFC 3230 ``Digest``, RFC 9530
``Content-Digest`` and ``Repr-Digest``, RFC 1864 ``Content-MD5``) is about the transfer, which is tried again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import urljoin, urlsplit

import httpx
from msgspec import Struct

from ebhpc.config import Network
from ebhpc.faults import point
from ebhpc.model import SourceRule
from ebhpc.staging.locations import Location, LocationError, open_below
from ebhpc.staging.reach import OutOfReach, transport_for
from ebhpc.staging.sources import refusing_rule

_CHUNK = 1 << 18
_REDIRECTS = 5
_NAMES = {"sha-256": "sha256", "sha-512": "sha512", "sha": "sha1", "md5": "md5"}
_HEADER = re.compile(r"([A-Za-z0-9-]+)=:?([A-Za-z0-9+/]+=*):?")
_PASSING = frozenset({408, 425, 429})
"""Statuses below 500 that say "later"."""


class Hash(Protocol):
    """What we need of a hash of hashlib."""

    def update(self, data: bytes, /) -> None:
        """Take more data in."""

    def hexdigest(self) -> str:
        """Return the hash of all data so far."""


class FetchRefused(Exception):
    """It can never be fetched: ``missing`` it is not there; ``large`` it is too large; ``forbidden`` it is a site's
    rule; otherwise it is another."""

    def __init__(self, text: str, *, missing: bool = False, large: bool = False, forbidden: bool = False) -> None:
        self.missing = missing
        self.large = large
        self.forbidden = forbidden
        super().__init__(text)


class FetchFailed(Exception):
    """It could not be fetched now."""


class Limits(Struct, frozen=True, kw_only=True):
    """What one transfer may take: ``size`` bytes, ``connect`` seconds for each wait, ``total`` seconds."""

    size: int
    connect: float
    total: float


def fetch(
    location: Location,
    target: Path,
    *,
    roots: Sequence[Path],
    private: Sequence[Network] = (),
    limits: Limits,
    uuid: str,
    size: int | None = None,
    sources: Sequence[SourceRule] = (),
    stop: Callable[[], bool] = lambda: False,
) -> int:
    """Fetch a location to the file ``target``, and return its size in bytes.

    Where ``target`` is there already it was fetched before, and nothing is done. ``size``: the size that it must
    have. ``private``: the networks that are not public and that it may come from. ``sources``: the site's rules on
    where it comes from, at each redirect anew. ``stop`` is asked now and then whether to give up.

    Raises:
        FetchRefused: it can never be fetched.
        FetchFailed: not now; or ``stop`` said so.
    """
    if target.exists():
        return target.stat().st_size
    part = target.with_name(target.name + ".part")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    point("fetch.download.before", uuid)
    with open(os.open(part, flags, 0o644), "wb") as file:
        if location.file is not None:
            done = _copy(location, file.write, roots, limits, stop)
        else:
            done = _download(location, file.write, private, sources, limits, stop)
        file.flush()
        os.fsync(file.fileno())
    if size is not None and size != done:
        raise FetchRefused(f"it has {done} bytes, not {size}")
    point("fetch.rename.before", uuid)
    os.replace(part, target)
    point("fetch.rename.after", uuid)
    return done


def _copy(
    location: Location,
    write: Callable[[bytes], object],
    roots: Sequence[Path],
    limits: Limits,
    stop: Callable[[], bool],
) -> int:
    assert location.file is not None
    try:
        descriptor = open_below(location.file, roots)
    except LocationError as error:
        raise FetchRefused(str(error), missing=not error.forbidden, forbidden=error.forbidden) from None
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise FetchRefused(f"{error.strerror}", missing=True) from None
    except OSError as error:
        raise FetchFailed(f"{location.url}: {error.strerror}") from error
    with open(descriptor, "rb") as source:
        return _take(iter(lambda: source.read(_CHUNK), b""), write, location, {}, limits, stop)


def _download(
    location: Location,
    write: Callable[[bytes], object],
    private: Sequence[Network],
    sources: Sequence[SourceRule],
    limits: Limits,
    stop: Callable[[], bool],
) -> int:
    url = location.url
    timeout = httpx.Timeout(limits.connect)
    headers = {"Accept-Encoding": "identity"}
    try:
        for hop in range(_REDIRECTS + 1):
            if (rule := refusing_rule(sources, url)) is not None:
                where = "where it redirects to" if hop else "it"
                raise FetchRefused(f"the site's rule {rule!r} does not allow {where}", forbidden=True)
            with (
                httpx.Client(
                    transport=transport_for(url, private), trust_env=False, timeout=timeout, headers=headers
                ) as client,
                client.stream("GET", url) as response,
            ):
                if response.has_redirect_location:
                    url = _redirected(url, response.headers["Location"])
                    continue
                _check_status(response)
                return _receive(response, write, location, limits, stop)
    except OutOfReach as error:
        raise FetchRefused(str(error), forbidden=True) from None
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise FetchRefused(f"it is no URL that can be fetched: {error}") from error
    except (httpx.HTTPError, UnicodeError) as error:
        raise FetchFailed(f"{location.url}: {str(error) or type(error).__name__}") from error
    raise FetchRefused(f"it redirects more than {_REDIRECTS} times")


def _redirected(url: str, location: str) -> str:
    target = urljoin(url, location)
    if urlsplit(target).scheme not in ("http", "https"):
        raise FetchRefused(f"it redirects to {target}, which is neither http nor https")
    return target


def _check_status(response: httpx.Response) -> None:
    status = response.status_code
    if status == 200:
        return
    if status >= 500 or status in _PASSING:
        raise FetchFailed(f"{response.url} answers {status} {response.reason_phrase}")
    raise FetchRefused(f"its server answers {status} {response.reason_phrase}", missing=status in (401, 403, 404, 410))


def _receive(
    response: httpx.Response,
    write: Callable[[bytes], object],
    location: Location,
    limits: Limits,
    stop: Callable[[], bool],
) -> int:
    length = response.headers.get("Content-Length", "")
    if length.isdecimal() and int(length) > limits.size:
        raise FetchRefused(f"it has {length} bytes, more than {limits.size}", large=True)
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise FetchFailed(f"{response.url} answers in an encoding that was not asked for")
    # As the bytes come: chunks of a size would keep a trickle from ever being looked at
    return _take(response.iter_raw(), write, location, _promised(response.headers), limits, stop)


def _take(
    chunks: Iterator[bytes],
    write: Callable[[bytes], object],
    location: Location,
    promised: dict[str, str],
    limits: Limits,
    stop: Callable[[], bool],
) -> int:
    """Write the chunks, count them, and compare their checksums."""
    wanted = dict([location.checksum] if location.checksum else [])
    hashes: dict[str, Hash] = {name: hashlib.new(name, usedforsecurity=False) for name in {*wanted, *promised}}
    done, until = 0, time.monotonic() + limits.total
    for chunk in chunks:
        done += len(chunk)
        if done > limits.size:
            raise FetchRefused(f"it has more than {limits.size} bytes", large=True)
        if time.monotonic() > until:
            raise FetchFailed(f"{location.url} takes longer than {limits.total:.0f} s")
        if stop():
            raise FetchFailed(f"{location.url} is not wanted any more")
        for taken in hashes.values():
            taken.update(chunk)
        write(chunk)
    for name, digits in wanted.items():
        if hashes[name].hexdigest() != digits:
            raise FetchRefused(f"its {name} is {hashes[name].hexdigest()}, not {digits}")
    for name, digits in promised.items():
        if hashes[name].hexdigest() != digits:
            raise FetchFailed(f"{location.url} came with the {name} {hashes[name].hexdigest()}, not {digits}")
    return done


def _promised(headers: httpx.Headers) -> dict[str, str]:
    """Return the checksums that the server states: hexadecimal digits by hashlib's name."""
    found: dict[str, str] = {}
    for header in ("Digest", "Content-Digest", "Repr-Digest"):
        for name, value in _HEADER.findall(headers.get(header, "")):
            algorithm = _NAMES.get(name.lower())
            if algorithm is not None:
                found[algorithm] = value
    if "Content-MD5" in headers:
        found["md5"] = headers["Content-MD5"].strip()
    digits = {}
    for algorithm, value in found.items():
        try:
            digits[algorithm] = base64.b64decode(value, validate=True).hex()
        except binascii.Error:  # not a checksum at all: it says nothing
            continue
    return digits
