"""Containers as jobs: the script is run here, with podman and a real registry."""

from __future__ import annotations

import json
import signal
import time

import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as examples
from hypothesis import strategies as some

from ebhpc import batch
from ebhpc.model import (
    DockerContainer,
    DockerImage,
    DockerInternalPort,
    DockerNetwork,
    DockerPort,
    Metadata,
    SimpleData,
    SimpleStorage,
    SimpleVolume,
)
from tests.batch.conftest import Site, busybox, said
from tests.lab import containers
from tests.local.webserver import WebServer

pytestmark = pytest.mark.containers


def test_a_container_runs_and_its_output_and_results_are_kept(
    site: Site, registry: containers.Registry, podman: containers.Podman, runtime: batch.ContainerRuntime
) -> None:
    settings = site.settings(runtime=runtime)
    command = ("sh", "-c", "echo out; echo err >&2; echo kept > $EBHPC_RESULTS/a.txt; exit 3")
    session = site.session(busybox(registry, *command))
    seen = site.run(session, settings)
    assert (seen.state, seen.exit_code) == ("FAILED", 3)
    assert said(seen) == "The job ended with exit code 3."
    assert site.output(session) == b"out\n"
    assert site.output(session, "stderr") == b"err\n"
    assert site.output(session, "results/a.txt") == b"kept\n"
    assert podman.containers() == []
    batch.cleanup(session, settings)
    directory = batch.session_directory(settings.root, session.uuid)
    assert sorted(entry.name for entry in directory.path.iterdir()) == [
        "closed",
        "output",
        "prepare.lock",
        "report",
        "staged",
    ]
    assert site.output(session, "results/a.txt") == b"kept\n"
    batch.forget(session, settings)
    assert not directory.path.exists()


def test_a_digest_that_the_registry_does_not_have_ends_the_session(
    site: Site, registry: containers.Registry, runtime: batch.ContainerRuntime
) -> None:
    image = DockerImage(locations=[registry.location], digest="sha256:" + "0" * 64)
    session = site.session(DockerContainer(image=image, command=["true"]))
    seen = site.run(session, site.settings(runtime=runtime))
    assert seen.state == "FAILED"
    assert "cannot be fetched" in said(seen)
    assert "manifest unknown" in said(seen)


def test_the_second_location_is_taken_where_the_first_has_nothing(
    site: Site, registry: containers.Registry, runtime: batch.ContainerRuntime
) -> None:
    image = DockerImage(locations=[f"{registry.address}/none/such:1", registry.location], digest=registry.digest)
    session = site.session(DockerContainer(image=image, command=["echo", "second"]))
    assert site.run(session, site.settings(runtime=runtime)).state == "SUCCEEDED"
    assert site.output(session) == b"second\n"


HOSTILE = some.one_of(
    some.text(alphabet=some.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), max_size=40),
    some.sampled_from(
        [
            "$(touch /ebhpc/results/owned)",
            "`id`",
            "'; exit 1; '",
            '"\n"; echo {}',
            "a b\tc\\n",
            "${PATH}",
            "{bundle} {name}",
            "\n\n#",
            "--privileged",
            "\x1b[31m",
            "%s%n",
            "*",
            "~root",
            "key=value=more",
            "\r\n",
            "END_OF_JOB\n",
        ]
    ),
)
NAMES = some.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,20}", fullmatch=True).filter(
    lambda name: (
        name.upper() not in ("PATH", "HOME", "HOSTNAME", "TERM", "CONTAINER", "PWD", "SHLVL", "_", "EBHPC_RESULTS")
    )
)


@pytest.fixture
def hostile(site: Site, registry: containers.Registry, runtime: batch.ContainerRuntime):
    """Run a container with these words and variables, and return what it was given."""
    settings = site.settings(runtime=runtime)

    def run(words: list[str], environment: dict[str, str]) -> tuple[list[bytes], dict[bytes, bytes]]:
        # The words begin behind the container's own: sh -c SCRIPT sh WORDS
        script = 'cat /proc/1/environ > /ebhpc/results/environ; for word; do printf "%s\\0" "$word"; done'
        session = site.session(busybox(registry, "sh", "-c", script, "sh", *words, environment=environment))
        seen = site.run(session, settings)
        assert seen.state == "SUCCEEDED", (said(seen), site.output(session, "stderr"))
        given_words = site.output(session).split(b"\0")[:-1]
        lines = site.output(session, "results/environ").split(b"\0")
        pairs = dict(line.split(b"=", 1) for line in lines if b"=" in line)
        assert [one.name for one in batch.outputs(session, settings)] == ["stdout", "stderr", "results/environ"]
        return given_words, pairs

    return run


