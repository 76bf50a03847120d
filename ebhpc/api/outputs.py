"""``/sessions/{uuid}/output/…``: what a session left behind."""

from __future__ import annotations

from urllib.parse import quote

import falcon

from ebhpc.api.access import Access, Readable
from ebhpc.api.answers import OutputItem, OutputList
from ebhpc.api.broker import Broker
from ebhpc.api.permission import check_may
from ebhpc.api.problems import Problem, not_found
from ebhpc.api.sessions import fresh_session
from ebhpc.api.wire import answer, base_url
from ebhpc.model import Output
from ebhpc.model import Session as SeenSession
from ebhpc.plugins import Platform, PlatformUnavailable
from ebhpc.store import BrokenDocument, as_session

_SHOWN = ("text/plain", "image/png", "image/jpeg", "image/gif", "application/json", "application/pdf")
"""Media types that a browser may show; anything else (HTML first of all, which could act for the reader) it saves."""


class Outputs(Readable):
    """``/sessions/{uuid}/output``."""

    access = Access.ACCOUNTS

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def on_get(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """List the session's stdout, stderr and result files."""
        broker = self._broker
        platform, session = _found(broker, req, uuid)
        base = f"{base_url(req, broker.config.api)}/sessions/{uuid}/output"
        items = [
            OutputItem(
                name=output.name,
                size=output.size,
                media_type=output.media_type,
                url=f"{base}/{quote(output.name)}",
            )
            for output in _listed(platform, session)
        ]
        answer(req, resp, OutputList(outputs=items))


class OutputFile(Readable):
    """``/sessions/{uuid}/output/{name}``."""

    access = Access.ACCOUNTS
    form = False

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def on_get(self, req: falcon.Request, resp: falcon.Response, uuid: str, name: str) -> None:
        """Send one of them, piece by piece."""
        platform, session = _found(self._broker, req, uuid)
        output = next((output for output in _listed(platform, session) if output.name == name), None)
        if output is None:
            raise not_found(f"output {name} of the session {uuid}")
        try:
            file = platform.call("ebhpc_open_output", session=session, name=name)
        except PlatformUnavailable as error:
            raise _unreachable(error) from error
        if file is None:
            raise not_found(f"output {name} of the session {uuid}")
        resp.content_type = output.media_type
        shown = output.media_type.partition(";")[0].strip().lower() in _SHOWN
        filename = quote(name.rpartition("/")[2], safe="")
        disposition = "inline" if shown else "attachment"
        resp.set_header("Content-Disposition", f"{disposition}; filename*=UTF-8''{filename}")
        resp.set_header("X-Content-Type-Options", "nosniff")
        resp.set_header("Content-Security-Policy", "sandbox; default-src 'none'")
        resp.set_header("Cache-Control", "private, no-cache")
        if output.size:
            resp.stream = file  # no length is told: the file may grow while it is sent
        else:
            # Of an empty file gunicorn sends the end twice, and the second one is taken for the next answer
            with file:
                resp.data = file.read()


def _found(broker: Broker, req: falcon.Request, uuid: str) -> tuple[Platform, SeenSession]:
    """Return a session of the caller's and its platform.

    Raises:
        Problem: 403, 404, or 409 where its platform or a plugin is no longer there.
    """
    record, _ = fresh_session(broker, uuid)
    check_may(broker, req, record.owner, f"the session {uuid}", "see", record.platform, private=True)
    platform = broker.platforms.get(record.platform)
    if platform is None:
        raise Problem(409, "the platform {platform} of this session is no longer configured", platform=record.platform)
    try:
        return platform, as_session(record, broker.kinds)
    except BrokenDocument as error:
        raise Problem(409, "the session cannot be read any more: {reason}", reason=error) from error


def _listed(platform: Platform, session: SeenSession) -> tuple[Output, ...]:
    try:
        outputs: tuple[Output, ...] = platform.call("ebhpc_outputs", session=session)
    except PlatformUnavailable as error:
        raise _unreachable(error) from error
    return outputs


def _unreachable(error: PlatformUnavailable) -> Problem:
    return Problem(
        503,
        "the platform {platform} is not available now: {reason}",
        platform=error.platform,
        reason=error.reason,
        headers={"Retry-After": str(int(error.retry_after or 5) + 1)},
    )
