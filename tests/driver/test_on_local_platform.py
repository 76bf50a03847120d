"""The driver and the local platform: real processes, from acceptance to what they leave."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ebhpc.config import Duration, PlatformConfig, Seconds
from ebhpc.local import ebhpc_platform, processes
from ebhpc.model import Allocation, Phase, kinds
from ebhpc.plugins import Platform, PluginManager
from ebhpc.store import ensure_platforms
from tests.driver.test_loop import Clock, driven, wait
from tests.local.conftest import notebook

pytestmark = [pytest.mark.slow]


class OnThisHost(Clock):
    """A world with the local platform ``here``, which may read notebooks below ``place``."""

    def __init__(self, url: str, place: Path) -> None:
        super().__init__(url)
        self.place = place
        pm = PluginManager()
        settings = {
            "overcommit": True,
            "cores": 8,
            "memory_gib": 16,
            "file_roots": [str(place)],
            "grace": "1s",
        }
        built = ebhpc_platform(kind="local", name="here", settings=settings, state=place / "state")
        pm.register(built, name="here")
        config = PlatformConfig(name="here", kind="local", lead=Seconds(0), timeout=Duration(30))
        self.here = Platform(pm, config, built)
        self.platforms = {"here": self.here}
        ensure_platforms(self.store, self.platforms)

    def notebook(self, *cells: str, seconds: int = 120, wait: int = 1) -> str:
        """The UUID of an accepted session that runs these cells."""
        path = self.place / f"{time.monotonic_ns()}.ipynb"
        path.write_bytes(notebook(*cells))
        start = int(time.time()) + wait
        node = self.here.implementation.node
        return self.accepted(
            platform="here",
            executable={"kind": kinds.JUPYTER_NOTEBOOK, "location": path.as_uri()},
            allocations=(Allocation(node=node, cores=1, memory=1024),),
            start=start,
            latest=start + 60,
            duration=seconds,
        )

    def check_left_nothing(self, uuid: str) -> None:
        assert processes.marked(uuid) == []
        assert self.booked(uuid) == []


@pytest.fixture
def host(ready_database_url: str, tmp_path: Path) -> Iterator[OnThisHost]:
    world = OnThisHost(ready_database_url, tmp_path)
    yield world
    world.close()


def test_a_notebook_goes_the_whole_way_and_its_results_are_kept(host):
    with driven(host):
        uuid = host.notebook("print(6 * 7)")
        wait(lambda: host.is_over(uuid), 90)
    assert host.phases(uuid) == [
        Phase.OFFERED,
        Phase.ACCEPTED,
        Phase.WAITING,
        Phase.PREPARING,
        Phase.AVAILABLE,
        Phase.RUNNING,
        Phase.RELEASING,
        Phase.COMPLETED,
    ]
    record = host.session(uuid)
    assert record.exit_code == 0
    assert record.start <= record.started < record.ended
    host.check_left_nothing(uuid)
    results = host.place / "state"
    assert [path for path in results.rglob("*.html") if "42" in path.read_text()]


def test_a_running_notebook_that_is_cancelled_is_gone_with_its_processes(host):
    with driven(host):
        uuid = host.notebook("import time; time.sleep(600)", seconds=600)
        wait(lambda: host.phase(uuid) is Phase.RUNNING and processes.marked(uuid), 60)
        host.cancel(uuid)
        wait(lambda: host.is_over(uuid), 60)
    assert host.phase(uuid) is Phase.CANCELLED
    host.check_left_nothing(uuid)


def test_a_notebook_past_its_end_is_ended(host):
    with driven(host):
        uuid = host.notebook("import time; time.sleep(600)", seconds=8)
        wait(lambda: host.is_over(uuid), 90)
    assert host.phase(uuid) is Phase.FAILED
    assert host.told(uuid, "urn:time-limit")
    record = host.session(uuid)
    assert record.ended - record.started < 20
    host.check_left_nothing(uuid)


def test_a_notebook_that_is_not_there_fails_before_it_starts(host):
    with driven(host):
        uuid = host.notebook("1")
        for path in host.place.glob("*.ipynb"):
            path.unlink()
        wait(lambda: host.is_over(uuid), 60)
    assert host.phase(uuid) is Phase.FAILED
    assert Phase.RUNNING not in host.phases(uuid)
    host.check_left_nothing(uuid)


def test_two_drivers_run_each_notebook_once_and_one_that_stops_hands_over(host):
    log = host.place / "ran"
    with driven(host, "two"):
        with driven(host, "one"):
            uuids = [
                host.notebook(f"import time; open({str(log)!r}, 'a').write('{number}\\n'); time.sleep(2)")
                for number in range(4)
            ]
            wait(lambda: any(host.phase(uuid) is Phase.RUNNING for uuid in uuids), 90)
        wait(lambda: all(host.is_over(uuid) for uuid in uuids), 150)
    assert [host.phase(uuid) for uuid in uuids] == [Phase.COMPLETED] * 4
    assert sorted(log.read_text().split()) == ["0", "1", "2", "3"]
    for uuid in uuids:
        host.check_left_nothing(uuid)
