"""What operators do and see: backups that are restored, health, figures, the journal's entries."""

from __future__ import annotations

import logging
import re
import socket
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ebhpc.cli.journal import JournalHandler, entry
from ebhpc.model import Phase
from ebhpc.systemd import ServiceManager
from tests.broker import free_port
from tests.databases import PostgresqlServer
from tests.service.ledgers import REQUEST, LedgerBroker, check_verdict

CORES = 8
DASHBOARD = Path(__file__).parents[2] / "docs" / "operators" / "grafana-dashboard.json"


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[tuple[LedgerBroker, int]]:
    """A broker, and the port of its driver's figures."""
    port = free_port()
    settings = {
        "driver": {"interval": "100ms", "lease": "2s", "metrics": f"127.0.0.1:{port}"},
        "offers": {"lifetime": "2s"},
    }
    broker = LedgerBroker(tmp_path, cores=CORES, memory_gib=CORES, seconds=1, settings=settings)
    try:
        broker.run()
        yield broker, port
    finally:
        broker.stop()


def figures(url: str) -> dict[str, float]:
    """The samples of a page for Prometheus, by name and labels."""
    text = httpx.get(url, trust_env=False, timeout=10).text
    return {name: float(value) for name, value in re.findall(r"^([a-z_]+(?:\{[^}]*\})?) (\S+)$", text, re.MULTILINE)}


def declared(url: str) -> set[str]:
    """The names that a page for Prometheus says something of, with samples or without."""
    return set(re.findall(r"^# TYPE (\S+)", httpx.get(url, trust_env=False, timeout=10).text, re.MULTILINE))


def test_figures_and_health_tell_of_offers_refusals_phases_and_drivers(watched: tuple[LedgerBroker, int]):
    broker, port = watched
    accepted = broker.begin(3)
    too_large = {**REQUEST, "compute": {**REQUEST["compute"], "cores": {"min": 99}}}
    assert broker.ask("POST", "/requests", json=too_large).json()["result"] == "NO"
    broker.until_over(accepted)
    offers = broker.ask("POST", "/requests", json=REQUEST).json()["offers"]
    rejection = {"kind": "uri:enum-value-update", "path": "phase", "value": "REJECTED"}
    rejected = broker.ask("POST", f"/sessions/{offers[0]['meta']['uuid']}", json=rejection).status_code == 200
    over = len(offers) - rejected  # on a slow machine that one may have expired, too
    deadline = time.monotonic() + 60
    while (seen := figures(f"{broker.url}/metrics"))['ebhpc_offers_expired_total{platform="cluster"}'] < over:
        assert time.monotonic() < deadline, broker.logs()
        time.sleep(0.1)
    assert seen['ebhpc_offers_expired_total{platform="cluster"}'] == over > 0
    assert seen['ebhpc_offers_total{platform="cluster"}'] == 3 + len(offers)
    assert seen['ebhpc_refusals_total{reason="resource-limit"}'] == 1
    assert seen['ebhpc_planning_seconds_count{platform="cluster"}'] >= 3
    assert seen['ebhpc_phase_seconds{phase="RUNNING",platform="cluster",quantile="0.5"}'] == pytest.approx(1.2, abs=1.2)
    assert seen['ebhpc_driver_heartbeat_age_seconds{driver="driver-1"}'] < 2
    assert seen["ebhpc_driver_lag_seconds"] < 2
    own = figures(f"http://127.0.0.1:{port}/metrics")
    assert own["ebhpc_driver_turns_total"] > 1
    assert own['ebhpc_snapshot_seconds{platform="cluster"}'] < 1
    assert own["process_cpu_seconds_total"] > 0
    # All that the dashboard asks for is there, but for what begins with a user's first decision, a platform's failure
    there = {name.partition("{")[0] for name in seen | own} | declared(f"{broker.url}/metrics")
    asked_for = set(re.findall(r"\b(?:ebhpc|process)_[a-z_]+", DASHBOARD.read_text(encoding="utf-8")))
    assert asked_for - there <= {"ebhpc_decisions_total", "ebhpc_platform_failures_total"}
    assert broker.ask("GET", "/health/ready").json()["checks"]["drivers"] == "1 of 1 alive"
    # A driver that is gone makes the broker no less ready to answer, and is told
    broker.kill("driver-1")
    health = broker.until_health("degraded")
    assert health.status_code == 200
    assert health.json()["checks"]["drivers"] == "0 of 1 alive"
    assert "no driver" in health.json()["reason"]


