"""Jobs whose files HTCondor carries, and containers that it runs."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from htcondor_lab import Place, ended, ready_to_carry, session, submitted, text_of, until, words
from msgspec.structs import replace

from ebhpc.model import (
    DockerContainer,
    DockerImage,
    DockerInternalPort,
    DockerNetwork,
    DockerPort,
    Metadata,
    Session,
    SimpleData,
)
from ebhpc_htcondor.platform import HTCondorPlatform
from ebhpc_htcondor.submitting import WAITS_FOR_FILES
from tests.lab import containers
from tests.labs import require

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

ON = {"apptainer": "TARGET.HasDocker =!= true", "docker": "TARGET.HasDocker =?= true"}


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder by HTTP on loopback, which the machines of the lab's pool share."""
    asked: list[str] = []

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            asked.append(str(args))

    server = HTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_jobs_files_go_there_and_come_back_without_a_shared_directory(place: Place, tmp_path: Path) -> None:
    platform = place.carrying()
    text = b"the stars\n" * 1000
    data = tmp_path / "data"
    data.mkdir()
    (data / "stars.txt").write_bytes(text)
    (data / "a b.txt").write_bytes(b"fetched by the runner\n")
    script = (
        'pwd; id -un; cat "$EBHPC_RESOURCE_STARS" | tail -n 1; cat "$EBHPC_RESOURCE_OTHER"; '
        'cp "$_CONDOR_JOB_AD" "$EBHPC_RESULTS/ad"; mkdir "$EBHPC_RESULTS/sub"; '
        'echo kept >"$EBHPC_RESULTS/sub/file"; exit 3'
    )
    with served(data) as url:
        good = f"{url}/stars.txt#sha256={hashlib.sha256(text).hexdigest()}"
        data_there = (
            SimpleData(location=good, meta=Metadata(name="stars")),
            SimpleData(location=f"{url}/a%20b.txt", meta=Metadata(name="other")),
        )
        one = session(data=data_there)
        wrong = session(data=(SimpleData(location=f"{url}/stars.txt#sha256={'0' * 64}"),))
        one = submitted(platform, ready_to_carry(platform, one, ["/bin/sh", "-c", script]))
        wrong = submitted(platform, ready_to_carry(platform, wrong, ["/bin/true"]))
        assert platform.ebhpc_submit(one) == one.native
        seen = until(platform, one, ended)
        assert platform.ebhpc_submit(one) == one.native
        failed = until(platform, wrong, ended)
    assert (seen.state, seen.exit_code) == ("FAILED", 3), words(seen)
    said = text_of(platform, one).splitlines()
    assert str(platform.settings.jobs.root) not in said[0]
    assert said[1:] == ["alice", "the stars", "fetched by the runner"]
    assert text_of(platform, one, "results/sub/file") == "kept\n"
    ad = text_of(platform, one, "results/ad")
    assert f'TransferInput = "{url}/stars.txt"' in ad  # HTCondor's own plugin has fetched it
    assert failed.state == "FAILED"
    assert "its sha256 is" in words(failed)
    # The queue is left when the files have come
    place.pool.until(lambda: place.pool.queue() == [], 90, "the job is in the history")
    assert until(place.carrying(), one, ended).exit_code == 3  # as a driver would after a crash
    assert place.carrying().ebhpc_submit(one) == one.native
    for each in (one, wrong):
        platform.ebhpc_cleanup(each)
    assert text_of(platform, one, "results/sub/file") == "kept\n"


def test_a_job_whose_files_did_not_all_get_to_the_schedd_is_submitted_anew(place: Place) -> None:
    platform = place.carrying(answer_within="4s")
    one = ready_to_carry(platform, session(), ["/bin/echo", "at last"])
    half = sent_in_part(place, platform, one)
    one = submitted(platform, one)
    assert one.native != half
    assert platform.ebhpc_submit(one) == one.native
    assert until(platform, one, ended).state == "SUCCEEDED"
    assert text_of(platform, one) == "at last\n"


