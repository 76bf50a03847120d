"""What a request for reserved time must say."""

from __future__ import annotations

import re
from uuid import UUID

from msgspec.structs import replace

from ebhpc.model.reading.findings import Findings
from ebhpc.model.reserved_time import ReservedTime
from ebhpc.model.structure import pointer
from ebhpc.model.times import parse_duration

LEAST_IDLE = 20
"""Seconds: what is given back sooner could not be warned of."""

_ACCOUNT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,99}")


def read_reserved_time(wanted: ReservedTime, findings: Findings) -> ReservedTime:
    """Return the element with what is empty left out; what is wrong goes to ``findings``."""
    users, accounts = wanted.users or [], wanted.accounts or []
    if findings.few(users, "/executable/users"):
        for place, user in enumerate(users):
            findings.name(user, pointer("/executable/users", place))
    if findings.few(accounts, "/executable/accounts"):
        for place, account in enumerate(accounts):
            if not _ACCOUNT.fullmatch(account):
                expected = "the name of an account: letters, digits and _ . @ + -"
                findings.invalid(pointer("/executable/accounts", place), account, expected)
    _check_idle(wanted.idle_release, findings)
    replaces = wanted.replaces
    if replaces is not None:
        try:
            replaces = str(UUID(replaces))
        except ValueError:
            findings.invalid("/executable/replaces", replaces, "the UUID of a session")
    return replace(
        wanted,
        users=list(dict.fromkeys(users)) or None,
        accounts=list(dict.fromkeys(accounts)) or None,
        replaces=replaces,
        jobs=None,
    )


def _check_idle(idle: str | None, findings: Findings) -> None:
    if idle is None:
        return
    expected = f"a duration of {LEAST_IDLE} seconds or more, such as PT30M"
    try:
        seconds = parse_duration(idle)
    except ValueError:
        findings.invalid("/executable/idle_release", idle, expected)
        return
    if seconds < LEAST_IDLE:
        findings.invalid("/executable/idle_release", idle, expected)
