"""What came back from a server: taken from its console, put where ``ebhpc.batch`` reads reports and results."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from ebhpc.batch import SessionDirectory
from ebhpc.model import MessageKind
from ebhpc_openstack import console

log = logging.getLogger("ebhpc_openstack")

_MOST_TOLD = 2000


def begun(directory: SessionDirectory, when: float, node: str, ports: Mapping[int, int]) -> None:
    """Note that a session's job has begun, and which of its ports answer, at which address, by which port there."""
    told = {"node": node, "started": when, "ports": _ports(ports)}
    _write(directory.report / "running.json", msgspec.json.encode(told))


def has_begun(directory: SessionDirectory) -> bool:
    """Whether it was noted that a session's job has begun."""
    return (directory.report / "running.json").exists()


def has_ended(directory: SessionDirectory) -> bool:
    """Whether it was noted how a session's job ended."""
    return (directory.report / "status.json").exists()


def ended(directory: SessionDirectory, told: console.Told, node: str, ports: Mapping[int, int]) -> None:
    """Put a job's results where they are looked for, and last of all how it ended."""
    header = told.ended
    if header is None:
        raise ValueError("the console does not say that the job has ended")
    files: dict[str, bytes] = {}
    more: list[dict[str, Any]] = []
    if told.data is None:
        more.append(_words("WARN", "The server's console lost parts of what the job left: its output is not complete."))
    else:
        try:
            files = console.unpacked(told.data)
        except ValueError as error:
            more.append(_words("WARN", "What the job left cannot be read: {why}", why=str(error)))
    if header.left:
        names = ", ".join(f"{name} ({missing} bytes)" for name, missing in header.left[:20])
        text = "A server's console carries little: of these, so much is missing: {names}"
        more.append(_words("WARN", text, names=names))
    for name, content in files.items():
        if name.startswith("output/"):
            _put(directory.path, name, content)
    status = _status(files, header)
    status["messages"] = [*status.get("messages", ()), *more]
    status["node"] = node
    status["ports"] = _ports(ports)
    _write(directory.report / "status.json", msgspec.json.encode(status))


def _ports(ports: Mapping[int, int]) -> list[dict[str, int]]:
    return [{"port": port, "outer": outer} for port, outer in ports.items()]


def _status(files: dict[str, bytes], header: console.Header) -> dict[str, Any]:
    """Return how the job ended, as its runner wrote it; without that, by the exit code of its script."""
    try:
        told = msgspec.json.decode(files.get("report/status.json", b""))
        if isinstance(told, dict) and told.get("state") in ("SUCCEEDED", "FAILED"):
            return told
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    code = header.code if header.code is not None else 1
    said = files.get("report/batch.log", b"").decode("utf-8", "replace").strip()[-_MOST_TOLD:]
    words = []
    if code:
        text = "The server's script ended with exit code {code} before its job was begun: {said}"
        words.append(_words("ERROR", text, code=str(code), said=said or "it said nothing"))
    return {
        "state": "FAILED" if code else "SUCCEEDED",
        "exit_code": code,
        "ended": float(header.time),
        "messages": words,
    }


def _words(level: str, template: str, **values: str) -> dict[str, Any]:
    return {"kind": str(MessageKind.FAILED), "level": level, "template": template, "values": values}


def _put(top: Path, name: str, content: bytes) -> None:
    """Write a file below a directory; a name that another file stands in the way of is left out."""
    path = top / name
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(path, content)
    except (FileExistsError, NotADirectoryError, IsADirectoryError, ValueError) as error:
        log.warning("result %r is left out: %s", name, error)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(f".{path.name[:200]}.part")
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as file:
        file.write(content)
    os.replace(part, path)
