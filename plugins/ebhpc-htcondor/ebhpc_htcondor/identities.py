"""Who the broker's users are in the pool."""

from __future__ import annotations

from ebhpc import batch
from ebhpc_htcondor.settings import HTCondorSettings, Mapped


def mapped(settings: HTCondorSettings, username: str) -> Mapped | None:
    """Return who a user of the broker is in the pool; None: nobody."""
    return batch.user_of(username, settings.identities, Mapped, same_name=settings.others == "same-name")


def is_user(settings: HTCondorSettings, owner: str) -> bool:
    """Whether a job's owner may be one of the broker's users; where all jobs are the broker's, they all are."""
    if settings.run_as == "self" or settings.others == "same-name":
        return True
    return any(one.user == owner for one in settings.identities.values())
