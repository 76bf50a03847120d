"""The API under real gunicorn, as a process of its own."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.api.conftest import notebook
from tests.api.serving import PASSWORD
from tests.broker import free_port

AUTH = ("ada", PASSWORD)


class Served:
    """A running API: its ``process``, its ``url``, where its log is, how many seconds it took to be ready."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "log"
        begun = time.monotonic()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.api.serving", str(folder), str(self.port)],
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], 60)
        self.said = self.process.stdout.readline().decode() if readable else ""
        self.seconds = time.monotonic() - begun
        self.client = httpx.Client(
            base_url=self.url, auth=AUTH, headers={"Accept": "application/json"}, trust_env=False, timeout=20
        )

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise
        finally:
            self.process.stdout.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    running = Served(tmp_path_factory.mktemp("served"))
    yield running
    running.stop()


def raw(served: Served, sent: bytes, *pauses: tuple[float, bytes]) -> bytes:
    """Send bytes, and some more after pauses; return all that comes back."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection:
        connection.sendall(sent)
        for seconds, more in pauses:
            time.sleep(seconds)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(more)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := connection.recv(65536):
                answer += piece
        return answer


HEAD = (
    b"POST /requests HTTP/1.1\r\nHost: x\r\nAuthorization: Basic YWRhOmEgcGFzc3dvcmQgZm9yIHRlc3Rz\r\n"
    b"Accept: application/json\r\nContent-Type: application/json\r\nConnection: close\r\n"
)


def test_it_says_when_it_serves_and_answers_then(served):
    assert served.said == f"READY http://127.0.0.1:{served.port}\n", served.log.read_text()
    assert served.client.get("/health/live").json() == {"status": "live"}


def test_a_request_goes_through(served):
    answer = served.client.post("/requests", json=notebook())
    assert answer.status_code == 303
    assert answer.json()["result"] == "YES"
    assert served.client.get(answer.headers["location"]).json() == answer.json()
    assert answer.headers["location"].startswith(served.url)


def test_the_workers_count_together(served):
    before = _count(served)
    for _ in range(20):
        with httpx.Client(trust_env=False) as other:
            assert other.get(served.url + "/health/live").status_code == 200
    assert _count(served) - before == 20


def _count(served: Served) -> float:
    text = served.client.get("/metrics").text
    pattern = r'ebhpc_http_requests_total\{method="GET",resource="/health/live",status="200"\} ([0-9.]+)'
    return sum(float(number) for number in re.findall(pattern, text))


def test_a_worker_stays_small(served):
    for _ in range(30):
        served.client.post("/requests", json=notebook())
    for worker in served.workers():
        assert worker.memory_info().rss < 150 * 1024**2


def test_a_worker_that_dies_is_replaced(served):
    before = served.workers()
    before[0].kill()
    deadline = time.monotonic() + 30
    while {worker.pid for worker in served.workers()} - {worker.pid for worker in before} == set():
        assert time.monotonic() < deadline, served.log.read_text()
        time.sleep(0.1)
    assert before[0] not in served.workers()
    # Connections of the one that died are reset: a client begins anew
    with httpx.Client(base_url=served.url, auth=AUTH, trust_env=False, timeout=20) as client:
        for _ in range(6):
            assert client.post("/requests", json=notebook()).status_code == 303


def test_a_body_that_announces_too_much_is_413_before_it_is_sent(served):
    answer = raw(served, HEAD + b"Content-Length: 100000000\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_chunked_body_is_read_up_to_the_limit(served):
    body = b'{"executable": {"kind": "urn:x"}}'
    good = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    assert raw(served, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + good).startswith(b"HTTP/1.1 303 ")
    endless = (b"%x\r\n%s\r\n" % (50_000, b" " * 50_000)) * 3
    assert raw(served, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + endless).startswith(b"HTTP/1.1 413 ")


def test_a_body_that_does_not_come_is_given_up(served):
    begun = time.monotonic()
    answer = raw(served, HEAD + b"Content-Length: 50\r\n\r\n{")
    assert time.monotonic() - begun < 10
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_body_that_drips_is_given_up(served):
    begun = time.monotonic()
    answer = raw(served, HEAD + b"Content-Length: 50\r\n\r\n{", *[(0.5, b" ")] * 8)
    assert time.monotonic() - begun < 10
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_headers_that_drip_are_given_up(served):
    begun = time.monotonic()
    assert b"303" not in raw(served, HEAD, *[(0.5, b"X: y\r\n")] * 8)
    assert time.monotonic() - begun < 10


def test_headers_beyond_the_limits_are_refused(served):
    assert raw(served, HEAD + b"X: " + b"y" * 20_000 + b"\r\n\r\n").startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 "))
    assert raw(served, HEAD + b"X: y\r\n" * 200 + b"\r\n").startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 "))


def test_connections_that_say_nothing_do_not_keep_others_from_being_served(served):
    with contextlib.ExitStack() as silent:
        for _ in range(30):
            silent.enter_context(socket.create_connection(("127.0.0.1", served.port)))
        begun = time.monotonic()
        assert httpx.get(served.url + "/health/live", trust_env=False, timeout=20).status_code == 200
        assert time.monotonic() - begun < 12


def test_kept_connections_neither_keep_others_waiting_nor_hold_up_the_end(tmp_path):
    running = Served(tmp_path)
    with contextlib.ExitStack() as kept:
        for _ in range(200):
            one = kept.enter_context(
                contextlib.closing(http.client.HTTPConnection("127.0.0.1", running.port, timeout=60))
            )
            one.request("GET", "/health/live")
            answer = one.getresponse()
            assert answer.read()
            assert answer.getheader("Connection") == "keep-alive"
        assert httpx.get(running.url + "/health/live", trust_env=False, timeout=60).status_code == 200
        assert running.stop() == 0


def test_requests_are_logged_without_credentials(served):
    served.client.get("/platforms", params={"x": "secret-of-a-query"})
    time.sleep(0.2)
    log = served.log.read_text()
    assert '"GET /platforms HTTP/1.1" 200' in log
    assert PASSWORD not in log
    assert "secret-of-a-query" not in log
    assert "Traceback" not in log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_in_order_and_leaves_nothing(tmp_path, number):
    running = Served(tmp_path)
    workers = running.workers()
    mine = _folders(running)
    assert running.client.post("/requests", json=notebook()).status_code == 303
    assert running.stop(number) == 0
    assert not any(worker.is_running() for worker in workers)
    assert mine
    assert _folders(running) == []


def test_what_a_killed_service_left_is_removed_by_the_next(tmp_path):
    running = Served(tmp_path)
    os.killpg(running.process.pid, signal.SIGKILL)
    running.stop()
    assert _folders(running)
    following = Served(tmp_path)
    assert _folders(running) == []
    following.stop()


def _folders(served: Served) -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob(f"ebhpc-metrics-{served.process.pid}-*"))
