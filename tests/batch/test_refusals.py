"""What jobs cannot do is refused before an offer, all reasons at once, each with its path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from ebhpc import batch, model
from ebhpc.model import (
    Compute,
    Demand,
    DockerContainer,
    DockerImage,
    DockerInternalPort,
    DockerNetwork,
    DockerPlatform,
    DockerPort,
    Executable,
    ExecutionRequest,
    IvoaBlock,
    IvoaData,
    JupyterNotebook,
    Message,
    ObsCore,
    Range,
    Request,
    S3Data,
    Shape,
    SimpleCompute,
    SimpleData,
    SimpleStorage,
    SingularityContainer,
)
from tests.batch.test_access import ShellCommand

IMAGE = DockerImage(locations=["quay.io/astro/tool:1"], digest="sha256:" + "a" * 64)
CONTAINER = DockerContainer(image=IMAGE, command=["true"])


class ClusterCompute(Compute, tag="https://example.org/kinds/compute/cluster.yaml"):
    """A kind of a plugin's own."""


def asked(executable: Executable, **more: Any) -> Request:
    """Return a request as the core reads it."""
    least = more.pop("least", Shape(cores=1, memory=1024))
    return Request(
        document=ExecutionRequest(executable=executable),
        executable=executable,
        compute=more.pop("compute", SimpleCompute()),
        demand=Demand(least=least, duration=60, earliest=0, latest=60),
        **more,
    )


def refused(request: Request, *, of: dict[str, Any] | None = None, **settings: Any) -> dict[str, Message]:
    """Return the refusals by their paths."""
    able = batch.abilities(batch.JobSettings(root=Path("/shared"), **settings), **(of or {}))
    return {(one.values or {})["path"]: one for one in batch.refusals(request, able)}


def test_what_jobs_can_do_is_not_refused() -> None:
    data = (
        SimpleData(location="https://example.org/a"),
        IvoaData(ivoa=IvoaBlock(obscore=ObsCore(access_url="http://example.org/b"))),
    )
    for executable in (CONTAINER, JupyterNotebook(location="https://example.org/n.ipynb")):
        assert refused(asked(executable, data=data)) == {}
    assert refused(asked(SingularityContainer(location="oras://example.org/x"))) == {}


def test_data_that_is_not_staged_is_refused() -> None:
    found = refused(asked(CONTAINER, data=(S3Data(), SimpleData(location="file:///etc/passwd"), IvoaData())))
    assert {path: one.kind for path, one in found.items()} == {
        "/data/0/kind": "urn:not-supported",
        "/data/1/location": "urn:policy-refused",
        "/data/2/ivoa/obscore/access_url": "urn:missing-required-value",
    }


def test_files_of_the_brokers_host_are_no_data_for_a_job_that_fetches_itself(tmp_path: Path) -> None:
    request = asked(CONTAINER, data=(SimpleData(location=f"file://{tmp_path}/x"),))
    assert refused(request, file_roots=[tmp_path]) == {}
    assert set(refused(request, file_roots=[tmp_path], staging="job")) == {"/data/0/location"}


@pytest.mark.parametrize(
    ("runtime", "executable", "path"),
    [
        ({"kind": "none"}, CONTAINER, "/executable"),
        ({"kind": "podman"}, SingularityContainer(location="https://example.org/x.sif"), "/executable"),
        ({"kind": "pyxis"}, DockerContainer(image=IMAGE), "/executable/command"),
        ({"kind": "apptainer"}, DockerContainer(image=IMAGE, environment={"a.b": "1"}), "/executable/environment/a.b"),
        ({"kind": "podman"}, DockerContainer(image=IMAGE, environment={"a b/c": ""}), "/executable/environment/a b~1c"),
        ({}, DockerContainer(image=IMAGE, environment={"A": "\0"}), "/executable/environment/A"),
        ({}, DockerContainer(image=IMAGE, environment={"A": "\ud800"}), "/executable/environment/A"),
        ({}, DockerContainer(image=IMAGE, command=["a", "\0"]), "/executable/command/1"),
        ({}, DockerContainer(image=IMAGE, entrypoint="\0"), "/executable/entrypoint"),
        ({}, DockerContainer(image=IMAGE, privileged=True), "/executable/privileged"),
        ({"registries": ["docker.io"]}, CONTAINER, "/executable/image/locations/0"),
    ],
)
def test_what_a_runtime_cannot_do_is_refused(runtime: dict[str, Any], executable: Executable, path: str) -> None:
    assert set(refused(asked(executable), runtime=batch.ContainerRuntime(**runtime))) == {path}


