"""How often somebody may ask, and guess: counted for all workers of a service together."""

from __future__ import annotations

import base64
import contextlib
import multiprocessing
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ebhpc.api.rates import WAYS, Counters, Limiter, address_key
from ebhpc.config import Proxy, Rate
from ebhpc.store import AuditQuestion, read_audit
from tests.api.conftest import Make, make_site, site
from tests.api.test_server import HEAD, Served, raw
from tests.broker import ADMIN, PASSWORD, RunningBroker, local_platform, running_broker

__all__ = ["make_site", "site"]


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_rate_lets_so_many_through_at_once_and_then_as_time_passes() -> None:
    clock = Clock()
    limiter = Limiter(Counters(), "x", Rate("10/5s"), clock=clock)
    assert [limiter.wait("ada") for _ in range(10)] == [0.0] * 10
    assert limiter.wait("ada") == pytest.approx(0.5)
    assert limiter.wait("bob") == 0.0
    clock.now += 0.5
    assert limiter.wait("ada") == 0.0
    assert limiter.wait("ada") > 0
    clock.now += 3600
    assert [limiter.wait("ada") for _ in range(11)][-2:] == [0.0, pytest.approx(0.5)]


def test_looking_takes_nothing() -> None:
    limiter = Limiter(Counters(), "x", Rate("1/1h"), clock=Clock())
    assert [limiter.wait("a", take=False) for _ in range(5)] == [0.0] * 5
    assert limiter.wait("a") == 0.0
    assert limiter.wait("a", take=False) > 0


def test_kinds_of_counters_are_apart() -> None:
    counters = Counters()
    one, other = (Limiter(counters, kind, Rate("1/1h"), clock=Clock()) for kind in ("one", "other"))
    assert [one.wait("a"), other.wait("a")] == [0.0, 0.0]


def test_many_keys_forget_the_quietest_and_need_no_more_memory() -> None:
    counters = Counters(places=WAYS)
    clock = Clock()
    limiter = Limiter(counters, "x", Rate("2/1h"), clock=clock)
    for number in range(100_000):
        clock.now += 0.001
        limiter.wait(str(number))
    assert len(limiter._marks) <= 10_000
    assert sum(1 for tag in counters.tags if tag) == WAYS


def _count(counters: Counters, asked: int, passed: Any) -> None:
    limiter = Limiter(counters, "x", Rate("1000/1h"))
    through = sum(1 for _ in range(asked) if not limiter.wait("ada"))
    with passed.get_lock():
        passed.value += through


def test_processes_that_are_forked_count_together() -> None:
    context = multiprocessing.get_context("fork")
    counters, passed = Counters(), context.Value("i", 0)
    workers = [context.Process(target=_count, args=(counters, 1000, passed)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    # Two that write at the same instant may let one too many through; that is rare
    assert 1000 <= passed.value <= 1100


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("nonsense", "nonsense"),
    ],
)
def test_of_ipv6_a_whole_network_is_one_address(address: str, key: str) -> None:
    assert address_key(address) == key


# --- in the API ------------------------------------------------------------------------------------------------------


def test_a_user_who_asks_too_often_is_429_with_a_time_to_come_back(make_site: Make) -> None:
    here = make_site(api={"rate_per_user": Rate("5/1h")})
    assert [here.get("/sessions").status for _ in range(6)] == [200] * 5 + [429]
    answer = here.get("/sessions")
    assert 700 <= int(answer.headers["retry-after"]) <= 720
    assert answer.kinds() == ["urn:resource-limit"]
    assert here.get("/sessions", user="bob").status == 200


def test_an_address_that_asks_too_often_is_429_whatever_it_asks(make_site: Make) -> None:
    here = make_site(api={"rate_per_address": Rate("4/1h")})
    asked = ["/openapi.json", "/nowhere", "/sessions", "/platforms"]
    assert [here.get(path, user="ada").status for path in asked] == [200, 404, 200, 200]
    assert here.get("/openapi.json").status == 429
    assert here.get("/health/live", user=None).status == 200  # who watches the service is not sent away


def basic(password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"ada:{password}".encode()).decode()}


def test_who_guesses_is_sent_away_and_who_is_known_is_not(make_site: Make) -> None:
    here = make_site(api={"failed_logins": Rate("3/1h")})
    assert here.get("/sessions").status == 200
    statuses = [here.get("/sessions", user=None, headers=basic(f"guess {n}")).status for n in range(5)]
    assert statuses == [401, 401, 401, 429, 429]
    assert here.get("/sessions").status == 200
    assert here.get("/sessions", user="bob").status == 429  # one who was not known yet has to wait as well
    here.broker.audit.flush()
    refused = [entry for _, entry in read_audit(here.store, AuditQuestion(action="sign-in"))]
    assert {entry.result for entry in refused} == {"refused"}
    assert sum(entry.count for entry in refused if entry.username == "ada") == 5
    assert "guess" not in str(refused)


