"""Who the broker's users are in the pool."""

from __future__ import annotations

import re

from ebhpc_htcondor.settings import HTCondorSettings, Mapped

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")


def mapped(settings: HTCondorSettings, username: str) -> Mapped | None:
    """Return who a user of the broker is in the pool; None: nobody."""
    known = settings.identities.get(username)
    if known is None and settings.others == "same-name" and _NAME.fullmatch(username) and username != "root":
        known = Mapped(user=username)
    return known


def is_user(settings: HTCondorSettings, owner: str) -> bool:
    """Whether a job's owner may be one of the broker's users; where all jobs are the broker's, they all are."""
    if settings.run_as == "self" or settings.others == "same-name":
        return True
    return any(one.user == owner for one in settings.identities.values())
