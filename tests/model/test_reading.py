"""Reading a whole request: what it becomes, and what of it is refused."""

from __future__ import annotations

import copy
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebhpc import model
from ebhpc.model import Request, kinds
from ebhpc.model.reading import RequestLimits, read_request, reissue
from ebhpc.model.registry import Kinds
from tests.model.requests import KINDS, NOW, document, found, full_request, reading, uuids
from tests.model.strategies import plain
from tests.model.test_registry import BatchScript, GpuCompute, places, put

NOTEBOOK: dict[str, Any] = {"kind": kinds.JUPYTER_NOTEBOOK, "location": "https://example.org/a.ipynb"}
INVALID = "urn:invalid-value"
MISSING = "urn:missing-required-value"
LIMIT = "urn:resource-limit"
NOT_FOUND = "urn:resource-not-found"
DUPLICATE = "urn:duplicate-resource"
UNSUPPORTED = "urn:not-supported"


def read(raw: object) -> Request:
    outcome = reading(raw)
    assert outcome.problems == ()
    assert outcome.request is not None
    return outcome.request


def uuid_of(element: Any) -> str:
    return str(element.meta.uuid)


# --- what a request becomes ------------------------------------------------------------------------------


def test_a_request_for_a_notebook_alone_gets_all_the_defaults() -> None:
    request = read({"executable": NOTEBOOK})
    assert isinstance(request.compute, model.SimpleCompute)
    assert request.compute.cores == request.compute.memory == model.Range(min=1, max=1)
    assert request.demand == model.Demand(
        least=model.Shape(cores=1, memory=1024),
        most_cores=1,
        most_memory=1024,
        duration=7200,
        earliest=NOW,
        latest=NOW + 7200,
    )
    assert request.volumes == request.storage == request.data == ()


def test_a_full_request_is_read_whole() -> None:
    request = read(full_request())
    demand = request.demand
    assert (demand.least.cores, demand.most_cores) == (2, 8)
    assert (demand.least.memory, demand.most_memory) == (4096, 16_384)
    assert demand.duration == 4 * 3600
    assert demand.latest - demand.earliest == 86_400
    assert isinstance(request.executable, model.DockerContainer)
    assert request.executable.image is not None
    assert request.executable.image.platform == model.DockerPlatform(architecture="amd64", os="linux")
    assert request.executable.privileged is False
    assert request.executable.network is not None
    assert request.executable.network.ports is not None
    assert request.executable.network.ports[0].protocol == "HTTP"


def test_every_element_has_a_uuid_of_ours_and_keeps_its_name() -> None:
    raw = full_request()
    theirs = str(UUID(int=2**100))
    raw["storage"][0]["meta"]["uuid"] = theirs
    request = read(raw)
    parts = [request.executable, request.compute, *request.volumes, *request.storage, *request.data]
    identities = [uuid_of(part) for part in parts]
    assert len(set(identities)) == len(parts) == 7
    assert theirs not in identities
    assert [part.meta.name for part in parts if part.meta and part.meta.name] == ["fit", "box", "scratch", "in"]
    assert request.compute.volumes == list(request.volumes)


def test_the_document_is_left_as_it_is() -> None:
    before = document(full_request())
    outcome = read_request(before, now=NOW, new_uuid=uuids())
    assert before == document(full_request())
    assert outcome.request is not None
    assert outcome.request.document is before


def test_references_become_uuids_and_go_both_ways() -> None:
    request = read(full_request())
    scratch, own = request.storage
    (data,) = request.data
    assert [(volume.resource, volume.mode) for volume in request.volumes] == [  # type: ignore[attr-defined]
        (uuid_of(data), "READONLY"),
        (uuid_of(scratch), "READWRITE"),
    ]
    assert data.storage == uuid_of(own)
    assert own.data == [uuid_of(data)]
    assert scratch.data is None


