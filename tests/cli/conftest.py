from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ebhpc.cli.commands import ebhpc
from tests.client.other_broker import OtherBroker


@pytest.fixture
def other() -> Iterator[OtherBroker]:
    """Another broker of the standard, which answers as the test tells it."""
    with OtherBroker() as broker:
        yield broker


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home of a user whose time zone is UTC, with nothing in the environment for ebhpc."""
    for name in [name for name in os.environ if name.startswith("EBHPC_") and name != "EBHPC_LAB"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("TZ", "UTC")
    return tmp_path


Command = Callable[..., Result]


@pytest.fixture
def command(home: Path, other: OtherBroker) -> Command:
    """Run ``ebhpc`` with arguments against the other broker, in this process, without a terminal."""

    def run(*arguments: str, stdin: str | bytes | None = None, **environment: str) -> Result:
        return CliRunner(env={"EBHPC_URL": other.url, **environment}).invoke(
            ebhpc, list(arguments), input=stdin, prog_name="ebhpc", catch_exceptions=False
        )

    return run


REQUEST = """\
# What to run
executable:
  kind: https://www.purl.org/ivoa.net/Calycopis-openapi/schema/v1.0/kinds/executable/jupyter-notebook.yaml
  location: https://example.org/a.ipynb
compute:
  kind: https://www.purl.org/ivoa.net/Calycopis-openapi/schema/v1.0/kinds/compute/simple-compute-resource.yaml
  cores:
    min: 0
"""


@pytest.fixture
def request_file(tmp_path: Path) -> Path:
    """A request in YAML."""
    path = tmp_path / "request.yaml"
    path.write_text(REQUEST)
    return path
