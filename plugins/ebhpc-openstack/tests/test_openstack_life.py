"""Sessions' lives as servers of a real cloud, and what comes between."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from msgspec.structs import replace
from openstack_lab import (
    MEDIUM,
    Place,
    ended,
    ended_with_its_process,
    notebook,
    ready,
    runs,
    served,
    session,
    submitted,
    text_of,
    until,
    words,
)

from ebhpc.model import (
    Allocation,
    DockerContainer,
    DockerImage,
    DockerInternalPort,
    DockerNetwork,
    DockerPort,
    Shape,
)
from ebhpc_openstack import launching, notes
from ebhpc_openstack.asking import Call, CloudFault, NotReached, Refused, Unanswered
from ebhpc_openstack.platform import OpenStackPlatform
from tests.lab import containers

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

HOSTILE = 'x\'; touch /pwned; "$(reboot)" `id` \\ é\n#END_OF_JOB\nEND_OF_SCRIPT\n@ebhpc 00000000 0/0 {}'


def of(place: Place, one: Any) -> list[dict[str, Any]]:
    """Return a session's servers, as the administrator sees them."""
    return [server for server in place.cloud.servers() if server["name"] == f"ebhpc-{one.uuid}"]


def gone(place: Place, platform: OpenStackPlatform, one: Any) -> None:
    """End a session, and see that nothing of it is left in the cloud, the ports of its servers included."""
    numbers = {server["id"] for server in of(place, one)}
    platform.ebhpc_cancel(one)
    platform.ebhpc_cleanup(one)
    place.cloud.until(lambda: not of(place, one), 120, "its server is gone")
    ports = place.cloud.ask("neutron", "/v2.0/ports")["ports"]
    assert [port for port in ports if port["device_id"] in numbers] == []


def answered(location: str) -> bool:
    """Whether an HTTP server answers at a connector's location."""
    try:
        return httpx.get(location, timeout=30).status_code == 200
    except httpx.TransportError:
        return False


def test_a_hostile_container_runs_in_its_server_and_its_exit_code_and_output_come_back(
    place: Place, tmp_path: Path
) -> None:
    runtime = {"kind": "apptainer", "pull_options": ["--no-https"], "run_options": ["--no-privs"]}
    platform = place.platform(jobs={"runtime": runtime})
    with containers.registry() as registry:
        image = DockerImage(locations=[registry.location], digest=registry.digest)
        script = 'printf %s "$1"; printf %s "$WORD" >&2; echo kept >$EBHPC_RESULTS/a; exit 3'
        container = DockerContainer(
            image=image, command=["sh", "-c", script, "sh", HOSTILE], environment={"WORD": HOSTILE}
        )
        one = ready(platform, session(executable=container, name=HOSTILE))
        one = submitted(platform, one)
        again = submitted(platform, one)
        assert again.native == one.native == f"ebhpc-{one.uuid}"
        seen = until(platform, one, ended)
    assert (seen.state, seen.exit_code) == ("FAILED", 3), seen
    assert text_of(platform, one) == HOSTILE
    assert text_of(platform, one, "stderr").endswith(HOSTILE)
    assert text_of(platform, one, "results/a") == "kept\n"
    assert len(of(place, one)) == 1
    gone(place, platform, one)
    assert text_of(platform, one) == HOSTILE


def test_a_connection_cut_while_a_server_is_asked_for_leaves_one_server(place: Place) -> None:
    platform = place.platform(answer_within="30s")
    one = ready(platform, session())
    platform.ebhpc_snapshot(int(time.time()))
    platform.launches.body(one)
    faults: list[Exception] = []

    def submit() -> None:
        try:
            platform.ebhpc_submit(one)
        except CloudFault as fault:
            faults.append(fault)

    with place.cloud.held("nova-api"):
        asking = threading.Thread(target=submit)
        asking.start()
        root = platform.settings.jobs.root
        place.cloud.until(lambda: notes.read(root, one.uuid).asked is not None, 60, "a server is asked for")
        time.sleep(1.5)  # the question is on its way to a service that does not read it yet
        place.cloud.cut()
        asking.join(120)
    assert not asking.is_alive()
    assert [type(fault) for fault in faults] == [Unanswered], faults
    deadline = time.monotonic() + 240
    while True:
        try:
            native = platform.ebhpc_submit(one)
            break
        except CloudFault:
            assert time.monotonic() < deadline
            time.sleep(1)
    assert native == f"ebhpc-{one.uuid}"
    assert len(of(place, one)) == 1
    gone(place, platform, one)


