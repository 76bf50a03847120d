"""The yardsticks: Falcon resources that decode a request and encode an offer set, and do nothing between.

``python -m bench.bare PORT ANSWER`` serves them by gunicorn with the settings of the broker's API. At ``/requests`` the
documents are those of the data model, read and written as the broker does it; at ``/plain`` they are plain data.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import falcon
import msgspec
from gunicorn.app.base import BaseApplication

from ebhpc import media
from ebhpc.model.registry import Kinds


class Documents:
    """Decodes a request to the model's Structs, encodes the offer set that the broker once answered."""

    def __init__(self, answer: bytes) -> None:
        self._kinds = Kinds()
        read = self._kinds.offerset(msgspec.json.decode(answer))
        assert read.document is not None, read.problems
        self._answer = read.document

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer POST /requests."""
        raw = media.decode(req.bounded_stream.read(), req.content_type, media.MediaLimits())
        assert self._kinds.request(raw).document is not None
        resp.data = self._kinds.to_json(self._answer)
        resp.content_type = "application/json"
        resp.status = falcon.HTTP_303
        resp.location = "/offersets/none"


class Plain:
    """Decodes and encodes plain data, whatever it says."""

    def __init__(self, answer: bytes) -> None:
        self._answer = msgspec.json.decode(answer)

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer POST /plain."""
        msgspec.json.decode(req.bounded_stream.read())
        resp.data = msgspec.json.encode(self._answer)
        resp.content_type = "application/json"
        resp.status = falcon.HTTP_303
        resp.location = "/offersets/none"


class Server(BaseApplication):
    """Gunicorn, as ``ebhpc api`` sets it up."""

    def __init__(self, port: int, answer: bytes, workers: int, threads: int) -> None:
        self._options = {
            "bind": f"127.0.0.1:{port}",
            "workers": workers,
            "threads": threads,
            "worker_class": "gthread",
            "loglevel": "warning",
            "keepalive": 75,
        }
        self._answer = answer
        super().__init__()

    def load_config(self) -> None:
        """Take the options over."""
        for name, value in self._options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """Make the application of a worker."""
        app = falcon.App()
        app.add_route("/requests", Documents(self._answer))
        app.add_route("/plain", Plain(self._answer))
        return app


if __name__ == "__main__":
    Server(int(sys.argv[1]), Path(sys.argv[2]).read_bytes(), workers=2, threads=8).run()
