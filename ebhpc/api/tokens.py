"""Tokens of OpenID Connect issuers: who they say somebody is, once all of it has been verified.

Sources: RFC 9068 (access tokens that are JWTs), RFC 8725 (best practices for JWTs), OpenID Connect Core 1.0 (3.1.3.7).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import logging
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from ebhpc.api.issuers import IssuerSilent, OpenIssuer, UnknownKey
from ebhpc.store import ExternalUser

log = logging.getLogger(__name__)

LONGEST_TOKEN = 16_384
"""Characters; a header line ends it sooner."""

MOST_GROUPS = 1000
LONGEST_GROUP = 200

_TYPES = ("jwt", "at+jwt", "application/at+jwt")
"""What a token's header may say of its type (RFC 9068, 2.1); older issuers say nothing."""


class TokenRefused(Exception):
    """A token is not believed. ``reason`` is what the client may know; ``error`` its code of RFC 6750."""

    def __init__(self, reason: str, error: str = "invalid_token") -> None:
        self.reason = reason
        self.error = error
        super().__init__(reason)


class Believed(Struct, frozen=True, kw_only=True):
    """What a token says: whose user, until when it counts (POSIX seconds), and all its claims."""

    user: ExternalUser
    expires: float
    claims: dict[str, Any]


def read_access_token(token: str, issuers: Mapping[str, OpenIssuer], now: float) -> Believed:
    """Verify a bearer token; ``issuers`` are by their URLs.

    Raises:
        TokenRefused: says why.
        IssuerSilent: its issuer cannot be asked for its keys.
    """
    issuer, header = _issuer_of(token, issuers)
    settings = issuer.settings
    if not settings.audiences:
        raise TokenRefused("this issuer's tokens are not taken here")
    if str(header.get("typ", "jwt")).lower() not in _TYPES:
        raise TokenRefused("the token is of another type")
    claims = _verified(token, header, issuer, settings.audiences, now)
    lacking = set(settings.required_scopes) - _scopes(claims)
    if lacking:
        raise TokenRefused(f"the token lacks the scope {min(lacking)}", "insufficient_scope")
    if settings.userinfo:
        claims = {**claims, **_userinfo(issuer, token, claims["sub"])}
    return _believed(issuer, claims)


def read_id_token(token: str, issuer: OpenIssuer, nonce: str, now: float) -> Believed:
    """Verify an ID token that the issuer gave to us for a sign-in with ``nonce``.

    Raises:
        TokenRefused: says why.
        IssuerSilent: the issuer cannot be asked for its keys.
    """
    client = issuer.settings.client_id
    assert client is not None, "signing in needs a client_id"
    found, header = _issuer_of(token, {issuer.settings.url: issuer})
    claims = _verified(token, header, found, (client,), now)
    if claims.get("nonce") != nonce:
        raise TokenRefused("the token is of another sign-in")
    several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
    if claims.get("azp", None if several else client) != client:
        raise TokenRefused("the token is for another client")
    return _believed(issuer, claims)


def believe(issuer: OpenIssuer, claims: dict[str, Any]) -> Believed:
    """Return what claims say that were verified already."""
    return _believed(issuer, claims)


def names_in(claims: Mapping[str, Any], path: str) -> Iterator[str]:
    """Yield the names that a claim holds: a list of strings, or one; dots lead into objects."""
    value: Any = claims.get(path)
    if value is None:
        value = claims
        for step in path.split("."):
            value = value.get(step) if isinstance(value, Mapping) else None
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, str) and 0 < len(item) <= LONGEST_GROUP and item.isprintable():
            yield item


def shown_name(claims: Mapping[str, Any], claim: str) -> str:
    """Return the name to call somebody by: the claim's, made plain, else the subject, else a hash of it."""
    for value in (claims.get(claim), claims.get("sub")):
        if isinstance(value, str):
            plain = unicodedata.normalize("NFKC", value).strip()
            if 0 < len(plain) <= 64 and plain.isprintable():
                return plain
    return hashlib.sha256(str(claims.get("sub")).encode()).hexdigest()[:16]


def _issuer_of(token: str, issuers: Mapping[str, OpenIssuer]) -> tuple[OpenIssuer, dict[str, Any]]:
    """Look, before anything is believed, whose token it says that it is."""
    parts = token.split(".")
    if len(token) > LONGEST_TOKEN or len(parts) != 3:
        raise TokenRefused("it is no signed token (JWT)")
    header, claims = _part(parts[0]), _part(parts[1])
    issuer = issuers.get(claims["iss"]) if isinstance(claims.get("iss"), str) else None
    if issuer is None:
        raise TokenRefused("the token is of an issuer that is not known here")
    return issuer, header