def test_a_reference_may_be_a_uuid_that_the_client_gave_in_any_case() -> None:
    raw = full_request()
    raw["storage"][0]["meta"] = {"uuid": "ABCDEF00-0000-4000-8000-000000000001"}
    raw["compute"]["volumes"][1]["resource"] = "abcdef00-0000-4000-8000-000000000001"
    raw["data"][0]["storage"] = "ABCDEF00-0000-4000-8000-000000000001"
    request = read(raw)
    (store,) = request.storage
    assert request.volumes[1].resource == uuid_of(store)  # type: ignore[attr-defined]
    assert request.data[0].storage == uuid_of(store)
    assert store.data == [uuid_of(request.data[0])]


def test_storage_may_name_its_data_instead() -> None:
    raw = full_request()
    raw["storage"][0]["data"] = ["in"]
    request = read(raw)
    (store,) = request.storage
    assert store.data == [uuid_of(request.data[0])]
    assert request.data[0].storage == uuid_of(store)
    raw["data"][0]["storage"] = "scratch"
    assert len(read(raw).storage) == 1


def test_a_mode_that_the_client_gave_stays() -> None:
    raw = full_request()
    raw["compute"]["volumes"][0]["mode"] = "READWRITE"
    raw["compute"]["volumes"][1]["mode"] = "READONLY"
    assert [volume.mode for volume in read(raw).volumes] == ["READWRITE", "READONLY"]  # type: ignore[attr-defined]


def test_data_without_storage_gets_one_of_its_size_where_that_is_known() -> None:
    gib = 2**30
    raw = {
        "executable": NOTEBOOK,
        "data": [
            {"kind": kinds.SKAO_DATA, "skao": {"datasize": 3 * gib + 1}},
            {"kind": kinds.IVOA_DATA, "ivoa": {"datalink": {"content_length": 0}}},
            {"kind": kinds.SIMPLE_DATA, "location": "https://example.org/a"},
        ],
    }
    request = read(raw)
    assert [store.size for store in request.storage] == [model.Range(min=4), model.Range(min=1), None]  # type: ignore[attr-defined]
    assert [item.storage for item in request.data] == [uuid_of(store) for store in request.storage]


def test_what_only_the_broker_can_say_is_dropped() -> None:
    raw = full_request()
    raw["compute"] |= {"phase": "RUNNING", "schedule": {"preparing": {"duration": "PT1H"}}, "costs": raw["costs"]}
    raw["compute"]["meta"] |= {"url": "https://example.org/x", "created": "2020-01-01T00:00:00Z", "messages": [{}]}
    raw["executable"]["network"]["ports"][0]["external"] = {"port": 80, "addresses": ["a"]}
    request = read(raw)
    compute = request.compute
    assert (compute.phase, compute.schedule, compute.costs) == (None, None, None)
    assert compute.meta == model.Metadata(uuid=uuid_of(compute), name="box")
    assert request.executable.network.ports[0].external is None  # type: ignore[attr-defined]


def test_a_plugins_kinds_are_read_like_our_own() -> None:
    here = Kinds([BatchScript, GpuCompute])
    raw = {
        "executable": {"kind": "https://plugins.example.org/executable/batch-script", "lines": 1},
        "compute": {
            "kind": "https://plugins.example.org/compute/gpus",
            "gpus": {"min": 1},
            "volumes": [{"kind": kinds.SIMPLE_VOLUME, "path": "/a", "resource": "s"}],
        },
        "storage": [{"kind": kinds.SIMPLE_STORAGE, "meta": {"name": "s"}}],
    }
    decoded = here.request(raw).document
    assert decoded is not None
    request = read_request(decoded, now=NOW, new_uuid=uuids()).request
    assert request is not None
    assert isinstance(request.compute, GpuCompute)
    assert request.compute.gpus == model.Range(min=1)
    assert request.compute.volumes == list(request.volumes)
    assert request.demand.least == model.Shape(cores=1, memory=1024)


