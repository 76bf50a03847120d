"""What is counted and timed, for Prometheus; of all workers together where they share a directory.

prometheus_client decides when it is imported whether processes share their numbers, by PROMETHEUS_MULTIPROC_DIR:
``ebhpc.api.server`` sets it, and ``create_app`` imports this module, in the worker, when it is set.
"""

from __future__ import annotations

import os
import time
from collections import Counter as Counts
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import falcon
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector

from ebhpc import tracing
from ebhpc.api.promises import promise_families
from ebhpc.model import Message, MessageKind, Phase
from ebhpc.store import (
    NewOffer,
    Store,
    count_phases,
    expired_counts,
    lease_counts,
    list_drivers,
    oldest_due,
    phase_times,
    read_platforms,
)

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Measures:
    """The counters of one worker, and the figures of the database. ``clock`` gives POSIX seconds."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._own = CollectorRegistry()
        self._requests = Counter(
            "ebhpc_http_requests_total",
            "Requests that were answered.",
            ["method", "resource", "status"],
            registry=self._own,
        )
        self._seconds = Histogram(
            "ebhpc_http_request_seconds",
            "How long answers took.",
            ["method", "resource"],
            buckets=_BUCKETS,
            registry=self._own,
        )
        self._offersets = Counter(
            "ebhpc_offersets_total", "Requests for offers, by their result.", ["result"], registry=self._own
        )
        self._offers = Counter("ebhpc_offers_total", "Offers made.", ["platform"], registry=self._own)
        self._decisions = Counter(
            "ebhpc_decisions_total",
            "Offers accepted and rejected, sessions cancelled, by their owners.",
            ["platform", "phase"],
            registry=self._own,
        )
        self._refusals = Counter(
            "ebhpc_refusals_total",
            "Requests for which no offer was made, by each reason that was given.",
            ["reason"],
            registry=self._own,
        )
        self._planning = Histogram(
            "ebhpc_planning_seconds",
            "How long it took to find a request's windows on a platform.",
            ["platform"],
            buckets=_BUCKETS,
            registry=self._own,
        )
        self._failures = Counter(
            "ebhpc_platform_failures_total",
            "Requests for which a platform was not available.",
            ["platform"],
            registry=self._own,
        )

        # Finding a measure by its labels takes longer than counting
        self._answers = lru_cache(maxsize=1024)(self._answers_of)

    def _answers_of(self, method: str, resource: str, status: int) -> tuple[Counter, Histogram]:
        return self._requests.labels(method, resource, status), self._seconds.labels(method, resource)

    def answered(self, method: str, resource: str, status: int, seconds: float) -> None:
        """Count an answer; ``resource`` is the template of its path."""
        counter, histogram = self._answers(method, resource, status)
        counter.inc()
        histogram.observe(seconds)

    def offered(self, offers: Iterable[NewOffer], messages: Iterable[Message] = ()) -> None:
        """Count an offer set, and where it is empty the reasons among its messages, each once."""
        platforms = Counts(offer.platform for offer in offers)
        for platform, count in platforms.items():
            self._offers.labels(platform).inc(count)
        self._offersets.labels("YES" if platforms else "NO").inc()
        if not platforms:
            for reason in {_reason(item) for item in messages if item.level in (None, "ERROR")}:
                self._refusals.labels(reason).inc()

    @contextmanager
    def planning(self, platform: str) -> Iterator[None]:
        """Time how long a request's windows on a platform are looked for."""
        began = time.perf_counter()
        try:
            with tracing.span("planning", platform=platform):
                yield
        finally:
            self._planning.labels(platform).observe(time.perf_counter() - began)

    def decided(self, platform: str, phase: Phase) -> None:
        """Count a user's decision."""
        self._decisions.labels(platform, str(phase)).inc()

    def platform_failed(self, platform: str) -> None:
        """Count a platform that was not available for a request."""
        self._failures.labels(platform).inc()

    def text(self) -> tuple[bytes, str]:
        """Return all figures in the text form, and its media type."""
        registry = self._own
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        figures = CollectorRegistry()
        figures.register(_Figures(self._store, self._clock()))
        return generate_latest(registry) + generate_latest(figures), CONTENT_TYPE_LATEST


