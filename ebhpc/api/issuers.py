"""OpenID Connect providers: where their keys are, and the keys themselves, kept and fetched anew.

Sources: OpenID Connect Discovery 1.0; RFC 7517 (keys); RFC 8725 (best practices for tokens).
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec
from msgspec import Struct

from ebhpc.config import Issuer

if TYPE_CHECKING:
    # Else only where it is used: ten megabytes in each worker, also where nobody has an issuer
    from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

log = logging.getLogger(__name__)

T = TypeVar("T")

LARGEST_ANSWER = 1 << 20
"""Bytes of a document that an issuer may answer."""

FIRST_WAIT = 5.0
LONGEST_WAIT = 300.0
"""Seconds before an issuer is asked again, after it failed or did not know a key; doubled each time."""

SHORTEST_RSA = 2048
"""Bits that an RSA key must have (RFC 7518, 3.3)."""


class IssuerSilent(Exception):
    """An issuer could not be asked, or answered nonsense; the text is for the log."""


class UnknownKey(Exception):
    """A token is signed with a key that its issuer does not publish."""


class Endpoints(Struct, frozen=True):
    """What we need of a discovery document."""

    issuer: str
    jwks_uri: str
    authorization_endpoint: str | None = None
    token_endpoint: str | None = None
    userinfo_endpoint: str | None = None
    authorization_response_iss_parameter_supported: bool = False


class OpenIssuer:
    """One issuer, with its keys. Safe for threads; one for each worker process.

    Keys are fetched when the first token comes, again when they are older than ``keys_for``, and when a token names a
    key that is not among them; never more often than a growing wait allows, so that made-up tokens make no load.
    While the issuer does not answer the keys that we have go on counting.
    """

    def __init__(self, settings: Issuer, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.settings = settings
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._client: httpx.Client | None = None
        self._endpoints: Endpoints | None = None
        self._keys: dict[str, Key] = {}
        self._fetched = float("-inf")
        self._next = float("-inf")
        self._wait = FIRST_WAIT

    @property
    def discovery_url(self) -> str:
        """Where its discovery document is."""
        return f"{self.settings.url.rstrip('/')}/.well-known/openid-configuration"

    def key(self, header: dict[str, Any], algorithm: str) -> Key:
        """Return the key that a token's header names.

        Raises:
            UnknownKey: the issuer publishes none such.
            IssuerSilent: we have no keys, and it does not answer.
        """
        found = self._find(header.get("kid"), algorithm)
        if found is not None and self._monotonic() - self._fetched < self.settings.keys_for:
            return found
        self._renew(patient=found is None)
        found = self._find(header.get("kid"), algorithm)
        if found is not None:
            return found
        if not self._keys:
            raise IssuerSilent(f"the issuer {self.settings.name} has no keys for us")
        raise UnknownKey

    def published_keys(self) -> int:
        """Fetch its keys now; return how many of them can be used.

        Raises:
            IssuerSilent: it does not answer.
        """
        return len(self._fetch())

    def endpoints(self) -> Endpoints:
        """Return where its services are.

        Raises:
            IssuerSilent: it does not answer.
        """
        if self._endpoints is None:
            self._endpoints = self._discover()
        return self._endpoints

    def ask(self, method: str, url: str, **options: Any) -> tuple[int, Any]:
        """Call one of its services; return the status and the JSON that it answers (None: none).

        Raises:
            IssuerSilent: it does not answer.
        """
        if urlsplit(url).scheme != "https" and not self.settings.insecure:
            raise IssuerSilent(f"{url} is not https")
        try:
            with self._open().stream(method, url, **options) as response:
                body = b""
                for piece in response.iter_bytes(1 << 16):
                    body += piece
                    if len(body) > LARGEST_ANSWER:
                        raise IssuerSilent(f"{url} answers more than {LARGEST_ANSWER} bytes")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise IssuerSilent(f"{url}: {str(error) or type(error).__name__}") from error
        try:
            return response.status_code, msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return response.status_code, None

    def close(self) -> None:
        """Close its connections."""
        if self._client is not None:
            self._client.close()

    def _open(self) -> httpx.Client:
        if self._client is None:
            settings = self.settings
            verify = ssl.create_default_context(cafile=settings.ca_file) if settings.ca_file else True
            self._client = httpx.Client(timeout=settings.timeout, verify=verify, follow_redirects=False)
        return self._client

    def _find(self, kid: object, algorithm: str) -> Key | None:
        if isinstance(kid, str):
            key = self._keys.get(kid)
            return key if key is not None and _serves(key, algorithm) else None
        if kid is not None:
            return None
        # Without a kid there must be no doubt which key it is
        able = [key for key in self._keys.values() if _serves(key, algorithm)]
        return able[0] if len(able) == 1 else None

    def _renew(self, *, patient: bool) -> None:
        """Fetch the keys, unless that was tried a moment ago. One thread does; others wait for it if ``patient``."""
        if not self._lock.acquire(blocking=patient):
            return
        try:
            now = self._monotonic()
            if now < self._next:
                return
            try:
                keys = self._fetch()
            except IssuerSilent as error:
                log.warning("the issuer %s: %s", self.settings.name, error)
                self._endpoints = None
            else:
                known = self._keys
                self._keys, self._fetched = keys, self._monotonic()
                if keys.keys() != known.keys():
                    self._wait = FIRST_WAIT
            self._next = self._monotonic() + self._wait
            self._wait = min(self._wait * 2, LONGEST_WAIT)
        finally:
            self._lock.release()

    def _fetch(self) -> dict[str, Key]:
        url = self.endpoints().jwks_uri
        status, document = self.ask("GET", url)
        given = document.get("keys") if isinstance(document, dict) else None
        if status != 200 or not isinstance(given, list):
            raise IssuerSilent(f"{url} answers {status}, and no set of keys")
        keys: dict[str, Key] = {}
        for item in given[:100]:
            key = _usable(item)
            if key is not None:
                keys[str(key.kid)] = key
        if not keys:
            raise IssuerSilent(f"{url} has no key that can be used")
        return keys

    def _discover(self) -> Endpoints:
        url = self.discovery_url
        status, document = self.ask("GET", url)
        try:
            found = msgspec.convert(document, Endpoints)
        except msgspec.ValidationError as error:
            raise IssuerSilent(f"{url} answers {status}, and no discovery document: {error}") from None
        if status != 200 or found.issuer != self.settings.url:
            raise IssuerSilent(f"{url} is of the issuer {found.issuer!r}, not {self.settings.url!r}")
        return found


def _usable(item: object) -> Key | None:
    """Return a published key that can verify signatures; None: it is for something else, or too weak."""
    from joserfc.errors import JoseError
    from joserfc.jwk import ECKey, OKPKey, RSAKey

    if not isinstance(item, dict) or item.get("use", "sig") != "sig":
        return None
    operations = item.get("key_ops")
    if operations is not None and "verify" not in operations:
        return None
    kinds: dict[str, type[RSAKey] | type[ECKey] | type[OKPKey]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
    kind = kinds.get(str(item.get("kty")))
    if kind is None:  # a shared secret that is published is no secret
        return None
    try:
        if kind is RSAKey and len(str(item.get("n", ""))) * 6 < SHORTEST_RSA - 8:
            return None
        key = kind.import_key({name: value for name, value in item.items() if name not in ("d", "p", "q")})
        key.ensure_kid()
        if isinstance(key, RSAKey) and key.public_key.key_size < SHORTEST_RSA:
            return None
    except (JoseError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return key


def _serves(key: Key, algorithm: str) -> bool:
    """Whether a key is for an algorithm: of its type and curve, and stated for no other."""
    from joserfc import jws
    from joserfc.errors import JoseError

    if key.alg not in (None, algorithm):
        return False
    try:
        model = jws.JWSRegistry.algorithms[algorithm]
        model.check_key(key)
    except (JoseError, KeyError, ValueError):
        return False
    return True
