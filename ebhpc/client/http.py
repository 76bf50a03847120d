"""HTTP between a client and one broker: credentials, retries, redirects, limits, errors.

Nothing here knows the data model: documents are plain data.
"""

from __future__ import annotations

import ipaddress
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

import httpx
import msgspec

from ebhpc import __version__, media
from ebhpc.client.errors import (
    BadAnswer,
    BrokerError,
    Conflict,
    NoAnswer,
    NotAuthorised,
    NotFound,
    Refused,
    Unreachable,
)
from ebhpc.client.problems import problem_messages, problem_summary

MAX_DOCUMENT = 64 * 1024 * 1024
"""Bytes of the largest document that is read from a broker; a session's outputs have no limit."""

_YAML_LIMITS = media.MediaLimits(size=MAX_DOCUMENT, elements=2_000_000, aliases=10_000)
_RETRY_DELAYS = (0.2, 1.0)
_MAX_HOPS = 5
_BUSY = frozenset({502, 503, 504})
_LONGEST_PAUSE = 10.0
_ACCEPT = "application/json, application/yaml;q=0.5, application/problem+json;q=0.5"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One answer: its ``status``, the ``url`` that gave it, its ``headers``, and its document or None."""

    status: int
    url: str
    headers: Mapping[str, str]
    data: Any


Query = Sequence[tuple[str, str]]
"""Names and values of a query, in order."""

_Result = TypeVar("_Result", Answer, httpx.Response)


class Connection:
    """Calls to one broker.

    ``sleep`` takes seconds; a test may pass its own.

    Raises:
        ValueError: ``url`` is no http or https URL, or holds credentials.
    """

    def __init__(
        self,
        url: str,
        *,
        username: str | None = None,
        password: str | None = None,
        token: str | None = None,
        timeout: float = 30.0,
        ca: Path | str | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url = checked_url(url)
        self._sleep = sleep
        self._timeout = timeout
        auth: httpx.Auth | None = None
        headers = {"User-Agent": f"ebhpc/{__version__}", "Accept": _ACCEPT}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        elif username is not None:
            auth = httpx.BasicAuth(username, password or "")
        self._http = httpx.Client(
            auth=auth,
            headers=headers,
            timeout=httpx.Timeout(timeout, connect=min(timeout, 10.0)),
            verify=ssl.create_default_context(cafile=ca) if ca is not None else True,
            follow_redirects=False,
            # A proxy that the environment names is for other hosts than this one.
            trust_env=not is_loopback(self.url),
            # Servers close idle connections; a call that is not repeated must not meet a connection that is
            # closing.
            limits=httpx.Limits(keepalive_expiry=1.0),
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def get(self, path: str, params: Query | None = None) -> Answer:
        """Read a document; repeated after connection faults, redirects followed on the same origin."""
        url = self._absolute(path)
        for _ in range(_MAX_HOPS):
            answer = self._repeating(partial(self._read_once, url, params))
            if not 300 <= answer.status < 400:
                return _checked(answer)
            url, params = self.same_origin(answer), None
        raise BadAnswer(f"{self._absolute(path)} redirects more than {_MAX_HOPS} times")

    def post(self, path: str, document: object) -> Answer:
        """Send a document as JSON, once: repeated only where no connection was made, and so nothing was sent.

        A 303 is returned as it is; following it is the caller's choice.
        """
        url = self._absolute(path)
        body = msgspec.json.encode(document)
        for delay in (*_RETRY_DELAYS, None):
            try:
                with self._http.stream(
                    "POST", url, content=body, headers={"Content-Type": "application/json"}
                ) as response:
                    answer = _read(response)
                break
            except httpx.ConnectError as error:
                if delay is None or _is_certificate(error):
                    raise self._unreachable(error) from error
                self._sleep(delay)
            except httpx.TransportError as error:
                if isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout | httpx.ProxyError):
                    raise self._unreachable(error) from error
                raise NoAnswer(
                    f"no answer to POST {urlsplit(url).path} from {self.url} ({_cause(error)}): "
                    "it may have been carried out"
                ) from error
        if answer.status != 303 and 300 <= answer.status < 400:
            moved = urljoin(answer.url, answer.headers.get("location", ""))
            raise BadAnswer(
                f"the broker at {self.url} has moved to {moved} ({answer.status}); use that address instead",
                status=answer.status,
            )
        return _checked(answer)

    @contextmanager
    def stream(self, path: str) -> Iterator[httpx.Response]:
        """Open a result to read it piece by piece; a fault meanwhile is raised as :class:`Unreachable`."""
        url = self._absolute(path)
        request = self._http.build_request("GET", url, headers={"Accept": "*/*"})
        response = self._repeating(lambda: self._http.send(request, stream=True))
        try:
            if 300 <= response.status_code < 400:
                raise BadAnswer(
                    f"{url} redirects to {response.headers.get('location')!r}: not followed for a download",
                    status=response.status_code,
                )
            if response.status_code >= 400:
                _checked(_read(response))
            yield response
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        finally:
            response.close()

    def same_origin(self, answer: Answer, link: str | None = None) -> str:
        """Return where ``answer`` points to (``link``, or its Location), if that is on the broker's own origin.

        Raises:
            BadAnswer: it names no place, or another host: credentials go to the broker alone.
        """
        location = link or answer.headers.get("location")
        if not location:
            raise BadAnswer(
                f"{answer.url} answered {answer.status} with neither a document nor a Location",
                status=answer.status,
            )
        target = urljoin(answer.url, location)
        if origin(target) != origin(self.url):
            raise BadAnswer(
                f"{answer.url} points to another host, {target}: not followed. "
                "If the broker is behind a proxy, its public URL is not set",
                status=answer.status,
            )
        return target

    def _absolute(self, path: str) -> str:
        return path if "://" in path else self.url + path

    def _read_once(self, url: str, params: Query | None) -> Answer:
        with self._http.stream("GET", url, params=None if params is None else list(params)) as response:
            return _read(response)

    def _repeating(self, call: Callable[[], _Result]) -> _Result:
        """Make a call that changes nothing, again after a connection fault or while the broker is busy."""
        for delay in _RETRY_DELAYS:
            try:
                result = call()
            except httpx.TransportError as error:
                if _is_certificate(error) or isinstance(error, httpx.TimeoutException):
                    raise self._unreachable(error) from error
                self._sleep(delay)
                continue
            if _status(result) not in _BUSY:
                return result
            self._sleep(max(delay, _retry_after(result.headers)))
            _discard(result)
        try:
            return call()
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: httpx.TransportError) -> Unreachable:
        if isinstance(error, httpx.TimeoutException):
            return Unreachable(f"the broker at {self.url} did not answer within {self._timeout:g} s")
        advice = (
            "; give the certificate of its authority with --ca, or in the client's configuration"
            if _is_certificate(error)
            else ""
        )
        return Unreachable(f"cannot reach the broker at {self.url}: {_cause(error)}{advice}")


def checked_url(url: str) -> str:
    """Return ``url`` without a slash at its end.

    Raises:
        ValueError: it is no http or https URL with a host, or holds credentials, a query or a fragment.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise ValueError(f"{url!r} is no URL: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is no URL of a broker: expected http://HOST[:PORT][/PATH] or https://…")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a broker's URL holds no user name or password: give them by themselves")
    if parts.query or parts.fragment:
        raise ValueError(f"{url!r} is no URL of a broker: it has a query or a fragment")
    return url.rstrip("/")