def test_reissued_copies_share_no_uuid_and_refer_among_themselves() -> None:
    request = read(full_request())
    new_uuid = uuids()
    for _ in range(100):
        new_uuid()
    copy_ = reissue(request, new_uuid)
    parts = [copy_.executable, copy_.compute, *copy_.volumes, *copy_.storage, *copy_.data]
    assert all(UUID(uuid_of(part)).int > 100 for part in parts)
    assert len({uuid_of(part) for part in parts}) == len(parts)
    scratch, own = copy_.storage
    assert [volume.resource for volume in copy_.volumes] == [uuid_of(copy_.data[0]), uuid_of(scratch)]  # type: ignore[attr-defined]
    assert copy_.data[0].storage == uuid_of(own)
    assert own.data == [uuid_of(copy_.data[0])]
    assert copy_.compute.volumes == list(copy_.volumes)
    assert (copy_.demand, copy_.document) == (request.demand, request.document)
    assert copy_.executable.meta is not None
    assert copy_.executable.meta.name == "fit"
    assert request == read(full_request())


# --- compute ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "least", "most"),
    [
        (None, 1, 1),
        ({}, 1, 1),
        ({"min": 3}, 3, None),
        ({"max": 3}, 1, 3),
        ({"min": 3, "max": 3}, 3, 3),
        ({"min": 3, "max": 2**62}, 3, 2**31 - 1),
    ],
)
def test_cores_and_memory_have_defaults(wanted: Any, least: int, most: int | None) -> None:
    raw = {"executable": NOTEBOOK, "compute": {"kind": kinds.SIMPLE_COMPUTE, "cores": wanted, "memory": wanted}}
    request = read(raw)
    assert (request.demand.least.cores, request.demand.most_cores) == (least, most)
    assert request.demand.least.memory == least * 1024
    assert request.demand.most_memory == (None if most is None else most * 1024)
    assert request.compute.cores == request.compute.memory == model.Range(min=least, max=most)


def test_ranges_that_hold_nothing_are_invalid() -> None:
    raw = full_request()
    raw["compute"] |= {"cores": {"min": 0, "max": -1}, "memory": {"min": 5, "max": 4}}
    raw["storage"][0]["size"] = {"min": 2**31}
    assert found(raw) == [
        (INVALID, "/compute/cores/min"),
        (INVALID, "/compute/cores/max"),
        (INVALID, "/compute/memory/min"),
        (INVALID, "/storage/0/size/min"),
    ]


# --- schedule --------------------------------------------------------------------------------------------


def test_a_start_interval_that_began_is_cut_to_now() -> None:
    raw = full_request() | {"schedule": {"requested": {"start": "2030-03-17T00:00:00Z/P1D"}}}
    demand = read(raw).demand
    assert demand.earliest == NOW
    assert demand.duration == 7200


def test_a_start_interval_that_never_ends_is_cut_to_the_horizon() -> None:
    raw = full_request() | {"schedule": {"requested": {"start": "2030-03-18/9999-12-31"}}}
    assert read(raw).demand.latest == NOW + RequestLimits().horizon


