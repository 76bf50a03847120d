"""Offer sets made up for the store's tests."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

from ebhpc.model import Allocation
from ebhpc.store import IdentityRecord, NewOffer, OfferSetRecord, Store, add_identity

NOW = 1_700_000_000.0


def somebody(store: Store, username: str = "ada") -> str:
    """Add an account and return its UUID."""
    uuid = str(uuid4())
    add_identity(store, IdentityRecord(uuid=uuid, username=username, password="-", admin=False, created=NOW))
    return uuid


def offer(
    platform: str = "tin",
    *,
    start: int = int(NOW),
    duration: int = 600,
    expires: int = int(NOW) + 300,
    cores: int = 1,
    node: str = "n1",
) -> NewOffer:
    """An offer of some cores on one node."""
    return NewOffer(
        uuid=str(uuid4()),
        platform=platform,
        expires=expires,
        start=start,
        latest=start,
        finish=start + duration,
        duration=duration,
        firm=True,
        allocations=(Allocation(node=node, cores=cores, memory=1024),),
        document=b"{}",
    )


def offerset(owner: str, offers: Sequence[NewOffer]) -> OfferSetRecord:
    """An offer set that expires with its last offer."""
    expires = max((one.expires for one in offers), default=int(NOW))
    return OfferSetRecord(uuid=str(uuid4()), owner=owner, created=NOW, expires=expires, document=b"{}")
