"""Signing in by an OIDC issuer: the browser's way through the code flow with PKCE.

What is kept until the browser is back (state, nonce, the verifier of PKCE) stands in a cookie of that browser alone,
for ten minutes and below ``/ui/sign-in``; it is of use to nobody else, since the issuer's answer has to fit it.
"""

from __future__ import annotations

import falcon
import msgspec
from msgspec import Struct

from ebhpc.api import sign_in
from ebhpc.api.access import Access
from ebhpc.api.broker import Broker
from ebhpc.api.problems import Problem, not_found
from ebhpc.api.wire import base_url
from ebhpc.ui.sign_in import place_after
from ebhpc.ui.visits import Visits, root_of

_PENDING = "ebhpc-sign-in"
_PATIENCE = 600.0
"""Seconds that somebody has for signing in elsewhere."""


class _Pending(Struct, frozen=True):
    """A sign-in that is under way in one browser: with whom, where it goes then, and what the answer must fit."""

    issuer: str
    to: str
    state: str
    nonce: str
    verifier: str


class OidcStart:
    """``/ui/sign-in/ISSUER``."""

    access = Access.EVERYBODY

    def __init__(self, broker: Broker, visits: Visits) -> None:
        self._broker = broker
        self._visits = visits

    def on_get(self, req: falcon.Request, resp: falcon.Response, issuer: str) -> None:
        """Send the browser to an issuer."""
        found = self._broker.accounts.issuers.get(issuer)
        if found is None or found.settings.client_id is None:
            raise not_found(f"issuer {issuer}")
        begun = sign_in.begin(found, _answer_url(req, self._broker, issuer))
        pending = _Pending(issuer, place_after(req.get_param("to")), begun.state, begun.nonce, begun.verifier)
        self._visits.set_cookie(req, resp, _PENDING, msgspec.json.encode(pending).hex(), _PATIENCE, "/sign-in")
        resp.status = 303
        resp.location = begun.url


class OidcAnswer:
    """``/ui/sign-in/ISSUER/answer``: where the issuer sends the browser back to."""

    access = Access.EVERYBODY

    def __init__(self, broker: Broker, visits: Visits) -> None:
        self._broker = broker
        self._visits = visits

    def on_get(self, req: falcon.Request, resp: falcon.Response, issuer: str) -> None:
        """Have the code exchanged, and sign in as who the issuer says it is."""
        broker = self._broker
        self._visits.drop_cookie(resp, _PENDING, "/sign-in")
        pending = _pending(req)
        if pending is None or pending.issuer != issuer or issuer not in broker.accounts.issuers:
            raise Problem(400, "this sign-in was not begun here, or took too long: please begin again")
        if error := req.get_param("error"):
            told = req.get_param("error_description") or error
            raise Problem(401, "the issuer says: {reason}", reason=told[:300])
        begun = sign_in.SignIn(url="", state=pending.state, nonce=pending.nonce, verifier=pending.verifier)
        done = sign_in.finish(
            broker.accounts,
            issuer,
            begun,
            _answer_url(req, broker, issuer),
            state=req.get_param("state"),
            code=req.get_param("code"),
            iss=req.get_param("iss"),
            now=broker.clock(),
        )
        self._visits.begin(req, resp, done.identity)
        resp.status = 303
        resp.location = f"{root_of(broker.config.api)}/ui/{place_after(pending.to)}"


def _answer_url(req: falcon.Request, broker: Broker, issuer: str) -> str:
    return f"{base_url(req, broker.config.api)}/ui/sign-in/{issuer}/answer"


def _pending(req: falcon.Request) -> _Pending | None:
    values = req.get_cookie_values(_PENDING)
    try:
        return msgspec.json.decode(bytes.fromhex(values[0]), type=_Pending) if values else None
    except ValueError:
        return None
