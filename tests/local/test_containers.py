"""Containers by a real podman, from a real registry."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest

from ebhpc.model import (
    DockerContainer,
    DockerImage,
    DockerInternalPort,
    DockerNetwork,
    DockerPlatform,
    DockerPort,
    Metadata,
    Observation,
    Range,
    Session,
    SimpleData,
    SimpleStorage,
    SimpleVolume,
)
from ebhpc.plugins import SessionFailed
from tests.lab.containers import Podman, Registry
from tests.local.conftest import Workshop, said
from tests.local.webserver import WebServer

pytestmark = [pytest.mark.lab, pytest.mark.containers]


def container(registry: Registry, *command: str, **more: Any) -> DockerContainer:
    """Return a container of the lab's image."""
    image = more.pop("image", None) or DockerImage(locations=[registry.location], digest=registry.digest)
    return DockerContainer(image=image, command=list(command), **more)


@pytest.fixture
def no_images(podman: Podman) -> None:
    """No image in podman's storage: it knows one by its digest, whatever the registry."""
    podman.run("rmi", "--all", "--force")


def run(workshop: Workshop, runtime: dict[str, Any], executable: DockerContainer, **more: Any) -> tuple[Any, Session]:
    """Run a container to its end."""
    platform = workshop.platform(runtime=runtime)
    session = workshop.session(platform, executable, **more)
    return workshop.run(platform, session), session


def fetched(url: str) -> str:
    """Return the text at a URL."""
    with urllib.request.urlopen(url, timeout=15) as answer:
        text: str = answer.read().decode()
    return text


def test_a_container_is_pulled_by_its_digest_and_runs(
    workshop: Workshop, registry: Registry, podman: Podman, runtime: dict[str, Any]
) -> None:
    platform = workshop.platform(runtime=runtime)
    executable = container(registry, "sh", "-c", "echo out; echo err >&2; id -u")
    session = workshop.session(platform, executable)
    seen = workshop.run(platform, session)
    assert (seen.state, seen.exit_code) == ("SUCCEEDED", 0), said(seen) + workshop.log(session)
    assert workshop.output(platform, session) == "out\n0\n"
    assert workshop.output(platform, session, "stderr") == "err\n"
    platform.ebhpc_cleanup(session=session)
    assert podman.containers() == []


def test_its_exit_code_is_told(workshop: Workshop, registry: Registry, runtime: dict[str, Any]) -> None:
    seen, _ = run(workshop, runtime, container(registry, "sh", "-c", "exit 42"))
    assert (seen.state, seen.exit_code, said(seen)) == ("FAILED", 42, "The job ended with exit code 42.")


def test_an_entrypoint_is_one_word_whatever_it_looks_like(
    workshop: Workshop, registry: Registry, runtime: dict[str, Any]
) -> None:
    platform = workshop.platform(runtime=runtime)
    session = workshop.session(platform, container(registry, "--network=host", "$HOME", entrypoint="echo"))
    assert workshop.run(platform, session).state == "SUCCEEDED"
    assert workshop.output(platform, session) == "--network=host $HOME\n"
    seen, _ = run(workshop, runtime, container(registry, entrypoint='["sh", "-c", "echo fooled"]'))
    assert (seen.state, seen.exit_code) == ("FAILED", 127)
    assert "has no such command" in said(seen)


def test_a_digest_that_no_registry_has_fails_the_session(
    workshop: Workshop, registry: Registry, runtime: dict[str, Any]
) -> None:
    platform = workshop.platform(runtime=runtime)
    image = DockerImage(locations=[registry.location], digest="sha256:" + "ab" * 32)
    session = workshop.session(platform, container(registry, "true", image=image))
    with pytest.raises(SessionFailed) as failed:
        platform.ebhpc_prepare(session=session)
    (why,) = failed.value.messages
    assert why.kind == "urn:image-digest-mismatch"
    assert why.values is not None
    assert why.values["path"] == "/executable/image/digest"


def test_an_image_that_is_not_there_fails_the_session(
    workshop: Workshop, registry: Registry, runtime: dict[str, Any], no_images: None
) -> None:
    platform = workshop.platform(runtime=runtime)
    image = DockerImage(locations=[f"{registry.address}/no/such:1"], digest=registry.digest)
    session = workshop.session(platform, container(registry, "true", image=image))
    with pytest.raises(SessionFailed) as failed:
        platform.ebhpc_prepare(session=session)
    assert failed.value.messages[0].kind in ("urn:resource-not-found", "urn:image-digest-mismatch")


