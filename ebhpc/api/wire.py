"""Bodies in and out: read within the limits, answered in the form that the client wants."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import falcon

from ebhpc import media
from ebhpc.api.problems import Problem, malformed
from ebhpc.config import Api
from ebhpc.model import MessageKind, message
from ebhpc.model.registry import Decoded

_PIECE = 65_536
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")


def wanted_type(req: falcon.Request) -> str:
    """Return the media type of the answer.

    Raises:
        Problem: 406, the client accepts nothing that is sent.
    """
    try:
        return media.negotiate(req.get_header("Accept"))
    except media.NotAcceptable as error:
        raise Problem(406, "{reason}", reason=error) from None


def answer(req: falcon.Request, resp: falcon.Response, document: object) -> None:
    """Answer a document, plain data or of the model."""
    resp.data = media.encode(document, req.context.media_type)
    resp.content_type = req.context.media_type
    resp.append_header("Vary", "Accept")


def read_body(req: falcon.Request, api: Api, monotonic: Callable[[], float] = time.monotonic) -> object:
    """Read a request's body to plain data.

    Raises:
        Problem: 400, 408, 413 or 415.
    """
    limits = media.MediaLimits(size=api.max_body_bytes, depth=api.max_depth, aliases=api.max_aliases)
    body = _whole_body(req, api, monotonic)
    try:
        return media.decode(body, req.get_header("Content-Type"), limits)
    except media.UnsupportedMedia as error:
        raise Problem(
            415,
            "{reason}",
            reason=error,
            headers={"Accept-Post": f"{media.JSON}, {media.YAML}"},
        ) from None
    except media.TooLarge as error:
        raise Problem(413, "{reason}", reason=error) from None
    except media.Malformed as error:
        raise malformed(
            [
                message(
                    MessageKind.INPUT_SYNTAX,
                    "line {line}, column {column}: {what}",
                    path="",
                    line=error.line,
                    column=error.column,
                    what=error.what,
                )
            ]
        ) from None


def _whole_body(req: falcon.Request, api: Api, monotonic: Callable[[], float]) -> bytes:
    """Read no more than is allowed, whatever the length that is announced."""
    most = api.max_body_bytes
    length = req.content_length
    if length is not None and length > most:
        raise _too_large(most)
    chunked = "chunked" in (req.get_header("Transfer-Encoding") or "").lower()
    left = length if length is not None else most + 1 if chunked else 0
    begun = monotonic()
    pieces = []
    try:
        while left > 0 and (piece := req.stream.read(min(left, _PIECE))):
            pieces.append(piece)
            left -= len(piece)
    except OSError as error:  # gunicorn's errors about chunks too
        raise _broken_off(monotonic() - begun, api.request_timeout, error) from None
    if chunked and left <= 0:
        raise _too_large(most)
    if length is not None and left > 0:
        raise _broken_off(monotonic() - begun, api.request_timeout, EOFError())
    return b"".join(pieces)


def _broken_off(waited: float, timeout: float, error: Exception) -> Problem:
    """The client ended its body too early, or the server ended it for the client, whose time was up."""
    if waited < timeout / 2:
        return Problem(400, "the body broke off ({reason})", reason=type(error).__name__)
    return Problem(408, "the body did not come within {limit} seconds", limit=int(timeout))


def _too_large(most: int) -> Problem:
    return Problem(413, "the body is longer than {most} bytes", most=most)


def checked(decoded: Decoded[Any]) -> Any:
    """Return a decoded document.

    Raises:
        Problem: 400, with a message for everything that is wrong.
    """
    if decoded.document is None:
        raise malformed(decoded.problems)
    return decoded.document


def base_url(req: falcon.Request, api: Api) -> str:
    """Return the URL by which this client reaches the broker, without a slash at its end.

    It is the configured one, else that of the request's Host header, where that is a name or an address, else the
    address that the broker listens on.
    """
    if api.url is not None:
        return str(api.url)
    host = req.get_header("Host") or ""
    if not _HOST.fullmatch(host):
        host = "localhost" if api.bind.host is None else str(api.bind)
    return f"{req.scheme}://{host}"


def problem_answer(req: falcon.Request, resp: falcon.Response, problem: Problem) -> None:
    """Answer a problem document, as JSON where the client wants nothing that can be sent."""
    try:
        form = media.negotiate(req.get_header("Accept"))
    except media.NotAcceptable:
        form = media.JSON
    resp.status = problem.status
    if problem.headers:
        resp.set_headers(problem.headers)
    resp.content_type = media.problem_type(form)
    resp.data = media.encode(problem.document(), resp.content_type)
    resp.append_header("Vary", "Accept")
