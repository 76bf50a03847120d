"""``ebhpc check`` says of a cluster what is wrong with it, and what to do."""

from __future__ import annotations

import time
from typing import Any

import pytest
from slurm_lab import Place, ours

from ebhpc.model import Finding
from ebhpc_slurm.platform import SlurmPlatform

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]


def found(platform: SlurmPlatform) -> dict[str, list[Finding]]:
    findings: dict[str, list[Finding]] = {}
    for one in platform.ebhpc_check():
        findings.setdefault(one.subject, []).append(one)
    platform.slurm.close()
    return findings


def wrong(platform: SlurmPlatform) -> list[str]:
    """Return what is wrong, and what to do about it."""
    return [
        f"{one.subject}: {one.text} ({one.advice})"
        for findings in found(platform).values()
        for one in findings
        if one.level == "ERROR"
    ]


def test_a_cluster_that_is_as_it_should_be_has_nothing_wrong(place: Place) -> None:
    platform = place.platform()
    findings = found(platform)
    assert [one for some in findings.values() for one in some if one.level == "ERROR"] == []
    assert place.cluster.version in findings["slurm"][0].text
    assert [one.text for one in findings["partitions"]] == [
        "batch: 7 of 7 nodes are up",
        "gpu: 2 of 2 nodes are up",
    ]
    assert findings["rights"][0].text == "reservations can be made and deleted, for alice"
    assert findings["jobs"][0].text.startswith("a job as alice in batch ended COMPLETED on n")
    assert "shares" in findings["nodes.root"][0].text
    assert ("pyslurm" in findings) == (place.transport == "pyslurm")
    assert ours(place.platform()) == []


def test_patience_that_outlasts_the_cluster_is_told(here: Place) -> None:
    jobs = here.settings()["jobs"]
    told = {
        grace: [
            one.text for one in found(here.platform(jobs={**jobs, "grace": grace}))["slurm"] if "KillWait" in one.text
        ]
        for grace in ("2s", "10s")
    }
    assert told["2s"] == []
    assert ["jobs.grace is 10 s, and Slurm kills a job 5 s after" in text for text in told["10s"]] == [True]


def about(here: Place, **more: Any) -> list[str]:
    return wrong(here.platform(**more))


def test_a_cluster_without_munge_is_told(here: Place) -> None:
    here.cluster.munge.stop()
    try:
        (told,) = about(here, answer_within="4s")
        assert "slurm: no answer" in told
        assert "munged" in told
    finally:
        here.cluster.munge.start()


def test_a_controller_that_is_down_is_told(here: Place) -> None:
    here.cluster.controller.stop()
    (told,) = wrong(here.platform(impatient=True))
    assert "slurm: no answer: " in told
    assert "slurmctld" in told
    here.cluster.controller.start()


def test_commands_that_are_not_there_are_told(here: Place) -> None:
    (told,) = about(here, command_prefix=["/nowhere/at-all"])
    assert "cannot be started" in told
    assert "install Slurm's commands" in told


def test_a_broker_that_is_no_operator_is_told(here: Place) -> None:
    modify = ["sacctmgr", "-i", "modify", "user", "where", "name=ebhpc", "set"]
    here.cluster.run([*modify, "adminlevel=None"], user="root")
    try:
        told = about(here)
        assert any("rights: we may not make reservations" in one and "adminlevel=Operator" in one for one in told)
    finally:
        here.cluster.run([*modify, "adminlevel=Operator"], user="root")


def test_a_partition_that_is_closed_or_is_none_is_told(here: Place) -> None:
    here.cluster.run(["scontrol", "update", "partitionname=gpu", "state=DOWN"], user="root")
    try:
        told = about(here, partitions=["gpu", "none", "restricted"])
        assert any("there is no partition none" in one for one in told)
        assert any("gpu is DOWN" in one for one in told)
        warned = [one.text for one in found(here.platform(partitions=["restricted"]))["partitions"]]
        assert "restricted is closed to phys, the account of ada" in warned
    finally:
        here.cluster.run(["scontrol", "update", "partitionname=gpu", "state=UP"], user="root")


def test_a_clock_that_differs_is_told(here: Place) -> None:
    platform = here.platform()
    platform.clock = lambda: time.time() - 60
    assert any("clock: the controller's clock differs by 6" in one for one in wrong(platform))


def test_a_user_whom_the_cluster_or_the_accounting_does_not_know_is_told(here: Place) -> None:
    told = about(here, identities={"eve": {"user": "carol", "uid": 2004}}, account="phys")
    assert any("jobs: a test job as carol cannot be submitted" in one for one in told)
    told = about(here, identities={"eve": {"user": "nobody-here", "uid": 12345}})
    assert any("nobody-here" in one for one in told)
    told = about(here, identities={})
    assert any("every request is refused" in one for one in told)


def test_nodes_without_a_container_runtime_or_the_shared_directory_are_told(here: Place) -> None:
    own = here.state / "not-shared"
    jobs = {"root": str(own), "python": here.cluster.python, "runtime": {"kind": "none"}}
    for place in (own.parent, *own.parent.parents):
        if place.stat().st_uid == 0 and not place.stat().st_mode & 1:
            place.chmod(place.stat().st_mode | 0o001)
    told = about(here, jobs=jobs)
    assert any("nodes" in one for one in told)
    jobs = {
        "root": str(here.cluster.shared / "sessions"),
        "python": here.cluster.python,
        "runtime": {"kind": "podman", "program": "no-such-runtime"},
    }
    told = about(here, jobs=jobs)
    assert any("has no no-such-runtime: containers cannot run" in one for one in told)


def test_pyslurm_that_is_missing_or_of_another_version_is_told(here: Place) -> None:
    pyslurm = Place(here.cluster, "pyslurm", here.state)
    (told,) = wrong(pyslurm.platform(pyslurm=["/usr/bin/python3"]))
    assert "pyslurm" in told
    findings = found(pyslurm.platform())
    assert findings["pyslurm"][0].level == "WARN"
    assert "25.11.2" in findings["pyslurm"][0].text
