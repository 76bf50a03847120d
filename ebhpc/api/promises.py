"""How well starts were foreseen and promised, for Prometheus: what drivers and sessions left in the database."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily

from ebhpc.planning.queue import Accuracy, accuracy_of_starts
from ebhpc.store import Store, promised_starts, read_forecasts

SPAN = 30 * 86_400
"""Seconds: the figures are of sessions that started since."""

_LABELS = ["platform", "promise"]


def promise_families(store: Store, now: float) -> Iterator[GaugeMetricFamily]:
    """Yield the figures of each platform: of ``firm`` and ``expected`` starts of sessions, and of the ``queue``.

    ``queue`` are the batch system's ordinary jobs, whose starts the driver foresees in order to learn.
    """
    with store.read() as tx:
        forecasts = read_forecasts(tx)
        promised = promised_starts(tx, since=now - SPAN)
    found = {(platform, "queue"): record.accuracy for platform, record in forecasts.items()}
    found |= {
        (platform, "firm" if firm else "expected"): accuracy_of_starts(starts)
        for (platform, firm), starts in promised.items()
    }
    yield _family("ebhpc_start_promises", "Starts that the figures below are of.", found, "starts")
    shares = GaugeMetricFamily(
        "ebhpc_start_promise_share",
        "Share of starts inside, before and after their interval.",
        labels=[*_LABELS, "where"],
    )
    for (platform, promise), one in found.items():
        if one.starts:
            for where in ("inside", "early", "late"):
                shares.add_metric([platform, promise, where], getattr(one, where))
    yield shares
    yield _family("ebhpc_start_error_mean_seconds", "Mean error of the expected start.", found, "mean_error")
    yield _family("ebhpc_start_error_median_seconds", "Median error of the expected start.", found, "median_error")
    yield _family(
        "ebhpc_start_plan_error_mean_seconds", "Mean error of the plan on time limits.", found, "planned_error"
    )
    yield _family("ebhpc_start_interval_mean_seconds", "Mean width of the intervals.", found, "width")
    age = GaugeMetricFamily("ebhpc_forecast_age_seconds", "Age of the queue's newest forecast.", labels=["platform"])
    cost = GaugeMetricFamily(
        "ebhpc_forecast_cpu_seconds", "Processor time that the newest forecast took.", labels=["platform"]
    )
    for platform, record in forecasts.items():
        age.add_metric([platform], now - record.taken)
        cost.add_metric([platform], record.seconds)
    yield age
    yield cost


def _family(name: str, text: str, found: dict[tuple[str, str], Accuracy], figure: str) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=_LABELS)
    for labels, one in found.items():
        value = getattr(one, figure)
        if value is not None and (one.starts or figure == "starts"):
            family.add_metric([*labels], value)
    return family