class _Figures:
    """What the database tells at the time of asking."""

    def __init__(self, store: Store, now: float) -> None:
        self._store = store
        self._now = now

    def describe(self) -> list[Any]:
        return []

    def collect(self) -> Iterator[Metric]:
        with self._store.read() as tx:
            phases = count_phases(tx)
            times = phase_times(tx)
            due = oldest_due(tx)
            held = lease_counts(tx)
            platforms = read_platforms(tx)
            expired = expired_counts(tx)
        drivers = list_drivers(self._store)
        sessions = _gauge("ebhpc_sessions", "Sessions and offers in the database.", "platform", "phase")
        for (platform, phase), count in phases.items():
            sessions.add_metric([platform, phase], count)
        yield sessions
        # Workers and drivers of all machines expire offers, each in a transaction that counts it
        over = CounterMetricFamily("ebhpc_offers_expired", "Offers that nobody took in time.", labels=["platform"])
        for platform, count in expired.items():
            over.add_metric([platform], count)
        yield over
        yield from _phase_families(times)
        age = _gauge("ebhpc_snapshot_age_seconds", "Age of the newest state of a platform.", "platform")
        trouble = _gauge("ebhpc_platform_trouble", "1 where a platform did not answer when last asked.", "platform")
        for name, record in platforms.items():
            if record.taken is not None:
                age.add_metric([name], max(0.0, self._now - record.taken))
            trouble.add_metric([name], int(record.trouble is not None))
        yield age
        yield trouble
        beat = _gauge("ebhpc_driver_heartbeat_age_seconds", "Time since a driver's last sign of life.", "driver")
        load = _gauge("ebhpc_driver_sessions", "Sessions that a driver has.", "driver")
        for driver in drivers:
            beat.add_metric([driver.name], max(0.0, self._now - driver.heartbeat))
            load.add_metric([driver.name], held.get(driver.incarnation, 0))
        yield beat
        yield load
        lag = _gauge("ebhpc_driver_lag_seconds", "For how long the session that waits longest for a driver was due.")
        lag.add_metric([], 0.0 if due is None else max(0.0, self._now - due))
        yield lag
        yield from promise_families(self._store, self._now)


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=labels)


def _phase_families(times: Mapping[tuple[str, Phase], Sequence[float]]) -> Iterator[Metric]:
    """Yield how long sessions stayed in each phase lately: quantiles, and of how many stays."""
    quantiles = _gauge(
        "ebhpc_phase_seconds",
        "How long sessions stayed in a phase, of the newest changes of phase.",
        *("platform", "phase", "quantile"),
    )
    stays = _gauge("ebhpc_phase_stays", "How many stays the figures above are of.", "platform", "phase")
    for (platform, phase), found in times.items():
        ordered = sorted(found)
        for share in (0.5, 0.9, 0.99):
            value = ordered[min(len(ordered) - 1, int(share * len(ordered)))]
            quantiles.add_metric([platform, phase, str(share)], value)
        stays.add_metric([platform, phase], len(ordered))
    yield quantiles
    yield stays


def _reason(item: Message) -> str:
    """Return a reason's kind; those of plugins and the site are one, as nobody knows how many they are."""
    return item.kind.removeprefix("urn:") if item.kind in _REASONS else "other"


_REASONS = frozenset(MessageKind)


class Timing:
    """Falcon middleware: counts and times every answer, and says of its span what it was."""

    def __init__(self, measures: Measures, monotonic: Callable[[], float] = time.perf_counter) -> None:
        self._measures = measures
        self._monotonic = monotonic

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Note when it came."""
        req.context.came = self._monotonic()

    def process_response(self, req: falcon.Request, resp: falcon.Response, resource: object, succeeded: bool) -> None:
        """Count it, by the template of its path: a client does not choose the names of our measures."""
        method = req.method if req.method in _METHODS else "OTHER"
        route = req.uri_template or "none"
        self._measures.answered(method, route, resp.status_code, self._monotonic() - req.context.came)
        tracing.answered(method, route, resp.status_code)


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