@pytest.mark.parametrize(
    ("requested", "problem"),
    [
        ({"start": "2030-03-16T00:00:00Z/P1D"}, (INVALID, "/schedule/requested/start")),
        ({"start": "9000-03-16T00:00:00Z/P1D"}, (LIMIT, "/schedule/requested/start")),
        ({"start": "soon"}, (INVALID, "/schedule/requested/start")),
        ({"start": "2030-03-19/2030-03-18"}, (INVALID, "/schedule/requested/start")),
        ({"duration": "P1M"}, (INVALID, "/schedule/requested/duration")),
        ({"duration": "PT0S"}, (INVALID, "/schedule/requested/duration")),
        ({"duration": ""}, (INVALID, "/schedule/requested/duration")),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(requested: Any, problem: Any) -> None:
    assert found(full_request() | {"schedule": {"requested": requested}}) == [problem]


# --- executables -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("image", None, [(MISSING, "/locations"), (MISSING, "/digest")]),
        ("image", {"locations": [], "digest": "md5:1"}, [(MISSING, "/locations"), (INVALID, "/digest")]),
        ("image.digest", "sha256:" + "A1" * 32, [(INVALID, "")]),
        ("image.digest", "sha256:" + "a1" * 32 + "\n", [(INVALID, "")]),
        ("image.locations", ["-v/:/host"], [(INVALID, "/0")]),
        ("image.locations", ["https://ghcr.io/a/b"], [(INVALID, "/0")]),
        ("image.locations", ["ghcr.io/A/b", "a b", "", "a" * 600], [(INVALID, f"/{n}") for n in range(4)]),
        ("image.locations", ["ghcr.io/a/b@sha256:" + "00" * 32], [(INVALID, "/0")]),
        ("image.platform", {"os": "linux; rm"}, [(INVALID, "/os")]),
        ("environment", {"A=B": "1"}, [(INVALID, "")]),
        ("environment", {"": "1"}, [(INVALID, "")]),
        ("environment", {"A\nB": "1"}, [(INVALID, "")]),
        ("entrypoint", "", [(INVALID, "")]),
        ("command", ["x"] * 1025, [(LIMIT, "")]),
        ("command", ["x" * 40_000], [(INVALID, "/0")]),
        ("network.ports", [{"access": True}], [(MISSING, "/0/internal/port")]),
        (
            "network.ports",
            [{"internal": {"port": 0}}, {"internal": {"port": 65_536}}],
            [(INVALID, f"/{n}/internal/port") for n in (0, 1)],
        ),
        ("network.ports", [{"internal": {"port": 1}, "protocol": "SCTP"}], [(INVALID, "/0/protocol")]),
        ("network.ports", [{"internal": {"port": 1}, "path": "/a\r\nX: y"}], [(INVALID, "/0/path")]),
        (
            "network.ports",
            [{"internal": {"port": 1}}, {"internal": {"port": 1}, "protocol": "HTTP"}],
            [(DUPLICATE, "/1")],
        ),
    ],
)
def test_a_container_that_cannot_run_is_refused(path: str, value: Any, problem: list[tuple[str, str]]) -> None:
    keys = ("executable", *path.split("."))
    pointer = "/" + "/".join(keys)
    assert found(put(full_request(), keys, value)) == [(kind, pointer + rest) for kind, rest in problem]


@pytest.mark.parametrize(
    "location",
    [
        "busybox",
        "library/busybox:1.36",
        "localhost:5000/a/b_c.d-e:v1",
        "[::1]:5000/a",
        "127.0.0.1:5000/img@sha256:" + "a1" * 32,
        "Registry.Example.org/group/image:TAG_1.x",
    ],
)
def test_image_references_of_all_forms_are_accepted(location: str) -> None:
    raw = full_request()
    raw["executable"]["image"]["locations"] = [location]
    assert found(raw) == []


def test_the_same_port_may_be_published_by_udp_and_tcp() -> None:
    raw = full_request()
    raw["executable"]["network"]["ports"] = [
        {"internal": {"port": 53}},
        {"internal": {"port": 53}, "protocol": "udp"},
    ]
    ports = read(raw).executable.network.ports  # type: ignore[attr-defined]
    assert [port.protocol for port in ports] == ["TCP", "UDP"]


@pytest.mark.parametrize("kind", [kinds.JUPYTER_NOTEBOOK, kinds.SINGULARITY_CONTAINER])
def test_a_notebook_or_singularity_container_needs_a_url(kind: str) -> None:
    assert found({"executable": {"kind": kind}}) == [(MISSING, "/executable/location")]
    for bad in (
        "",
        "a.ipynb",
        "/etc/passwd",
        "https://",
        "https:///a",
        "https://a b/",
        "http://[::1/a",
        "https://a:0/b",
    ):
        assert found({"executable": {"kind": kind, "location": bad}}) == [(INVALID, "/executable/location")], bad
    for good in ("https://example.org/a.ipynb?x=1", "file:///srv/a.ipynb", "library://a/b:c", "docker://ghcr.io/a/b"):
        assert found({"executable": {"kind": kind, "location": good}}) == [], good


def test_a_request_needs_an_executable() -> None:
    assert found({}) == [("urn:executable-required", "/executable")]


