"""Signing in by an issuer, for the page: the code flow of OpenID Connect with PKCE.

Sources: OpenID Connect Core 1.0 (3.1), RFC 7636 (PKCE), RFC 9207 (the issuer in the answer), RFC 9700 (best practices).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from urllib.parse import urlencode

from msgspec import Struct

from ebhpc.api.accounts import Accounts, silent_issuer
from ebhpc.api.issuers import IssuerSilent, OpenIssuer
from ebhpc.api.problems import Problem, unauthenticated
from ebhpc.api.tokens import Believed, TokenRefused, believe, read_id_token
from ebhpc.model import Identity


class SignIn(Struct, frozen=True, kw_only=True):
    """A sign-in that has begun: where the browser goes (``url``), and what we keep to ourselves until it is back."""

    url: str
    state: str
    nonce: str
    verifier: str


class SignedIn(Struct, frozen=True, kw_only=True):
    """Who has signed in, and until when (POSIX seconds) the issuer's word on it goes."""

    identity: Identity
    expires: float


def begin(issuer: OpenIssuer, redirect_uri: str) -> SignIn:
    """Begin a sign-in whose answer the browser brings to ``redirect_uri``.

    Raises:
        Problem: 503, the issuer cannot be asked.
    """
    settings = issuer.settings
    assert settings.client_id is not None, "signing in needs a client_id"
    state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
    try:
        endpoint = issuer.endpoints().authorization_endpoint
        if endpoint is None:
            raise IssuerSilent(f"the issuer {settings.name} has no authorization endpoint")
    except IssuerSilent as error:
        raise silent_issuer(error) from error
    query = urlencode(
        {
            "response_type": "code",
            "client_id": settings.client_id,
            "redirect_uri": redirect_uri,
            "scope": " ".join(settings.sign_in_scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
    )
    url = f"{endpoint}{'&' if '?' in endpoint else '?'}{query}"
    return SignIn(url=url, state=state, nonce=nonce, verifier=verifier)


def finish(
    accounts: Accounts,
    name: str,
    begun: SignIn,
    redirect_uri: str,
    *,
    state: str | None,
    code: str | None,
    iss: str | None = None,
    now: float,
) -> SignedIn:
    """Take what the browser brought back; return who has signed in.

    ``name`` is the issuer's, ``begun`` what :func:`begin` returned, the rest stands in the query that came.

    Raises:
        Problem: 401, it does not hold; 503, the issuer cannot be asked.
    """
    issuer = accounts.issuers[name]
    if not code or not hmac.compare_digest((state or "").encode(), begun.state.encode()):
        raise unauthenticated("this answer belongs to no sign-in that you began here", accounts.challenge())
    try:
        if iss is None and issuer.endpoints().authorization_response_iss_parameter_supported:
            raise TokenRefused("the answer does not say which issuer it is from")
        if iss is not None and iss != issuer.settings.url:
            raise TokenRefused("the answer is from another issuer")
        believed = _exchanged(issuer, code, begun, redirect_uri, now)
    except TokenRefused as error:
        raise unauthenticated(error.reason, accounts.challenge()) from None
    except IssuerSilent as error:
        raise silent_issuer(error) from error
    return SignedIn(identity=accounts.meet(believed.user), expires=believed.expires)


def client_secret(issuer: OpenIssuer) -> str | None:
    """Return the secret of the broker's client; None: it is a public one.

    Raises:
        Problem: 500, its file cannot be read.
    """
    file = issuer.settings.client_secret_file
    if file is None:
        return None
    try:
        return file.read_text(encoding="utf-8").splitlines()[0].strip()
    except (OSError, IndexError, UnicodeDecodeError) as error:
        raise Problem(500, "the broker's own client at this issuer is not set up; its log says why") from error


def _exchanged(issuer: OpenIssuer, code: str, begun: SignIn, redirect_uri: str, now: float) -> Believed:
    """Exchange the code for tokens, and verify what they say."""
    settings = issuer.settings
    assert settings.client_id is not None
    url = issuer.endpoints().token_endpoint
    if url is None:
        raise IssuerSilent(f"the issuer {settings.name} has no token endpoint")
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": redirect_uri,
        "code_verifier": begun.verifier,
    }
    secret = client_secret(issuer)
    auth = None
    if secret is None:
        form["client_id"] = settings.client_id
    else:
        auth = (_form_encoded(settings.client_id), _form_encoded(secret))
    status, answer = issuer.ask("POST", url, data=form, auth=auth)
    if status in (400, 401, 403):
        raise TokenRefused("the issuer does not take the code")
    if status != 200 or not isinstance(answer, dict) or not isinstance(answer.get("id_token"), str):
        raise IssuerSilent(f"{url} answers {status}, and no ID token")
    believed = read_id_token(answer["id_token"], issuer, begun.nonce, now)
    access = answer.get("access_token")
    userinfo = issuer.endpoints().userinfo_endpoint
    if isinstance(access, str) and userinfo is not None:
        # Many issuers tell names and groups there only
        status, more = issuer.ask("GET", userinfo, headers={"Authorization": f"Bearer {access}"})
        if status == 200 and isinstance(more, dict) and more.get("sub") == believed.user.subject:
            believed = believe(issuer, {**more, **believed.claims})
    return believed


def _form_encoded(text: str) -> str:
    """Encode as RFC 6749 (2.3.1) wants it within HTTP Basic."""
    return urlencode({"": text})[1:]