@pytest.mark.parametrize("engine", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def test_a_backup_made_under_load_is_restored_and_sessions_go_on_from_it(
    engine: str, tmp_path: Path, request: pytest.FixtureRequest
):
    url = None
    if engine == "postgresql":
        server: PostgresqlServer = request.getfixturevalue("postgresql_server")
        url = server.url(server.create())
    # A driver of which nothing was heard for its lease is taken to be gone: long, whatever keeps this one busy
    settings = {"driver": {"interval": "100ms", "lease": "60s"}}
    broker = LedgerBroker(tmp_path, database=url, cores=CORES, memory_gib=CORES, seconds=3600, settings=settings)
    copy = tmp_path / "copy"
    try:
        broker.run()
        kept = broker.begin(3)
        broker.until(kept, Phase.RUNNING)
        said = broker.command("db", "backup", str(copy)).stdout
        assert f"{copy.stat().st_size} bytes" in said
        assert stat.S_IMODE(copy.stat().st_mode) == 0o600
        lost = broker.begin(1)
        refusal = _failing(broker, "db", "backup", str(copy))
        assert "is there already" in refusal
        assert "driver-1" in _failing(broker, "db", "restore", "--yes", str(copy))
        broker.stop()
        nonsense = tmp_path / "nonsense"
        nonsense.write_text("no database")
        assert "nonsense" in _failing(broker, "db", "restore", "--yes", str(nonsense))
        broker.command("db", "restore", "--yes", str(copy))
        assert set(kept) <= set(broker.phases())
        assert not set(lost) & set(broker.phases())
        broker.start("api")
        broker.start("drive", "driver-1")
        broker.wait_ready()
        broker.end_jobs()
        broker.until_over(kept)
        ended = check_verdict(broker, kept, CORES)
        assert {ended[uuid] for uuid in kept} == {Phase.COMPLETED}
    finally:
        broker.stop()


def _failing(broker: LedgerBroker, *words: str) -> str:
    with pytest.raises(subprocess.CalledProcessError) as raised:
        broker.command(*words)
    return str(raised.value.stderr)


def test_a_record_is_an_entry_of_the_journal_with_its_session_however_long(tmp_path: Path):
    place = tmp_path / "journal"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(place))
        handler = JournalHandler("ebhpc", place)
        logger = logging.getLogger("ebhpc-journal-test")
        logger.setLevel(logging.INFO)
        logger.propagate = False
        logger.addHandler(handler)
        logger.error("two\nlines", extra={"session": "1234", "platform": "cluster"})
        said = journal.recv(65536)
        assert b"MESSAGE\n" + struct.pack("<Q", 9) + b"two\nlines\n" in said
        for line in (b"PRIORITY=3", b"SYSLOG_IDENTIFIER=ebhpc", b"EBHPC_SESSION=1234", b"EBHPC_PLATFORM=cluster"):
            assert line in said.splitlines()
        logger.info("x" * 500_000)
        data, descriptors, _, _ = socket.recv_fds(journal, 16, 1)
        assert data == b""
        with open(descriptors[0], "rb") as file:
            file.seek(0)
            assert len(file.read()) > 500_000
        logger.removeHandler(handler)
        handler.close()
    assert entry([("MESSAGE", "\ud800")]) == b"MESSAGE=?\n"


def test_the_manager_hears_what_the_service_says_and_nobody_else_inherits_the_way(tmp_path: Path):
    place = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as way:
        way.bind(str(place))
        environment = {"NOTIFY_SOCKET": str(place), "WATCHDOG_USEC": "3000000", "PATH": "/bin"}
        manager = ServiceManager.of_process(environment)
        assert environment == {"PATH": "/bin"}
        assert manager.pause == 1.0
        manager.ready("serves\nREADY=0")
        assert way.recv(4096) == b"READY=1\nSTATUS=serves READY=0"
        manager.alive()
        manager.alive()
        manager.reloading()
        assert way.recv(4096) == b"WATCHDOG=1"
        assert way.recv(4096).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
    silent = ServiceManager.of_process({})
    silent.ready("nobody hears it")
    assert (silent.listens, silent.pause) == (False, None)


def test_the_journal_that_is_not_there_is_told_and_lines_go_to_standard_error():
    code = (
        "from pathlib import Path; import ebhpc.cli.logs as logs; logs.journal_there = lambda: False;"
        "logs.set_up_logging('info', 'journal'); import logging; logging.getLogger('ebhpc').info('here')"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr.splitlines()
    assert "is not there" in said[0]
    assert said[1].endswith("INFO ebhpc: here")