@examples(
    max_examples=4,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
@given(words=some.lists(HOSTILE, max_size=12), environment=some.dictionaries(NAMES, HOSTILE, max_size=8))
def test_whatever_words_and_variables_hold_arrives_as_it_is(hostile, words, environment) -> None:
    given_words, pairs = hostile(words, environment)
    assert given_words == [word.encode() for word in words]
    assert {name: pairs.get(name.encode()) for name in environment} == {
        name: value.encode() for name, value in environment.items()
    }


def test_an_entrypoint_takes_the_place_of_the_images(
    site: Site, registry: containers.Registry, runtime: batch.ContainerRuntime
) -> None:
    session = site.session(busybox(registry, '["/bin/sh"]', "$HOME", entrypoint="/bin/echo"))
    assert site.run(session, site.settings(runtime=runtime)).state == "SUCCEEDED"
    assert site.output(session) == b'["/bin/sh"] $HOME\n'


@pytest.mark.parametrize("staging", ["broker", "job"])
def test_volumes_show_staged_data_and_storage_that_is_written_is_kept(
    site: Site, registry: containers.Registry, runtime: batch.ContainerRuntime, web: WebServer, staging: str
) -> None:
    url = web.put("/in.csv", b"1,2\n")
    script = "cat /in/in.csv; echo more > /out/new; echo no > /in/x || echo refused; id -u"
    session = site.session(
        busybox(registry, "sh", "-c", script),
        storage=(SimpleStorage(meta=Metadata(name="out")), SimpleStorage(meta=Metadata(name="in"))),
        data=(SimpleData(meta=Metadata(name="table"), location=url, storage="in"),),
        volumes=(
            SimpleVolume(path="/in", mode="READONLY", resource="in"),
            SimpleVolume(path="/out", mode="READWRITE", resource="out"),
        ),
    )
    settings = site.settings(runtime=runtime, staging=staging)
    seen = site.run(session, settings)
    assert seen.state == "SUCCEEDED", said(seen)
    assert site.output(session) == b"1,2\nrefused\n0\n"
    batch.cleanup(session, settings)
    assert [one.name for one in batch.outputs(session, settings)] == ["stdout", "stderr", "storage/out/new"]
    assert site.output(session, "storage/out/new") == b"more\n"


def test_sigterm_ends_the_container_and_keeps_its_results(
    site: Site, registry: containers.Registry, podman: containers.Podman, runtime: batch.ContainerRuntime
) -> None:
    settings = site.settings(runtime=runtime)
    script = "trap 'echo saved > $EBHPC_RESULTS/late; exit 0' TERM; echo ready; while :; do sleep 0.1; done"
    session = site.session(busybox(registry, "sh", "-c", script))
    batch.prepare(session, settings, batch.unix_account(None))
    job = site.start(session, settings)
    directory = batch.session_directory(settings.root, session.uuid)
    until = time.monotonic() + 30
    while not (directory.output / "stdout").exists() or site.output(session) != b"ready\n":
        assert time.monotonic() < until
        time.sleep(0.05)
    running = batch.read_report(directory)
    assert running is not None
    assert running.state == "RUNNING"
    batch.mark_cancelled(directory)
    job.send_signal(signal.SIGTERM)
    seen = site.seen(session, settings, job)
    assert seen.state == "FAILED"
    assert said(seen) == "The job was ended on request."
    assert site.output(session, "results/late") == b"saved\n"
    assert podman.containers() == []


def test_a_service_on_the_nodes_network_is_reached_and_ends_with_its_time(
    site: Site, registry: containers.Registry, podman: containers.Podman
) -> None:
    import socket
    import urllib.request

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number = probe.getsockname()[1]
    runtime = batch.ContainerRuntime(
        kind="podman", options=podman.options, environment=podman.environment, network="host"
    )
    settings = site.settings(runtime=runtime)
    port = DockerPort(access=True, protocol="HTTP", path="index.html", internal=DockerInternalPort(port=number))
    command = ("httpd", "-f", "-p", f"127.0.0.1:{number}", "-h", "/www")
    session = site.session(busybox(registry, *command, network=DockerNetwork(ports=[port])))
    batch.prepare(session, settings, batch.unix_account(None), seconds=15)
    job = site.start(session, settings)
    directory = batch.session_directory(settings.root, session.uuid)
    native = batch.Native(state="RUNNING", node="127.0.0.1")
    until = time.monotonic() + 30
    connectors = ()
    while not connectors:
        assert time.monotonic() < until
        time.sleep(0.05)
        connectors = batch.observation(session, native, batch.read_report(directory), settings).connectors or ()
    (connector,) = connectors
    assert connector.location == f"http://127.0.0.1:{number}/index.html"
    with urllib.request.urlopen(connector.location) as answer:
        assert answer.read() == b"busybox serves\n"
    seen = site.seen(session, settings, job)
    assert (seen.state, job.returncode) == ("SUCCEEDED", 0)
    assert said(seen) == "The session's time is over; its service was ended."


def test_what_a_job_is_to_do_is_plain_data(site: Site, registry: containers.Registry) -> None:
    from ebhpc.batch.job import job

    session = site.session(busybox(registry, "a", "$(b)"))
    wanted = job(session, site.settings(runtime=batch.ContainerRuntime(kind="apptainer")))
    assert json.loads(json.dumps(wanted)) == wanted