def test_behind_a_proxy_its_clients_are_told_apart_and_nobody_elses_word_counts(make_site: Make) -> None:
    here = make_site(
        api={"failed_logins": Rate("2/1h"), "trusted_proxies": (Proxy("127.0.0.1/32"), Proxy("10.0.0.0/8"))}
    )

    def guess(forwarded: str, number: int) -> int:
        headers = {**basic(f"guess {number}"), "X-Forwarded-For": forwarded}
        return here.get("/sessions", user=None, headers=headers, remote_addr="127.0.0.1").status

    assert [guess("192.0.2.1", n) for n in range(3)] == [401, 401, 429]
    assert guess("192.0.2.2, 10.1.1.1", 4) == 401
    # What the client itself put before is not believed
    assert guess("198.51.100.9, 192.0.2.1", 5) == 429
    alone = make_site(api={"failed_logins": Rate("2/1h")})
    statuses = [
        alone.get(
            "/sessions",
            user=None,
            headers={**basic(f"x {n}"), "X-Forwarded-For": f"192.0.2.{n}"},
            remote_addr="127.0.0.1",
        ).status
        for n in range(3)
    ]
    assert statuses == [401, 401, 429]


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    """A broker with several workers, of which each user may ask twenty times."""
    settings = {"api": {"workers": 3, "threads": 2, "rate_per_user": "20/1h"}, "platforms": [local_platform()]}
    with running_broker(tmp_path_factory.mktemp("limited"), settings) as made:
        yield made


def test_all_workers_of_a_service_count_together(limited: RunningBroker) -> None:
    statuses = []
    for _ in range(40):  # a new connection each: any worker may take it
        answer = httpx.get(f"{limited.url}/sessions", auth=(ADMIN, PASSWORD), trust_env=False)
        statuses.append(answer.status_code)
    assert statuses.count(200) in range(20, 23)
    assert statuses[-1] == 429


def test_what_waits_for_the_audit_trail_is_written_when_the_service_ends(tmp_path: Path) -> None:
    broker = RunningBroker(tmp_path, {"api": {"workers": 1}, "platforms": []})
    broker.make_ready()
    broker.start("api")
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{broker.url}/health/live", trust_env=False).status_code == 200:
                    break
            assert time.monotonic() < deadline, broker.logs()
            time.sleep(0.05)
        answer = httpx.get(f"{broker.url}/sessions", auth=(ADMIN, "a wrong password"), trust_env=False)
        assert answer.status_code == 401
    finally:
        broker.stop()
    assert '"action":"sign-in"' in broker.command("audit", "--json").stdout


# --- slow clients ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    running = Served(tmp_path_factory.mktemp("slow"))
    yield running
    running.stop()


def test_who_drips_headers_on_more_connections_than_there_are_threads_delays_others_by_the_timeout(
    served: Served, record_property: Any
) -> None:
    """Slowloris. The service has 8 threads and gives a request 2 s from its begin, one that waits for a thread too."""
    with contextlib.ExitStack() as slow:
        connections = [slow.enter_context(socket.create_connection(("127.0.0.1", served.port))) for _ in range(64)]
        for connection in connections:
            connection.sendall(HEAD)
        time.sleep(0.5)  # so that they are taken
        begun = time.monotonic()
        assert httpx.get(served.url + "/health/live", trust_env=False, timeout=30).status_code == 200
        waited = time.monotonic() - begun
    record_property("waited", waited)
    assert waited < 15
    begun = time.monotonic()
    assert httpx.get(served.url + "/health/live", trust_env=False, timeout=30).status_code == 200
    assert time.monotonic() - begun < 10


def test_many_requests_in_one_connection_and_their_headers_are_bounded(served: Served) -> None:
    flood = b"".join(b"X-%d: y\r\n" % number for number in range(65))
    assert raw(served, HEAD + flood + b"\r\n").startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 "))
    assert raw(served, b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n").startswith(
        (b"HTTP/1.1 414 ", b"HTTP/1.1 400 ")
    )


def test_two_lengths_are_no_request(served: Served) -> None:
    both = HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /admin HTTP/1.1\r\n\r\n"
    assert raw(served, both).startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 "))
    twice = HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}x"
    assert raw(served, twice).startswith(b"HTTP/1.1 400 ")


def test_the_memory_of_counters_is_nobody_elses_file() -> None:
    before = set(os.listdir("/dev/shm"))
    Counters()
    assert set(os.listdir("/dev/shm")) == before
    assert Path("/proc/self").exists()