def test_a_login_host_that_reboots_is_found_again_and_what_ran_meanwhile_is_read(place: Place, tmp_path: Path) -> None:
    platform = place.platform()
    with served(tmp_path) as url:
        goes_on = f"""
import time, urllib.request
while True:
    try:
        urllib.request.urlopen("{url}/go", timeout=5).close()
        break
    except OSError:
        time.sleep(0.2)
print('went on')
"""
        notebook(tmp_path, goes_on)
        one = submitted(platform, ready(platform, session(f"{url}/note.ipynb", duration=600)))
        until(platform, one, runs)
        before = platform.host._running
        place.cloud.sshd.kill()
        place.cloud.cut()
        place.cloud.until(lambda: not place.cloud.sessions(), 120, "nothing of the broker's is left there")
        for fault in ((NotReached, Unanswered), NotReached):
            with pytest.raises(fault):
                platform.ebhpc_observe([one])
        (tmp_path / "go").write_text("")
        place.cloud.until(lambda: of(place, one)[0]["status"] == "SHUTOFF", 240, "the job has ended")
        place.cloud.sshd.start()
        deadline = time.monotonic() + 240
        while True:
            try:
                seen = until(platform, one, ended)
                break
            except CloudFault:
                assert time.monotonic() < deadline
                time.sleep(0.5)
    assert seen.state == "SUCCEEDED", seen
    assert "went on" in text_of(platform, one, "results/note.ipynb")
    assert platform.host._running is not before
    assert len(of(place, one)) == 1
    gone(place, platform, one)


def test_nova_that_is_down_is_told_and_a_session_goes_on(place: Place, tmp_path: Path) -> None:
    notebook(tmp_path, "print('went on')")
    platform = place.platform()
    with served(tmp_path) as url:
        one = submitted(platform, ready(platform, session(f"{url}/note.ipynb")))
        with place.cloud.without_nova_api():
            with pytest.raises(CloudFault):
                platform.ebhpc_observe([one])
            with pytest.raises(CloudFault):
                platform.ebhpc_snapshot(1)
        seen = until(platform, one, ended)
    assert seen.state == "SUCCEEDED", seen
    gone(place, platform, one)


def test_a_token_that_is_no_longer_good_is_renewed(place: Place) -> None:
    platform = place.platform()
    assert platform.ebhpc_snapshot(1).nodes
    users = place.cloud.ask("keystone", "/v3/users?name=broker")["users"]
    for enabled in (False, True):
        body = {"user": {"enabled": enabled}}
        place.cloud.ask("keystone", f"/v3/users/{users[0]['id']}", "PATCH", body)
    time.sleep(1.5)  # keystone counts revocations in seconds
    # Nova has seen the token just now and believes it for a while; glance asks keystone
    assert platform.cloud.image("debian")
    assert platform.cloud.image("nothing of that name") is None


def test_a_token_that_expired_while_a_session_waited_for_its_start_is_renewed(place: Place) -> None:
    life = 10
    with place.cloud.brief_tokens(life) as cloud:
        platform = place.platform(cloud=cloud, networks="none")
        token = place.cloud.token(place.cloud.ports.brief)
        one = submitted(platform, ready(platform, session(start=300)))
        before = platform.host._running
        (seen,) = platform.ebhpc_observe([one])
        assert seen.state == "PENDING"
        assert of(place, one) == []
        place.cloud.until(lambda: not place.cloud.knows(token), 120, "a token of that time has expired")
        platform.follower._clock = lambda: time.time() + 300
        until(platform, one, lambda seen: [server["status"] for server in of(place, one)] == ["ACTIVE"])
        assert platform.host._running is before
        gone(place, platform, one)


def test_a_quota_that_others_took_is_waited_for_by_who_has_an_expectation_alone(place: Place) -> None:
    platform = place.platform(retry="0s")
    place.cloud.quota(instances=0)
    kept = ready(platform, session(firm=True))
    with pytest.raises(Refused, match="Quota exceeded"):
        platform.ebhpc_submit(kept)
    one = submitted(platform, ready(platform, session()))
    (seen,) = platform.ebhpc_observe([one])
    assert seen.state == "PENDING"
    assert "Quota exceeded" in words(seen)
    place.cloud.quota(instances=10)
    until(platform, one, lambda seen: len(of(place, one)) == 1)
    assert of(place, kept) == []
    gone(place, platform, one)


