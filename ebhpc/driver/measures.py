"""A driver's own figures, for Prometheus: served at ``driver.metrics`` by the driver's process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ebhpc.config import Address

if TYPE_CHECKING:
    from ebhpc.driver.loop import Driver


class DriverFigures:
    """What a driver does at the moment that Prometheus asks. ``turns`` counts the turns of its loop."""

    def __init__(self) -> None:
        self._driver: Driver | None = None
        self.turns = 0

    def turned(self, driver: Driver) -> None:
        """Note a turn of the driver's loop."""
        self._driver = driver
        self.turns += 1

    def describe(self) -> list[Any]:
        """Nothing is known before the driver has begun."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the figures."""
        turns = CounterMetricFamily("ebhpc_driver_turns", "Turns of the driver's loop.")
        turns.add_metric([], self.turns)
        yield turns
        if self._driver is None:
            return
        charges = GaugeMetricFamily("ebhpc_driver_charges", "Sessions that this driver works on.")
        charges.add_metric([], len(self._driver.charges))
        yield charges
        work = GaugeMetricFamily(
            "ebhpc_driver_work",
            "Work that was given to a platform's threads and is not done.",
            labels=["platform", "of"],
        )
        for platform, loads in self._driver.loads().items():
            for name, load in loads.items():
                work.add_metric([platform, name], load)
        yield work
        cost = GaugeMetricFamily(
            "ebhpc_snapshot_seconds", "How long a platform took to tell its newest state.", labels=["platform"]
        )
        for platform, seconds in self._driver.snapshot_seconds().items():
            cost.add_metric([platform], seconds)
        yield cost


def serve_figures(address: Address, figures: DriverFigures) -> int:
    """Serve the figures, and those of the process, on a thread; return the port.

    Raises:
        OSError: the address is taken or not of this machine.
        ValueError: it is a Unix socket.
    """
    if address.host is None:
        raise ValueError("driver.metrics has to be HOST:PORT")
    registry = CollectorRegistry()
    registry.register(figures)
    ProcessCollector(registry=registry)
    server, _ = start_http_server(int(address.rpartition(":")[2]), address.host, registry)
    return int(server.server_address[1])
