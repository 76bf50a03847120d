"""Spans for OpenTelemetry: what was done for a request or a session, and how long each part took.

Off unless ``start`` was called in this process; then nothing of OpenTelemetry is imported, and a span costs a call.
Spans carry platforms, sessions and phases, nothing of users and nothing that they wrote.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

P = ParamSpec("P")
T = TypeVar("T")

_PATIENCE = 5
"""Seconds that a collector has for taking spans."""

_provider: TracerProvider | None = None
_nothing: AbstractContextManager[None] = nullcontext()


class NotInstalledError(RuntimeError):
    """Traces are asked for, and what makes them is not installed."""


def check_installed() -> None:
    """Pass where spans can be made and sent.

    Raises:
        NotInstalledError: OpenTelemetry's SDK or its exporter is missing.
    """
    try:
        present = find_spec("opentelemetry.sdk.trace") and find_spec("opentelemetry.exporter.otlp.proto.http")
    except ModuleNotFoundError:
        present = None
    if present is None:
        raise NotInstalledError(
            "tracing.endpoint is set, and OpenTelemetry is not installed: pip install 'ebhpc[tracing]'"
        )


def start(endpoint: str, *, share: float, service: str, version: str, instance: str) -> None:
    """Send this process's spans to a collector from now on. Starts a thread: call it after a fork.

    Args:
        endpoint: the collector's URL for OTLP over HTTP, without ``/v1/traces``.
        share: which share of traces is kept, 0 to 1.
        service: what this process is, for ``service.name``.
        version: of ebhpc.
        instance: which of several such processes it is.

    Raises:
        NotInstalledError: OpenTelemetry's SDK or its exporter is missing.
    """
    global _provider  # one for each process, as log handlers are
    check_installed()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    stop()
    about: dict[str, str | int] = {
        "service.name": service,
        "service.version": version,
        "service.instance.id": instance,
        "process.pid": os.getpid(),
    }
    provider = TracerProvider(resource=Resource.create(about), sampler=ParentBased(TraceIdRatioBased(share)))
    provider.add_span_processor(
        BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces", timeout=_PATIENCE))
    )
    _provider = provider


def stop() -> None:
    """Send what was not sent yet, and make no spans any more."""
    global _provider
    if _provider is not None:
        ended, _provider = _provider, None
        ended.shutdown()


def span(name: str, **attributes: str | int | float | None) -> AbstractContextManager[None]:
    """Time the block as a span of its own, below the one that this thread is in.

    What the block raises marks the span as failed, by the error's type and no more. Attributes that are None are left
    out; their names have ``ebhpc.`` put before them.
    """
    if _provider is None:
        return _nothing
    return _span(_provider, name, {f"ebhpc.{key}": value for key, value in attributes.items() if value is not None})


@contextmanager
def _span(
    provider: TracerProvider, name: str, attributes: dict[str, str | int | float], *, serves: bool = False
) -> Iterator[None]:
    from opentelemetry.trace import SpanKind, Status, StatusCode

    tracer = provider.get_tracer("ebhpc")
    kind = SpanKind.SERVER if serves else SpanKind.INTERNAL
    with tracer.start_as_current_span(
        name, kind=kind, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as current:
        try:
            yield
        except BaseException as error:
            current.set_attribute("error.type", type(error).__name__)
            current.set_status(Status(StatusCode.ERROR))
            raise


def serving(method: str) -> AbstractContextManager[None]:
    """Time the block as the answer to a request; ``answered`` tells of it."""
    if _provider is None:
        return _nothing
    return _span(_provider, method, {"http.request.method": method}, serves=True)


def answered(method: str, route: str, status: int) -> None:
    """Say of the answer that this thread is in what was asked, by the template of its path, and its status."""
    if _provider is None:
        return
    from opentelemetry.trace import Status, StatusCode, get_current_span

    current = get_current_span()
    current.update_name(f"{method} {route}")
    current.set_attribute("http.route", route)
    current.set_attribute("http.response.status_code", status)
    if status >= 500:
        current.set_status(Status(StatusCode.ERROR))


def carried(function: Callable[P, T]) -> Callable[P, T]:
    """Return a function that does the same on another thread, with its spans below the one that this thread is in."""
    if _provider is None:
        return function
    from opentelemetry.context import attach, detach, get_current

    here = get_current()

    def run(*arguments: P.args, **named: P.kwargs) -> T:
        token = attach(here)
        try:
            return function(*arguments, **named)
        finally:
            detach(token)

    return run


def traced(application: Callable[..., Any]) -> Callable[..., Any]:
    """Return a WSGI application whose answers are spans; each request begins a trace of its own.

    What a client says of traces (``traceparent``) is not taken up: it would choose which are kept.
    """

    def serve(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        method = environ.get("REQUEST_METHOD", "")
        with serving(method if method in _METHODS else "OTHER"):
            return application(environ, start_response)

    return serve


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
