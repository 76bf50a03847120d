"""The package under real systemd: installed, hardened, watched, restarted, reloaded, updated."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from tests.lab.systemd import missing
from tests.labs import require
from tests.service.installed import API, DRIVER, PACKAGE, SETTINGS, Installed, installed

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(1500)]

_UNITS = ("ebhpc-api.service", "ebhpc-driver@one.service")
_GO = "/tmp/go-on"
_WORST = 4.0
"""The exposure that systemd-analyze security calls OK."""


@pytest.fixture(scope="module")
def service() -> Iterator[Installed]:
    """The installed service; tests leave it running."""
    lacking = missing()
    require(not lacking, f"systemd cannot be booted: {'; '.join(lacking)}")
    with installed() as running:
        yield running


def test_it_is_ready_when_it_serves_and_says_what_it_does(service: Installed):
    boot = service.machine
    assert boot.property(API, "ActiveState") == "active"
    assert boot.property(API, "StatusText").startswith("answers requests at http://127.0.0.1:8080")
    assert "drives here" in boot.property(DRIVER, "StatusText")
    assert boot.property(DRIVER, "Type") == "notify"
    assert boot.property(API, "User") == "ebhpc"
    assert service.ask("/health/live") == {"status": "live"}
    assert boot.systemctl("is-enabled", API, DRIVER, "ebhpc-api.socket").split() == ["enabled"] * 3


def test_its_units_have_no_faults_and_are_well_confined(service: Installed):
    boot = service.machine
    for unit in _UNITS:
        said = boot.run(["systemd-analyze", "verify", f"/usr/lib/systemd/system/{unit}"], check=False)
        assert (said.returncode, said.stderr) == (0, "")
        told = boot.run(["systemd-analyze", "security", "--no-pager", unit]).stdout.strip().splitlines()[-1]
        exposure = float(told.split(":")[1].split()[0])
        assert exposure <= _WORST, told


def test_a_notebook_runs_within_the_drivers_confines_and_the_journal_knows_its_session(service: Installed):
    uuid = service.begin()
    session = service.end(uuid)
    assert session["phase"] == "COMPLETED", [one["message"] for one in session["meta"]["messages"]]
    assert service.runs().count(uuid) == 1
    entries = service.machine.journal(f"EBHPC_SESSION={uuid}", "-o", "json").splitlines()
    assert entries, "the journal knows nothing of the session"
    told = [json.loads(entry) for entry in entries]
    assert {one["SYSLOG_IDENTIFIER"] for one in told} == {"ebhpc"}
    assert {one["PRIORITY"] for one in told} <= {"3", "4", "6", "7"}


_BESIDE = """
import os, subprocess, sys
from pathlib import Path
from ebhpc.local import cgroups
own = Path("/sys/fs/cgroup") / Path("/proc/self/cgroup").read_text().split("0::")[1].strip().lstrip("/")
home = cgroups.home_beside(own)
group = cgroups.Group("beside", {"": home / "beside"})
(home / "beside").mkdir()
child = subprocess.Popen(["sleep", "60"], preexec_fn=group.enter)
assert group.processes() == {child.pid}
child.kill()
child.wait()
assert group.remove()
print(own.relative_to(home), home.name)
"""


def test_the_local_platforms_groups_have_a_place_in_the_drivers_unit_beside_its_own(service: Installed):
    boot = service.machine
    pid = boot.property(DRIVER, "MainPID")
    group = boot.run(["cat", f"/proc/{pid}/cgroup"]).stdout.split("0::")[1].strip()
    assert group.endswith(f"/{DRIVER}/driver"), group
    # The same, for a process of a unit like the driver's, as its user, which cannot become another
    confines = [
        "Delegate=yes",
        "DelegateSubgroup=driver",
        "User=ebhpc",
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
    ]
    asked = [word for one in confines for word in ("--property", one)]
    run = ["systemd-run", "--quiet", "--wait", "--pipe", "--unit=beside.service", *asked]
    said = boot.run([*run, "/opt/ebhpc/bin/python", "-c", _BESIDE], check=False)
    assert (said.returncode, said.stdout.split()) == (0, ["driver", "beside.service"]), said.stderr


def test_no_client_is_turned_away_while_the_api_restarts(service: Installed):
    boot = service.machine
    before = boot.property(API, "MainPID")
    stop, answers = threading.Event(), []

    def ask() -> None:
        while not stop.is_set():
            words = ["curl", "--silent", "--show-error", "--max-time", "30", "-o", "/dev/null", "-w", "%{http_code}"]
            said = boot.run([*words, "http://127.0.0.1:8080/health/live"], check=False)
            answers.append((said.returncode, said.stdout, said.stderr))

    asking = threading.Thread(target=ask)
    asking.start()

    def answered(count: int) -> None:
        deadline = time.monotonic() + 180
        while len(answers) < count:
            assert time.monotonic() < deadline, answers
            time.sleep(0.02)

    try:
        answered(1)
        boot.systemctl("restart", API)
        answered(len(answers) + 2)
    finally:
        stop.set()
        asking.join()
    assert boot.property(API, "MainPID") != before
    assert set(answers) == {(0, "200", "")}


def test_a_job_lives_through_restarts_of_its_driver_and_runs_once(service: Installed):
    boot = service.machine
    uuid = service.begin()
    service.until(uuid, "RUNNING")
    boot.systemctl("restart", DRIVER)
    boot.run(["kill", "-KILL", boot.property(DRIVER, "MainPID")])
    restarts = int(boot.property(DRIVER, "NRestarts"))
    assert service.end(uuid)["phase"] == "COMPLETED"
    boot.until(DRIVER, "ActiveState", "active")
    assert int(boot.property(DRIVER, "NRestarts")) >= restarts
    assert service.runs().count(uuid) == 1


def test_a_driver_that_hangs_is_ended_by_the_watchdog_and_its_job_goes_on(service: Installed):
    boot = service.machine
    _shorten_watchdog(service, "3s")
    uuid = service.begin()
    service.until(uuid, "RUNNING")
    boot.until(DRIVER, "ActiveState", "active")
    hung = boot.property(DRIVER, "MainPID")
    boot.run(["kill", "-STOP", hung])
    deadline = time.monotonic() + 180
    while boot.property(DRIVER, "MainPID") in (hung, "0"):
        assert time.monotonic() < deadline, boot.journal("-n", "40", "-u", DRIVER)
        time.sleep(0.2)
    assert "watchdog" in boot.journal("-u", DRIVER).lower()
    assert service.end(uuid)["phase"] == "COMPLETED"
    assert service.runs().count(uuid) == 1
    boot.run(["rm", "-r", f"/run/systemd/system/{DRIVER}.d"])
    boot.systemctl("daemon-reload")


def test_a_reload_takes_up_new_settings_and_refuses_broken_ones(service: Installed):
    boot = service.machine
    pids = boot.property(API, "MainPID"), boot.property(DRIVER, "MainPID")
    uuid = service.begin()
    service.until(uuid, "RUNNING")
    service.configure(api={"workers": 3})
    boot.systemctl("reload", API, DRIVER)
    _until_status(service, API, "with 3 workers")
    _until_status(service, DRIVER, "drives here")
    assert (boot.property(API, "MainPID"), boot.property(DRIVER, "MainPID")) == pids
    boot.run(["sh", "-c", f"echo 'nonsense: 1' >>{SETTINGS}"])
    boot.systemctl("reload", API, DRIVER)
    _until_status(service, API, "the last reload failed")
    _until_status(service, DRIVER, "the new ones do not work")
    assert "nonsense" in boot.journal("-u", API, "-n", "20")
    assert service.ask("/health/live") == {"status": "live"}
    assert service.end(uuid)["phase"] == "COMPLETED"
    assert service.runs().count(uuid) == 1
    service.configure()
    boot.systemctl("reload", API, DRIVER)
    _until_status(service, API, "with 2 workers")


def test_what_runs_is_answered_before_the_api_ends(service: Installed):
    boot = service.machine
    # Half of a request comes, the service is told to end, and then comes the rest
    boot.run(["rm", "--force", _GO])
    script = (
        "exec 3<>/dev/tcp/127.0.0.1/8080; printf 'GET /health/live HTTP/1.1\\r\\nHost: x\\r\\n' >&3;"
        f" until test -e {_GO}; do sleep 0.05; done; printf 'Connection: close\\r\\n\\r\\n' >&3; cat <&3"
    )
    enter = ["nsenter", f"--target={boot.pid}", "--all", "bash", "-c", script]
    asking = subprocess.Popen(enter, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    _until_taken(service)
    boot.systemctl("stop", "--no-block", API, "ebhpc-api.socket")
    boot.until(API, "ActiveState", "deactivating")
    boot.run(["touch", _GO])
    said, wrong = asking.communicate(timeout=60)
    boot.until(API, "ActiveState", "inactive", seconds=60)
    boot.systemctl("start", "ebhpc-api.socket", API)
    assert " 200 " in said.splitlines()[0], (said, wrong)


def _until_taken(service: Installed) -> None:
    """Wait until a worker has taken the connection to its port that waits for more."""
    deadline = time.monotonic() + 60
    while True:
        # Of proc(5): local address, state 01 for established, and the inode, which a connection has once it is taken
        rows = [row.split() for row in service.machine.run(["cat", "/proc/net/tcp"]).stdout.splitlines()[1:]]
        if any(row[1].endswith(f":{8080:04X}") and row[3] == "01" and row[9] != "0" for row in rows):
            time.sleep(1)  # from there to the thread that reads it there is no more to be seen
            return
        assert time.monotonic() < deadline, rows
        time.sleep(0.05)


def test_an_update_upgrades_the_database_restarts_what_runs_and_loses_no_session(service: Installed):
    boot = service.machine
    uuid = service.begin()
    service.until(uuid, "RUNNING")
    before = {boot.property(unit, "MainPID") for unit in _UNITS}
    said = boot.run(["dpkg", "--install", PACKAGE], timeout=120).stdout
    assert "database: " in said
    after = {boot.property(unit, "MainPID") for unit in _UNITS}
    assert not before & after
    assert service.end(uuid)["phase"] == "COMPLETED"
    assert service.runs().count(uuid) == 1


def test_removing_the_package_ends_the_service_and_keeps_its_state(service: Installed):
    boot = service.machine
    boot.run(["dpkg", "--remove", "ebhpc"], timeout=60)
    assert boot.run(["pgrep", "-f", "/usr/bin/ebhpc"], check=False).returncode == 1
    boot.run(["test", "-s", "/var/lib/ebhpc/ebhpc.sqlite3"])
    boot.run(["test", "-s", SETTINGS])


def _shorten_watchdog(service: Installed, span: str) -> None:
    boot = service.machine
    folder = f"/run/systemd/system/{DRIVER}.d"
    boot.run(["mkdir", "-p", folder])
    boot.run(["tee", f"{folder}/watchdog.conf"], data=f"[Service]\nWatchdogSec={span}\n")
    boot.systemctl("daemon-reload")
    boot.systemctl("restart", DRIVER)


def _until_status(service: Installed, unit: str, words: str, seconds: float = 180.0) -> None:
    deadline = time.monotonic() + seconds
    while words not in (status := service.machine.property(unit, "StatusText")):
        told = service.machine.journal("-n", "30", "-u", unit)
        assert time.monotonic() < deadline, f"{unit} says {status!r}, not {words!r}\n{told}"
        time.sleep(0.2)
