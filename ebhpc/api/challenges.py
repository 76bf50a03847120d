"""What an answer 401 says of how to be known: the ``WWW-Authenticate`` header.

Sources: RFC 9110 (11.6.1), RFC 7617 (Basic), RFC 6750 (Bearer). ``ivoa_bearer`` with ``discovery_url`` is what services
of the Virtual Observatory send so that a program finds the OpenID Connect provider; the IVOA's draft on authentication
(AuthVO) has no word yet on how tokens are got, so the parameter is the one that is in use.
"""

from __future__ import annotations

from collections.abc import Iterable

from ebhpc.api.issuers import OpenIssuer
from ebhpc.api.problems import CHALLENGE

BEARER = 'Bearer realm="ebhpc"'


def challenges(issuers: Iterable[OpenIssuer], error: str | None = None, reason: str | None = None) -> str:
    """Return the challenges of this broker in one header's value; ``error`` is a code of RFC 6750."""
    takers = [issuer for issuer in issuers if issuer.settings.audiences]
    if not takers:
        return CHALLENGE
    why = f', error="{error}"' if error else ""
    if error and reason:
        why += f', error_description="{_quoted(reason)}"'
    ours = [f'ivoa_bearer discovery_url="{_quoted(issuer.discovery_url)}"{why}' for issuer in takers]
    return ", ".join([f"{BEARER}{why}", *ours, CHALLENGE])


def _quoted(text: str) -> str:
    """Return a text as what stands between quotes: RFC 6750 takes printable ASCII but for \" and \\."""
    return "".join(char if 0x20 <= ord(char) < 0x7F and char not in '"\\' else "?" for char in text)