# --- names and references --------------------------------------------------------------------------------


def test_names_are_unique_among_all_elements() -> None:
    raw = full_request()
    raw["executable"]["meta"]["name"] = "box"
    raw["compute"]["volumes"][0]["meta"] = {"name": "scratch"}
    raw["data"].append(copy.deepcopy(raw["data"][0]))
    assert found(raw)[:3] == [
        (DUPLICATE, "/compute/meta/name"),
        (DUPLICATE, "/storage/0/meta/name"),
        (DUPLICATE, "/data/1/meta/name"),
    ]


def test_a_uuid_of_the_client_is_unique_too_and_a_uuid() -> None:
    raw = full_request()
    raw["storage"][0]["meta"]["uuid"] = raw["data"][0]["meta"]["uuid"] = str(UUID(int=7))
    raw["compute"]["meta"]["uuid"] = "seven"
    assert found(raw) == [(INVALID, "/compute/meta/uuid"), (DUPLICATE, "/data/0/meta/uuid")]


@pytest.mark.parametrize("name", ["", "a\nb", "x\x7f", "n" * 256, "\u2028"])
def test_a_name_that_is_no_name_is_refused(name: str) -> None:
    assert found(put(full_request(), ("compute", "meta", "name"), name)) == [(INVALID, "/compute/meta/name")]


def test_references_to_nothing_or_to_the_wrong_thing_are_not_found() -> None:
    raw = full_request()
    raw["compute"]["volumes"][0]["resource"] = "box"
    raw["compute"]["volumes"][1]["resource"] = "nowhere"
    raw["data"][0]["storage"] = "in"
    raw["storage"][0]["data"] = ["scratch", "x" * 1000]
    assert sorted(found(raw)) == [
        (NOT_FOUND, "/compute/volumes/0/resource"),
        (NOT_FOUND, "/compute/volumes/1/resource"),
        (NOT_FOUND, "/data/0/storage"),
        (NOT_FOUND, "/storage/0/data/0"),
        (NOT_FOUND, "/storage/0/data/1"),
    ]


def test_data_lies_in_one_storage() -> None:
    raw = full_request()
    raw["storage"] += [{"kind": kinds.SIMPLE_STORAGE, "meta": {"name": "other"}, "data": ["in"]}]
    raw["data"][0]["storage"] = "scratch"
    assert found(raw) == [(INVALID, "/storage/1/data/0")]


@pytest.mark.parametrize("path", ["data", "/", "//data", "/data/", "/a/../b", "/a//b", "/a/.", "", "/a\0", "/a\nb"])
def test_a_mount_point_is_a_plain_absolute_path(path: str) -> None:
    raw = full_request()
    raw["compute"]["volumes"][0]["path"] = path
    if "\0" in path:
        assert KINDS.request(raw).document is None
    else:
        assert found(raw) == [(INVALID, "/compute/volumes/0/path")]


def test_volumes_say_what_goes_where_and_no_two_the_same_place() -> None:
    raw = full_request()
    raw["compute"]["volumes"][1]["path"] = "/data"
    raw["compute"]["volumes"].append({"kind": kinds.SIMPLE_VOLUME})
    assert found(raw) == [
        (DUPLICATE, "/compute/volumes/1/path"),
        (MISSING, "/compute/volumes/2/resource"),
        (MISSING, "/compute/volumes/2/path"),
    ]


