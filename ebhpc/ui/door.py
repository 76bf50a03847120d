"""Who may see what of the page, and the headers that every answer of it bears."""

from __future__ import annotations

import gzip
import hashlib
from typing import Any

import falcon

from ebhpc import media
from ebhpc.api.access import Access, check_origin
from ebhpc.api.broker import Broker
from ebhpc.api.problems import Problem, unauthenticated
from ebhpc.ui.pages import Templates
from ebhpc.ui.visits import TOKEN_HEADER, Visits, same_token

_READING = frozenset({"GET", "HEAD", "OPTIONS"})

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "frame-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
"""What a page of ours may load and do: nothing inline, nothing from elsewhere."""

_GZIP_FROM = 1000
"""Bytes; below that compressing costs more than it saves."""


class Door:
    """Falcon middleware: identifies the browser, sends strangers to the form, refuses forged changes."""

    def __init__(self, broker: Broker, visits: Visits, templates: Templates) -> None:
        self._broker = broker
        self._visits = visits
        self._templates = templates

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Set what resources expect of a request."""
        req.context.identity = None
        req.context.visit = None
        req.context.media_type = media.JSON

    def process_resource(
        self, req: falcon.Request, resp: falcon.Response, resource: Any, params: dict[str, Any]
    ) -> None:
        """Let pass who may.

        Raises:
            Problem: 401 or 403; or HTTPFound, to the form for signing in.
        """
        check_origin(req, self._broker.config.api)
        access: Access = resource.access
        if getattr(resource, "plain", False):
            return
        visit = req.context.visit = self._visits.of(req)
        req.context.identity = None if visit is None else visit.identity
        if access is Access.EVERYBODY:
            return
        if visit is None:
            if req.path.startswith("/ui/data/") or req.method not in _READING:
                raise unauthenticated("you are not signed in, or no longer")
            raise falcon.HTTPFound(self._templates.sign_in_address(req))
        if access is Access.ADMINISTRATORS and not visit.identity.admin:
            raise Problem(403, "this is for operators")
        # Forms have their token as a field, and check it where they are read
        by_script = req.method not in _READING and not getattr(resource, "form_token", False)
        if by_script and not same_token(req.get_header(TOKEN_HEADER), visit.token):
            raise Problem(403, "the page's token is missing or of another sign-in: reload the page")

    def process_response(self, req: falcon.Request, resp: falcon.Response, resource: Any, succeeded: bool) -> None:
        """Add the headers, tell that nothing has changed where nothing has, and compress."""
        resp.set_header("X-Content-Type-Options", "nosniff")
        resp.set_header("Referrer-Policy", "same-origin")
        resp.set_header("Cross-Origin-Opener-Policy", "same-origin")
        resp.set_header("Cross-Origin-Resource-Policy", "same-origin")
        if "content-security-policy" not in resp.headers:
            resp.set_header("Content-Security-Policy", POLICY)
        if "cache-control" not in resp.headers:
            resp.set_header("Cache-Control", "private, no-cache")
        data = resp.data
        if data is None or resp.status_code != 200:
            return
        stored = resp.headers["cache-control"] != "no-store"
        if "etag" not in resp.headers and req.method == "GET" and stored:
            resp.etag = hashlib.blake2b(data, digest_size=9).hexdigest()
        if "etag" in resp.headers and _same(req, resp):
            resp.status = 304
            resp.data = None
            return
        if len(data) >= _GZIP_FROM and "content-encoding" not in resp.headers:
            resp.append_header("Vary", "Accept-Encoding")
            if "gzip" in (req.get_header("Accept-Encoding") or ""):
                resp.data = gzip.compress(data, compresslevel=5, mtime=0)
                resp.set_header("Content-Encoding", "gzip")


def _same(req: falcon.Request, resp: falcon.Response) -> bool:
    known = req.get_header("If-None-Match") or ""
    return resp.headers["etag"].removeprefix("W/") in (mark.strip().removeprefix("W/") for mark in known.split(","))