def test_a_registry_that_does_not_answer_is_tried_again(
    workshop: Workshop, registry: Registry, runtime: dict[str, Any], no_images: None
) -> None:
    platform = workshop.platform(runtime=runtime)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{silent.getsockname()[1]}/ebhpc/busybox:1"
    image = DockerImage(locations=[nobody], digest=registry.digest)
    session = workshop.session(platform, container(registry, "true", image=image))
    with pytest.raises(Exception, match="refused") as failed:
        platform.ebhpc_prepare(session=session)
    assert not isinstance(failed.value, SessionFailed)


def test_the_next_location_is_tried(
    workshop: Workshop, registry: Registry, runtime: dict[str, Any], no_images: None
) -> None:
    elsewhere = f"{registry.address}/no/such:1"
    image = DockerImage(locations=[elsewhere, registry.location], digest=registry.digest)
    seen, _ = run(workshop, runtime, container(registry, "true", image=image))
    assert seen.state == "SUCCEEDED"


def test_an_image_for_another_machine_fails_the_session(
    workshop: Workshop, registry: Registry, runtime: dict[str, Any]
) -> None:
    platform = workshop.platform(runtime=runtime)
    image = DockerImage(
        locations=[registry.location],
        digest=registry.digest,
        platform=DockerPlatform(architecture="arm64", os="linux"),
    )
    session = workshop.session(platform, container(registry, "true", image=image))
    with pytest.raises(SessionFailed, match="built for linux/amd64, not for linux/arm64"):
        platform.ebhpc_prepare(session=session)


HOSTILE = {
    "PLAIN": "value",
    "EMPTY": "",
    "SPACES": "  two  ",
    "QUOTES": "\"double\" 'single' `back` $HOME $(id) ${PATH} \\n",
    "EQUALS": "a=b=c",
    "HASH": "# no comment",
    "LINES": "first\nINJECTED=yes\nlast\n",
    "RETURN": "carriage\r\nreturn\r",
    "UNICODE": "Šárka ☆ 星",
    "COMMA": "a,b;type=env",
    "LONG": "x" * 70_000,
    "LD_PRELOAD": "/tmp/evil.so",
    "CONTAINERS_CONF": "/dev/null",
    "with.dot-and_dash": "dots",
}


def test_an_environment_arrives_as_it_was_given(
    workshop: Workshop, registry: Registry, runtime: dict[str, Any]
) -> None:
    platform = workshop.platform(runtime=runtime)
    executable = container(registry, "/proc/self/environ", entrypoint="/bin/cat", environment=HOSTILE)
    session = workshop.session(platform, executable)
    seen = workshop.run(platform, session)
    assert seen.state == "SUCCEEDED", said(seen)
    found = dict(entry.partition("=")[::2] for entry in workshop.output(platform, session).split("\0") if entry)
    assert {name: found.get(name) for name in HOSTILE} == HOSTILE
    assert "INJECTED" not in found


def test_no_value_of_an_environment_stands_on_any_command_line(
    workshop: Workshop, registry: Registry, podman: Podman, runtime: dict[str, Any]
) -> None:
    platform = workshop.platform(runtime=runtime)
    secrets = {"TOKEN": "s3cr3t-one-line", "KEY": "s3cr3t\nmany\nlines"}
    executable = container(registry, "sh", "-c", "echo up; sleep 600", environment=secrets)
    session = workshop.session(platform, executable)
    platform.ebhpc_prepare(session=session)
    platform.ebhpc_submit(session=session)
    seen_at_all = False
    until = time.monotonic() + 20
    while not (workshop.directory(session).output / "stdout").exists() or not workshop.output(platform, session):
        assert time.monotonic() < until
        for process in psutil.process_iter(["cmdline"]):
            words = " ".join(process.info["cmdline"] or ())
            seen_at_all = seen_at_all or session.uuid in words
            assert "s3cr3t" not in words
    assert seen_at_all
    platform.ebhpc_cancel(session=session)
    workshop.until(platform, session)
    platform.ebhpc_cleanup(session=session)
    assert json.loads(podman.run("secret", "ls", "--format", "json") or "[]") == []


def port(number: int, protocol: str = "HTTP", path: str | None = None, access: bool | None = True) -> DockerNetwork:
    """Return a network with one port."""
    return DockerNetwork(
        ports=[DockerPort(access=access, internal=DockerInternalPort(port=number), protocol=protocol, path=path)]
    )


