"""What goes to the cloud and what comes back, as pure functions: user data, consoles, snapshots, flavors."""

from __future__ import annotations

import base64
import io
import json
import lzma
import random
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from openstack_lab import SMALL, session

from ebhpc.batch import session_directory
from ebhpc.config import read_settings
from ebhpc.model import Demand, DockerContainer, DockerImage, Shape, kinds
from ebhpc.planning import Flavor, NodeState, decode_snapshot, encode_snapshot, flavored, why_no_flavor
from ebhpc_openstack import console, ebhpc_platform, guest, records, reporter, results
from ebhpc_openstack.platform import OpenStackPlatform
from ebhpc_openstack.settings import OpenStackSettings
from ebhpc_openstack.snapshot import Refusal, Site, snapshot
from tests.model.requests import reading

SETTINGS: dict[str, Any] = {
    "ssh": {"host": "login", "user": "ebhpc", "known_hosts": "/k", "key_file": "/i"},
    "image": "debian",
    "jobs": {"root": "/r", "access": "own", "staging": "job", "runtime": {"kind": "podman"}},
}
UUID = "01234567-89ab-7cde-8f01-23456789abcd"
GIB = 1024


def settings(**more: Any) -> OpenStackSettings:
    return read_settings(OpenStackSettings, {**SETTINGS, **more})


# --- user data -----------------------------------------------------------------------------------------------------


def container(**more: Any) -> DockerContainer:
    image = DockerImage(locations=["quay.io/x/y:1"], digest="sha256:" + "0" * 64)
    return DockerContainer(image=image, **more)


def test_user_data_is_shell_in_which_nothing_of_a_users_stands() -> None:
    hostile = "x'; touch /pwned #\nEND_OF_SCRIPT\nEND_OF_REPORTER\n$(id)"
    one = session(executable=container(command=[hostile], environment={"A": hostile}), name=hostile)
    text = base64.b64decode(guest.user_data(one, settings())).decode()
    assert "pwned" not in text
    assert subprocess.run(["sh", "-n"], input=text, text=True, check=False).returncode == 0
    assert text.startswith("#!/bin/sh\n")
    assert one.uuid in text


def test_user_data_that_is_too_long_for_nova_is_told() -> None:
    noise = base64.b85encode(bytes(range(256)) * 4).decode()

    letters = "".join(random.Random(1).choices(noise, k=60_000))
    one = session(executable=container(environment={"A": letters}))
    with pytest.raises(guest.TooLarge, match="65535"):
        guest.user_data(one, settings())


@pytest.mark.parametrize(
    ("asked", "place", "told"),
    [
        ({"kind": kinds.BATCH_SCRIPT, "script": "#!/bin/sh\ndate\n"}, "/executable/kind", "runs no batch scripts"),
        ({"kind": kinds.RESERVED_TIME}, "/executable", "not time for its user"),
    ],
)
def test_batch_scripts_and_reserved_time_are_refused_with_the_reason(
    tmp_path: Path, asked: dict[str, Any], place: str, told: str
) -> None:
    platform = ebhpc_platform("openstack", "cloud", SETTINGS, tmp_path)
    assert isinstance(platform, OpenStackPlatform)
    request = reading({"executable": asked}).request
    assert request is not None
    (refusal,) = platform.ebhpc_refuses(request)
    assert told in str(refusal.filled)
    assert refusal.values["path"] == place


# --- consoles ------------------------------------------------------------------------------------------------------


