"""Whom a rule is about."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from ebhpc.config import SitePolicy, Who
from ebhpc.config.rules import EVERYBODY
from ebhpc.model import Identity

LOCAL = "local"
"""What rules call the broker's own accounts, where an issuer's name may stand."""


def matches(who: Who, identity: Identity) -> bool:
    """Whether somebody is among those whom a rule is about."""
    if who == EVERYBODY:
        return True
    return (
        identity.username in who.users
        or any(in_group(name, identity.groups) for name in who.groups)
        or issuer_of(identity.username) in who.issuers
    )


def in_group(wanted: str, groups: Iterable[str]) -> bool:
    """Whether one of somebody's groups is the wanted one.

    An entitlement that is wanted without its authority, the part after ``#``, may be any authority's (AARC-G002).
    """
    if wanted in groups:
        return True
    return "#" not in wanted and ":urn:" in wanted and any(name.partition("#")[0] == wanted for name in groups)


def issuer_of(username: str) -> str:
    """Return the name of the issuer whose user a username is of, or ``local``."""
    issuer, colon, _ = username.partition(":")
    return issuer if colon else LOCAL


class People:
    """Gives identities what the site's own rules say of them: its groups, and who is an administrator."""

    def __init__(self, policy: SitePolicy) -> None:
        self._administrators = policy.administrators
        self._groups: dict[str, tuple[str, ...]] = {}
        for group, names in policy.groups.items():
            for name in names:
                self._groups[name] = (*self._groups.get(name, ()), group)

    def known(self, identity: Identity) -> Identity:
        """Return an identity with the site's groups added."""
        own = self._groups.get(identity.username, ())
        if own:
            identity = replace(identity, groups=(*identity.groups, *own))
        if not identity.admin and any(matches(who, identity) for who in self._administrators):
            identity = replace(identity, admin=True)
        return identity