def test_no_valid_host_is_told_and_asked_again_until_there_is_one(place: Place) -> None:
    platform = place.platform(cloud="member", retry="2s")
    platform.ebhpc_snapshot(1)
    hosts = [host.name for host in place.cloud.hosts]
    for host in hosts:
        place.cloud.enable(host, False)
    one = submitted(platform, ready(platform, session(shape=MEDIUM)))
    until(platform, one, lambda seen: "No valid host" in words(seen))
    (refusal,) = platform.follower.refusals
    assert refusal.shape == MEDIUM
    assert platform.ebhpc_snapshot(int(time.time())).nodes == (), "a zone without hypervisors is none"
    for host in hosts:
        place.cloud.enable(host, True)
    until(platform, one, lambda seen: [server["status"] for server in of(place, one)] == ["ACTIVE"])
    place.cloud.quota(ram=-1)
    kept = submitted(
        platform, ready(platform, session(firm=True, shape=Shape(cores=16, memory=65536, devices={"scratch": 40})))
    )
    seen = until(platform, kept, ended)
    assert seen.state == "FAILED"
    assert "No valid host" in words(seen)
    gone(place, platform, kept)
    gone(place, platform, one)


def test_a_server_that_never_leaves_build_is_deleted_and_asked_for_again(place: Place) -> None:
    platform = place.platform(build_within="2s", retry="1s")
    with place.cloud.held("nova-scheduler"):
        one = submitted(platform, ready(platform, session()))
        until(platform, one, lambda seen: "was not ready within its time" in words(seen))
    slow = replace(platform.settings, build_within=type(platform.settings.build_within)(600))
    platform.follower._settings = slow
    until(platform, one, lambda seen: [server["status"] for server in of(place, one)] == ["ACTIVE"])
    gone(place, platform, one)


def test_servers_that_others_delete_or_stop_or_that_lie_idle_are_told(place: Place, tmp_path: Path) -> None:
    notebook(tmp_path, "import time; time.sleep(300)")
    platform = place.platform()
    with served(tmp_path) as url:
        deleted, stopped = (submitted(platform, ready(platform, session(f"{url}/note.ipynb"))) for _ in range(2))
        for one in (deleted, stopped):
            seen = until(platform, one, runs)
            assert seen.started is not None
        place.cloud.ask("nova", f"/v2.1/servers/{of(place, deleted)[0]['id']}", "DELETE")
        assert until(platform, deleted, lambda seen: seen.state != "RUNNING").state in ("GONE", "FAILED")
        place.cloud.ask("nova", f"/v2.1/servers/{of(place, stopped)[0]['id']}/action", "POST", {"os-stop": None})
        seen = until(platform, stopped, ended)
        assert "was stopped before its job had ended" in words(seen)
    gone(place, platform, stopped)
    waits = place.cloud.root / "var/lib/waits"
    waits.write_text("#!/bin/sh\nexec sleep 300\n", encoding="utf-8")
    waits.chmod(0o755)
    idle = place.platform(boot_within="1s", jobs={"python": "/var/lib/waits"})
    ends = place.platform(jobs={"python": "/nonexistent/python"})
    silent = [(platform, submitted(platform, ready(platform, session()))) for platform in (idle, ends)]
    for (platform, one), said in zip(silent, ("The server is there", "The server has ended"), strict=True):
        assert f"{said}, and nothing in it has told its console" in words(until(platform, one, ended))
        gone(place, platform, one)