def job(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in {"report/status.json": b'{"state": "SUCCEEDED", "exit_code": 0}', **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def said(folder: Path, most: int = 24_576, code: int = 0) -> str:
    """Return what the program in a server writes to its console."""
    return reporter.ended(UUID, str(folder), code, most)


def test_what_a_server_tells_its_console_is_read_even_where_other_lines_come_between(tmp_path: Path) -> None:
    files = {"output/stdout": b"hello\n" * 1000, "output/stderr": b"\xff\x00", "output/results/a/b.txt": b"kept"}
    text = said(job(tmp_path / "job", files), code=0)
    lines = text.split("\n")
    half = len(lines) // 2
    # A kernel's message in the middle of one line of the first copy, and another of the second one is lost
    lines[3] = lines[3][:40] + "[   12.3] eth0: link up" + lines[3][40:]
    del lines[half + 4]
    told = console.told("boot\r\n" + "\r\n".join(lines) + "\r\nlogin:", UUID)
    assert told.ended is not None
    assert told.data is not None
    assert told.ended.left == ()
    found = console.unpacked(told.data)
    assert {name: found[name] for name in files} == files
    assert console.told(text, UUID.replace("0", "1")).ended is None


def test_what_is_too_much_for_a_console_is_left_out_and_named(tmp_path: Path) -> None:

    noise = random.Random(2).randbytes(200_000)
    files = {"output/stdout": noise, "output/results/large": noise, "output/results/small": b"s"}
    told = console.told(said(job(tmp_path / "job", files), most=8192), UUID)
    assert told.ended is not None
    assert told.data is not None
    assert len(told.data) <= 8192
    found = console.unpacked(told.data)
    assert found["output/results/small"] == b"s"
    assert found["output/stdout"] == noise[-len(found["output/stdout"]) :]
    assert dict(told.ended.left) == {"stdout": 200_000 - 2048, "results/large": 200_000}


def archive(members: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return lzma.compress(buffer.getvalue())


def test_a_hostile_archive_reaches_nothing_else() -> None:
    names = ["/etc/x", "../x", "output/../../x", "kept/x", "report", "output/" + "a" * 300, "output/x\ny"]
    found = console.unpacked(archive(dict.fromkeys(names, b"x"), {"output/link": "/etc/passwd"}))
    assert set(found) == {"output/x\ny"}
    with pytest.raises(ValueError, match="too much"):
        console.unpacked(lzma.compress(bytes(300 << 20), preset=0))
    with pytest.raises(ValueError, match="cannot be read"):
        console.unpacked(b"no archive")


@pytest.mark.parametrize("noise", ["@ebhpc 00000000 0/0 {}", "@ebhpc zz", "@ebhpc deadbeef 99999/99999 x"])
def test_lines_that_are_not_ours_say_nothing(noise: str) -> None:
    assert console.told(noise, UUID) == console.Told()
    (line,) = reporter.lines({"uuid": UUID, "what": "begun", "time": 5, "more": "x"}, b"")
    assert console.told(f"{noise}\n{line}", UUID).begun == 5
    (wrong,) = reporter.lines({"uuid": UUID, "what": "begun", "time": "soon"}, b"")
    assert console.told(wrong, UUID) == console.Told()


def test_a_console_that_lost_lines_still_tells_the_exit_code(tmp_path: Path) -> None:
    text = said(job(tmp_path / "job", {"output/stdout": b"x" * 100}), code=3)
    header = next(line for line in text.split("\n") if line)
    directory = session_directory(tmp_path, UUID)
    told = console.told(header, UUID)
    assert told.data is None
    results.ended(directory, told, "server", {})
    status = json.loads((directory.report / "status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("FAILED", 3)
    assert "lost parts" in status["messages"][-1]["template"]


# --- snapshots -----------------------------------------------------------------------------------------------------


def flavor(name: str, cores: int, memory: int, **specs: str) -> dict[str, Any]:
    return {
        "id": f"id-{name}",
        "name": name,
        "vcpus": cores,
        "ram": memory,
        "disk": 10,
        "OS-FLV-EXT-DATA:ephemeral": 0,
        "extra_specs": {key.replace("__", ":"): value for key, value in specs.items()},
    }


def server(number: str, host: str, metadata: dict[str, str] | None = None, **more: Any) -> records.Server:
    given = {"original_name": "small", "vcpus": 2, "ram": 4 * GIB, "disk": 10, "ephemeral": 0, "extra_specs": {}}
    body = {
        "id": number,
        "name": f"ebhpc-{number}",
        "status": "ACTIVE",
        "metadata": metadata or {},
        "hostId": records.host_number("p", host),
        "flavor": given,
        "created": "2026-01-01T00:00:00Z",
        "OS-SRV-USG:launched_at": "2026-01-01T00:00:05.000000",
        **more,
    }
    return records.server(body)


def provider(name: str, used: int, gpus: int = 0) -> dict[str, Any]:
    resources = {
        "VCPU": {"capacity": 8, "used": used},
        "MEMORY_MB": {"capacity": 32 * GIB, "used": 2 * GIB * used},
        "DISK_GB": {"capacity": 100, "used": 10},
    }
    if gpus:
        resources["CUSTOM_GPU"] = {"capacity": gpus, "used": 1}
    return {"uuid": f"u-{name}", "root": f"u-{name}", "name": name, "resources": resources}


def look(**more: Any) -> records.Look:
    small = records.flavor(flavor("small", 2, 4 * GIB))
    gpu = records.flavor(flavor("gpu", 4, 8 * GIB, resources__CUSTOM_GPU="1"))
    given = {
        "project": "p",
        "servers": (server("a", "h1", {"ebhpc_session": UUID, "ebhpc_end": "2000000000"}), server("b", "h1")),
        "flavors": (small, gpu),
        "quota": records.Quota(servers=10, cores=None, memory=50 * GIB),
        "zones": ("z1", "z2"),
        "hypervisors": (
            records.Hypervisor(node="n1", host="h1", up=True, enabled=True),
            records.Hypervisor(node="n2", host="h2", up=True, enabled=False),
            records.Hypervisor(node="n3", host="h3", up=False, enabled=True),
        ),
        "zone_of": {"h1": "z1", "h2": "z2", "h3": "z2"},
        "providers": records.providers([provider("n1", 6, gpus=2), provider("n2", 0), provider("n3", 0)]),
    }
    return records.Look(**{**given, **more})


SITE = Site(platform="cloud", prefix="ebhpc", devices={"CUSTOM_GPU": "gpu"})


def test_hypervisors_are_nodes_and_what_others_use_of_them_is_taken() -> None:
    seen = snapshot(look(), SITE, 1000)
    assert [(node.name, node.state, node.features) for node in seen.nodes] == [
        ("n1", NodeState.UP, ("z1",)),
        ("n2", NodeState.DRAINED, ("z2",)),
        ("n3", NodeState.DOWN, ("z2",)),
    ]
    assert seen.nodes[0].devices == {"scratch": 100, "gpu": 2}
    jobs = {job.id: job for job in seen.running}
    assert (jobs["a"].session, jobs["a"].ends) == (UUID, 2_000_000_000)
    assert (jobs["b"].session, jobs["b"].ends) == (None, None)
    (others,) = jobs["others on n1"].allocations
    assert (others.cores, others.memory, others.devices) == (2, 4 * GIB, {"gpu": 1})
    assert seen.licences == {"quota-servers": 10, "quota-memory-mib": 50 * GIB}
    assert jobs["b"].licences == {"quota-servers": 1, "quota-memory-mib": 4 * GIB}
    assert seen.flavors is not None
    assert seen.flavors[1].shape == Shape(cores=4, memory=8 * GIB, devices={"scratch": 10, "gpu": 1})
    assert decode_snapshot(encode_snapshot(seen)) == seen


def test_where_placement_is_shut_zones_are_nodes_and_refusals_tell_of_room() -> None:
    shut = look(providers=None, hypervisors=(), zone_of={})
    refusals = [Refusal(zone="z1", shape=Shape(cores=4, memory=1), until=1060)]
    seen = snapshot(shut, SITE, 1000, refusals)
    assert [node.name for node in seen.nodes] == ["z1", "z2"]
    (full,) = [job for job in seen.running if job.id == "no room in z1"]
    used = sum(share.cores for job in seen.running for share in job.allocations if share.node == "z1")
    assert seen.nodes[0].cores - used == 3
    assert full.ends == 1060
    assert not [job for job in snapshot(shut, SITE, 1061, refusals).running if job.id.startswith("no room")]


def test_zones_and_flavors_of_the_settings_are_the_only_ones() -> None:
    seen = snapshot(look(), replace(SITE, zones=("z1",), flavors=("gpu",)), 1000)
    assert [node.name for node in seen.nodes] == ["n1"]
    assert [one.name for one in seen.flavors or ()] == ["gpu"]


# --- flavors -------------------------------------------------------------------------------------------------------

FLAVORS = [
    Flavor(name="gpu", shape=Shape(cores=2, memory=8 * GIB, devices={"gpu": 1}), licences={"quota-cores": 2}),
    Flavor(name="small", shape=SMALL, licences={"quota-cores": 1}),
    Flavor(name="wide", shape=Shape(cores=4, memory=4 * GIB), licences={"quota-cores": 4}),
    Flavor(name="high", shape=Shape(cores=4, memory=16 * GIB), licences={"quota-cores": 4}),
]


def demand(cores: int, memory: int, **more: Any) -> Demand:
    least = Shape(cores=cores, memory=memory, devices=more.pop("devices", {}))
    return Demand(least=least, duration=60, earliest=0, latest=1, **more)


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        (demand(1, GIB), 1),
        (demand(2, GIB), 4),
        (demand(2, 5 * GIB), 4),
        (demand(1, GIB, devices={"gpu": 1}), 2),
        (demand(2, GIB, most_cores=3), None),
        (demand(1, GIB, devices={"gpu": 2}), None),
        (demand(1, 5 * GIB, most_memory=15 * GIB), None),
    ],
)
def test_the_smallest_flavor_between_minimum_and_maximum_is_given(wanted: Demand, given: int | None) -> None:
    found = flavored(wanted, FLAVORS)
    assert (found.least.cores if found is not None else None) == given
    if found is None:
        told = str(why_no_flavor(wanted, FLAVORS, platform="cloud"))
        assert "No flavor of cloud" in told
        assert "wide (4 cores, 4 GiB)" in told
    else:
        assert found.licences == {"quota-cores": given}
        assert (found.most_cores, found.most_memory) == (found.least.cores, found.least.memory)
