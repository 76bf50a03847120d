"""Apptainer as it is, in jobs of another Unix user on a cluster of the lab."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as examples
from hypothesis import strategies as some

from ebhpc import batch
from ebhpc.model import DockerContainer, DockerImage, Executable, Observation, Session
from ebhpc.staging.removal import remove
from tests.batch.conftest import Site, busybox, said
from tests.batch.test_containers import HOSTILE
from tests.batch.test_runtimes import SHELL_NAMES
from tests.lab import containers
from tests.lab.slurm import missing, slurm_cluster
from tests.labs import require

pytestmark = [pytest.mark.containers, pytest.mark.lab]

Run = Callable[[Executable], tuple[Session, Observation]]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster whose nodes have apptainer."""
    lacking = missing()
    require(not lacking, "; ".join(lacking))
    with slurm_cluster("26.05") as made:
        # Apptainer wants to read it before it fetches anything
        (made.root / "etc" / "resolv.conf").touch()
        yield made


@pytest.fixture(scope="module")
def shared(cluster: Any) -> Iterator[Site]:
    """A site on the file system that the cluster shares with this host."""
    place = cluster.shared / f"ebhpc-{uuid.uuid4()}"
    yield Site(place)
    remove(place)


@pytest.fixture(scope="module")
def run(cluster: Any, shared: Site, registry: containers.Registry) -> Run:
    """Run an executable as alice, and return what became of it."""
    runtime = batch.ContainerRuntime(kind="apptainer", pull_options=["--no-https"])
    settings = shared.settings(access="acl", python="python3", runtime=runtime)
    alice = batch.Account(name="alice", uid=int(cluster.run(["id", "-u"], user="alice").stdout))

    def one(executable: Executable) -> tuple[Session, Observation]:
        session = shared.session(executable)
        batch.prepare(session, settings, alice, node_variable="SLURMD_NODENAME")
        directory = batch.session_directory(settings.root, session.uuid)
        script = batch.job_script(settings, directory)
        cluster.submit(script, f"--output={directory.log}", "--export=NONE", "--time=5", user="alice")
        until = time.monotonic() + 90
        while (report := batch.read_report(directory)) is None or report.state == "RUNNING":
            assert time.monotonic() < until, directory.log.read_text() if directory.log.exists() else "it did not begin"
            time.sleep(0.1)
        state: Any = report.state
        return session, batch.observation(session, batch.Native(state=state), report, settings)

    return one


@examples(
    max_examples=3,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
@given(words=some.lists(HOSTILE, max_size=12), variables=some.dictionaries(SHELL_NAMES, HOSTILE, max_size=8))
def test_whatever_apptainer_is_given_arrives_as_it_is(
    run: Run, shared: Site, registry: containers.Registry, words: list[str], variables: dict[str, str]
) -> None:
    script = 'cat /proc/$$/environ > /ebhpc/results/environ; for word; do printf "%s\\0" "$word"; done'
    session, seen = run(busybox(registry, "sh", "-c", script, "sh", *words, environment=variables))
    assert seen.state == "SUCCEEDED", (said(seen), shared.output(session, "stderr"))
    assert seen.node == "n1"
    assert shared.output(session).split(b"\0")[:-1] == [word.encode() for word in words]
    lines = shared.output(session, "results/environ").split(b"\0")
    assert {f"{name}={value}".encode() for name, value in variables.items()} <= set(lines)


def test_an_entrypoint_and_an_exit_code_pass_through_apptainer(
    run: Run, shared: Site, registry: containers.Registry
) -> None:
    session, seen = run(busybox(registry, "-c", 'id -u; echo "$0"; exit 3', "$HOME `id`", entrypoint="/bin/sh"))
    assert (seen.state, seen.exit_code) == ("FAILED", 3)
    user, word = shared.output(session).decode().splitlines()
    assert int(user) > 1000
    assert word == "$HOME `id`"


def test_a_digest_that_the_registry_does_not_have_is_not_run_by_apptainer(
    run: Run, registry: containers.Registry
) -> None:
    image = DockerImage(locations=[registry.location], digest="sha256:" + "0" * 64)
    _, seen = run(DockerContainer(image=image, command=["true"]))
    assert seen.state == "FAILED"
    assert "manifest unknown" in said(seen)