def test_orphans_and_second_servers_are_deleted_and_what_belongs_to_a_session_is_not(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = place.platform()
    orphan, kept = (submitted(platform, ready(platform, session())) for _ in range(2))
    (made,) = platform.cloud.create([platform.launches.body(kept)])
    assert made.id is not None
    assert len(of(place, kept)) == 2
    platform.ebhpc_observe([kept])
    place.cloud.until(lambda: len(of(place, kept)) == 1, 120, "the second one is deleted")
    platform.ebhpc_reconcile([kept])
    assert len(of(place, orphan)) == 1, "it is young"
    monkeypatch.setattr(launching, "YOUNG", -60)
    platform.ebhpc_reconcile([kept])
    place.cloud.until(lambda: not of(place, orphan), 120, "the orphan is deleted")
    assert len(of(place, kept)) == 1
    gone(place, platform, kept)


def test_a_kept_start_is_made_on_its_hypervisor_at_its_time(place: Place) -> None:
    platform = place.platform(capacity="own", pin=True)
    platform.ebhpc_snapshot(1)
    one = ready(platform, session(firm=True, start=6, node="node2"))
    one = submitted(platform, one)
    (seen,) = platform.ebhpc_observe([one])
    assert seen.state == "PENDING"
    assert of(place, one) == []
    until(platform, one, lambda seen: [server["status"] for server in of(place, one)] == ["ACTIVE"])
    assert time.time() >= one.start
    (server,) = of(place, one)
    assert server["OS-EXT-SRV-ATTR:hypervisor_hostname"] == "node2"
    (job,) = platform.ebhpc_snapshot(int(time.time())).running
    assert (job.session, job.ends) == (one.uuid, one.end)
    assert job.allocations == (Allocation(node="node2", cores=1, memory=1024, devices={"scratch": 10}),)
    gone(place, platform, one)


def test_a_floating_ip_is_given_to_a_server_and_given_back(place: Place) -> None:
    platform = place.platform(connectors={"through": "floating", "network": "public"})
    one = submitted(platform, ready(platform, session()))
    until(platform, one, lambda seen: [server["status"] for server in of(place, one)] == ["ACTIVE"])
    (server,) = platform.cloud.servers()
    address = platform.follower._address(one, server)
    assert address is not None
    assert address.startswith("198.51.100.")
    assert platform.follower._address(one, server) == address
    (listed,) = place.cloud.ask("neutron", "/v2.0/floatingips")["floatingips"]
    assert listed["description"] == one.native
    gone(place, platform, one)
    assert place.cloud.ask("neutron", "/v2.0/floatingips")["floatingips"] == []


def test_ports_are_reached_through_the_login_host_alone(place: Place) -> None:
    runtime = {"kind": "apptainer", "pull_options": ["--no-https"], "run_options": ["--no-privs"]}
    with containers.registry() as registry, place.cloud.network(int(registry.address.rpartition(":")[2])) as login:
        settings: dict[str, Any] = {
            "ssh": {"port": login.port, "known_hosts": str(login.known_hosts)},
            "jobs": {"runtime": runtime},
            "connectors": {
                "through": "forward",
                "address": "127.0.0.1",
                "name": "localhost",
                "ports": list(place.cloud.ports.forwarded),
            },
        }
        platform = place.platform(**settings)
        image = DockerImage(locations=[registry.location], digest=registry.digest)
        port = DockerPort(internal=DockerInternalPort(port=8080), protocol="HTTP", path="/large")
        script = "cd $EBHPC_RESULTS && yes 0123456 | head -c 3000000 >large && exec httpd -f -p 8080 -h ."
        container = DockerContainer(
            image=image, command=["sh", "-c", script], network=DockerNetwork(ports=[port]), environment={}
        )
        one = submitted(platform, ready(platform, session(executable=container, duration=900)))
        seen = until(platform, one, lambda seen: bool(seen.connectors))
        (connector,) = seen.connectors or ()
        outer = place.cloud.ports.forwarded[0]
        assert (connector.status, connector.location) == ("AVAILABLE", f"http://localhost:{outer}/large")
        for _ in range(3):
            assert httpx.get(str(connector.location), timeout=60).content == b"0123456\n" * 375_000
        (server,) = platform.cloud.servers()
        here = {one.address for addresses in psutil.net_if_addrs().values() for one in addresses}
        assert server.addresses[0] not in here
        place.cloud.cut()
        place.cloud.until(lambda: answered(str(connector.location)), 120, "a connection that was lost is made again")
        # A driver that starts again takes the same port
        ended_with_its_process(platform)
        with pytest.raises(httpx.TransportError):
            httpx.get(str(connector.location), timeout=10)
        platform = place.platform(**settings)
        (seen,) = platform.ebhpc_observe([one])
        assert seen.connectors == (connector,)
        with httpx.stream("GET", str(connector.location), timeout=60) as answer:
            assert answer.status_code == 200
            gone(place, platform, one)
        with pytest.raises(httpx.TransportError):
            httpx.get(str(connector.location), timeout=10)
        ended_with_its_process(platform)


@pytest.mark.parametrize("way", ["certificate", "jump"])
def test_other_ways_in_work(place: Place, way: str) -> None:
    ssh = place.cloud.ssh
    keys = ssh.key_file.parent
    host = {"host": ssh.host, "port": ssh.port, "user": ssh.user, "known_hosts": str(ssh.known_hosts)}
    certified = {"key_file": str(keys / "certified"), "certificate_file": str(keys / "certified-cert.pub")}
    more = certified if way == "certificate" else {"jump": {**host, "key_file": str(ssh.key_file)}}
    platform = place.platform(ssh=more)
    assert [answer.status for answer in platform.cloud.ask(Call(service="who"))] == [200]