def test_ports_need_a_network() -> None:
    ports = DockerNetwork(ports=[DockerPort(internal=DockerInternalPort(port=80))])
    request = asked(DockerContainer(image=IMAGE, network=ports))
    assert refused(request) == {}
    without = batch.ContainerRuntime(kind="podman", network="none")
    assert set(refused(request, runtime=without)) == {"/executable/network/ports/0"}


def test_other_architectures_are_refused() -> None:
    image = DockerImage(locations=IMAGE.locations, digest=IMAGE.digest, platform=DockerPlatform(architecture="arm64"))
    assert set(refused(asked(DockerContainer(image=image)))) == {"/executable/image/platform/architecture"}
    assert refused(asked(DockerContainer(image=image)), architecture="arm64") == {}


def test_notebooks_need_a_site_that_has_them() -> None:
    found = refused(asked(JupyterNotebook(location="https://example.org/n.ipynb")), notebooks=False)
    assert str(found["/executable"]) == "This platform cannot run notebooks: its nodes have nothing to run them with."


def test_kinds_of_a_plugins_own_are_taken_where_it_says_so() -> None:
    request = asked(ShellCommand(), compute=ClusterCompute())
    assert set(refused(request)) == {"/executable/kind", "/compute/kind"}
    of = {"executables": (ShellCommand,), "computes": (SimpleCompute, ClusterCompute)}
    assert refused(request, of=of) == {}


def test_more_than_the_largest_node_is_refused() -> None:
    least = Shape(cores=9, memory=9 * 1024, devices={"gpu": 3})
    most = Shape(cores=8, memory=8 * 1024, devices={"gpu": 2})
    found = refused(asked(ShellCommand(), least=least), of={"most": most, "executables": (ShellCommand,)})
    assert set(found) == {"/compute/cores/min", "/compute/memory/min", "/compute/gpus/min"}


def test_several_nodes_are_for_executables_that_can_use_them() -> None:
    def told(executable: Executable, nodes: int) -> set[str]:
        request = asked(executable, compute=model.ClusterCompute())
        several = msgspec.structs.replace(request, demand=msgspec.structs.replace(request.demand, nodes=nodes))
        return set(refused(several, of={"executables": (ShellCommand,)}))

    for executable in (CONTAINER, JupyterNotebook(location="https://example.org/n.ipynb")):
        assert told(executable, 1) == set()
        assert told(executable, 2) == {"/compute/nodes/min"}
    assert told(ShellCommand(), 3) == set()


def test_local_disk_space_is_no_device_to_hand_to_a_container() -> None:
    assert refused(asked(CONTAINER, least=Shape(cores=1, memory=1, devices={"scratch": 100}))) == {}


def test_devices_reach_containers_where_the_site_says_how() -> None:
    request = asked(CONTAINER, least=Shape(cores=1, memory=1, devices={"gpu": 1}))
    assert set(refused(request)) == {"/compute"}
    assert refused(request, of={"devices": ("gpu",)}) == {}


def test_more_storage_than_a_session_gets_is_refused() -> None:
    request = asked(CONTAINER, storage=(SimpleStorage(size=Range(min=60)), SimpleStorage(size=Range(min=60))))
    assert set(refused(request)) == {"/storage/1/size/min"}