def reachable(workshop: Workshop, platform: Any, session: Session) -> Observation:
    """Wait until a session has a connector that is available."""
    until = time.monotonic() + 20
    while True:
        seen = workshop.until(platform, session, "RUNNING", "FAILED")
        assert seen.state == "RUNNING", said(seen)
        if seen.connectors and seen.connectors[0].status == "AVAILABLE":
            return seen
        assert time.monotonic() < until, seen
        time.sleep(0.05)


@pytest.mark.parametrize("listens", ["0.0.0.0", "127.0.0.1"])
def test_a_port_is_reached_while_the_container_runs_though_it_has_no_network(
    workshop: Workshop, registry: Registry, runtime: dict[str, Any], listens: str
) -> None:
    platform = workshop.platform(runtime=runtime)
    # It takes a second before it listens: who connects at once waits
    serve = container(
        registry,
        "sh",
        "-c",
        f"sleep 1; exec httpd -f -p {listens}:8000 -h /www",
        network=port(8000, path="index.html"),
    )
    session = workshop.session(platform, serve)
    platform.ebhpc_prepare(session=session)
    platform.ebhpc_submit(session=session)
    seen = reachable(workshop, platform, session)
    assert seen.connectors is not None
    (way,) = seen.connectors
    assert way.location is not None
    assert way.location.startswith("http://127.0.0.1:")
    assert way.location.endswith("/index.html")
    assert fetched(way.location) == "busybox serves\n"
    assert fetched(way.location) == "busybox serves\n"
    platform.ebhpc_cancel(session=session)
    ended = workshop.until(platform, session)
    assert ended.connectors is not None
    assert [one.status for one in ended.connectors] == ["FINISHED"]
    with pytest.raises(urllib.error.URLError):
        fetched(way.location)


def test_a_container_that_serves_until_its_time_is_over_has_succeeded(
    workshop: Workshop, registry: Registry, runtime: dict[str, Any]
) -> None:
    executable = container(registry, "httpd", "-f", "-p", "8000", network=port(8000))
    seen, _ = run(workshop, runtime, executable, duration=3)
    assert (seen.state, [one.kind for one in seen.messages]) == ("SUCCEEDED", ["urn:time-limit"]), said(seen)


def test_a_port_that_shall_not_be_listed_is_not(
    workshop: Workshop, registry: Registry, runtime: dict[str, Any]
) -> None:
    seen, _ = run(workshop, runtime, container(registry, "true", network=port(8000, access=False)))
    assert (seen.state, seen.connectors) == ("SUCCEEDED", ())


def test_volumes_are_there_before_the_container_and_as_asked(
    workshop: Workshop, registry: Registry, web: WebServer, runtime: dict[str, Any]
) -> None:
    stars = web.put("/catalogue/stars.csv", b"Vega,0.03\n")
    script = """
cat /data/stars.csv /exact/stars.csv /all/stars.csv
touch /data/stars.csv 2>/dev/null || echo read-only
echo result >/scratch/deep.txt; echo more >/ebhpc/results/more.txt
"""
    platform = workshop.platform(runtime=runtime)
    session = workshop.session(
        platform,
        container(registry, "sh", "-c", script),
        storage=(
            SimpleStorage(meta=Metadata(name="../scratch ☆"), size=Range(min=1)),
            SimpleStorage(meta=Metadata(name="shelf", uuid="53f3f0d5-7e9a-4f3a-a7a0-1d1b2b6a7e01")),
        ),
        data=(SimpleData(meta=Metadata(name="stars"), location=stars, storage="shelf"),),
        volumes=(
            SimpleVolume(path="/data", mode="READONLY", resource="stars"),
            SimpleVolume(path="/exact/stars.csv", mode="READONLY", resource="stars"),
            SimpleVolume(path="/all", resource="53f3f0d5-7e9a-4f3a-a7a0-1d1b2b6a7e01"),
            SimpleVolume(path="/scratch", mode="READWRITE", resource="../scratch ☆"),
        ),
    )
    seen = workshop.run(platform, session)
    assert seen.state == "SUCCEEDED", said(seen) + workshop.output(platform, session, "stderr")
    assert workshop.output(platform, session) == "Vega,0.03\n" * 3 + "read-only\n"
    platform.ebhpc_cleanup(session=session)
    names = [output.name for output in platform.ebhpc_outputs(session=session)]
    assert names == ["stdout", "stderr", "results/more.txt", "storage/..scratch ☆/deep.txt"]


EAT = "dd if=/dev/zero of=/dev/null bs=512M count=1"


