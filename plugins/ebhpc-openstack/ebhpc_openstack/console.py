"""A server's console log as what our program there told: pure functions. The text is a stranger's."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import lzma
import re
import tarfile
from pathlib import PurePosixPath
from typing import Literal

import msgspec
from msgspec import Struct

_LINE = re.compile(r"@ebhpc ([0-9a-f]{8}) ((\d{1,5})/(\d{1,5}) ([\x20-\x7e]{1,8000}))")
_MOST_BYTES = 256 << 20
"""Bytes that an archive may unpack to: a small one can hold a thousand times its size."""

_MOST_FILES = 10_000


class Header(Struct, frozen=True, kw_only=True):
    """What comes first: ``code`` is the script's exit code, ``left`` what was left out: names and missing bytes."""

    uuid: str
    what: Literal["begun", "ended"]
    time: int
    code: int | None = None
    left: tuple[tuple[str, int], ...] = ()
    size: int = 0
    sha256: str = ""


class Told(Struct, frozen=True, kw_only=True):
    """What a console tells of a session: when its job began (POSIX seconds), and how it ended.

    ``data`` is the archive, None where lines of it are missing.
    """

    begun: int | None = None
    ended: Header | None = None
    data: bytes | None = None


def told(text: str, uuid: str) -> Told:
    """Return what a console log tells of a session."""
    blocks: dict[int, dict[int, str]] = {}
    begun: int | None = None
    ended: Header | None = None
    for match in _LINE.finditer(text):
        if int(match[1], 16) != binascii.crc32(match[2].encode("ascii")):
            continue
        number, count, said = int(match[3]), int(match[4]), match[5]
        if number:
            blocks.setdefault(count, {})[number] = said
            continue
        try:
            header = msgspec.json.decode(said, type=Header)
        except msgspec.DecodeError:
            continue
        if header.uuid != uuid:
            continue
        if header.what == "begun":
            begun = header.time
        else:
            ended = header
            blocks.setdefault(count, {})[0] = said
    if ended is None:
        return Told(begun=begun)
    return Told(begun=begun, ended=ended, data=_data(ended, blocks))


def _data(header: Header, blocks: dict[int, dict[int, str]]) -> bytes | None:
    for count, lines in blocks.items():
        if 0 not in lines or not all(number in lines for number in range(1, count + 1)):
            continue
        try:
            data = base64.b64decode("".join(lines[number] for number in range(1, count + 1)), validate=True)
        except (binascii.Error, ValueError):
            continue
        if hashlib.sha256(data).hexdigest() == header.sha256:
            return data
    return None


def unpacked(data: bytes) -> dict[str, bytes]:
    """Return the files of an archive by name: those below report/ and output/ alone.

    Raises:
        ValueError: it is none, or unpacks to too much.
    """
    found: dict[str, bytes] = {}
    try:
        raw = lzma.LZMADecompressor(memlimit=256 << 20).decompress(data, max_length=_MOST_BYTES + 1)
        if len(raw) > _MOST_BYTES:
            raise ValueError("it unpacks to too much")
        with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
            for member in archive:
                if len(found) >= _MOST_FILES:
                    raise ValueError("it has too many files")
                file = archive.extractfile(member) if member.isreg() else None
                if file is not None and _proper(member.name):
                    found[member.name] = file.read()
    except (lzma.LZMAError, tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"it cannot be read: {error}") from None
    return found


def _proper(name: str) -> bool:
    """Whether a name leads to a file below report/ or output/ and nowhere else."""
    parts = PurePosixPath(name).parts
    return (
        len(parts) >= 2
        and parts[0] in ("report", "output")
        and "\0" not in name
        and len(name) < 4000
        and all(part not in ("..", ".") and len(part.encode("utf-8", "surrogateescape")) < 256 for part in parts)
    )
