"""API machines, drivers and PostgreSQL on machines of their own: a cable is pulled, a new version is rolled out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

import ebhpc
from ebhpc.model import Phase
from ebhpc.store import newest_revision
from tests.broker import ADMIN, PASSWORD
from tests.service.ledgers import REQUEST, LedgerBroker, check_verdict
from tests.service.machines import Network, network
from tests.service.postgres import Server

pytestmark = [pytest.mark.postgresql, pytest.mark.slow, pytest.mark.timeout(900)]

CORES = 2000
"""More than are ever wanted at once: what is booked for later would wait for its time."""
APIS = ("api-1", "api-2")
DRIVERS = ("driver-1", "driver-2")

_MIGRATION = '''"""A column and a table that the next version will use."""

import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{before}"


def upgrade():
    op.add_column("sessions", sa.Column("next_thing", sa.Text()))
    op.create_table("next_things", sa.Column("name", sa.Text(), primary_key=True))
'''


def next_version(folder: Path) -> dict[str, str]:
    """Make a copy of ebhpc with one more migration; return the environment in which it runs."""
    copy = folder / "next"
    shutil.copytree(Path(ebhpc.__file__).parent, copy / "ebhpc", ignore=shutil.ignore_patterns("__pycache__"))
    script = copy / "ebhpc/store/migrations/versions/9999_next.py"
    script.write_text(_MIGRATION.format(before=newest_revision()), encoding="utf-8")
    return {"PYTHONPATH": os.pathsep.join([str(copy), *filter(None, [os.environ.get("PYTHONPATH")])])}


class Load:
    """Users who have things run all the time, at whichever API machine answers."""

    def __init__(self, net: Network) -> None:
        self._net = net
        self._stop = threading.Event()
        self._urls = [f"http://{net.addresses[name]}:8080" for name in APIS]
        self._threads = [threading.Thread(target=net.on, args=("user", lambda n=n: self._run(n))) for n in range(3)]
        self.accepted: list[str] = []
        self.answers: Counter[int] = Counter()
        for thread in self._threads:
            thread.start()

    def _run(self, number: int) -> None:
        turn = number
        with httpx.Client(auth=(ADMIN, PASSWORD), headers={"Accept": "application/json"}, timeout=30) as client:
            while not self._stop.is_set():
                turn += 1
                try:
                    answer = client.post(f"{self._urls[turn % 2]}/direct", json=REQUEST)
                except httpx.TransportError:
                    continue  # that machine is down; the next one is asked, as a load balancer would
                self.answers[answer.status_code] += 1
                if answer.status_code == 303:
                    self.accepted.append(answer.json()["meta"]["uuid"])
                time.sleep(0.2)

    def stop(self) -> None:
        """Ask no more."""
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_several_machines_share_the_work_lose_one_and_are_updated_one_after_the_other(tmp_path: Path):
    with network("db", "user", *APIS, *DRIVERS) as net:
        server = Server(5432, address=net.addresses["db"], enter=net.enter("db"))
        broker = LedgerBroker(
            tmp_path,
            database=server.url(),
            cores=CORES,
            memory_gib=CORES,
            seconds=2,
            settings={"api": {"bind": "0.0.0.0:8080", "url": "http://broker.example.org"}},
        )
        config = ["--config", str(broker.config)]
        broker.config.write_text(broker.config.read_text().replace(f"127.0.0.1:{broker.port}", "0.0.0.0:8080"))

        def start(name: str, environment: Mapping[str, str] = {}) -> None:
            words = ["api", *config] if name in APIS else ["drive", "--name", name, *config]
            log = broker.folder / f"{name}.log"
            broker.processes[name] = net.start(name, words, log, {**broker.environment, **environment})

        def ready(name: str) -> None:
            url = f"http://{net.addresses[name]}:8080/health/ready"
            deadline = time.monotonic() + 120
            while True:
                try:
                    if net.on("user", lambda: httpx.get(url, timeout=5)).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                assert time.monotonic() < deadline, broker.logs()
                time.sleep(0.1)

        def command(*words: str, environment: Mapping[str, str] = {}) -> str:
            program = [*net.enter("api-1"), sys.executable, "-m", "ebhpc", *words, *config]
            env = {**os.environ, **environment}
            done = subprocess.run(program, cwd="/", env=env, capture_output=True, text=True, check=False, timeout=180)
            assert done.returncode == 0, done.stderr
            return done.stdout

        load = None
        try:
            server.make()
            server.start()
            server.execute("CREATE DATABASE ebhpc")
            secret = tmp_path / "password"
            secret.write_text(PASSWORD)
            command("db", "upgrade")
            command("account", "add", ADMIN, "--admin", "--password-file", str(secret))
            for name in (*APIS, *DRIVERS):
                start(name)
            for name in APIS:
                ready(name)
            load = Load(net)
            _until(lambda: len(load.accepted) >= 10, broker)
            both = "SELECT count(DISTINCT lease) FROM sessions WHERE lease IS NOT NULL"
            _until(lambda: server.execute(both, "ebhpc") == "2", broker)

            # A driver's machine is cut off: the other takes over when its leases run out
            net.pull_cable("driver-1")
            stranded = list(load.accepted)
            broker_sees = _ServerSide(broker, server)
            broker_sees.until_over(stranded)
            net.plug_cable("driver-1")

            # The next version, one machine after the other, while users go on
            new = next_version(tmp_path)
            assert "-> 9999" in command("db", "upgrade", environment=new)
            before = len(load.accepted)
            broker.kill("api-2")  # an old one that dies now has to come up again
            start("api-2")
            ready("api-2")
            for name in (*DRIVERS, *APIS):
                broker.processes[name].terminate()
                assert broker.processes.pop(name).wait(120) == 0
                start(name, new)
                if name in APIS:
                    ready(name)
            _until(lambda: len(load.accepted) > before + 10, broker)
            load.stop()
            broker_sees.until_over(load.accepted)
            assert set(load.answers) <= {303, 503}, load.answers
            ended = broker_sees.verdict(load.accepted)
            assert {ended[uuid] for uuid in load.accepted} == {Phase.COMPLETED}
        finally:
            if load is not None:
                load.stop()
            broker.stop()
            server.remove()


class _ServerSide:
    """The test's own look at the database, by the server's Unix socket: the test is on none of the machines."""

    def __init__(self, broker: LedgerBroker, server: Server) -> None:
        self._broker = broker
        broker.database = server.local_url()

    def until_over(self, uuids: list[str]) -> None:
        self._broker.until_over(uuids, seconds=240)

    def verdict(self, uuids: list[str]) -> dict[str, Phase]:
        return check_verdict(self._broker, uuids, CORES)


def _until(holds, broker: LedgerBroker, seconds: float = 180.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, broker.logs()
        time.sleep(0.1)
