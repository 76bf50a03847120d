"""PostgreSQL is restarted, fails over, has no connection left: what was promised is kept, clients are told to wait."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from ebhpc.model import Phase
from tests.broker import free_port
from tests.service.ledgers import REQUEST, LedgerBroker, check_verdict
from tests.service.postgres import Server

pytestmark = [pytest.mark.postgresql, pytest.mark.slow, pytest.mark.timeout(600)]

CORES = 40

_CUT_OTHERS = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE pid <> pg_backend_pid() AND usename = 'ebhpc' AND application_name <> 'taker'"""


@pytest.fixture
def server() -> Iterator[Server]:
    """A server with an empty database."""
    one = Server(free_port())
    try:
        one.make()
        one.start()
        one.execute("CREATE DATABASE ebhpc")
        yield one
    finally:
        one.remove()


@contextlib.contextmanager
def broker_on(url: str, folder: Path) -> Iterator[LedgerBroker]:
    """A broker with two drivers on that database."""
    broker = LedgerBroker(folder, database=url, cores=CORES, memory_gib=CORES, seconds=6)
    try:
        broker.run(drivers=2)
        yield broker
    finally:
        broker.stop()


def until_answer(broker: LedgerBroker, status: int, seconds: float = 120.0) -> None:
    """Wait until sessions are listed with that status; nothing else than it and the one before may come."""
    deadline = time.monotonic() + seconds
    seen = set()
    while (answer := broker.ask("GET", "/sessions")).status_code != status:
        seen.add(answer.status_code)
        assert seen <= {200, 503}, answer.text
        assert time.monotonic() < deadline, f"{seen}\n{broker.logs()}"
        time.sleep(0.1)


def test_a_restart_of_the_database_costs_a_503_and_no_session(server: Server, tmp_path: Path):
    with broker_on(server.url(), tmp_path) as broker:
        accepted = broker.begin(10)
        server.stop()
        answer = broker.ask("GET", "/sessions")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert broker.ask("POST", "/requests", json=REQUEST).status_code == 503
        assert broker.ask("GET", "/health/ready").status_code == 503
        assert broker.ask("GET", "/health/live").status_code == 200
        server.start()
        until_answer(broker, 200)
        broker.until_health("ready")  # of the platform, too: what it said before may be too old by now
        accepted += broker.begin(2)
        broker.until_over(accepted)
        ended = check_verdict(broker, accepted, CORES)
        assert {ended[uuid] for uuid in accepted} == {Phase.COMPLETED}


def test_a_failover_to_a_synchronous_standby_loses_nothing_that_was_accepted(server: Server, tmp_path: Path):
    standby = Server(free_port())
    try:
        standby.copy(server)
        standby.start()
        server.execute("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
        server.execute("SELECT pg_reload_conf()")
        hosts = f"host=127.0.0.1:{server.port}&host=127.0.0.1:{standby.port}&target_session_attrs=read-write"
        with broker_on(f"postgresql://ebhpc@/ebhpc?{hosts}", tmp_path) as broker:
            accepted = broker.begin(10)
            server.kill()
            standby.promote()
            until_answer(broker, 200)
            broker.until_health("ready")
            assert {str(uuid) for uuid in accepted} <= set(broker.phases())
            accepted += broker.begin(2)
            broker.until_over(accepted)
            ended = check_verdict(broker, accepted, CORES)
            assert {ended[uuid] for uuid in accepted} == {Phase.COMPLETED}
    finally:
        standby.remove()


def test_a_database_without_a_free_connection_is_503_until_one_is_free(server: Server, tmp_path: Path):
    with broker_on(server.url(), tmp_path) as broker:
        accepted = broker.begin(4)
        taken: list[psycopg.Connection] = []
        try:
            # What the broker has is cut, and all that is free is taken before it asks again
            deadline = time.monotonic() + 120
            while broker.ask("GET", "/sessions").status_code != 503:
                assert time.monotonic() < deadline, broker.logs()
                with contextlib.suppress(psycopg.OperationalError):
                    while len(taken) < 80:
                        taken.append(psycopg.connect(server.url() + "?application_name=taker", autocommit=True))
                taken[0].execute(_CUT_OTHERS)
            assert broker.ask("GET", "/health/live").status_code == 200
        finally:
            for connection in taken:
                connection.close()
        until_answer(broker, 200)
        broker.until_over(accepted)
        ended = check_verdict(broker, accepted, CORES)
        assert {ended[uuid] for uuid in accepted} == {Phase.COMPLETED}
