"""The template plugin of the docs: installed from nothing into a fresh environment, and run there."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
TEMPLATE = REPOSITORY / "docs" / "template-plugin"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A new virtual environment with ebhpc and the template, both built from copies: pip writes into what it builds."""
    folder = tmp_path_factory.mktemp("template")
    for name, source in (("ebhpc", REPOSITORY), ("template", TEMPLATE)):
        kept = ("ebhpc", "setup.cfg", "pyproject.toml", "README.md", "LICENSE", "ebhpc_template", "test_template.py")
        (folder / name).mkdir()
        for path in source.iterdir():
            if path.name in kept:
                copy = shutil.copytree if path.is_dir() else shutil.copy
                copy(path, folder / name / path.name)
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    pip = [str(folder / "venv/bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, str(folder / "ebhpc"), str(folder / "template"), "pytest"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    yield folder
    shutil.rmtree(folder)


def run(environment: Path, *command: str, check: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the environment with nothing of this one about it."""
    path = f"{environment}/venv/bin:{os.defpath}"
    done = subprocess.run(
        [f"{environment}/venv/bin/{command[0]}", *command[1:]],
        cwd=environment,
        env={"PATH": path, "HOME": str(environment), "EBHPC_STATE": str(environment / "state"), **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_the_templates_own_tests_pass_there(environment: Path) -> None:
    done = run(environment, "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "template/test_template.py")
    assert " passed" in done.stdout


SESSION = """
import logging, sys, time
from pathlib import Path
from ebhpc.config import load_config
from ebhpc.model import *
from ebhpc.model.registry import Kinds
from ebhpc.plugins import added_kinds, build_platforms, describe_plugins, load_plugins

folder = Path(sys.argv[1])
pm = load_plugins()
assert pm.findings == [], pm.findings
kinds = Kinds(added_kinds(pm))
document = kinds.request({"executable": {
    "kind": "https://example.org/kinds/executable/shell-command.yaml",
    "command": ["sh", "-c", "echo one; sleep 0.3; echo two"],
}}).document
here = build_platforms(pm, load_config(folder / "ebhpc.yaml"))["here"]
assert here.fault is None, here.fault
(described,) = [it for it in describe_plugins(pm) if it.name == "template"]
assert (described.origin, described.version, described.platforms) == ("ebhpc-template", "0.1.0", ("here",))
now = int(time.time())
demand = Demand(least=Shape(cores=1, memory=256), duration=30, earliest=now, latest=now + 60)
request = Request(document=document, executable=document.executable, compute=SimpleCompute(), demand=demand)
assert here.call("ebhpc_refuses", request=request) == ()
(node,) = here.call("ebhpc_snapshot", now=now).nodes
assert (node.cores, node.memory) == (2, 2048)
session = Session(
    uuid="6b0d4c0e-3f2b-4a56-9d3b-0a5c6f1e2d3c", name=None, owner=Identity(uuid="u", username="ada"),
    platform="here", phase=Phase.AVAILABLE, executable=request.executable, compute=request.compute,
    allocations=(Allocation(node=node.name, cores=1, memory=256),),
    start=now, latest=now, end=now + 30, duration=30,
)
here.call("ebhpc_hold", session=session)
here.call("ebhpc_prepare", session=session)
assert here.call("ebhpc_submit", session=session) == here.call("ebhpc_submit", session=session)
(running,) = here.call("ebhpc_snapshot", now=now).running
assert running.session == session.uuid
deadline = time.time() + 20
while True:
    (observation,) = here.call("ebhpc_observe", sessions=[session])
    if observation.state not in ("PENDING", "RUNNING") or time.time() > deadline:
        break
    time.sleep(0.05)
here.call("ebhpc_cleanup", session=session)
here.call("ebhpc_release", session=session)
with here.call("ebhpc_open_output", session=session, name="stdout") as file:
    print(observation.state, observation.exit_code, file.read().split())
print([output.name for output in here.call("ebhpc_outputs", session=session)])
here.call("ebhpc_forget", session=session)
print(here.call("ebhpc_outputs", session=session))
"""

PLATFORM = "kind: template\nlead: 1s\nrefresh: 1s\nsettings: {cores: 2, memory: 2048}\n"


@pytest.fixture
def configured(environment: Path) -> Path:
    (environment / "platforms.d").mkdir(exist_ok=True)
    (environment / "ebhpc.yaml").write_text("logging: {level: info}\n", encoding="utf-8")
    (environment / "platforms.d" / "here.yaml").write_text(PLATFORM, encoding="utf-8")
    return environment / "ebhpc.yaml"


def test_a_session_goes_through_all_hooks_of_the_installed_plugin(environment: Path, configured: Path) -> None:
    (environment / "session.py").write_text(SESSION, encoding="utf-8")
    done = run(environment, "python", "session.py", str(environment))
    assert done.stdout.splitlines() == ["SUCCEEDED 0 [b'one', b'two']", "['stdout', 'stderr']", "()"]
    assert done.stderr == ""


def test_ebhpc_plugins_lists_it_and_its_hooks(environment: Path, configured: Path) -> None:
    done = run(environment, "ebhpc", "plugins", "--json", "--config", str(configured))
    (listed,) = [plugin for plugin in json.loads(done.stdout)["plugins"] if plugin["name"] == "template"]
    assert listed["origin"] == "ebhpc-template"
    assert {"ebhpc_kinds", "ebhpc_platform", "ebhpc_submit"} <= set(listed["hooks"])


REQUEST = """\
executable:
  kind: https://example.org/kinds/executable/shell-command.yaml
  command: [sh, -c, "echo hello from $(basename $PWD); echo 42 > answer.txt"]
compute:
  kind: https://www.purl.org/ivoa.net/Calycopis-openapi/schema/v1.0/kinds/compute/simple-compute-resource.yaml
  memory: {max: 1}
schedule:
  requested: {duration: PT1M}
"""


@pytest.fixture
def broker(environment: Path, configured: Path) -> Iterator[dict[str, str]]:
    """A broker served from that environment: what a client needs in its environment to reach it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    log = environment / "serve.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [f"{environment}/venv/bin/ebhpc", "serve", "--config", str(configured), "--set", f"api.bind={address}"],
            cwd=environment,
            env={"PATH": f"{environment}/venv/bin:{os.defpath}", "HOME": str(environment)},
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + 60
        while "ready at" not in log.read_text(encoding="utf-8"):
            assert server.poll() is None, log.read_text(encoding="utf-8")
            assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
            time.sleep(0.1)
        password = re.search(r"with the password (\S+)", log.read_text(encoding="utf-8"))
        assert password is not None
        yield {"EBHPC_URL": f"http://{address}", "EBHPC_USER": "admin", "EBHPC_PASSWORD": password[1]}
    finally:
        server.terminate()
        server.wait(60)


def test_a_request_of_the_plugins_kind_goes_from_question_to_result(environment: Path, broker: dict[str, str]) -> None:
    (environment / "hello.yaml").write_text(REQUEST, encoding="utf-8")
    done = run(environment, "ebhpc", "run", "hello.yaml", "--pick", "earliest", "--output", "fetched", **broker)
    assert done.stdout == "hello from results\n"
    assert (environment / "fetched" / "results" / "answer.txt").read_text(encoding="utf-8") == "42\n"
