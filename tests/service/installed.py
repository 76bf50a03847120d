"""ebhpc as an operator installs it: a Debian package of the checkout on a booted machine, configured and running."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from ebhpc.model import FINAL, kinds
from tests.broker import ADMIN, PASSWORD, QUICK, local_platform
from tests.lab.systemd import CHECKOUT, Machine, machine

API = "ebhpc-api.service"
DRIVER = "ebhpc-driver@one.service"
SETTINGS = "/etc/ebhpc/ebhpc.yaml"
PACKAGE = "/tmp/ebhpc.deb"
_NOTEBOOKS = f"{CHECKOUT}/tests/whole/notebooks"
_RUNS = "/var/lib/ebhpc/runs"
_HOLD = "/var/lib/ebhpc/hold"
_SECRET = "/root/password"
AS_SERVICE = ["setpriv", "--reuid=ebhpc", "--regid=ebhpc", "--init-groups", "--reset-env"]


class Installed:
    """The package on ``machine``, with its API and one driver running."""

    def __init__(self, booted: Machine) -> None:
        self.machine = booted

    def install(self) -> None:
        """Build the package of the checkout there, for that Python, and install it."""
        build = ["python3", f"{CHECKOUT}/packaging/debian/build.py", "--quick", "--into", "/tmp/built"]
        offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/opt/wheels"}
        built = self.machine.run(build, environment=offline, timeout=500).stdout.strip()
        self.machine.run(["mv", built, PACKAGE])
        self.machine.run(["dpkg", "--install", PACKAGE], timeout=120)

    def configure(self, **changes: Any) -> None:
        """Write the settings: one local platform, whose notebooks note each run; the journal."""
        platform = local_platform(
            file_roots=[_NOTEBOOKS],
            environment={"EBHPC_TEST_RUNS": _RUNS, "EBHPC_TEST_HOLD": _HOLD},
        )
        settings = {
            **QUICK,
            "state": "/var/lib/ebhpc",
            "logging": {"format": "journal"},
            "platforms": [platform],
            **changes,
        }
        self.machine.run(["tee", SETTINGS], data=yaml.safe_dump(settings))

    def start(self) -> None:
        """Do what the documentation says: database, administrator, units."""
        self.machine.run(["tee", _SECRET], data=PASSWORD + "\n")
        self.machine.run(["chmod", "0644", _SECRET])
        self.machine.run(["install", "-m", "0644", _SECRET, "/tmp/password"])
        self.broker("db", "upgrade")
        self.broker("account", "add", ADMIN, "--admin", "--password-file", "/tmp/password")
        self.machine.systemctl("enable", "--now", "ebhpc-api.socket", API, DRIVER)

    def broker(self, *words: str) -> str:
        """Run an operator's command as the service's user."""
        return self.machine.run([*AS_SERVICE, "ebhpc", *words, "--config", SETTINGS]).stdout

    def ask(self, *words: str, data: Any = None) -> Any:
        """Ask the API with curl, and return the JSON that it answers."""
        curl = ["curl", "--silent", "--show-error", "--max-time", "30", "--user", f"{ADMIN}:{PASSWORD}"]
        curl += ["--header", "Accept: application/json"]
        if data is not None:
            curl += ["--header", "Content-Type: application/json", "--data-binary", "@-"]
        said = self.machine.run(
            [*curl, *words[1:], f"http://127.0.0.1:8080{words[0]}"], data=None if data is None else json.dumps(data)
        )
        return json.loads(said.stdout)

    def begin(self) -> str:
        """Ask for a notebook that runs until `end`, and accept the first offer; return the session's UUID."""
        self.machine.run([*AS_SERVICE, "touch", _HOLD])
        request = {
            "executable": {"kind": kinds.JUPYTER_NOTEBOOK, "location": f"file://{_NOTEBOOKS}/note_run.ipynb"},
            "schedule": {"requested": {"duration": "PT30M"}},
        }
        session = self.ask("/direct", "--location", data=request)
        assert session["phase"] != "REJECTED", session["meta"]["messages"]
        return str(session["meta"]["uuid"])

    def end(self, uuid: str) -> dict[str, Any]:
        """Let the notebooks end, and wait for the session's end; return it."""
        self.machine.run(["rm", "--force", _HOLD])
        return self.until(uuid)

    def until(self, uuid: str, *phases: str, seconds: float = 240.0) -> dict[str, Any]:
        """Wait until a session is in one of the phases, or at its end where none are named; return it."""
        deadline = time.monotonic() + seconds
        wanted = phases or tuple(FINAL)
        while True:
            session: dict[str, Any] = self.ask(f"/sessions/{uuid}")
            if session["phase"] in wanted:
                return session
            if session["phase"] in FINAL or time.monotonic() > deadline:
                raise AssertionError(f"{session}\n{self.machine.journal('-n', '80')}")
            time.sleep(0.2)

    def runs(self) -> list[str]:
        """Return the session of each run that a notebook has noted."""
        said = self.machine.run(["cat", _RUNS], check=False).stdout
        return [line.split()[0] for line in said.splitlines()]


@contextmanager
def installed() -> Iterator[Installed]:
    """Boot a machine, install the package of this checkout, start the service."""
    with machine(Path(__file__).parents[2]) as booted:
        service = Installed(booted)
        service.install()
        service.configure()
        service.start()
        deadline = time.monotonic() + 180
        while service.ask("/health/ready").get("status") != "ready":
            assert time.monotonic() < deadline, booted.journal("-n", "80")
            time.sleep(0.1)
        yield service