def test_memory_is_kept_by_the_engine(workshop: Workshop, registry: Registry, runtime: dict[str, Any]) -> None:
    executable = container(registry, "sh", "-c", f"sleep 1; {EAT}; code=$?; sleep 1; exit $code")
    seen, _ = run(workshop, runtime, executable, memory=64)
    assert (seen.state, seen.exit_code) == ("FAILED", 137)
    assert "used more than its 64 MiB of memory (kept by the container engine)" in said(seen)


def test_a_container_that_dies_of_hunger_at_once_is_told_the_likely_cause(
    workshop: Workshop, registry: Registry, runtime: dict[str, Any]
) -> None:
    seen, _ = run(workshop, runtime, container(registry, "sh", "-c", EAT), memory=64)
    assert (seen.state, seen.exit_code) == ("FAILED", 137)
    assert "64 MiB of memory" in said(seen)


def test_a_container_has_as_many_cores_as_offered(
    workshop: Workshop, registry: Registry, runtime: dict[str, Any]
) -> None:
    platform = workshop.platform(runtime=runtime)
    session = workshop.session(platform, container(registry, "grep", "Cpus_allowed_list", "/proc/self/status"))
    workshop.run(platform, session)
    assert workshop.output(platform, session).split()[1].isdecimal()  # one core, not a range


def test_what_a_container_writes_beside_its_volumes_is_limited(
    workshop: Workshop, registry: Registry, runtime: dict[str, Any]
) -> None:
    platform = workshop.platform(runtime=runtime, work_gib=0.01)
    executable = container(registry, "sh", "-c", "dd if=/dev/zero of=/big bs=1M count=50; sleep 600")
    session = workshop.session(platform, executable)
    seen = workshop.run(platform, session)
    assert "what the container writes took more than" in said(seen)


def test_a_container_has_few_rights(workshop: Workshop, registry: Registry, runtime: dict[str, Any]) -> None:
    platform = workshop.platform(runtime=runtime)
    session = workshop.session(platform, container(registry, "grep", "-E", "CapBnd|NoNewPrivs", "/proc/self/status"))
    workshop.run(platform, session)
    found = dict(line.split(":\t") for line in workshop.output(platform, session).splitlines())
    assert found["NoNewPrivs"] == "1"
    granted = int(found["CapBnd"], 16)
    forbidden = {"CAP_SYS_ADMIN": 21, "CAP_NET_ADMIN": 12, "CAP_SYS_PTRACE": 19, "CAP_MKNOD": 27, "CAP_NET_RAW": 13}
    assert [name for name, bit in forbidden.items() if granted >> bit & 1] == []


def test_cancelling_ends_a_container_that_ignores_sigterm(
    workshop: Workshop, registry: Registry, podman: Podman, runtime: dict[str, Any]
) -> None:
    platform = workshop.platform(runtime=runtime, grace="1s")
    session = workshop.session(platform, container(registry, "sh", "-c", "echo up; sleep 600"))
    platform.ebhpc_prepare(session=session)
    platform.ebhpc_submit(session=session)
    workshop.until(platform, session, "RUNNING")
    platform.ebhpc_cancel(session=session)
    seen = workshop.until(platform, session, patience=15)
    assert said(seen) == "The job was ended on request."
    assert podman.containers() == []


def test_killing_the_supervisor_ends_the_container(
    workshop: Workshop, registry: Registry, podman: Podman, runtime: dict[str, Any]
) -> None:
    platform = workshop.platform(runtime=runtime)
    session = workshop.session(platform, container(registry, "sh", "-c", "echo up; sleep 600"))
    platform.ebhpc_prepare(session=session)
    platform.ebhpc_submit(session=session)
    directory = workshop.directory(session)
    until = time.monotonic() + 20
    while not directory.running.exists() or not (directory.output / "stdout").read_text():
        assert time.monotonic() < until
        time.sleep(0.05)
    os.kill(json.loads(directory.running.read_text())["watch"], 9)
    seen = workshop.until(platform, session)
    assert "supervisor" in said(seen)
    assert podman.containers() == []


