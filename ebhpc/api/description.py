"""``/openapi.yaml`` and ``/openapi.json``: this broker's own description."""

from __future__ import annotations

import falcon

from ebhpc import media
from ebhpc.api.access import Access, Readable
from ebhpc.api.broker import Broker
from ebhpc.api.openapi import describe
from ebhpc.api.wire import base_url


class Description(Readable):
    """The OpenAPI document in one form."""

    access = Access.EVERYBODY
    form = False

    def __init__(self, broker: Broker, media_type: str) -> None:
        self._broker = broker
        self._media_type = media_type
        self._made: dict[str, bytes] = {}

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer the document, whatever the client accepts: the path names the form."""
        url = base_url(req, self._broker.config.api)
        made = self._made.get(url)
        if made is None:
            made = media.encode(describe(self._broker.kinds, url), self._media_type)
            self._made = {url: made}  # one: a client cannot fill the memory by naming hosts
        resp.data = made
        resp.content_type = self._media_type
