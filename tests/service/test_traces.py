"""Traces reach a collector: a small receiver of OTLP over HTTP that decodes what it is sent with opentelemetry-proto.

It stands in for a collector such as Jaeger's or OpenTelemetry's own, which no package index carries: it answers as
the protocol says and keeps every span; it stores, samples and shows nothing.
"""

from __future__ import annotations

import gzip
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from msgspec import Struct
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.service.ledgers import REQUEST, LedgerBroker

CORES = 4


class Seen(Struct, frozen=True, kw_only=True):
    """A span as it came."""

    service: str
    trace: bytes
    uuid: bytes
    parent: bytes
    name: str
    attributes: dict[str, str | int]
    nanoseconds: int


class Collector:
    """Takes spans at ``url``."""

    def __init__(self) -> None:
        self.spans: list[Seen] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                assert self.path == "/v1/traces"
                receiver.take(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def take(self, sent: ExportTraceServiceRequest) -> None:
        """Keep the spans of one message."""
        for resource in sent.resource_spans:
            service = _values(resource.resource.attributes)["service.name"]
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans.append(
                        Seen(
                            service=str(service),
                            trace=span.trace_id,
                            uuid=span.span_id,
                            parent=span.parent_span_id,
                            name=span.name,
                            attributes=_values(span.attributes),
                            nanoseconds=span.end_time_unix_nano - span.start_time_unix_nano,
                        )
                    )

    def until(self, is_there: Callable[[], object], seconds: float = 180.0) -> None:
        """Wait until what has come is enough."""
        deadline = time.monotonic() + seconds
        while not is_there():
            assert time.monotonic() < deadline, sorted({(one.service, one.name) for one in self.spans})
            time.sleep(0.1)

    def named(self, name: str) -> list[Seen]:
        """All spans of a name."""
        return [one for one in list(self.spans) if one.name == name]

    def close(self) -> None:
        """Take no more."""
        self._server.shutdown()
        self._server.server_close()


def _values(attributes: object) -> dict[str, str | int]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}  # type: ignore[attr-defined]


@pytest.fixture
def collector() -> Iterator[Collector]:
    one = Collector()
    yield one
    one.close()


def test_a_request_and_a_session_leave_spans_with_all_their_parts(collector: Collector, tmp_path: Path):
    settings = {"tracing": {"endpoint": collector.url}}
    broker = LedgerBroker(tmp_path, cores=CORES, memory_gib=CORES, seconds=1, settings=settings)
    broker.environment["OTEL_BSP_SCHEDULE_DELAY"] = "200"
    try:
        broker.run()
        assert broker.ask("POST", "/requests", json=REQUEST).status_code == 303
        (accepted,) = broker.begin(1, at_once=1)
        broker.until_over([accepted])
        collector.until(lambda: collector.named("POST /requests"))
        collector.until(
            lambda: [one for one in collector.named("step clean") if one.attributes["ebhpc.session"] == accepted]
        )
        (request,) = collector.named("POST /requests")
        assert request.service == "ebhpc-api"
        assert request.parent == b"", "what a client sends begins a trace"
        assert request.attributes["http.response.status_code"] == 303
        trace = {one.uuid: one for one in collector.spans if one.trace == request.trace}
        parts = {one.name for one in trace.values()}
        assert {"ebhpc_refuses", "planning", "booking", "transaction book_together"} <= parts
        # Each part lies in one that takes longer, up to the request; a hook's too, which ran on another thread
        for one in trace.values():
            assert one is request or trace[one.parent].nanoseconds >= one.nanoseconds
        plans = [one for one in trace.values() if one.name == "planning"]
        assert {one.attributes["ebhpc.platform"] for one in plans} == {"cluster"}
        assert {trace[one.parent].name for one in plans} == {"booking"}

        # The driver's steps are found by the session
        of_session = [one for one in collector.spans if one.attributes.get("ebhpc.session") == accepted]
        names = {one.name for one in of_session}
        assert {"step submit", "ebhpc_submit", "step clean", "ebhpc_cleanup"} <= names
        assert {one.service for one in of_session} == {"ebhpc-driver"}
        (submit,) = (one for one in of_session if one.name == "ebhpc_submit")
        assert any(one.uuid == submit.parent and one.name == "step submit" for one in of_session)
        assert collector.named("ebhpc_snapshot")
    finally:
        broker.stop()


def test_a_collector_that_is_gone_holds_nobody_up(tmp_path: Path):
    collector = Collector()
    collector.close()
    broker = LedgerBroker(
        tmp_path, cores=CORES, memory_gib=CORES, seconds=1, settings={"tracing": {"endpoint": collector.url}}
    )
    try:
        broker.run()
        broker.until_over(broker.begin(2))
    finally:
        broker.stop()


def test_nothing_of_it_is_imported_when_it_is_off_and_what_is_missing_is_told():
    off = (
        "import sys; from ebhpc import tracing; from ebhpc.cli import operators\n"
        "with tracing.span('planning', platform='x'): pass\n"
        "assert tracing.traced(print) and tracing.carried(print) is print\n"
        "tracing.answered('GET', '/', 200)\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-c", off], check=True, timeout=60)
    missing = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from ebhpc.cli import main; sys.argv = ['ebhpc', 'drive', '--set', 'tracing.endpoint=http://127.0.0.1:1']\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", missing], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "pip install 'ebhpc[tracing]'" in done.stderr
