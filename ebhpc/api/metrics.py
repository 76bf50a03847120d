"""What is counted and timed, for Prometheus; of all workers together where they share a directory.

prometheus_client decides when it is imported whether processes share their numbers, by PROMETHEUS_MULTIPROC_DIR:
``ebhpc.api.server`` sets it, and ``create_app`` imports this module, in the worker, when it is set.
"""

from __future__ import annotations

import os
import time
from collections import Counter as Counts
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any

import falcon
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector

from ebhpc.api.promises import promise_families
from ebhpc.model import Phase
from ebhpc.store import NewOffer, Store, count_phases, get_platforms

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

    def offered(self, offers: Iterable[NewOffer]) -> None:
        """Count an offer set."""
        platforms = Counts(offer.platform for offer in offers)
        for platform, count in platforms.items():
            self._offers.labels(platform).inc(count)
        self._offersets.labels("YES" if platforms else "NO").inc()

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

    def collect(self) -> Iterator[GaugeMetricFamily]:
        sessions = GaugeMetricFamily(
            "ebhpc_sessions", "Sessions and offers in the database.", labels=["platform", "phase"]
        )
        with self._store.read() as tx:
            for (platform, phase), count in count_phases(tx).items():
                sessions.add_metric([platform, phase], count)
        yield sessions
        age = GaugeMetricFamily(
            "ebhpc_snapshot_age_seconds", "Age of the newest state of a platform.", labels=["platform"]
        )
        trouble = GaugeMetricFamily(
            "ebhpc_platform_trouble", "1 where a platform did not answer when last asked.", labels=["platform"]
        )
        for name, record in get_platforms(self._store).items():
            if record.taken is not None:
                age.add_metric([name], self._now - record.taken)
            trouble.add_metric([name], int(record.trouble is not None))
        yield age
        yield trouble
        yield from promise_families(self._store, self._now)


class Timing:
    """Falcon middleware: counts and times every answer."""

    def __init__(self, measures: Measures, monotonic: Callable[[], float] = time.perf_counter) -> None:
        self._measures = measures
        self._monotonic = monotonic

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Note when it came."""
        req.context.came = self._monotonic()

    def process_response(self, req: falcon.Request, resp: falcon.Response, resource: object, succeeded: bool) -> None:
        """Count it, by the template of its path: a client does not choose the names of our measures."""
        method = req.method if req.method in _METHODS else "OTHER"
        self._measures.answered(
            method, req.uri_template or "none", resp.status_code, self._monotonic() - req.context.came
        )


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
