"""What an offer costs and how fast it is, by the rates of the platform's configuration."""

from __future__ import annotations

from ebhpc.config import PlatformConfig, Rates
from ebhpc.model import Quote, SimpleCost, SimpleMetric, Window, gpus_of, kinds

_HOUR = 3600


def quote_of(config: PlatformConfig, window: Window) -> Quote:
    """Quote a window: the cost of all that it takes, for its whole duration."""
    costs = config.costs
    rates: tuple[tuple[str, Rates | None], ...] = (
        (kinds.MONETARY, costs.monetary),
        (kinds.ENERGY, costs.energy),
        (kinds.CARBON, costs.carbon),
    )
    speeds: tuple[tuple[str, float | None], ...] = (
        (kinds.COMPUTE_PERFORMANCE, config.metrics.compute_performance),
        (kinds.IO_THROUGHPUT, config.metrics.io_throughput),
    )
    return Quote(
        costs=tuple(
            SimpleCost(type=type_, min=amount, max=amount)
            for type_, rate in rates
            if rate is not None
            for amount in (amount_of(rate, window),)
        ),
        metrics=tuple(SimpleMetric(type=type_, min=speed, max=speed) for type_, speed in speeds if speed is not None),
    )


def completed(quote: Quote | None, config: PlatformConfig, window: Window) -> Quote:
    """Return a plugin's quote, with the configuration's costs or metrics where it has none."""
    ours = quote_of(config, window)
    if quote is None:
        return ours
    return Quote(costs=quote.costs or ours.costs, metrics=quote.metrics or ours.metrics)


def amount_of(rates: Rates, window: Window) -> float:
    """Return what a window costs by these rates, in their unit."""
    hours = window.duration / _HOUR
    per_hour = sum(
        rates.per_core_hour * share.cores + rates.per_gpu_hour * gpus_of(share.devices) + rates.per_node_hour
        for share in window.allocations
    )
    return round(per_hour * hours, 9)