def test_data_says_where_it_is() -> None:
    raw = {
        "executable": NOTEBOOK,
        "data": [
            {"kind": kinds.SIMPLE_DATA},
            {"kind": kinds.SIMPLE_DATA, "location": "in.fits"},
            {"kind": kinds.S3_DATA, "endpoint": "s3 somewhere"},
            {"kind": kinds.RUCIO_DATA, "rucio": {"endpoint": "rucio"}},
            {"kind": kinds.IVOA_DATA, "ivoa": {"ivoid": "x", "obscore": {"access_url": "y"}}},
            {"kind": kinds.SKAO_DATA, "skao": {"datasize": -1, "replicas": [{"dataurl": "z"}]}},
            {"kind": kinds.SKAO_DATA, "ivoa": {"datalink": {"access_url": "z", "content_length": -1}}},
        ],
    }
    assert found(raw) == [
        (MISSING, "/data/0/location"),
        (INVALID, "/data/1/location"),
        (INVALID, "/data/2/endpoint"),
        (INVALID, "/data/3/rucio/endpoint"),
        (INVALID, "/data/4/ivoa/ivoid"),
        (INVALID, "/data/4/ivoa/obscore/access_url"),
        (INVALID, "/data/5/skao/datasize"),
        (INVALID, "/data/5/skao/replicas/0/dataurl"),
        (INVALID, "/data/6/ivoa/datalink/access_url"),
        (INVALID, "/data/6/ivoa/datalink/content_length"),
    ]


# --- all at once -----------------------------------------------------------------------------------------


def test_unknown_kinds_are_refused_wherever_they_stand() -> None:
    strange = {"kind": "urn:some:thing"}
    raw = {
        "executable": strange,
        "compute": {"kind": kinds.SIMPLE_COMPUTE, "volumes": [strange], "costs": [strange]},
        "storage": [strange],
        "data": [{"kind": kinds.SIMPLE_DATA, "location": "https://example.org/a", "metrics": [strange]}, strange],
        "costs": [strange],
        "metrics": [strange],
    }
    assert sorted(found(raw)) == sorted(
        (UNSUPPORTED, path)
        for path in (
            "/executable",
            "/compute/volumes/0",
            "/compute/costs/0",
            "/storage/0",
            "/data/0/metrics/0",
            "/data/1",
            "/costs/0",
            "/metrics/0",
        )
    )
    assert found(full_request() | {"compute": strange})[0] == (UNSUPPORTED, "/compute")


def test_all_problems_are_told_at_once() -> None:
    raw = full_request()
    raw["schedule"]["requested"] = {"duration": "P1Y", "start": "x"}
    raw["executable"]["image"] = {}
    raw["compute"]["cores"] = {"min": 3, "max": 2}
    raw["compute"]["volumes"][0]["resource"] = "nowhere"
    raw["data"][0]["location"] = "nowhere"
    raw["costs"][0] = {"kind": kinds.SIMPLE_COST, "min": 2, "max": 1}
    assert [path for _, path in found(raw)] == [
        "/schedule/requested/duration",
        "/schedule/requested/start",
        "/costs/0/type",
        "/costs/0/min",
        "/executable/image/locations",
        "/executable/image/digest",
        "/compute/cores/min",
        "/data/0/location",
        "/compute/volumes/0/resource",
    ]


def test_more_elements_than_the_limit_are_refused_unread() -> None:
    raw = full_request()
    raw["data"] = [{"kind": kinds.SIMPLE_DATA, "meta": {"name": "in"}}] * 300
    assert (LIMIT, "/data") in found(raw)
    assert len(found(raw)) == 2  # the other: the volume's data, which was not read


@settings(max_examples=400, deadline=None)
@given(st.tuples(st.sampled_from(places(full_request())), plain))
def test_any_data_at_any_place_gives_a_request_or_problems(change: tuple[Any, Any]) -> None:
    decoded = KINDS.request(put(full_request(), *change))
    if decoded.document is None:
        return
    outcome = read_request(decoded.document, now=NOW, new_uuid=uuids())
    assert (outcome.request is None) == bool(outcome.problems)
    for problem in outcome.problems:
        assert str(problem).isprintable()
        assert len(str(problem)) < 1000
        assert (problem.values or {})["path"].startswith("/")
    if outcome.request is not None:
        demand = outcome.request.demand
        assert demand.earliest <= demand.latest
        assert demand.earliest >= NOW
        assert 1 <= demand.least.cores <= (demand.most_cores or 2**31)
        assert 1024 <= demand.least.memory <= (demand.most_memory or 2**42)
        KINDS.to_json(outcome.request)
        KINDS.to_json(reissue(outcome.request, uuids()))
