from __future__ import annotations

from collections.abc import Iterator

import pytest

from ebhpc.client import Broker
from tests.client.other_broker import OtherBroker


@pytest.fixture
def other() -> Iterator[OtherBroker]:
    """Another broker of the standard, which answers as the test tells it."""
    with OtherBroker() as broker:
        yield broker


class Naps:
    """Stands for time: sleeping passes it at once."""

    def __init__(self) -> None:
        self.now = 0.0
        self.taken: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.taken.append(seconds)
        self.now += seconds

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def naps() -> Naps:
    """The client's time, which does not hold up the tests."""
    return Naps()


@pytest.fixture
def client(other: OtherBroker, naps: Naps) -> Iterator[Broker]:
    """A client of the other broker, with a name and a password."""
    with Broker(other.url, "ada", "s3cret", timeout=5.0, sleep=naps.sleep, monotonic=naps.monotonic) as broker:
        yield broker
