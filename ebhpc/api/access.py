"""Who may call what: every request is identified, and its answer's form chosen, before a resource sees it."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any
from urllib.parse import quote, urlsplit

import falcon

from ebhpc.api.accounts import claimed_username
from ebhpc.api.auditing import client_address
from ebhpc.api.broker import Broker
from ebhpc.api.problems import Problem, unauthenticated
from ebhpc.api.rates import Counters, Limiter, address_key, retry_after
from ebhpc.api.wire import wanted_type
from ebhpc.config import Api
from ebhpc.model import Identity

_READING = frozenset({"GET", "HEAD"})


class Access(Enum):
    """Whom a resource is for."""

    EVERYBODY = "no account is needed"
    READERS = "an account is needed, but for reading where the site has public_reads"
    ACCOUNTS = "an account is needed"
    ADMINISTRATORS = "an administrator's account is needed"


class Readable:
    """A resource that can be read: HEAD is answered as GET is, and the server leaves the body out."""

    on_get: Callable[..., None]

    def on_head(self, req: falcon.Request, resp: falcon.Response, **parameters: Any) -> None:
        """Answer the headers of GET."""
        self.on_get(req, resp, **parameters)


class Gate:
    """Falcon middleware: sets ``req.context.identity`` (None: nobody known) and ``req.context.media_type``.

    A resource has an attribute ``access``, and ``form = False`` where it does not answer documents of the model.
    ``counters`` are of how often addresses and users ask.
    """

    def __init__(self, broker: Broker, counters: Counters) -> None:
        api = broker.config.api
        self._accounts = broker.accounts
        self._audit = broker.audit
        self._api = api
        self._users = Limiter(counters, "users", api.rate_per_user)
        self._addresses = Limiter(counters, "addresses", api.rate_per_address)

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Refuse an address that asks too often, whatever it asks for.

        Raises:
            Problem: 429.
        """
        if self._addresses.limits and not req.path.startswith("/health/"):
            wait = self._addresses.wait(address_key(client_address(req, self._api)))
            if wait:
                raise _too_often("your address asks", wait)

    def process_resource(
        self, req: falcon.Request, resp: falcon.Response, resource: Any, params: dict[str, Any]
    ) -> None:
        """Identify who asks, and refuse who may not.

        Raises:
            Problem: 401, 403, 406 or 429.
        """
        req.context.identity = None
        if req.method == "OPTIONS":
            return
        check_origin(req, self._api)
        access: Access = resource.access
        if access is not Access.EVERYBODY:
            req.context.identity = identity = self._identified(req)
            if identity is None:
                if not (access is Access.READERS and self._may_read_unknown(req)):
                    raise unauthenticated("an account is needed", self._accounts.challenge())
                resp.set_header("WWW-Authenticate", self._accounts.challenge())  # it would be possible
            else:
                resp.set_header("X-VO-Authenticated", _header_text(identity.username))
                if wait := self._users.wait(identity.uuid):
                    raise _too_often("you ask", wait)
            if access is Access.ADMINISTRATORS and not (identity and identity.admin):
                self._audit.note(req, "administer", "path", req.path, result="refused", detail="no administrator")
                raise Problem(403, "this is for administrators")
        if getattr(resource, "form", True):
            req.context.media_type = wanted_type(req)

    def _identified(self, req: falcon.Request) -> Identity | None:
        """Return who asks; note in the audit trail whose credentials were refused."""
        try:
            return self._accounts.identify(req.auth, client_address(req, self._api))
        except Problem as problem:
            self._audit.note(
                req,
                "sign-in",
                result="refused" if problem.status_code < 500 else "failed",
                detail=str(problem.description),
                username=claimed_username(req.auth),
            )
            raise

    def _may_read_unknown(self, req: falcon.Request) -> bool:
        return self._api.public_reads and req.method in _READING


def _too_often(who: str, wait: float) -> Problem:
    text = "{who} too often; try again in {seconds} s"
    seconds = retry_after(wait)
    return Problem(429, text, headers={"Retry-After": seconds}, who=who, seconds=seconds)


def _header_text(username: str) -> str:
    """Return a username as a header can carry it: where it is not plain ASCII, percent-encoded."""
    return username if username.isascii() else quote(username, safe=" :@")


def check_origin(req: falcon.Request, api: Api) -> None:
    """Let no page of another site use the password that a browser remembers for us.

    A browser names in ``Origin`` the site whose page sends something; other programs send no such header.

    Raises:
        Problem: 403.
    """
    origin = req.get_header("Origin")
    if origin is None or req.method in _READING:
        return
    ours = {req.get_header("Host"), urlsplit(api.url or "").netloc}
    if origin.partition("://")[2] not in ours - {"", None}:
        raise Problem(403, "pages of another site may not change anything here")