def test_a_job_that_was_removed_before_it_had_its_files_is_submitted_anew(place: Place) -> None:
    platform = place.carrying()
    one = ready_to_carry(platform, session(), ["/bin/echo", "at last"])
    half = sent_in_part(place, platform, one)
    place.pool.run(["condor_rm", half], user="root")  # as the schedd does when the sender goes away
    one = submitted(platform, one)
    assert one.native != half
    assert until(platform, one, ended).state == "SUCCEEDED"


def test_a_job_that_the_schedd_lets_go_only_after_it_has_its_files_is_not_submitted_anew(place: Place) -> None:
    platform = place.carrying()
    one = ready_to_carry(platform, session(), ["/bin/true"])
    half = sent_in_part(place, platform, one)
    later = threading.Timer(2, place.pool.run, (["condor_qedit", half, "HoldReasonCode", "1"],), {"user": "root"})
    later.start()
    try:
        assert platform.ebhpc_submit(one) == half
        number = platform.pool.remove([half], "alice", "it waits for its files", only=WAITS_FOR_FILES)
        assert number == 0, "it was let go in between"
    finally:
        later.join()
        place.pool.run(["condor_rm", half], user="root")


def sent_in_part(place: Place, platform: HTCondorPlatform, one: Session) -> str:
    """Submit a session's job as if the broker had ended while its files were sent to the schedd."""
    lines = {"+EbhpcSession": f'"{one.uuid}"', "+EbhpcPrefix": '"ebhpc"', "hold": "True"}
    half = place.pool.sleep(300, **lines)
    place.pool.run(["condor_qedit", half, "HoldReasonCode", "16"], user="root")
    (platform.settings.jobs.root / one.uuid[:2] / one.uuid / "submissions").touch()
    return half


def test_what_an_owner_writes_into_his_job_does_not_lead_our_files_elsewhere(place: Place, tmp_path: Path) -> None:
    platform = place.carrying()
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    one = ready_to_carry(platform, session(), ["/bin/echo", "owned"])
    one = submitted(platform, one)
    place.pool.until(lambda: [job for job in place.pool.queue() if job["JobStatus"] == 4], 90, "it has run")
    number = str(one.native)
    for name in ("SUBMIT_TransferOutputRemaps", "TransferOutputRemaps"):
        place.pool.run(["condor_qedit", number, name, f'"output={victim};report={victim}"'], user="alice")
    for name in ("SUBMIT_Iwd", "Iwd"):
        place.pool.run(["condor_qedit", number, name, f'"{tmp_path}"'], user="alice", check=False)
    platform.bringer._clock = _quick()  # type: ignore[union-attr]
    seen = until(platform, one, ended)
    assert seen.state == "FAILED"
    assert "could not be fetched" in words(seen)
    assert victim.read_text() == "untouched"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sessions", "victim"]
    platform.ebhpc_cleanup(one)
    place.pool.until(lambda: place.pool.queue() == [], 90, "nothing is left")


def _quick() -> Any:
    began = time.time()
    return lambda: began + (time.time() - began) * 100


def test_check_tries_the_way_of_the_files(place: Place) -> None:
    found = list(place.carrying().ebhpc_check())
    assert [one for one in found if one.level == "ERROR" and one.subject != "nodes.containers"] == []
    told = {one.subject: one.text for one in found}
    assert "confined" in told["files"]
    assert "a job as alice has run" in told["jobs"]
    assert "nodes.python" in told
    assert "nodes.root" not in told


