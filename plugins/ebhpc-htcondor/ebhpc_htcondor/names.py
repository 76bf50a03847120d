"""Names and texts: what a session's job is marked with, and how text becomes part of a submit description."""

from __future__ import annotations

import re
import uuid

_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:+-]{0,99}")
_RESOURCE = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")


SERVICES = tuple(f"ebhpc{at}" for at in range(8))
"""What the ports of a container are called, in their order."""


def plain_word(text: str) -> bool:
    """Whether a text is a word that may stand in expressions: letters, digits and ``_.:+-``."""
    return _PLAIN.fullmatch(text) is not None


def resource_name(text: str) -> bool:
    """Whether a text can be the name of a resource of the pool's own, as ``FPGAs``."""
    return _RESOURCE.fullmatch(text) is not None


def device_of(resource: str) -> str:
    """Return the type of device of a resource of the pool's own."""
    return resource.lower()


def node_name(slot: str) -> str:
    """Return a slot's name as that of a node: without ``slot1@``, which every machine has."""
    return slot.removeprefix("slot1@")


def slot_of(name: str) -> str:
    """Return the node that a dynamic slot, ``slot1_3@host``, is a part of."""
    slot, at, rest = name.partition("@")
    return node_name(f"{slot.partition('_')[0]}{at}{rest}")


def session_id(text: str) -> str | None:
    """Return a session's UUID in its one form; None: it is none."""
    try:
        found = str(uuid.UUID(text))
    except ValueError:
        return None
    return found if found == text else None


def label(text: str) -> str:
    """Return a text as near as a ClassAd string can hold it in every syntax that HTCondor has.

    Old and new ClassAds disagree on what a backslash means, before a quote above all, so that there is none.
    """
    return "".join(_INSTEAD.get(character) or (" " if _is_control(character) else character) for character in text)


_INSTEAD = {"\\": "/", '"': "'"}


def _is_control(character: str) -> bool:
    return character < " " or "\x7f" <= character <= "\x9f" or character in "\u2028\u2029"


def string(text: str) -> str:
    """Return a string literal for a line of a submit description, in which ``$`` would begin a macro."""
    return f'"{label(text).replace("$", "$(DOLLAR)")}"'
