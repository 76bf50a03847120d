"""Signing in by a local account's form, and signing out."""

from __future__ import annotations

import re
import secrets
from urllib.parse import parse_qs

import falcon

from ebhpc.api.access import Access
from ebhpc.api.auditing import client_address
from ebhpc.api.broker import Broker
from ebhpc.api.problems import Problem
from ebhpc.ui.pages import Templates
from ebhpc.ui.visits import TOKEN_FIELD, Visits, root_of, same_token

_PLACE = re.compile(r"(?:offers/[0-9a-f-]{36}|sessions(?:/[0-9a-f-]{36})?|platforms|operations)?")
"""Where one may be sent after signing in, below ``/ui/``: to a page of ours and nowhere else."""

_STRANGER = "ebhpc-stranger"

_LARGEST_FORM = 4096


class SignIn:
    """``/ui/sign-in``."""

    access = Access.EVERYBODY
    form_token = True

    def __init__(self, broker: Broker, visits: Visits, templates: Templates) -> None:
        self._broker = broker
        self._visits = visits
        self._templates = templates

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Show the form; who is signed in goes on to the page."""
        to = place_after(req.get_param("to"))
        if req.context.visit is not None:
            raise falcon.HTTPFound(f"{self._templates.root}/ui/{to}")
        self._show(req, resp, to)

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Sign in with a username and a password."""
        fields = read_form(req)
        to = place_after(fields.get("to"))
        stranger = req.get_cookie_values(_STRANGER) or [""]
        if not stranger[0] or not same_token(fields.get(TOKEN_FIELD), stranger[0]):
            self._show(req, resp, to, said="The form was too old. Please try again.", status=403)
            return
        username = fields.get("username", "").strip()
        try:
            identity = self._broker.accounts.check_password(
                username, fields.get("password", ""), client_address(req, self._broker.config.api)
            )
        except Problem as problem:
            said = "The username or the password is wrong." if problem.status_code == 401 else f"{problem.description}."
            self._show(req, resp, to, said=said, username=username, status=problem.status_code)
            if (wait := dict(problem.headers or {}).get("Retry-After")) is not None:
                resp.set_header("Retry-After", wait)
            return
        req.context.identity = identity
        self._visits.begin(req, resp, identity)
        self._visits.drop_cookie(resp, _STRANGER, "/sign-in")
        resp.status = 303
        resp.location = f"{self._templates.root}/ui/{to}"

    def _show(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        to: str,
        *,
        said: str = "",
        username: str = "",
        status: int = 200,
    ) -> None:
        """Show the form with a token that only this browser has."""
        token = secrets.token_urlsafe(24)
        self._visits.set_cookie(req, resp, _STRANGER, token, 3600, "/sign-in")
        issuers = [name for name, one in self._broker.accounts.issuers.items() if one.settings.client_id is not None]
        self._templates.page(
            req, resp, "sign_in.html", "Sign in", to=to, said=said, username=username, token=token, issuers=issuers
        )
        resp.status = status


class SignOut:
    """``/ui/sign-out``."""

    access = Access.ACCOUNTS
    form_token = True

    def __init__(self, broker: Broker, visits: Visits) -> None:
        self._broker = broker
        self._visits = visits

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Sign out, here and now."""
        if not same_token(read_form(req).get(TOKEN_FIELD), req.context.visit.token):
            raise Problem(403, "the page's token is missing or of another sign-in: reload the page")
        self._visits.end(resp, req.context.visit)
        self._broker.audit.note(req, "sign out")
        resp.status = 303
        resp.location = f"{root_of(self._broker.config.api)}/ui/sign-in"


def read_form(req: falcon.Request) -> dict[str, str]:
    """Read a small form.

    Raises:
        Problem: 400, it is none.
    """
    if (req.content_type or "").partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise Problem(400, "this is no form")
    raw = req.bounded_stream.read(_LARGEST_FORM + 1)
    if len(raw) > _LARGEST_FORM:
        raise Problem(413, "the form is too large")
    try:
        fields = parse_qs(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=20)
    except ValueError:
        raise Problem(400, "the form cannot be read") from None
    return {name: values[-1] for name, values in fields.items()}


def place_after(text: str | None) -> str:
    return text if text is not None and _PLACE.fullmatch(text) else ""
