"""The whole way with our own broker, by the users' commands: real processes, a notebook that really runs."""

from __future__ import annotations

import functools
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import nbformat
import pytest

from tests.broker import ADMIN, PASSWORD, RunningBroker, local_platform, running_broker

BASE = "https://www.purl.org/ivoa.net/Calycopis-openapi/schema/v1.0/kinds/"


class _Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Keep the tests' output clean."""


@pytest.fixture(scope="module")
def notebooks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a web server that has the notebooks good.ipynb, bad.ipynb and long.ipynb."""
    folder = tmp_path_factory.mktemp("notebooks")
    for name, source in {
        "good": "print(6 * 7)",
        "bad": "raise ValueError('this cannot be')",
        "long": "import time\ntime.sleep(600)",
    }.items():
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
        nbformat.write(notebook, folder / f"{name}.ipynb")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Files, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    """A broker with one platform, this host."""
    with running_broker(tmp_path_factory.mktemp("broker"), {"platforms": [local_platform()]}) as running:
        yield running


@pytest.fixture
def environment(broker: RunningBroker, tmp_path: Path) -> Mapping[str, str]:
    """The environment of a user of the broker, whose home is empty."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("EBHPC_")},
        "HOME": str(tmp_path),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "EBHPC_URL": broker.url,
        "EBHPC_USER": ADMIN,
        "EBHPC_PASSWORD": PASSWORD,
    }


def request_for(notebook: str, folder: Path, cores: str = "min: 1") -> str:
    path = folder / "request.yaml"
    path.write_text(
        f"executable:\n  kind: {BASE}executable/jupyter-notebook.yaml\n  meta:\n    name: answer\n"
        f"  location: {notebook}\n"
        f"compute:\n  kind: {BASE}compute/simple-compute-resource.yaml\n  cores:\n    {cores}\n"
        "schedule:\n  requested:\n    duration: PT10M\n"
    )
    return str(path)


def ebhpc(environment: Mapping[str, str], *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        [sys.executable, "-m", "ebhpc", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == code, f"{arguments}: {result.returncode}\n{result.stdout}\n{result.stderr}"
    return result


def test_run_brings_a_notebook_to_its_result(environment: Mapping[str, str], notebooks: str, tmp_path: Path) -> None:
    request = request_for(f"{notebooks}/good.ipynb", tmp_path)
    result = ebhpc(environment, "run", request, "--pick", "earliest", "--output", str(tmp_path / "out"))
    assert "COMPLETED" in result.stderr
    executed = [nbformat.read(path, as_version=4) for path in (tmp_path / "out").rglob("*.ipynb")]
    assert any(
        "42" in output.get("text", "")
        for notebook in executed
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    )
    assert any(path.suffix == ".html" for path in (tmp_path / "out").rglob("*"))


def test_step_by_step_each_command_gives_what_the_next_one_needs(
    environment: Mapping[str, str], notebooks: str, tmp_path: Path
) -> None:
    request = request_for(f"{notebooks}/good.ipynb", tmp_path)
    table = ebhpc(environment, "offers", request).stdout.splitlines()
    assert table[1].startswith("1  ")
    uuid, phase = ebhpc(environment, "accept", "1").stdout.split()
    assert phase in {"ACCEPTED", "WAITING", "PREPARING"}
    assert uuid.endswith(table[1].split()[1])
    lines = ebhpc(environment, "watch", uuid, "--json").stdout.splitlines()
    assert json.loads(lines[-1])["phase"] == "COMPLETED"
    shown = ebhpc(environment, "show", uuid[-8:]).stdout
    assert "jupyter-notebook answer" in shown
    names = [item["name"] for item in json.loads(ebhpc(environment, "output", "1", "--json").stdout)]
    assert "stdout" in names
    ebhpc(environment, "output", "1", "stdout")
    listed = json.loads(ebhpc(environment, "sessions", "--phase", "COMPLETED", "--json").stdout)
    assert uuid in [session["meta"]["uuid"] for session in listed]
    assert ebhpc(environment, "accept", "1").stdout == f"{uuid} COMPLETED\n"
    ebhpc(environment, "cancel", uuid, code=8)


def test_a_notebook_that_fails_exits_with_4(environment: Mapping[str, str], notebooks: str, tmp_path: Path) -> None:
    result = ebhpc(environment, "run", request_for(f"{notebooks}/bad.ipynb", tmp_path), code=4)
    assert "FAILED" in result.stderr


def test_a_session_that_is_cancelled_ends_its_watcher_with_5(
    environment: Mapping[str, str], notebooks: str, tmp_path: Path
) -> None:
    ebhpc(environment, "offers", request_for(f"{notebooks}/long.ipynb", tmp_path))
    ebhpc(environment, "accept", "1")
    ebhpc(environment, "watch", "1", "--until", "RUNNING")
    assert ebhpc(environment, "cancel", "1").stdout.split()[1] == "CANCELLED"
    ebhpc(environment, "watch", "1", code=5)


def test_an_offer_that_is_rejected_cannot_be_accepted(
    environment: Mapping[str, str], notebooks: str, tmp_path: Path
) -> None:
    ebhpc(environment, "offers", request_for(f"{notebooks}/good.ipynb", tmp_path))
    assert ebhpc(environment, "reject", "1").stdout.split()[1] == "REJECTED"
    ebhpc(environment, "accept", "1", code=8)


def test_a_request_that_cannot_run_names_the_line(
    environment: Mapping[str, str], notebooks: str, tmp_path: Path
) -> None:
    request = request_for(f"{notebooks}/good.ipynb", tmp_path, cores="min: 100000")
    result = ebhpc(environment, "offers", request, code=3)
    assert result.stdout == ""
    assert f"{request}:9: " in result.stderr


def test_a_request_that_cannot_be_read_names_every_line(
    environment: Mapping[str, str], notebooks: str, tmp_path: Path
) -> None:
    request = request_for("[1]", tmp_path, cores="min: many")
    result = ebhpc(environment, "offers", request, code=3)
    assert f"{request}:5: " in result.stderr
    assert f"{request}:9: " in result.stderr


def test_the_platform_is_listed(environment: Mapping[str, str]) -> None:
    _, platform = ebhpc(environment, "platforms").stdout.splitlines()
    assert platform.split()[:3] == ["here", "local", "available"]


def test_a_wrong_password_exits_with_7(environment: Mapping[str, str]) -> None:
    ebhpc({**environment, "EBHPC_PASSWORD": "wrong"}, "sessions", code=7)


def test_a_session_that_is_not_there_exits_with_8(environment: Mapping[str, str]) -> None:
    ebhpc(environment, "show", "00000000-0000-4000-8000-000000000000", code=8)
