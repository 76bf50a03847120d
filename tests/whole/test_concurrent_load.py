"""Two API workers and two drivers under load: nothing is sold twice, nothing runs twice."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ebhpc.client import BrokerError
from ebhpc.model import FINAL, Phase
from tests.broker import running_broker
from tests.whole.runs import (
    check_bookings,
    check_histories,
    most_at_once,
    read_runs,
    traced_notebook,
    traced_platform,
)

CORES = 3
_USERS = 5
_SESSIONS = 2
"""That each user gets through."""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_workers_and_two_drivers_sell_and_run_everything_once(tmp_path: Path):
    runs = tmp_path / "runs"
    settings = {
        "platforms": [traced_platform(runs, seconds=0.5, cores=CORES, memory_gib=CORES)],
        "api": {"workers": 2, "max_outstanding_offers": 500},
        "offers": {"lifetime": "20s"},
    }
    with running_broker(tmp_path, settings, drivers=2) as broker:
        accepted: list[str] = []

        def user(number: int) -> None:
            client = broker.client()
            mine = 0
            deadline = time.monotonic() + 300
            while mine < _SESSIONS and time.monotonic() < deadline:
                cores = 1 + (number + mine) % 2
                offers = client.offers(traced_notebook(cores=cores, duration="PT2M", start=_soon()))
                if offers.result == "NO":
                    time.sleep(0.2)
                    continue
                if number % 3 == 2 and mine == 0:
                    client.reject(offers.offers[0].meta.uuid)
                    mine += 1
                    continue
                session = client.accept(offers.offers[0].meta.uuid)
                accepted.append(session.meta.uuid)
                mine += 1
                while client.session(session.meta.uuid).phase not in FINAL and time.monotonic() < deadline:
                    time.sleep(0.2)

        with ThreadPoolExecutor(_USERS) as users:
            list(users.map(user, range(_USERS)))
        assert accepted
        deadline = time.monotonic() + 120
        while True:
            try:
                ended = check_histories(broker)
                break
            except AssertionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        check_bookings(broker, CORES)
        assert {ended[uuid] for uuid in accepted} == {Phase.COMPLETED}, broker.logs()
        done = read_runs(runs)
        assert sorted(run.session for run in done) == sorted(accepted)
        assert most_at_once(done) <= CORES
        log = broker.logs()
        assert "driver-1" in log
        assert "driver-2" in log


def _soon() -> str:
    """Within a minute: what is booked by others is free as soon as they end, not at the end of what they asked for."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}/PT1M"


def test_of_two_users_after_the_last_core_one_gets_it(tmp_path: Path):
    settings = {
        "platforms": [traced_platform(tmp_path / "runs", cores=1, memory_gib=1)],
        "api": {"workers": 2},
    }
    with running_broker(tmp_path, settings) as broker:
        answers: list[str] = []
        told: list[str] = []
        together = threading.Barrier(8)

        def ask() -> None:
            client = broker.client()
            together.wait()
            try:
                # The whole two hours in which it may start: there is room for one only.
                offers = client.offers(traced_notebook(duration="PT3H"))
                answers.append(offers.result)
                told.append(str(offers.meta.messages))
            except BrokerError as error:
                answers.append(repr(error))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answers) == ["NO"] * 7 + ["YES"], "\n".join([*told, broker.logs()])
        check_bookings(broker, 1)
