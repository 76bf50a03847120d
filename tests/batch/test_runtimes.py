"""What each container runtime is told. Where one is not on this machine, a recorder stands in its place.

The recorder is a script that writes down its arguments and environment and does nothing else: it shows that what is
told arrives whole, not that the runtime understands it. Apptainer itself runs in the batch systems' labs.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as examples
from hypothesis import strategies as some

from ebhpc import batch
from ebhpc.batch.job import job
from ebhpc.model import (
    Allocation,
    DockerContainer,
    DockerImage,
    DockerInternalPort,
    DockerNetwork,
    DockerPort,
    Metadata,
    SimpleStorage,
    SimpleVolume,
    SingularityContainer,
)
from tests.batch.conftest import Site, busybox, said
from tests.batch.test_containers import HOSTILE
from tests.lab import containers
from tests.labs import require
from tests.local.webserver import WebServer

DIGEST = "sha256:" + "a" * 64
IMAGE = DockerImage(locations=["quay.io/astro/tool:1", "busybox"], digest=DIGEST)
SHELL_NAMES = some.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True).map(lambda name: f"V{name}")

RECORDER = """#!/usr/bin/python3 -I
import json, os, sys
with open({file!r}, "a") as file:
    file.write(json.dumps([sys.argv[1:], dict(os.environ)]) + "\\n")
if "pull" in sys.argv:
    sys.exit({refuse!r} in " ".join(sys.argv))