def origin(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of a URL, the scheme's own port filled in."""
    parts = urlsplit(url)
    default = 443 if parts.scheme == "https" else 80
    return parts.scheme, (parts.hostname or "").lower(), parts.port or default


def is_loopback(url: str) -> bool:
    """Whether ``url`` names this machine by a loopback address or as ``localhost``."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _read(response: httpx.Response) -> Answer:
    body = bytearray()
    for piece in response.iter_bytes():
        body += piece
        if len(body) > MAX_DOCUMENT:
            raise BadAnswer(
                f"{response.url} sent a document of more than {MAX_DOCUMENT // 1024**2} MiB",
                status=response.status_code,
            )
    return Answer(
        status=response.status_code,
        url=str(response.url),
        headers={name.lower(): value for name, value in response.headers.items()},
        data=_plain(bytes(body), response),
    )


def _plain(body: bytes, response: httpx.Response) -> Any:
    """Decode a document by its media type; what is neither JSON nor YAML is no error within an error."""
    if not body.strip():
        return None
    media_type = response.headers.get("content-type", "").split(";")[0].strip().lower()
    try:
        if media_type.endswith("json"):
            return msgspec.json.decode(body)
        if media_type.endswith("yaml"):
            return media.decode(body, "application/yaml", _YAML_LIMITS)
    except (msgspec.DecodeError, media.MediaError) as error:
        if response.is_success:
            raise BadAnswer(
                f"{response.url} sent {media_type} that cannot be read: {error}", status=response.status_code
            ) from error
        return None
    if response.is_success:
        raise BadAnswer(
            f"{response.url} sent {media_type or 'no media type'}, not JSON or YAML. Is it a broker?",
            status=response.status_code,
        )
    return None


def _checked(answer: Answer) -> Answer:
    """Return an answer that is no error; raise the error that it is."""
    status = answer.status
    if status < 400:
        return answer
    kind: type[BrokerError]
    match status:
        case 401 | 403:
            kind = NotAuthorised
        case 404 | 410:
            kind = NotFound
        case 409:
            kind = Conflict
        case _ if status in _BUSY:
            kind = Unreachable
        case _ if status >= 500:
            kind = BadAnswer
        case _:
            kind = Refused
    raise kind(
        problem_summary(answer.data, status, urlsplit(answer.url).path),
        status=status,
        messages=problem_messages(answer.data),
    )


def _status(result: Answer | httpx.Response) -> int:
    return result.status if isinstance(result, Answer) else result.status_code


def _discard(result: Answer | httpx.Response) -> None:
    if isinstance(result, httpx.Response):
        result.close()


def _cause(error: Exception) -> str:
    """What went wrong in words; some faults carry none but their type's name."""
    return str(error) or type(error).__name__


def _is_certificate(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that the broker asks to wait, at most ten; 0 where it says nothing that is a number."""
    text = headers.get("retry-after", "")
    return min(float(text), _LONGEST_PAUSE) if text.isdecimal() else 0.0