def _part(text: str) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise TokenRefused("it is no signed token (JWT)")
    return found


def _verified(
    token: str, header: dict[str, Any], issuer: OpenIssuer, audiences: tuple[str, ...], now: float
) -> dict[str, Any]:
    """Return the claims of a token whose signature, issuer, audience and times hold."""
    # Ten megabytes in each worker: not where nobody has an issuer
    from joserfc import jwt
    from joserfc.errors import ExpiredTokenError, InvalidClaimError, JoseError, MissingClaimError
    from joserfc.jws import JWSRegistry

    settings = issuer.settings
    algorithm = header.get("alg")
    if algorithm not in settings.algorithms:
        raise TokenRefused("the token is signed in a way that is not taken here")
    skew = int(settings.skew)
    rules = jwt.JWTClaimsRegistry(
        now=int(now),
        leeway=skew,
        iss={"essential": True, "value": settings.url},
        sub={"essential": True},
        aud={"essential": True, "values": list(audiences)},
        exp={"essential": True},
    )
    try:
        key = issuer.key(header, algorithm)
        registry = JWSRegistry(algorithms=[algorithm], strict_check_header=False)
        claims: dict[str, Any] = jwt.decode(token, key, algorithms=[algorithm], registry=registry).claims
        rules.validate(claims)
    except UnknownKey:
        raise TokenRefused("the token is signed with a key that its issuer does not publish") from None
    except ExpiredTokenError:
        raise TokenRefused("the token has expired") from None
    except (InvalidClaimError, MissingClaimError) as error:
        raise TokenRefused(f"the token's claim {error.claim} is not one that is taken here") from None
    except (JoseError, ValueError, RecursionError):
        raise TokenRefused("the token's signature does not hold") from None
    begun = claims.get("iat", claims.get("nbf", now))
    if claims["exp"] - begun > settings.longest + skew:
        raise TokenRefused("the token is valid for too long")
    subject = claims["sub"]
    if not subject or len(subject) > 255 or not subject.isprintable():
        raise TokenRefused("the token's claim sub is not one that is taken here")
    return claims


def _scopes(claims: Mapping[str, Any]) -> set[str]:
    """The scopes of a token: a text with spaces, or, of some issuers, a list."""
    for name in ("scope", "scp"):
        value = claims.get(name)
        if isinstance(value, str):
            return set(value.split())
        if isinstance(value, list):
            return {item for item in value if isinstance(item, str)}
    return set()


def _userinfo(issuer: OpenIssuer, token: str, subject: str) -> dict[str, Any]:
    """Ask the issuer for the claims of a token's user (OpenID Connect Core, 5.3).

    What verified the token itself, its issuer, audience and times, is not taken from there.
    """
    url = issuer.endpoints().userinfo_endpoint
    if url is None:
        raise IssuerSilent(f"the issuer {issuer.settings.name} has no userinfo endpoint")
    status, document = issuer.ask("GET", url, headers={"Authorization": f"Bearer {token}"})
    if status in (400, 401, 403):
        raise TokenRefused("its issuer does not take the token any more")
    if status != 200 or not isinstance(document, dict):
        raise IssuerSilent(f"{url} answers {status}, and no claims")
    if document.get("sub") != subject:
        raise TokenRefused("its issuer says that the token is somebody else's")
    return {name: value for name, value in document.items() if name not in ("iss", "aud", "exp", "iat", "nbf", "sub")}


def _believed(issuer: OpenIssuer, claims: dict[str, Any]) -> Believed:
    settings = issuer.settings
    named = {name for claim in settings.group_claims for name in names_in(claims, claim)}
    if len(named) > MOST_GROUPS:
        log.warning("the issuer %s names %d groups of one user; %d count", settings.name, len(named), MOST_GROUPS)
    user = ExternalUser(
        issuer=settings.url,
        subject=claims["sub"],
        username=f"{settings.name}:{shown_name(claims, settings.username_claim)}",
        groups=tuple(sorted(f"{settings.name}:{name}" for name in sorted(named)[:MOST_GROUPS])),
    )
    return Believed(user=user, expires=float(claims["exp"]) + settings.skew, claims=claims)
