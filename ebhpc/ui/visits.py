"""Browsers that are signed in: the cookie, what stands behind it, and the token against forged requests.

The cookie holds 32 random bytes and is sent to ``/ui`` only, so the API never sees it. The database has its SHA-256,
whose it is and until when; to sign out is to delete that row. The token that a page's scripts and forms send back with
every change is made from the cookie, which no other site's page can read.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from urllib.parse import urlsplit

import falcon
from msgspec import Struct

from ebhpc.api.broker import Broker
from ebhpc.config import Api
from ebhpc.model import Identity
from ebhpc.store.visits import VisitRecord, add_visit, end_visit, find_visit

COOKIE = "ebhpc"
TOKEN_HEADER = "X-CSRF-Token"
TOKEN_FIELD = "csrf"
_LONGEST = 128


class Visit(Struct, frozen=True, kw_only=True):
    """A signed-in browser: who it is, and the ``token`` that its changes must bear."""

    identity: Identity
    token: str
    mark: str


def root_of(api: Api) -> str:
    """Return the path below which the broker is reached, as its URL says; empty: at the top."""
    return urlsplit(str(api.url)).path.rstrip("/") if api.url is not None else ""


def is_secure(req: falcon.Request, api: Api) -> bool:
    """Whether browsers reach the broker by HTTPS."""
    return (str(api.url) if api.url is not None else req.scheme).startswith("https")


class Visits:
    """Signs browsers in and out, and tells whose one is. ``random`` gives that many random bytes."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._path = f"{root_of(broker.config.api)}/ui"

    def begin(self, req: falcon.Request, resp: falcon.Response, identity: Identity) -> None:
        """Sign a browser in, for as long as the site allows."""
        broker, now = self._broker, self._broker.clock()
        lifetime = float(broker.config.page.lifetime)
        secret = secrets.token_urlsafe(32)
        add_visit(
            broker.store,
            VisitRecord(mark=mark_of(secret), identity=identity.uuid, created=now, expires=now + lifetime),
            now=now,
        )
        self.set_cookie(req, resp, COOKIE, secret, lifetime)
        broker.audit.note(req, "sign in", username=identity.username)

    def of(self, req: falcon.Request) -> Visit | None:
        """Return who a request's browser is; None: nobody who is signed in."""
        values = req.get_cookie_values(COOKIE)
        if not values or len(values[0]) > _LONGEST:
            return None
        mark = mark_of(values[0])
        found = find_visit(self._broker.store, mark, now=self._broker.clock())
        identity = None if found is None else self._broker.accounts.recall(found.identity)
        if identity is None:
            return None
        return Visit(identity=identity, token=_token(values[0]), mark=mark)

    def end(self, resp: falcon.Response, visit: Visit) -> None:
        """Sign a browser out."""
        end_visit(self._broker.store, visit.mark)
        self.drop_cookie(resp, COOKIE)

    def set_cookie(
        self, req: falcon.Request, resp: falcon.Response, name: str, value: str, lifetime: float, below: str = ""
    ) -> None:
        """Set a cookie that no script reads and no other site's form sends."""
        resp.set_cookie(
            name,
            value,
            max_age=int(lifetime),
            path=self._path + below,
            secure=is_secure(req, self._broker.config.api),
            http_only=True,
            same_site="Lax",
        )

    def drop_cookie(self, resp: falcon.Response, name: str, below: str = "") -> None:
        """Have the browser forget a cookie."""
        resp.unset_cookie(name, path=self._path + below, same_site="Lax")


def same_token(one: str | None, other: str) -> bool:
    """Compare two tokens in a time that tells nothing of them."""
    return one is not None and hmac.compare_digest(one.encode("utf-8", "replace"), other.encode())


def mark_of(secret: str) -> str:
    """Return what the database has of a cookie: nobody makes the cookie from it."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def _token(secret: str) -> str:
    return hmac.digest(secret.encode("utf-8", "replace"), b"token of the page's forms", "sha256").hex()