"""


class Recorder:
    """Stands in for a container runtime, and keeps what it was told."""

    def __init__(self, place: Path, name: str, refuse: str = "\0") -> None:
        self.file = place / f"{name}.calls"
        self.program = place / name
        self.program.write_text(RECORDER.format(file=str(self.file), refuse=refuse))
        self.program.chmod(0o755)

    def calls(self) -> list[tuple[list[str], dict[str, str]]]:
        """Return the arguments and environment of each call."""
        lines = self.file.read_text().splitlines()
        self.file.unlink()
        return [(argv, environment) for argv, environment in map(json.loads, lines)]


def test_apptainer_fetches_by_digest_and_lets_no_shell_at_the_words(site: Site, tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "apptainer", refuse="quay.io")
    runtime = batch.ContainerRuntime(
        program=str(recorder.program),
        options=["--quiet"],
        pull_options=["--no-https"],
        run_options=["--writable-tmpfs"],
        device_options={"gpu": ["--nv"]},
        environment={"APPTAINER_CACHEDIR": "/scratch/cache"},
    )
    words = ["$(id)", "a b", "", "\n"]
    session = site.session(
        DockerContainer(image=IMAGE, command=words, environment={"A": "$HOME\n`id`"}),
        storage=(SimpleStorage(meta=Metadata(name="s")),),
        volumes=(SimpleVolume(path="/data", mode="READONLY", resource="s"),),
    )
    share = Allocation(node="n1", cores=1, memory=1, devices={"gpu": 1})
    session = msgspec.structs.replace(session, allocations=(share,))
    seen = site.run(session, site.settings(runtime=runtime))
    assert seen.state == "SUCCEEDED", said(seen)
    top = batch.session_directory(site.root, session.uuid).path
    first, second, (argv, environment) = recorder.calls()
    pull = ["--quiet", "pull", "--force", "--no-https", f"{top}/stage/image.sif"]
    assert first[0] == [*pull, f"docker://quay.io/astro/tool@{DIGEST}"]
    assert second[0] == [*pull, f"docker://docker.io/library/busybox@{DIGEST}"]
    assert argv == [
        *("--quiet", "run", "--containall", "--no-home", "--no-umask", "--pwd", "/"),
        *("--workdir", f"{top}/work/.apptainer"),
        *("--bind", f"{top}/storage/0:/data:ro", "--bind", f"{top}/output/results:/ebhpc/results:rw"),
        *("--nv", "--writable-tmpfs", "--no-eval", f"{top}/stage/image.sif"),
        *words,
    ]
    assert environment["APPTAINERENV_A"] == "$HOME\n`id`"
    assert environment["APPTAINERENV_EBHPC_RESULTS"] == "/ebhpc/results"
    assert environment["APPTAINER_CACHEDIR"] == "/scratch/cache"
    assert "A" not in environment


def test_an_image_that_no_location_has_ends_the_session(site: Site, tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "apptainer", refuse="docker://")
    runtime = batch.ContainerRuntime(program=str(recorder.program))
    seen = site.run(site.session(DockerContainer(image=IMAGE)), site.settings(runtime=runtime))
    assert seen.state == "FAILED"
    assert f"The image docker://quay.io/astro/tool@{DIGEST} cannot be fetched" in said(seen)
    assert len(recorder.calls()) == 2


@pytest.mark.parametrize(
    ("entrypoint", "command", "ends"),
    [
        (None, None, ["run", "IMAGE"]),
        (None, ["a"], ["run", "IMAGE", "a"]),
        ("/bin/x", ["a"], ["exec", "IMAGE", "/bin/x", "a"]),
        ("", ["a"], ["exec", "IMAGE", "a"]),
        ("/bin/x", None, ["exec", "IMAGE", "/bin/x"]),
    ],
)
def test_apptainer_knows_entrypoints_by_exec(
    site: Site, entrypoint: str | None, command: list[str] | None, ends: list[str]
) -> None:
    session = site.session(DockerContainer(image=IMAGE, entrypoint=entrypoint, command=command))
    argv = job(session, site.settings())["argv"]
    at = argv.index("\0/stage/image.sif")
    assert [argv[1], "IMAGE", *argv[at + 1 :]] == ends


@pytest.mark.parametrize("name", ["apptainer", "singularity"])
def test_a_singularity_image_is_fetched_and_run(site: Site, tmp_path: Path, web: WebServer, name: str) -> None:
    recorder = Recorder(tmp_path, name)
    runtime = batch.ContainerRuntime(program=str(recorder.program))
    session = site.session(SingularityContainer(location=web.put("/image.sif", b"SIF")))
    settings = site.settings(runtime=runtime, environment={"https_proxy": "http://proxy:3128"})
    assert site.run(session, settings).state == "SUCCEEDED"
    directory = batch.session_directory(site.root, session.uuid)
    ((argv, environment),) = recorder.calls()
    assert argv[-1] == f"{directory.path}/stage/image.sif"
    assert (directory.stage / "image.sif").read_bytes() == b"SIF"
    prefix = {"apptainer": "APPTAINERENV_", "singularity": "SINGULARITYENV_"}[name]
    assert environment[f"{prefix}https_proxy"] == "http://proxy:3128"
    assert environment[f"{prefix}EBHPC_CORES"] == "1"


def test_an_image_of_apptainers_own_schemes_is_fetched_on_the_node(site: Site, tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "apptainer")
    runtime = batch.ContainerRuntime(program=str(recorder.program))
    session = site.session(SingularityContainer(location="oras://registry/x:1"))
    assert site.run(session, site.settings(runtime=runtime)).state == "SUCCEEDED"
    pull, run = recorder.calls()
    assert pull[0][-1] == "oras://registry/x:1"
    assert run[0][0] == "run"


def test_pyxis_is_told_by_options_and_variables(site: Site, tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "srun")
    runtime = batch.ContainerRuntime(kind="pyxis", program=str(recorder.program), options=["--ntasks=1"])
    variables = {"A": "1 $x", "PATH": "/nowhere", "LD_PRELOADED": "\n"}
    session = site.session(DockerContainer(image=IMAGE, command=["run", "$(id)"], environment=variables))
    assert site.run(session, site.settings(runtime=runtime)).state == "SUCCEEDED"
    top = batch.session_directory(site.root, session.uuid).path
    ((argv, environment),) = recorder.calls()
    assert argv == [
        *("--ntasks=1", "--no-container-mount-home", "--container-writable"),
        f"--container-image=quay.io#astro/tool@{DIGEST}",
        f"--container-mounts={top}/output/results:/ebhpc/results:rw",
        "--container-env=EBHPC_RESULTS,A,PATH,LD_PRELOADED",
        *("--container-entrypoint", "run", "$(id)"),
    ]
    assert {name: environment[name] for name in variables} == variables


@pytest.fixture
def bundles(registry: containers.Registry) -> batch.ContainerRuntime:
    """The runtime that unpacks an image and runs the bundle, by runc."""
    require(shutil.which("umoci"), "umoci is not installed")
    require(shutil.which("runc", path="/usr/sbin:/usr/bin:/sbin:/bin"), "runc is not installed")
    return batch.ContainerRuntime(
        kind="oci",
        pull_options=["--src-tls-verify=false"],
        oci_command=("/usr/sbin/runc", "run", "--bundle", "{bundle}", "{name}"),
    )


@pytest.mark.containers
def test_a_bundle_runs_with_its_volumes_and_its_words(
    site: Site, registry: containers.Registry, bundles: batch.ContainerRuntime
) -> None:
    session = site.session(
        busybox(
            registry, "sh", "-c", "echo $A; echo kept > $EBHPC_RESULTS/a; echo x > /s/x; exit 4", environment={"A": "1"}
        ),
        storage=(SimpleStorage(meta=Metadata(name="s")),),
        volumes=(SimpleVolume(path="/s", mode="READWRITE", resource="s"),),
    )
    settings = site.settings(runtime=bundles)
    seen = site.run(session, settings)
    assert (seen.state, seen.exit_code) == ("FAILED", 4), (said(seen), site.output(session, "stderr"))
    assert site.output(session) == b"1\n"
    assert site.output(session, "results/a") == b"kept\n"
    batch.cleanup(session, settings)
    assert site.output(session, "storage/s/x") == b"x\n"


@pytest.mark.containers
@examples(
    max_examples=4,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
@given(words=some.lists(HOSTILE, max_size=8), variables=some.dictionaries(SHELL_NAMES, HOSTILE, max_size=6))
def test_whatever_a_bundle_is_given_arrives_as_it_is(
    site: Site,
    registry: containers.Registry,
    bundles: batch.ContainerRuntime,
    words: list[str],
    variables: dict[str, str],
) -> None:
    script = 'cat /proc/$$/environ > /ebhpc/results/environ; for word; do printf "%s\\0" "$word"; done'
    session = site.session(busybox(registry, "sh", "-c", script, "sh", *words, environment=variables))
    seen = site.run(session, site.settings(runtime=bundles))
    assert seen.state == "SUCCEEDED", (said(seen), site.output(session, "stderr"))
    assert site.output(session).split(b"\0")[:-1] == [word.encode() for word in words]
    lines: list[Any] = site.output(session, "results/environ").split(b"\0")
    assert {f"{name}={value}".encode() for name, value in variables.items()} <= set(lines)


@pytest.mark.containers
def test_a_digest_that_is_not_there_makes_no_bundle(
    site: Site, registry: containers.Registry, bundles: batch.ContainerRuntime
) -> None:
    image = DockerImage(locations=[registry.location], digest=DIGEST)
    seen = site.run(site.session(DockerContainer(image=image)), site.settings(runtime=bundles))
    assert "manifest unknown" in said(seen)


def test_ports_are_published_by_podman_where_the_site_wants_that(site: Site) -> None:
    runtime = batch.ContainerRuntime(kind="podman", network="publish")
    ports = [
        DockerPort(internal=DockerInternalPort(port=80), protocol="HTTP", path="x"),
        DockerPort(internal=DockerInternalPort(port=81), access=False),
    ]
    session = site.session(DockerContainer(image=IMAGE, network=DockerNetwork(ports=ports)))
    wanted = job(session, site.settings(runtime=runtime))
    assert "--publish=80" in wanted["argv"]
    assert "--publish=81" not in wanted["argv"]
    assert wanted["ports"] == {
        "wanted": [{"port": 80, "protocol": "HTTP", "path": "/x"}],
        "look": ["podman", "port", f"ebhpc-{session.uuid}"],
    }
    assert wanted["service"] is True


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "apptainer", "network": "publish"},
        {"kind": "pyxis", "network": "none"},
        {"kind": "oci", "oci_command": ()},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"network|oci_command"):
        batch.ContainerRuntime(**wrong)


@pytest.mark.parametrize("root", ["relative", "/a b", "/a:b", "/a/../b", "/a,b", "/ä"])
def test_a_root_that_mounts_cannot_name_is_refused(root: str) -> None:
    with pytest.raises(ValueError, match="root"):
        batch.JobSettings(root=Path(root))
