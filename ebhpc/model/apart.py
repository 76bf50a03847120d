"""Structs taken apart ahead of time, because msgspec does not do so safely from several threads."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec


def take_apart(package: str) -> None:
    """Have msgspec look at the fields of every Struct of a package now, and keep what it found.

    Left to itself it does so when something is first converted to the type. Two threads that come at the same time then
    crash the process: one uses what the other has half made (seen with msgspec 0.22.0 on CPython 3.11). Call it where
    the package is imported, before there are threads.
    """
    for type_ in _below(msgspec.Struct):
        if type_.__module__.startswith(package):
            try:
                msgspec.json.Decoder(type_)
            except TypeError:
                continue  # it has a field that cannot be decoded, so nobody converts to it


def _below(type_: type) -> Iterator[type]:
    derived: type
    for derived in type_.__subclasses__():
        yield derived
        yield from _below(derived)