@pytest.mark.containers
@pytest.mark.parametrize("runtime", ["apptainer", "docker"])
def test_the_pool_runs_containers_by_their_digest_with_words_as_they_are_and_ports_that_are_reached(
    place: Place, runtime: str
) -> None:
    lacking = containers.missing()
    require(not lacking, f"containers cannot be tested: {'; '.join(lacking)}")
    platform = by_pool(place, runtime)
    hostile = ["$(id) `id`", 'it\'s "quoted"', "$$(Arch) $$$(HOME) $ENV(PATH) $(DOLLAR", "a\\", '\\"', "", " x "]
    hostile += ["ü✓", "* ? ~"]
    has_docker = place.pool.docker("node3") if runtime == "docker" else nullcontext()
    with containers.registry() as registry, has_docker:
        image = DockerImage(locations=[registry.location], digest=registry.digest)
        # apptainer's containers have their machine's network, docker's one of their own
        port = 8080 if runtime == "docker" else free_port()
        service = session(executable=serving(image, port), memory=500, duration=600)
        brief = session(executable=serving(image, 8080 if runtime == "docker" else free_port()), memory=500, duration=4)
        script = (
            'id -u; for word; do printf "<%s>\\n" "$word"; done; printf "%s\\n" "$WORD"; '
            'echo kept >"$EBHPC_RESULTS/file"'
        )
        executable = DockerContainer(
            image=image, entrypoint="/bin/sh", command=["-c", script, "sh", *hostile], environment={"WORD": hostile[1]}
        )
        one = session(executable=executable, memory=500)
        bad = session(executable=replace(executable, image=replace(image, digest=f"sha256:{'0' * 64}")), memory=500)
        for each in (service, brief, one, bad):
            platform.ebhpc_prepare(each)
        service, brief, one, bad = (submitted(platform, each) for each in (service, brief, one, bad))

        seen = until(platform, service, lambda seen: bool(seen.connectors) or ended(seen))
        assert seen.state == "RUNNING", words(seen)
        (way,) = seen.connectors or ()
        outer = urlsplit(str(way.location)).port
        assert (outer == port) == (runtime == "apptainer")
        assert place.pool.until(lambda: fetched(f"{way.location}/hello"), 60, "the service answers") == "from within\n"

        seen = until(platform, one, ended)
        assert seen.state == "SUCCEEDED", words(seen)
        told = text_of(platform, one).split("\n")
        assert told[0] == "2001"
        assert told[1:-2] == [f"<{word}>" for word in hostile]
        assert told[-2] == hostile[1]
        assert text_of(platform, one, "results/file") == "kept\n"
        platform.ebhpc_cleanup(one)
        failed = until(platform, bad, ended)
        assert failed.state == "FAILED", words(failed)
        platform.ebhpc_cleanup(bad)
        seen = until(platform, brief, ended)
        assert seen.state == "SUCCEEDED", words(seen)
        assert "time is over" in words(seen)
        platform.ebhpc_cleanup(brief)
        platform.ebhpc_cancel(service)
        place.pool.until(lambda: not fetched(f"{way.location}/hello"), 60, "the service has ended")
        platform.ebhpc_cleanup(service)


def by_pool(place: Place, runtime: str) -> HTCondorPlatform:
    """A platform whose containers the pool runs, by one of the two."""
    own_network = {"kind": "podman", "network": "publish"} if runtime == "docker" else {"kind": "apptainer"}
    return place.carrying(runtime=own_network, containers="universe", requirements=ON[runtime])


def serving(image: DockerImage, port: int) -> DockerContainer:
    """A container with a page, ``/hello``."""
    script = f'cd "$EBHPC_RESULTS" && echo from within >hello && exec httpd -f -p {port}'
    ways = DockerNetwork(ports=[DockerPort(internal=DockerInternalPort(port=port), protocol="HTTP")])
    return DockerContainer(image=image, entrypoint="/bin/sh", command=["-c", script], network=ways)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def fetched(url: str) -> str:
    """Return what is behind a URL; nothing where nobody answers."""
    try:
        answer = httpx.get(url, trust_env=False)
    except httpx.TransportError:
        return ""
    return answer.text if answer.status_code == 200 else ""