def test_where_no_bridge_can_be_made_a_container_runs_without_network_and_says_so(
    workshop: Workshop, registry: Registry, runtime: dict[str, Any], podman: Podman, tmp_path: Path
) -> None:
    settings = Path(podman.environment["CONTAINERS_CONF"]).read_text(encoding="utf-8")
    (tmp_path / "plugins").mkdir()
    (tmp_path / "bridgeless.conf").write_text(
        f'{settings}\n[network]\nnetwork_backend = "cni"\ncni_plugin_dirs = ["{tmp_path}/plugins"]\n'
        f'network_config_dir = "{tmp_path}/networks"\n'
    )
    environment = {**podman.environment, "CONTAINERS_CONF": str(tmp_path / "bridgeless.conf")}
    seen, session = run(
        workshop,
        {**runtime, "network": "auto", "environment": environment},
        container(registry, "sh", "-c", "echo once; ip -o link | wc -l"),
    )
    assert seen.state == "SUCCEEDED", said(seen)
    assert said(seen) == (
        "podman cannot make a bridge network on this host: the container runs without network to the outside."
    )
    assert (workshop.directory(session).output / "stdout").read_text() == "once\n1\n"


def test_an_image_is_removed_when_the_last_session_that_needs_it_has_ended(
    workshop: Workshop, registry: Registry, podman: Podman, runtime: dict[str, Any]
) -> None:
    platform = workshop.platform(runtime={**runtime, "prune_images": True})
    first, second = (workshop.session(platform, container(registry, "true")) for _ in range(2))
    platform.ebhpc_prepare(session=first)
    platform.ebhpc_prepare(session=second)
    name = f"{registry.location.removesuffix(':1')}@{registry.digest}"
    platform.ebhpc_cleanup(session=first)
    podman.run("image", "inspect", name)
    platform.ebhpc_cleanup(session=second)
    with pytest.raises(AssertionError, match="inspect"):
        podman.run("image", "inspect", name)


def test_a_repeated_submit_runs_a_container_once(
    workshop: Workshop, registry: Registry, runtime: dict[str, Any]
) -> None:
    platform = workshop.platform(runtime=runtime)
    session = workshop.session(
        platform,
        container(registry, "sh", "-c", "echo run >>/count/runs"),
        storage=(SimpleStorage(meta=Metadata(name="count"), size=Range(min=1)),),
        volumes=(SimpleVolume(path="/count", mode="READWRITE", resource="count"),),
    )
    platform.ebhpc_prepare(session=session)
    natives = {platform.ebhpc_submit(session=session) for _ in range(3)}
    assert len(natives) == 1
    workshop.until(platform, session)
    natives |= {platform.ebhpc_submit(session=session)}
    assert len(natives) == 1
    platform.ebhpc_cleanup(session=session)
    assert workshop.output(platform, session, "storage/count/runs") == "run\n"


BRIDGED = """
import subprocess, tempfile, time, urllib.request
from pathlib import Path
from tests.lab import containers
from tests.local.conftest import Workshop, said
from tests.local.test_containers import container, port, reachable

subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/var/lib"], check=True)
with containers.registry() as registry, containers.podman(registry.registries) as podman:
    settings = Path(podman.environment["CONTAINERS_CONF"]).read_text()
    conf = podman.place / "bridge.conf"
    conf.write_text(f'{settings}[network]\\nnetwork_config_dir = "{podman.place}/networks"\\n')
    runtime = {"program": "podman", "options": podman.options, "network": "auto", "ports": HOW}
    runtime["environment"] = {**podman.environment, "CONTAINERS_CONF": str(conf)}
    with tempfile.TemporaryDirectory() as place:
        workshop = Workshop(Path(place))
        platform = workshop.platform(runtime=runtime)
        serve = container(
            registry, "sh", "-c", "ip -o link | wc -l; exec httpd -f -p 8000 -h /www", network=port(8000)
        )
        session = workshop.session(platform, serve)
        platform.ebhpc_prepare(session=session)
        platform.ebhpc_submit(session=session)
        seen = reachable(workshop, platform, session)
        assert not seen.messages, said(seen)
        assert workshop.output(platform, session) == "2\\n"
        print(urllib.request.urlopen(seen.connectors[0].location, timeout=15).read().decode(), end="")
        platform.ebhpc_cancel(session=session)
        workshop.until(platform, session)
        workshop.finish()
"""


@pytest.mark.parametrize("how", ["forward", "publish"])
def test_with_a_bridge_a_container_has_a_network_and_its_ports_are_reached(registry: Registry, how: str) -> None:
    # In network and mount namespaces of its own, because podman leaves bridges, packet filters and files behind
    done = subprocess.run(
        ["unshare", "--net", "--mount", sys.executable, "-c", BRIDGED.replace("HOW", repr(how))],
        cwd=Path(__file__).parent.parent.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "busybox serves\n"), done.stderr
