"""The user's FILE: JSON or YAML to plain data, and the line of every element for errors that point there."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import yaml
from msgspec import Struct

from ebhpc.media import Malformed, MediaError, MediaLimits, decode
from ebhpc.model.structure import pointer
from ebhpc.model.structure import shown as shown_value

_LIMITS = MediaLimits(size=16 * 1024 * 1024, elements=1_000_000)
"""What a broker takes is its own affair; these keep a file that is no request from being read for ever."""


class RequestFile(Struct, frozen=True, kw_only=True):
    """A request as plain data; ``lines`` has the line (from 1) of each element, by its JSON pointer."""

    name: str
    data: dict[str, Any]
    lines: Mapping[str, int]

    def place(self, pointer: str) -> str:
        """Return ``FILE:LINE`` of an element, or of the nearest one around it that the file has."""
        while pointer not in self.lines and pointer:
            pointer = pointer.rpartition("/")[0]
        line = self.lines.get(pointer)
        return self.name if line is None else f"{self.name}:{line}"


def read_request_file(name: str) -> RequestFile:
    """Read a request from the file ``name``, or from stdin for ``-``. What it is is told by its content.

    Raises:
        click.UsageError: it cannot be read, or is neither a JSON object nor a YAML mapping; names line and
            column.
    """
    shown = "standard input" if name == "-" else name
    try:
        raw = sys.stdin.buffer.read(_LIMITS.size + 1) if name == "-" else _read(Path(name))
    except OSError as error:
        raise click.UsageError(f"{shown} cannot be read: {error.strerror}.") from error
    try:
        data = _parse(raw)
    except Malformed as error:
        raise click.UsageError(f"{shown}:{error.line}:{error.column}: {error.what}.") from error
    except MediaError as error:
        raise click.UsageError(f"{shown}: {error}.") from error
    if not isinstance(data, dict):
        raise click.UsageError(f"{shown}: expected a mapping with 'executable' and so on, found {shown_value(data)}.")
    return RequestFile(name=shown, data=data, lines=_lines(raw))


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_LIMITS.size + 1)


def _parse(raw: bytes) -> object:
    if not raw.lstrip().startswith((b"{", b"[")):
        return decode(raw, "application/yaml", _LIMITS)
    try:
        return decode(raw, "application/json", _LIMITS)
    except Malformed as as_json:
        # A mapping in braces may be YAML as well: then it needs no quotes.
        try:
            return decode(raw, "application/yaml", _LIMITS)
        except Malformed:
            raise as_json from None


def _lines(raw: bytes) -> dict[str, int]:
    """Return the line of each element by JSON pointer (RFC 6901); none for a text that only JSON readers take."""
    # JSON may be indented by tabs, where YAML may not; inside of its strings there are none.
    text = raw.decode("utf-8-sig", errors="replace")
    if text.lstrip().startswith(("{", "[")):
        text = text.replace("\t", " ")
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return {}
    lines: dict[str, int] = {}

    def walk(node: yaml.Node, pointer_: str, line: int) -> None:
        lines[pointer_] = line
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                walk(item, pointer(pointer_, index), item.start_mark.line + 1)
        elif isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                walk(value, pointer(pointer_, str(key.value)), key.start_mark.line + 1)

    if node is not None:
        walk(node, "", node.start_mark.line + 1)
    return lines
