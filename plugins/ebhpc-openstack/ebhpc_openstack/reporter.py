"""Runs in a server: tells its console how the job went, since nobody outside can ask the server itself.

    python3 reporter.py begun UUID
    python3 reporter.py ended UUID DIRECTORY CODE BYTES

Python 3.8 and its standard library. What is told are lines ``@ebhpc CRC NUMBER/COUNT TEXT``, each with its own check
sum and all of them twice, because kernel and boot messages may come between, or in the middle of a line. Number 0 is
JSON on what follows: a tar archive, compressed with xz, of report/status.json and as much of output/ as BYTES allow.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import json
import lzma
import os
import sys
import tarfile
import time
from typing import Any

_PORTION = 192
_TAILS = (1 << 20, 1 << 17, 1 << 14, 1 << 11, 0)
"""How much of the ends of stdout and stderr is tried, until all fits."""

_LARGEST = 1 << 23
"""Bytes of a result that is tried at all."""


def lines(header: dict[str, Any], data: bytes) -> list[str]:
    """Return the lines that tell ``data``."""
    texts = [json.dumps(header, separators=(",", ":"))]
    texts += [base64.b64encode(data[at : at + _PORTION]).decode("ascii") for at in range(0, len(data), _PORTION)]
    found = []
    for number, text in enumerate(texts):
        said = f"{number}/{len(texts) - 1} {text}"
        found.append(f"@ebhpc {binascii.crc32(said.encode('ascii')):08x} {said}")
    return found


def packed(files: list[tuple[str, bytes]]) -> bytes:
    """Return files as a compressed archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return lzma.compress(buffer.getvalue(), preset=6)


def chosen(top: str, most: int) -> tuple[bytes, list[list[Any]]]:
    """Return what is told of a job's directory in at most so many bytes, and what was left out: names and sizes.

    The status always; of the streams as much of their ends, and of the results as many, the smallest first, as go in.
    """
    below = os.path.join(top, "output", "results")
    results = sorted(files_below(below), key=lambda one: (one[1], one[0]))
    small = [one for one in results if one[1] <= _LARGEST]
    for length in _TAILS:
        count = len(small)
        while True:
            taken = read(top, length) + [
                (os.path.relpath(path, top), tail(path, _LARGEST)) for path, _ in small[:count]
            ]
            data = packed(taken)
            if len(data) <= most:
                return data, left_out(top, length, results[count:])
            if not count:
                break
            count //= 2
    return packed(read(top, 0)), left_out(top, 0, results)


def read(top: str, length: int) -> list[tuple[str, bytes]]:
    """Return the status, and the ends of the streams."""
    wanted = [("report/status.json", 1 << 16), ("report/batch.log", 4096)]
    wanted += [(name, length) for name in ("output/stdout", "output/stderr")]
    return [(name, tail(os.path.join(top, name), most)) for name, most in wanted if size(os.path.join(top, name)) >= 0]


def left_out(top: str, length: int, results: list[tuple[str, int]]) -> list[list[Any]]:
    """Return what is not told: names, and how many bytes are missing."""
    output = os.path.join(top, "output")
    found: list[list[Any]] = [[name, size(os.path.join(output, name)) - length] for name in ("stdout", "stderr")]
    found += [[os.path.relpath(path, output), count] for path, count in results[:20]]
    return [one for one in found if one[1] > 0]


def tail(path: str, length: int) -> bytes:
    """Return the last bytes of a regular file, links not followed; nothing where there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return b""
    with open(descriptor, "rb") as file:
        file.seek(max(os.fstat(descriptor).st_size - length, 0))
        return file.read(length)


def size(path: str) -> int:
    """Return the size of a regular file; -1: it is none."""
    try:
        found = os.lstat(path)
    except OSError:
        return -1
    return found.st_size if (found.st_mode & 0o170000) == 0o100000 else -1


def files_below(top: str) -> list[tuple[str, int]]:
    """Return the regular files below a directory, with their sizes."""
    found = []
    for folder, _, names in os.walk(top):
        for name in names:
            path = os.path.join(folder, name)
            if size(path) >= 0:
                found.append((path, size(path)))
    return found


def console() -> Any:
    """Return the console, opened for writing."""
    for name in ("/dev/console", "/dev/ttyS0"):
        try:
            return open(os.open(name, os.O_WRONLY | os.O_NOCTTY), "w", encoding="ascii")
        except OSError:
            continue
    return sys.stdout


def ended(uuid: str, top: str, code: int, most: int) -> str:
    """Return what the console is told of a job's end."""
    data, left = chosen(top, most)
    header: dict[str, Any] = {"uuid": uuid, "what": "ended", "time": int(time.time()), "code": code, "left": left}
    header.update(size=len(data), sha256=hashlib.sha256(data).hexdigest())
    return twice(lines(header, data))


def begun(uuid: str) -> str:
    """Return what the console is told of a job's begin."""
    return twice(lines({"uuid": uuid, "what": "begun", "time": int(time.time())}, b""))


def twice(told: list[str]) -> str:
    """Return lines, each copy of them with an empty line before it."""
    return ("\n" + "\n".join(told) + "\n") * 2


def main() -> None:
    """Tell what the words ask for."""
    what, uuid = sys.argv[1:3]
    text = begun(uuid) if what == "begun" else ended(uuid, sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    with console() as place:
        place.write(text)


if __name__ == "__main__":
    main()
