"""What a local platform refuses: everything wrong at once, each with its path."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ebhpc.config import SettingsError
from ebhpc.local import ebhpc_platform
from ebhpc.local.platform import LocalPlatform
from ebhpc.model import (
    ClusterCompute,
    DataLink,
    Demand,
    DockerContainer,
    DockerImage,
    DockerInternalPort,
    DockerNetwork,
    DockerPlatform,
    DockerPort,
    Executable,
    IvoaBlock,
    IvoaData,
    JupyterNotebook,
    Metadata,
    ObsCore,
    Range,
    Request,
    RucioData,
    S3Data,
    Shape,
    SimpleData,
    SimpleStorage,
    SimpleVolume,
    SingularityContainer,
    SkaoData,
    UnknownElement,
)
from tests.labs import require
from tests.local.conftest import HOUR, asked

NOTEBOOK = JupyterNotebook(location="https://example.org/n.ipynb")
DIGEST = "sha256:" + "ab" * 32
GOOD = DockerContainer(image=DockerImage(locations=["quay.io/a/b:1"], digest=DIGEST))


def build(place: Path, **settings: Any) -> LocalPlatform:
    """Build a platform as the broker does."""
    built = ebhpc_platform(kind="local", name="here", settings=settings, state=place / "state")
    assert isinstance(built, LocalPlatform)
    return built


@pytest.fixture
def platform(tmp_path: Path) -> LocalPlatform:
    """A platform of two cores and 4 GiB, whose engine needs not be there."""
    return build(tmp_path, cores=2, memory_gib=4, overcommit=True)


def reasons(platform: LocalPlatform, request: Request) -> list[tuple[str, str]]:
    """Return kind and path of each refusal, without the "urn:"; whether engines are there is not the subject."""
    found = []
    for one in platform.ebhpc_refuses(request=request):
        assert one.kind is not None
        assert one.values is not None
        assert one.level == "ERROR"
        assert str(one)
        if one.values["path"] != "/executable":
            found.append((one.kind.removeprefix("urn:"), one.values["path"]))
    return found


def container(**more: Any) -> DockerContainer:
    """Return a container that would run, changed."""
    image = {"locations": ["quay.io/a/b:1"], "digest": DIGEST, **more.pop("image", {})}
    return DockerContainer(image=DockerImage(**image), **more)


def test_what_can_run_is_not_refused(platform: LocalPlatform) -> None:
    assert reasons(platform, asked(NOTEBOOK)) == []
    assert reasons(platform, asked(GOOD)) == []


@pytest.mark.parametrize(
    ("executable", "expected"),
    [
        (JupyterNotebook(), ("missing-required-value", "/executable/location")),
        (JupyterNotebook(location="ftp://x/y"), ("not-supported", "/executable/location")),
        (JupyterNotebook(location="file:///etc/passwd"), ("policy-refused", "/executable/location")),
        (JupyterNotebook(location="nonsense"), ("not-supported", "/executable/location")),
        (container(privileged=True), ("policy-refused", "/executable/privileged")),
        (container(image={"locations": []}), ("missing-required-value", "/executable/image/locations")),
        (container(image={"digest": None}), ("missing-required-value", "/executable/image/digest")),
        (container(image={"digest": "latest"}), ("invalid-value", "/executable/image/digest")),
        (container(image={"digest": "sha256:AB"}), ("invalid-value", "/executable/image/digest")),
        (container(image={"locations": ["--help"]}), ("invalid-value", "/executable/image/locations/0")),
        (container(image={"locations": ["a/b", "dir:/etc"]}), ("invalid-value", "/executable/image/locations/1")),
        (
            container(image={"platform": DockerPlatform(architecture="s390x")}),
            ("not-supported", "/executable/image/platform/architecture"),
        ),
        (
            container(image={"platform": DockerPlatform(os="windows")}),
            ("not-supported", "/executable/image/platform/os"),
        ),
        (container(environment={"A B": "x"}), ("invalid-value", "/executable/environment/A B")),
        (container(environment={"A/B": "x"}), ("invalid-value", "/executable/environment/A~1B")),
        (container(environment={"A": "\0"}), ("invalid-value", "/executable/environment/A")),
        (container(environment={"A": "x" * 200_000}), ("invalid-value", "/executable/environment/A")),
        (container(command=["a", "b\0"]), ("invalid-value", "/executable/command/1")),
        (container(entrypoint="\0"), ("invalid-value", "/executable/entrypoint")),
    ],
)
def test_an_executable_that_cannot_run_is_refused(
    platform: LocalPlatform, executable: Executable, expected: tuple[str, str]
) -> None:
    assert reasons(platform, asked(executable)) == [expected]


@pytest.mark.parametrize(
    ("port", "kind", "path"),
    [
        (DockerPort(), "missing-required-value", "internal/port"),
        (DockerPort(internal=DockerInternalPort(port=0)), "invalid-value", "internal/port"),
        (DockerPort(internal=DockerInternalPort(port=65536)), "invalid-value", "internal/port"),
        (DockerPort(internal=DockerInternalPort(port=80), protocol="SCTP"), "invalid-value", "protocol"),
        (DockerPort(internal=DockerInternalPort(port=80), protocol="UDP"), "not-supported", "protocol"),
        (DockerPort(internal=DockerInternalPort(port=80), path="/a\r\nb"), "invalid-value", "path"),
    ],
)
def test_a_port_that_cannot_be_published_is_refused(
    platform: LocalPlatform, port: DockerPort, kind: str, path: str
) -> None:
    good = DockerPort(internal=DockerInternalPort(port=65535), protocol="HTTPS", path="/lab")
    network = DockerNetwork(ports=[good, port])
    expected = [(kind, f"/executable/network/ports/1/{path}")]
    assert reasons(platform, asked(container(network=network))) == expected


def test_registries_may_be_limited(tmp_path: Path) -> None:
    platform = build(tmp_path, runtime={"registries": ["quay.io"]})
    executable = container(image={"locations": ["quay.io/a/b", "busybox", "docker.io/a/b"]})
    assert reasons(platform, asked(executable)) == [
        ("policy-refused", "/executable/image/locations/1"),
        ("policy-refused", "/executable/image/locations/2"),
    ]


def test_without_an_engine_containers_are_refused_with_the_reason(tmp_path: Path) -> None:
    platform = build(tmp_path, runtime={"program": "no-such-engine"})
    (why,) = platform.ebhpc_refuses(request=asked(GOOD))
    assert why.kind == "urn:not-supported"
    assert "no-such-engine is not installed" in str(why)


def test_an_engine_that_does_not_work_is_none(tmp_path: Path) -> None:
    broken = tmp_path / "podman"
    broken.write_text("#!/bin/sh\necho the storage is on fire >&2\nexit 125\n")
    broken.chmod(0o755)
    (why,) = build(tmp_path, runtime={"program": str(broken)}).ebhpc_refuses(request=asked(GOOD))
    assert "the storage is on fire" in str(why)


def test_without_apptainer_singularity_is_refused_with_the_reason(tmp_path: Path) -> None:
    platform = build(tmp_path, apptainer="no-such-apptainer")
    executable = SingularityContainer(location="https://example.org/image.sif")
    (why,) = platform.ebhpc_refuses(request=asked(executable))
    assert (why.kind, "apptainer is not installed" in str(why)) == ("urn:not-supported", True)


def test_with_apptainer_only_urls_that_it_reads_are_taken(tmp_path: Path) -> None:
    # Any program will do: it is not run before an image is fetched
    platform = build(tmp_path, apptainer="true")
    for url in ("https://example.org/i.sif", "oras://ghcr.io/a/b:1", "docker://busybox", "library://a/b/c"):
        assert list(platform.ebhpc_refuses(request=asked(SingularityContainer(location=url)))) == []
    for url in ("shub://a/b", "file:///etc/passwd", "", "instance://x"):
        assert len(list(platform.ebhpc_refuses(request=asked(SingularityContainer(location=url))))) == 1


def test_without_what_runs_notebooks_they_are_refused_with_the_reason(tmp_path: Path) -> None:
    (why,) = build(tmp_path, python="no-such-python").ebhpc_refuses(request=asked(NOTEBOOK))
    assert "no-such-python cannot be run" in str(why)
    (why,) = build(tmp_path, kernel="no-such-kernel").ebhpc_refuses(request=asked(NOTEBOOK))
    assert "there is no Jupyter kernel no-such-kernel" in str(why)


def test_more_than_the_node_has_is_refused(platform: LocalPlatform) -> None:
    least = Shape(cores=3, memory=5 * 1024, devices={"gpu": 1})
    demand = Demand(least=least, duration=HOUR, earliest=0, latest=HOUR, nodes=2)
    assert reasons(platform, asked(NOTEBOOK, demand=demand)) == [
        ("resource-limit", "/compute/nodes/min"),
        ("resource-limit", "/compute/cores/min"),
        ("resource-limit", "/compute/memory/min"),
        ("resource-limit", "/compute/gpus/min"),
    ]


def test_a_cluster_of_one_node_with_the_declared_devices_is_taken(tmp_path: Path) -> None:
    platform = build(tmp_path, devices={"gpu": 2, "gpu:a100": 2})

    def told(devices: dict[str, int], executable: Executable = NOTEBOOK) -> list[tuple[str, str]]:
        least = Shape(cores=1, memory=1024, devices=devices)
        demand = Demand(least=least, duration=HOUR, earliest=0, latest=HOUR)
        return reasons(platform, asked(executable, demand=demand, compute=ClusterCompute()))

    assert told({}) == []
    assert told({"gpu": 2, "gpu:a100": 2}) == []
    assert told({"gpu": 1, "gpu:h100": 1}) == [("resource-limit", "/compute/gpus/model")]
    assert told({"scratch": 10}) == [("resource-limit", "/compute/scratch/min")]


def test_storage_above_the_limit_is_refused(tmp_path: Path) -> None:
    platform = build(tmp_path, storage_gib=10)
    fits = (SimpleStorage(size=Range(min=4)), SimpleStorage(size=Range(min=6)), SimpleStorage())
    assert reasons(platform, asked(NOTEBOOK, storage=fits)) == []
    large = (*fits, SimpleStorage(size=Range(min=1)))
    assert reasons(platform, asked(NOTEBOOK, storage=large)) == [("resource-limit", "/storage/3/size/min")]


def test_data_that_cannot_be_staged_is_refused(platform: LocalPlatform) -> None:
    data = (
        S3Data(),
        RucioData(),
        SkaoData(),
        SimpleData(),
        SimpleData(location="gopher://x"),
        IvoaData(),
        IvoaData(ivoa=IvoaBlock(ivoid="ivo://x")),
        IvoaData(ivoa=IvoaBlock(obscore=ObsCore(access_url="vos://x"))),
        IvoaData(ivoa=IvoaBlock(datalink=DataLink(access_url="https://x/y", content_length=-1))),
        IvoaData(ivoa=IvoaBlock(datalink=DataLink(access_url="https://x/y", content_length=2**50))),
        IvoaData(ivoa=IvoaBlock(datalink=DataLink(access_url="https://x/y", content_length=2**20))),
    )
    assert reasons(platform, asked(NOTEBOOK, data=data)) == [
        ("not-supported", "/data/0/kind"),
        ("not-supported", "/data/1/kind"),
        ("not-supported", "/data/2/kind"),
        ("missing-required-value", "/data/3/location"),
        ("not-supported", "/data/4/location"),
        ("missing-required-value", "/data/5/ivoa/obscore/access_url"),
        ("missing-required-value", "/data/6/ivoa/obscore/access_url"),
        ("not-supported", "/data/7/ivoa/obscore/access_url"),
        ("invalid-value", "/data/8/ivoa/datalink/content_length"),
        ("resource-limit", "/data/9/ivoa/datalink/content_length"),
    ]


@pytest.mark.parametrize(
    "path", [None, "", "relative", "/", "//", "/proc", "/sys/x", "/dev", "/a/../b", "/a:b", "/a,b", '/a"', "/a\n"]
)
def test_a_container_cannot_have_a_volume_there(platform: LocalPlatform, path: str | None) -> None:
    storage = (SimpleStorage(meta=Metadata(name="s")),)
    volumes = (SimpleVolume(path=path, resource="s"),)
    expected = [("invalid-value", "/compute/volumes/0/path")]
    assert reasons(platform, asked(GOOD, storage=storage, volumes=volumes)) == expected


@pytest.mark.parametrize("path", ["/data", "", ".", "..", "a/../../b", "./x", ".ebhpc-kernel"])
def test_a_notebook_has_volumes_only_in_its_working_directory(platform: LocalPlatform, path: str) -> None:
    storage = (SimpleStorage(meta=Metadata(name="s")),)
    volumes = (SimpleVolume(path=path, resource="s"),)
    expected = [("not-supported", "/compute/volumes/0/path")]
    assert reasons(platform, asked(NOTEBOOK, storage=storage, volumes=volumes)) == expected


def test_volumes_are_of_something_and_each_at_its_own_place(platform: LocalPlatform) -> None:
    uuid = "0c1f6e7a-6a5e-4d5b-9f5c-4f3b7a1e2d3c"
    storage = (SimpleStorage(meta=Metadata(name="s", uuid=uuid)),)
    twice = (SimpleVolume(path="/a", resource="s"), SimpleVolume(path="/a/", resource=uuid))
    assert reasons(platform, asked(GOOD, storage=storage, volumes=twice)) == [
        ("duplicate-resource", "/compute/volumes/1/path")
    ]
    results = (SimpleVolume(path="/ebhpc/results", resource="s"),)
    assert reasons(platform, asked(GOOD, storage=storage, volumes=results)) == [
        ("duplicate-resource", "/compute/volumes/0/path")
    ]
    nothing = (SimpleVolume(path="/a", resource="t"),)
    assert reasons(platform, asked(GOOD, storage=storage, volumes=nothing)) == [
        ("resource-not-found", "/compute/volumes")
    ]


def test_what_nobody_here_knows_is_refused_with_its_kind(platform: LocalPlatform) -> None:
    unknown: Any = UnknownElement(kind="urn:example:other", raw={})
    request = asked(unknown, compute=unknown, storage=(unknown,), data=(unknown,), volumes=(unknown,))
    found = {(one.values or {})["path"]: str(one) for one in platform.ebhpc_refuses(request=request)}
    assert set(found) == {
        "/executable/kind",
        "/compute/kind",
        "/storage/0/kind",
        "/data/0/kind",
        "/compute/volumes/0/kind",
    }
    assert all("urn:example:other" in text for text in found.values())


def test_all_problems_are_told_at_once(platform: LocalPlatform) -> None:
    executable = container(privileged=True, image={"digest": None}, environment={"=": ""})
    request = asked(executable, data=(S3Data(),), volumes=(SimpleVolume(path="x", resource="y"),))
    assert len(reasons(platform, request)) == 5


# --- settings ----------------------------------------------------------------------------------------------------


def test_another_kind_is_somebody_elses(tmp_path: Path) -> None:
    assert ebhpc_platform(kind="slurm", name="x", settings={}, state=tmp_path) is None


def test_a_platform_offers_what_the_host_has(tmp_path: Path) -> None:
    snapshot = build(tmp_path).ebhpc_snapshot(now=17)
    (node,) = snapshot.nodes
    assert (snapshot.platform, snapshot.taken, node.state) == ("here", 17, "UP")
    assert node.cores == len(os.sched_getaffinity(0))
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    assert 0 < node.memory < total


def test_a_platform_offers_less_where_it_is_told(tmp_path: Path) -> None:
    platform = build(tmp_path, node="tiny", cores=1, memory_gib=0.5, devices={"gpu": 2})
    (node,) = platform.ebhpc_snapshot(now=0).nodes
    assert (node.name, node.cores, node.memory, node.devices) == ("tiny", 1, 512, {"gpu": 2})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"cores": 100_000}, "settings.cores: this host has"),
        ({"memory_gib": 900_000}, "settings.memory_gib: this host has"),
        ({"core": 1}, "did you mean cores?"),
        ({"cores": 0}, "settings.cores"),
        ({"runtime": {"network": "wifi"}}, "settings.runtime.network"),
        ({"runtime": {"option": []}}, "did you mean options?"),
        ({"port_range": [9000, 8000]}, "port_range"),
        ({"port_range": [9000, 70000]}, "port_range"),
        ({"user": "nobody-of-that-name"}, "user"),
        ({"file_roots": ["relative"]}, "file_roots"),
        ({"grace": 10}, "grace"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError) as wrong:
        build(tmp_path, **settings)
    assert words in str(wrong.value)


def test_more_than_the_host_has_may_be_offered_in_tests(tmp_path: Path) -> None:
    (node,) = build(tmp_path, cores=64, memory_gib=4096, overcommit=True).ebhpc_snapshot(now=0).nodes
    assert (node.cores, node.memory) == (64, 4096 * 1024)


def test_a_check_says_how_things_are(tmp_path: Path) -> None:
    platform = build(tmp_path, runtime={"program": "no-such-engine"}, cores=640, overcommit=True)
    found = {finding.subject: finding for finding in platform.ebhpc_check()}
    assert {"capacity", "state", "limits", "notebooks", "containers", "apptainer", "user"} <= set(found)
    assert found["capacity"].level == "WARN"
    assert found["containers"].level == "WARN"
    assert found["notebooks"].level == "INFO"
    assert found["state"].level in ("INFO", "WARN")


def test_a_check_finds_a_state_directory_that_cannot_be_written(tmp_path: Path) -> None:
    require(os.path.isdir("/proc/sys"), "/proc is not mounted")
    platform = ebhpc_platform(kind="local", name="here", settings={}, state=Path("/proc/sys/ebhpc"))
    assert isinstance(platform, LocalPlatform)
    found = {finding.subject: finding for finding in platform.ebhpc_check()}
    assert found["state"].level == "ERROR"
