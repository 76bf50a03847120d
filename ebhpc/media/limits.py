"""How large and how deep a body may be."""

from __future__ import annotations

from msgspec import Struct


class MediaLimits(Struct, frozen=True, kw_only=True):
    """Limits of one body.

    ``size``: bytes of the body, and characters of a YAML text once its aliases are expanded. ``depth``:
    levels of lists and mappings in one another. ``elements``: keys, values and items in all. ``aliases``:
    aliases in a YAML text. ``digits``: of one number.
    """

    size: int = 1_048_576
    depth: int = 64
    elements: int = 20_000
    aliases: int = 100
    digits: int = 64
