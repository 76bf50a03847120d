"""Settings about who the users are: issuers of tokens, rates, networks, the audit trail."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from msgspec import Meta, Struct

from ebhpc.config.values import Duration, Seconds, WebAddress, _seconds

Word = Annotated[str, Meta(min_length=1)]

IssuerName = Annotated[
    str,
    Meta(pattern=r"\A[a-z0-9][a-z0-9-]{0,39}\Z", description="1 to 40 lower-case letters, digits and hyphens"),
]

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"]
"""Signatures by a key pair. None that shares a secret with the issuer, and never ``none``."""

ALGORITHMS: tuple[Algorithm, ...] = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
)


class Rate(str):
    """So many in a time, as ``600/1m``: the first that many may come at once, later ones as the time passes."""

    __slots__ = ()

    @classmethod
    def from_setting(cls, value: object) -> Self:
        """Read a rate.

        Raises:
            ValueError: it is none.
        """
        match = re.fullmatch(r"(\d{1,9})/(\S+)", value) if isinstance(value, str) else None
        if match and int(match[1]) > 0 and _seconds(match[2]) > 0:
            return cls(match[0])
        raise ValueError(f"expected a rate such as 600/1m, got {value!r}")

    @property
    def times(self) -> int:
        """How many may come at once."""
        return int(self.partition("/")[0])

    @property
    def seconds(self) -> float:
        """The time in which so many may come."""
        return _seconds(self.partition("/")[2])


class IssuerUrl(str):
    """An issuer's URL, exactly as its tokens name it: a slash at its end counts."""

    __slots__ = ()

    @classmethod
    def from_setting(cls, value: object) -> Self:
        """Read a URL.

        Raises:
            ValueError: it is no http or https URL with a host, or it has a query or a fragment.
        """
        WebAddress.from_setting(value)
        return cls(value)


class Network(str):
    """A range of addresses, as ``10.0.0.0/8``, ``::1`` or ``fd00::/8``."""

    __slots__ = ()

    @classmethod
    def from_setting(cls, value: object) -> Self:
        """Read a range.

        Raises:
            ValueError: it is none.
        """
        try:
            if isinstance(value, str):
                return cls(ipaddress.ip_network(value))
        except ValueError:
            pass
        raise ValueError(f"expected a network such as 10.0.0.0/8, got {value!r}")

    @property
    def range(self) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
        """The range itself."""
        return ipaddress.ip_network(self)


class Proxy(Network):
    """Who hands requests on to us: a network, or ``unix`` for whoever reaches our Unix socket."""

    __slots__ = ()

    @classmethod
    def from_setting(cls, value: object) -> Self:
        """Read a network or the word unix.

        Raises:
            ValueError: it is neither.
        """
        return cls(value) if value == "unix" else super().from_setting(value)


class Issuer(Struct, frozen=True, kw_only=True):
    """An OpenID Connect provider whose users may use the broker, by a bearer token or through the page."""

    name: IssuerName
    """Its short name here: users and groups are called ``name:…`` after it."""

    url: IssuerUrl
    """The issuer, exactly as its tokens name it; its discovery document lies below."""

    audiences: tuple[Word, ...] = ()
    """What a token must be for: it names one of them in ``aud``. Absent: no bearer tokens, only sign-in by the page."""

    algorithms: tuple[Algorithm, ...] = ALGORITHMS
    """The signatures that are believed."""

    skew: Seconds = Seconds(60)
    """How far the issuer's clock may be from ours."""

    longest: Duration = Duration(86400)
    """A token that is valid for longer is refused: nobody can take it back."""

    required_scopes: tuple[Word, ...] = ()
    """Scopes that a token must have."""

    username_claim: Word = "preferred_username"
    """The claim that usernames are made from. Where users can choose it themselves, and names are mapped to others'
    accounts, take ``sub``."""

    group_claims: tuple[Word, ...] = ("groups", "entitlements", "eduperson_entitlement")
    """The claims that name groups and entitlements; all count. Dots lead into objects, as ``realm_access.roles``."""

    userinfo: bool = False
    """Whether the issuer is asked for a token's claims, where its access tokens do not hold them themselves."""

    client_id: Word | None = None
    """The broker's own client there, for signing in by the page."""

    client_secret_file: Path | None = None
    """A file whose first line is that client's secret; absent: a public client, kept by PKCE alone."""

    sign_in_scopes: tuple[Word, ...] = ("openid", "profile")
    """The scopes that are asked for when somebody signs in by the page."""

    keys_for: Duration = Duration(3600)
    """How long the issuer's keys are kept before they are fetched again."""

    timeout: Duration = Duration(5)
    """How long the issuer may take to answer."""

    ca_file: Path | None = None
    """Certificates of the authorities that its TLS certificate may be from; absent: the usual ones."""

    insecure: bool = False
    """Whether plain http is taken. Only for tests: who is on the way can be anybody."""

    def __post_init__(self) -> None:
        if urlsplit(self.url).scheme != "https" and not self.insecure:
            raise ValueError("url: expected https; plain http lets anybody on the way be anybody")
        if not self.audiences and self.client_id is None:
            raise ValueError("expected audiences (for bearer tokens), client_id (for signing in by the page), or both")


class Audit(Struct, frozen=True, kw_only=True):
    """The audit trail: who did what."""

    keep: Duration = Duration(90 * 86400)
    """How long entries are kept."""

    log: bool = False
    """Whether each entry is logged too, by the logger ``ebhpc.audit``."""
