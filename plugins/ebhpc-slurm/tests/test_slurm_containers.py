"""Containers as jobs of a real cluster: podman without root, and bundles run by Slurm itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace
from slurm_lab import Place, ended, session, submitted, text_of, until

from ebhpc.model import DockerContainer, DockerImage, Observation, Phase, Session
from ebhpc_slurm.platform import SlurmPlatform
from tests.lab import containers
from tests.labs import require

pytestmark = [pytest.mark.lab, pytest.mark.containers, pytest.mark.timeout(300)]

RUNTIMES: dict[str, dict[str, Any]] = {
    "podman": {
        "kind": "podman",
        # The lab's root is an overlay itself, on which no other can lie
        "options": ["--storage-driver=vfs", "--cgroup-manager=cgroupfs"],
        "pull_options": ["--tls-verify=false"],
        "environment": {"PODMAN_IGNORE_CGROUPSV1_WARNING": "1"},
    },
    "slurm": {
        "kind": "oci",
        "oci_command": ["srun", "--container={bundle}", "{command}"],
        "oci_end": [],
        "pull_options": ["--src-tls-verify=false"],
    },
    "runc": {
        "kind": "oci",
        "oci_command": ["runc", "--rootless=true", "--root=/tmp/runc", "run", "--bundle", "{bundle}", "{name}"],
        "oci_end": ["runc", "--rootless=true", "--root=/tmp/runc", "delete", "--force", "{name}"],
        "pull_options": ["--src-tls-verify=false"],
    },
}


@pytest.fixture(scope="module")
def registry() -> Iterator[containers.Registry]:
    lacking = containers.missing()
    require(not lacking, f"containers cannot be tested: {'; '.join(lacking)}")
    with containers.registry() as found:
        yield found


def prepared(platform: SlurmPlatform, registry: containers.Registry, command: list[str], **image: Any) -> Session:
    """A session whose container is ready to be submitted."""
    executable = DockerContainer(
        image=DockerImage(**{"locations": [registry.location], "digest": registry.digest, **image}),
        command=command,
        environment={"WORD": 'it\'s "$HOME"'},
    )
    one = session(firm=False, executable=executable, memory=1000)
    platform.ebhpc_prepare(one)
    return replace(one, phase=Phase.AVAILABLE)


def told(seen: Observation) -> str:
    return " ".join(str(one.filled) for one in seen.messages)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_container_runs_in_a_job_and_is_checked_by_its_digest(
    here: Place, registry: containers.Registry, runtime: str
) -> None:
    settings = here.settings()
    platform = here.platform(jobs={**settings["jobs"], "runtime": RUNTIMES[runtime]})
    script = 'test -e /opt || echo "inside"; echo "$WORD" "$0" >"$EBHPC_RESULTS/said"; exit 3'
    one, wrong = (
        submitted(platform, prepared(platform, registry, ["sh", "-c", script, "$(id) `id`"], **image))
        for image in ({}, {"digest": f"sha256:{'0' * 64}"})
    )
    seen = until(platform, one, ended, 120)
    assert (seen.state, seen.exit_code) == ("FAILED", 3), (told(seen), text_of(platform, one, "stderr"))
    assert text_of(platform, one) == "inside\n"
    assert text_of(platform, one, "results/said") == 'it\'s "$HOME" $(id) `id`\n'
    seen = until(platform, wrong, ended, 120)
    assert seen.state == "FAILED"
    assert "cannot be fetched" in told(seen)
    for each in (one, wrong):
        platform.ebhpc_cleanup(each)


@pytest.mark.parametrize("runtime", ["podman", "runc"])
def test_a_container_that_does_not_heed_is_gone_soon_after_its_job_was_cancelled(
    here: Place, registry: containers.Registry, runtime: str
) -> None:
    # A Slurm that kills after five seconds, and tracks no process that left its job
    jobs = {**here.settings()["jobs"], "grace": "1s", "runtime": RUNTIMES[runtime]}
    platform = here.platform(jobs=jobs)
    with here.cluster.tracking_parents("n3"):
        is_gone_once_it_was_cancelled(here, platform, registry)


def test_a_container_run_by_slurm_is_gone_soon_after_its_job_was_cancelled(
    here: Place, registry: containers.Registry
) -> None:
    if "freezer" not in here.cluster.groups:
        pytest.skip("proctrack/cgroup in the lab needs control groups of version 1 with the controller freezer")
    jobs = {**here.settings()["jobs"], "grace": "1s", "runtime": RUNTIMES["slurm"]}
    is_gone_once_it_was_cancelled(here, here.platform(jobs=jobs), registry)


def is_gone_once_it_was_cancelled(here: Place, platform: SlurmPlatform, registry: containers.Registry) -> None:
    one = prepared(platform, registry, ["sh", "-c", "trap '' TERM; sleep 98765 & wait; wait"])
    one = submitted(platform, one)
    comes_to_be(here, platform, one, True)
    platform.ebhpc_cancel(one)
    until(platform, one, ended, 120)
    comes_to_be(here, platform, one, False)
    platform.ebhpc_cleanup(one)


def comes_to_be(here: Place, platform: SlurmPlatform, one: Session, there: bool) -> None:
    """Wait until the container's processes are there, or none of them is."""
    deadline = time.monotonic() + 120
    while (here.cluster.run(["pgrep", "-f", "sleep 98765"], check=False).returncode == 0) != there:
        assert time.monotonic() < deadline, platform.ebhpc_observe([one])
        time.sleep(0.3)
