"""Who may call what: every request is identified, and its answer's form chosen, before a resource sees it."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

import falcon

from ebhpc.api.accounts import Accounts
from ebhpc.api.problems import Problem, forbidden, unauthenticated
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
    """

    def __init__(self, accounts: Accounts, api: Api) -> None:
        self._accounts = accounts
        self._api = api

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
            identity = self._accounts.identify(req.auth)
            if identity is None and not (access is Access.READERS and self._may_read_unknown(req)):
                raise unauthenticated("an account is needed")
            if access is Access.ADMINISTRATORS and not (identity and identity.admin):
                raise Problem(403, "this is for administrators")
            req.context.identity = identity
        if getattr(resource, "form", True):
            req.context.media_type = wanted_type(req)

    def _may_read_unknown(self, req: falcon.Request) -> bool:
        return self._api.public_reads and req.method in _READING


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


def check_owner(identity: Identity | None, owner: str, what: str) -> None:
    """Let the owner and administrators pass.

    Raises:
        Problem: 403, anybody else.
    """
    if identity is None or not (identity.admin or identity.uuid == owner):
        raise forbidden(what)


def check_reader(identity: Identity | None, owner: str, what: str, *, public_reads: bool) -> None:
    """Let those pass who may read: everybody where the site says so.

    Raises:
        Problem: 403.
    """
    if not public_reads:
        check_owner(identity, owner, what)
