"""The yardstick: a Falcon resource that decodes a request and encodes an offer set, and does nothing between.

``python -m bench.bare PORT ANSWER`` serves it by gunicorn with the settings of the broker's API.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import falcon
import msgspec
from gunicorn.app.base import BaseApplication


class Requests:
    """Decodes what comes, encodes what the broker once answered."""

    def __init__(self, answer: bytes) -> None:
        self._answer = msgspec.json.decode(answer)

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer POST /requests."""
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
        app.add_route("/requests", Requests(self._answer))
        return app


if __name__ == "__main__":
    Server(int(sys.argv[1]), Path(sys.argv[2]).read_bytes(), workers=2, threads=8).run()
