"""Another broker of the standard, for the tests: a real HTTP server that answers as it was told.

It stands for brokers that are not ours and that behave as ours does not: redirects without a body, answers of 200,
Locations of several forms, ``computer/`` kinds, kinds and levels nobody knows, connections that drop. It leaves out
everything else: it keeps no sessions, checks no request and knows no time. Ours is tested by itself, never by this.
"""

from __future__ import annotations

import json
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

BASE = "https://www.purl.org/ivoa.net/Calycopis-openapi/schema/v1.0/kinds/"
OFFERSET = "11111111-0000-4000-8000-000000000001"
SESSION = "22222222-0000-4000-8000-000000000001"
SECOND = "33333333-0000-4000-8000-000000000002"


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One answer: ``document`` goes as JSON, ``text`` as it is; ``drop`` ends the connection without an answer."""

    status: int = 200
    document: Any = None
    text: str | bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    drop: bool = False


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call that arrived."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    def document(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)


class OtherBroker:
    """The server; ``answers`` holds for each ``"METHOD /path"`` the replies in order, of which the last one stays."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.answers: dict[str, list[Reply | Callable[[Call], Reply]]] = {}
        self.calls: list[Call] = []
        self._lock = threading.Lock()
        broker = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                broker._serve(self)

            def do_POST(self) -> None:
                broker._serve(self)

            def log_message(self, format: str, *args: Any) -> None:
                """Keep the tests' output clean."""

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that goes away is no fault of the server's; another error is told by the base class."""
                if not isinstance(sys.exc_info()[1], OSError):
                    super().handle_error(request, client_address)

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.scheme = "http"
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            self.scheme = "https"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        """Where the server listens."""
        return f"{self.scheme}://127.0.0.1:{self._server.server_port}"

    def answer(self, call: str, *replies: Reply | Callable[[Call], Reply]) -> None:
        """Answer ``METHOD /path`` with these replies in order, the last of them for ever."""
        self.answers[call] = list(replies)

    def paths(self) -> list[str]:
        """Return what was called, as ``METHOD /path``."""
        return [f"{call.method} {call.path}" for call in self.calls]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        call = Call(method=handler.command, path=handler.path, headers=dict(handler.headers), body=body)
        with self._lock:
            self.calls.append(call)
            replies = self.answers.get(f"{call.method} {call.path}", [Reply(status=404, text="")])
            chosen = replies.pop(0) if len(replies) > 1 else replies[0]
        reply = chosen(call) if callable(chosen) else chosen
        if reply.drop:
            handler.close_connection = True
            handler.connection.shutdown(socket.SHUT_RDWR)
            return
        if reply.document is not None:
            content, kind = json.dumps(reply.document).encode(), "application/json"
        else:
            text = reply.text if reply.text is not None else ""
            content, kind = text.encode() if isinstance(text, str) else text, "text/plain"
        headers = {"Content-Type": kind, "Content-Length": str(len(content)), **reply.headers}
        handler.send_response(reply.status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content)


def session_document(
    uuid: str = SESSION,
    phase: str = "OFFERED",
    *,
    start: str = "2030-01-31T12:00:00Z/PT0S",
    duration: str = "PT2H",
    cores: int = 2,
    memory: int = 4,
    price: float = 1.5,
    messages: list[Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A session as another broker writes it: ``computer/`` for ``compute/``, properties of its own."""
    return {
        "kind": BASE + "session/scheduled-execution-session.yaml",
        "meta": {
            "uuid": uuid,
            "created": "2026-01-31T11:00:00.123456789Z",
            "messages": messages or [],
            "options": [{"kind": "uri:enum-value-option", "path": "phase", "values": ["ACCEPTED", "REJECTED"]}]
            if phase == "OFFERED"
            else [],
        },
        "phase": phase,
        "expires": "2030-01-31T11:30:00Z",
        "schedule": {"available": {"start": start, "duration": duration}},
        "executable": {
            "kind": BASE + "executable/docker-container.yaml",
            "meta": {"name": "hello"},
            "image": {"locations": ["example.org/hello:1"], "digest": "sha256:00"},
        },
        "compute": {
            "kind": BASE + "computer/simple-compute-resource.yaml",
            "cores": {"min": cores, "max": cores},
            "memory": {"min": memory, "max": memory},
        },
        "costs": [
            {
                "kind": BASE + "costs/simple-minmax-float-cost.yaml",
                "type": "urn:ivoa:calycopis:cost:monetary",
                "min": price,
                "max": price,
            }
        ],
        "colour": "of its own",
        **more,
    }


def offerset_document(*offers: dict[str, Any], result: str = "YES", **more: Any) -> dict[str, Any]:
    """An offer set as another broker writes it."""
    return {
        "kind": BASE + "offerset/execution-offerset.yaml",
        "meta": {"uuid": OFFERSET},
        "result": result,
        "offers": list(offers),
        **more,
    }
