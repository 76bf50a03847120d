"""An issuer of tokens on loopback whose keys a test holds: it forges what no honest provider would give out."""

from __future__ import annotations

import base64
import hmac
import json
import time
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, Key, KeySet, RSAKey
from joserfc.jws import JWSRegistry

from ebhpc.api.issuers import OpenIssuer
from ebhpc.config import Issuer, read_settings
from tests.local.webserver import WebServer

AUDIENCE = "https://broker.example.org"


# Making keys takes a while
_RSA = RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})
_EC = ECKey.generate_key("P-256", {"kid": "two", "use": "sig"})


class OwnIssuer:
    """Serves a discovery document and keys, and signs whatever it is told."""

    def __init__(self, web: WebServer) -> None:
        self.web = web
        self.url = web.url("/realm/")
        self.rsa, self.ec = _RSA, _EC
        self.publish(self.rsa, self.ec)
        self.discover()

    def discover(self, **more: Any) -> None:
        """Serve a discovery document."""
        document = {
            "issuer": self.url,
            "jwks_uri": self.web.url("/keys"),
            "userinfo_endpoint": self.web.url("/userinfo"),
            **more,
        }
        self.web.put("/realm/.well-known/openid-configuration", json.dumps(document).encode())

    def publish(self, *keys: Key, raw: bytes | None = None) -> None:
        """Serve these keys."""
        self.web.put("/keys", raw if raw is not None else json.dumps(KeySet(list(keys)).as_dict()).encode())

    def issuer(self, monotonic: Any = time.monotonic, **more: Any) -> OpenIssuer:
        """Return it as the broker knows it."""
        given = {"name": "own", "url": self.url, "audiences": [AUDIENCE], "insecure": True, "timeout": "2s", **more}
        return OpenIssuer(read_settings(Issuer, given), monotonic=monotonic)

    def claims(self, now: float, **more: Any) -> dict[str, Any]:
        """Return good claims; those that are given as None are left out."""
        found = {
            "iss": self.url,
            "sub": "1815",
            "aud": AUDIENCE,
            "iat": int(now),
            "exp": int(now) + 600,
            "preferred_username": "ada",
            **more,
        }
        return {name: value for name, value in found.items() if value is not None}

    def sign(self, claims: dict[str, Any], *, key: Key | None = None, **header: Any) -> str:
        """Sign claims; a header's entry that is None is left out."""
        full = {"alg": "RS256", "typ": "at+jwt", "kid": "one", **header}
        full = {name: value for name, value in full.items() if value is not None}
        registry = JWSRegistry(algorithms=[full["alg"]], strict_check_header=False)
        return jwt.encode(full, claims, key or self.rsa, algorithms=[full["alg"]], registry=registry)

    def sign_with_public_key(self, claims: dict[str, Any]) -> str:
        """Sign with the published key taken for a shared secret, as who confuses the two would (RFC 8725, 2.1)."""
        header = {"alg": "HS256", "typ": "at+jwt", "kid": "one"}
        parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims)]
        mark = hmac.digest(self.rsa.as_pem(private=False), b".".join(parts), "sha256")
        return b".".join([*parts, base64.urlsafe_b64encode(mark).rstrip(b"=")]).decode()
