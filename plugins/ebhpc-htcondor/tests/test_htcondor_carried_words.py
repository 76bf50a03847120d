"""What is carried, and what containers of the pool's are told: without a pool."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from htcondor_lab import ShellCommand, session
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as some
from msgspec.structs import replace

from ebhpc import batch
from ebhpc.model import (
    Demand,
    DockerContainer,
    DockerImage,
    DockerInternalPort,
    DockerNetwork,
    DockerPort,
    Request,
    S3Data,
    Shape,
    SimpleCompute,
    SimpleData,
)
from ebhpc_htcondor import carrying, records, universe
from ebhpc_htcondor.following import native, of_container, ports_report
from ebhpc_htcondor.refusing import refusals
from ebhpc_htcondor.settings import HTCondorSettings, Mapped
from ebhpc_htcondor.submission import description, requirements

SETTINGS = HTCondorSettings(
    jobs=batch.JobSettings(root=Path("/scratch"), staging="job"),
    collector="cm",
    domain="lab",
    token_command=("x", "{user}"),
    files="transfer",
    containers="universe",
    native_urls=("https", "s3"),
    s3_keys="/etc/keys/{user}",
)
IMAGE = DockerImage(locations=["registry.example.org/a/b:1"], digest=f"sha256:{'a' * 64}")
WEB = DockerNetwork(ports=[DockerPort(internal=DockerInternalPort(port=8080), protocol="HTTP")])


def asked(executable: Any, *data: Any) -> Request:
    demand = Demand(least=Shape(cores=1, memory=100), duration=60, earliest=0, latest=1)
    return Request(
        document=None,  # type: ignore[arg-type]  # nobody looks at it here
        executable=executable,
        compute=SimpleCompute(),
        data=tuple(data),
        demand=demand,
    )


def test_urls_that_the_pool_understands_are_its_own_and_the_runner_fetches_the_rest() -> None:
    urls = [
        "https://a.example.org/x/stars.fits",
        "https://b.example.org/y/stars.fits",
        "http://a.example.org/other.fits",
        "https://a.example.org/a,b",
        "https://a.example.org/q?name=1",
        "https://a.example.org/$(HOME)",
        "https://a.example.org/job.sh",
        "https://a.example.org/",
        "https://ada:secret@a.example.org/mine.fits",
        "s3://s3.example.org/bucket/key.fits",
    ]
    assert carrying.brought_by_pool(urls, SETTINGS) == {urls[0]: "stars.fits", urls[-1]: "key.fits"}


def test_what_nobody_can_fetch_is_refused() -> None:
    thing = S3Data(endpoint="https://s3.example.org", bucket="b", object="key.fits")
    assert list(carrying.refusals(asked(ShellCommand(), thing), SETTINGS)) == []
    (told,) = carrying.refusals(asked(ShellCommand(), thing, replace(thing, bucket="c")), SETTINGS)
    assert "a file name of its own" in str(told.filled)
    ported = DockerContainer(image=IMAGE, network=WEB)
    (told,) = carrying.refusals(asked(ported), replace(SETTINGS, containers="job"))
    assert "ports are not reached" in str(told.filled)


@pytest.mark.parametrize(
    ("endpoint", "taken"),
    [
        ("https://s3.example.org", True),
        ("s3.example.org:9000", True),
        ("http://s3.example.org", False),
        ("https://localhost:9000", False),
    ],
)
def test_objects_are_asked_of_the_service_that_is_meant(endpoint: str, taken: bool) -> None:
    thing = S3Data(endpoint=endpoint, bucket="b", object="key.fits")
    told = [str(one.filled) for one in carrying.refusals(asked(ShellCommand(), thing), SETTINGS)]
    assert told == ([] if taken else [told[0]])
    assert all("by https, of services whose names have a dot" in words for words in told)


def test_several_machines_are_refused_with_the_reason() -> None:
    request = asked(ShellCommand())
    told = refusals(replace(request, demand=replace(request.demand, nodes=3)), SETTINGS)
    assert [str(one.filled) for one in told] == ["A job of this platform runs on one machine, not on 3."]


def test_a_container_of_the_pools_is_refused_what_it_cannot_have() -> None:
    bad = DockerContainer(image=IMAGE, privileged=True, command=["a\nb"], environment={"A": "$(dollar)"})
    told = [str(one.filled) for one in universe.refusals(asked(bad, SimpleData(location="https://a/b")), SETTINGS)]
    assert len(told) == 4
    assert list(universe.refusals(asked(DockerContainer(image=IMAGE, command=["a", "b\tc"])), SETTINGS)) == []


def test_a_container_becomes_lines() -> None:
    one = session(executable=DockerContainer(image=IMAGE, network=WEB, command=["-c", "it's"]), duration=60)
    directory = batch.session_directory(SETTINGS.jobs.root, one.uuid)
    files = carrying.lines(one, SETTINGS, directory, "job.sh", "alice")
    text = description(one, SETTINGS, Mapped(user="alice"), directory, now=float(one.start), files=files)
    lines = dict(line.split(" = ", 1) for line in text.split("\n")[:-1])
    assert lines["universe"] == "container"
    assert lines["container_image"] == f"docker://registry.example.org/a/b@sha256:{'a' * 64}"
    assert lines["arguments"] == "\"'-c' 'it''s'\""
    assert lines["environment"] == '"EBHPC_RESULTS=$$(CondorScratchDir)/results"'
    assert lines["container_service_names"] == "ebhpc0"
    assert lines["ebhpc0_container_port"] == "8080"
    assert "executable" not in lines
    assert lines["allowed_execute_duration"] == "60"
    assert "NumJobStarts" in lines["requirements"]


@examples(deadline=None)
@given(words=some.lists(some.text(alphabet=some.characters(exclude_categories=("Cs",)), max_size=30)))
def test_whatever_is_said_to_a_container_is_one_line_without_macros_of_its_own(words: list[str]) -> None:
    try:
        line = universe.arguments(words)
    except ValueError:
        assert any(universe._UNSAYABLE.search(word) for word in words)
        return
    assert "\n" not in line
    assert "$" not in line.replace("$(DOLLAR)", "").replace("$$(DOLLARDOLLAR)", "")
    assert line.count('"') % 2 == 0


def test_a_service_whose_time_is_over_has_done_what_it_should() -> None:
    one = session(executable=DockerContainer(image=IMAGE, network=WEB))
    held = records.Job(schedd="s", cluster=1, process=0, status=5, hold_code=3, hold_subcode=47, executing=5)
    said = native(held, 10.0)
    assert said is not None
    assert of_container(one, held, said).state == "SUCCEEDED"
    plain = session(executable=DockerContainer(image=IMAGE))
    over = of_container(plain, held, said)
    assert over.state == "FAILED"
    assert [str(told.kind) for told in over.messages] == ["urn:time-limit"]
    runs = replace(held, status=2, slot="slot1_1@host", ports={"ebhpc0": 32000})
    report = ports_report(one, runs, SETTINGS)
    assert report is not None
    assert [(port.port, port.outer) for port in report.ports] == [(8080, 32000)]
    own = ports_report(one, replace(runs, ports={}), SETTINGS)
    assert own is not None
    assert own.ports[0].outer == 8080
    podman = replace(SETTINGS.jobs, runtime=batch.ContainerRuntime(kind="podman", network="publish"))
    publishing = replace(SETTINGS, jobs=podman)
    assert ports_report(one, replace(runs, ports={}), publishing) is None
    assert ports_report(one, runs, publishing) == report
    assert "TARGET.HasDocker =?= true" in requirements(one, publishing)
    assert "HasDocker" not in requirements(plain, publishing) + requirements(one, SETTINGS)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"jobs": batch.JobSettings(root=Path("/scratch"))}, "staging: job"),
        ({"files": "shared"}, "needs files: transfer"),
        ({"s3_keys": None}, "needs s3_keys"),
    ],
)
def test_settings_that_do_not_fit_together_are_told(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        replace(SETTINGS, **wrong)
