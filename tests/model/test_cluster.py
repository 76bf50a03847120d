"""Compute on a cluster: what a request asks for becomes the planner's demand, and bad input is told all at once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebhpc import media
from ebhpc.model import ClusterCompute, Demand, Gpus, Range, Request, Shape, asked_at, gpus_of, kinds
from ebhpc.model.reading import reissue
from tests.model.requests import KINDS, found, full_request, reading, uuids

INVALID = "urn:invalid-value"
GIB = 1024


def asked(**compute: Any) -> dict[str, Any]:
    """A notebook on a cluster."""
    return {
        "executable": {"kind": kinds.JUPYTER_NOTEBOOK, "location": "https://example.org/a.ipynb"},
        "compute": {"kind": kinds.CLUSTER_COMPUTE, **compute},
    }


def read(**compute: Any) -> Request:
    """The request that is read without a problem."""
    result = reading(asked(**compute))
    assert result.problems == ()
    assert result.request is not None
    return result.request


def demand(**compute: Any) -> Demand:
    return read(**compute).demand


def test_everything_that_is_asked_for_reaches_the_planner() -> None:
    request = read(
        nodes={"min": 3, "max": 5},
        cores={"min": 4, "max": 16},
        memory={"min": 8, "max": 32},
        gpus={"min": 2, "max": 4, "model": "a100"},
        scratch={"min": 100, "max": 200},
        features=["bigmem", "ib=hdr"],
        licences={"matlab": 2, "ansys@server1": 1},
        partition="gpu",
    )
    wanted = request.demand
    devices = {"gpu": 2, "gpu:a100": 2, "scratch": 100}
    assert wanted.nodes == 3
    assert wanted.least == Shape(cores=4, memory=8 * GIB, devices=devices)
    assert (wanted.most_cores, wanted.most_memory) == (16, 32 * GIB)
    assert wanted.most_devices == {"gpu": 4, "gpu:a100": 4, "scratch": 200}
    assert wanted.features == ("bigmem", "ib=hdr")
    assert wanted.licences == {"matlab": 2, "ansys@server1": 1}
    assert (wanted.partition, wanted.exclusive) == ("gpu", False)
    assert isinstance(request.compute, ClusterCompute)
    assert request.compute.gpus == Gpus(min=2, max=4, model="a100")


def test_nothing_said_is_one_core_and_one_gib_on_one_node() -> None:
    request = read()
    assert request.demand.nodes == 1
    assert request.demand.least == Shape(cores=1, memory=GIB)
    assert (request.demand.most_cores, request.demand.most_memory, request.demand.most_devices) == (1, GIB, {})
    assert request.compute.nodes == Range(min=1, max=1)
    assert request.compute.gpus is None


@pytest.mark.parametrize(
    ("gpus", "least", "most"),
    [
        ({}, {"gpu": 1}, {"gpu": 1}),
        ({"model": "t4"}, {"gpu": 1, "gpu:t4": 1}, {"gpu": 1, "gpu:t4": 1}),
        ({"min": 2}, {"gpu": 2}, {}),
        ({"max": 2}, {"gpu": 1}, {"gpu": 2}),
        ({"min": 1, "max": 2**40}, {"gpu": 1}, {"gpu": 2**31 - 1}),
    ],
)
def test_gpus_are_bounded_like_cores(gpus: dict[str, Any], least: dict[str, int], most: dict[str, int]) -> None:
    wanted = demand(gpus=gpus)
    assert (wanted.least.devices, wanted.most_devices) == (least, most)


def test_whole_nodes_have_no_upper_bound_where_none_is_said() -> None:
    wanted = demand(exclusive=True, nodes={"min": 2}, memory={"max": 64})
    assert wanted.exclusive
    assert wanted.least == Shape(cores=1, memory=GIB)
    assert (wanted.most_cores, wanted.most_memory) == (None, 64 * GIB)


def test_a_feature_named_twice_is_asked_for_once() -> None:
    assert demand(features=["fast", "bigmem", "fast"]).features == ("fast", "bigmem")


def test_all_problems_are_told_at_once() -> None:
    assert found(
        asked(
            nodes={"min": 0},
            cores={"min": 9, "max": 8},
            memory={"max": -1},
            gpus={"min": -2, "max": 0, "model": "a100; rm -rf /"},
            scratch={"min": 2**31},
            features=["fast", "big&mem", ""],
            licences={"matlab": 0, "a:b": 1, "ansys": 2**31},
            partition="batch,gpu",
        )
    ) == [
        (INVALID, "/compute/nodes/min"),
        (INVALID, "/compute/cores/min"),
        (INVALID, "/compute/memory/max"),
        (INVALID, "/compute/gpus/min"),
        (INVALID, "/compute/gpus/max"),
        (INVALID, "/compute/gpus/model"),
        (INVALID, "/compute/scratch/min"),
        (INVALID, "/compute/partition"),
        (INVALID, "/compute/features/1"),
        (INVALID, "/compute/features/2"),
        (INVALID, "/compute/licences/matlab"),
        (INVALID, "/compute/licences"),
        (INVALID, "/compute/licences/ansys"),
    ]


def test_a_message_says_which_characters_a_name_may_have() -> None:
    (problem,) = reading(asked(gpus={"model": "a:100"})).problems
    assert str(problem) == (
        '"a:100" at /compute/gpus/model cannot be used: expected the name of a model such as a100: '
        "letters, digits and . _ + -, 64 at most"
    )


def test_too_many_features_and_licences_are_one_problem_each() -> None:
    many = [f"f{number}" for number in range(1025)]
    assert found(asked(features=many, licences=dict.fromkeys(many, 1))) == [
        ("urn:resource-limit", "/compute/features"),
        ("urn:resource-limit", "/compute/licences"),
    ]


def test_wrong_types_are_told_all_and_unknown_properties_are_warnings() -> None:
    wrong = KINDS.request(asked(nodes=3, gpus={"min": "1", "model": 5}, features="fast", licences={"matlab": "1"}))
    assert {(problem.values or {})["path"] for problem in wrong.problems} == {
        "/compute/nodes",
        "/compute/gpus/min",
        "/compute/gpus/model",
        "/compute/features",
        "/compute/licences/matlab",
    }
    strange = KINDS.request(asked(nodes={"min": 1, "most": 2}, gpus={"min": 1, "memory": 80}, qos="high"))
    assert strange.problems == ()
    assert {(warning.values or {})["path"] for warning in strange.warnings} == {
        "/compute/nodes/most",
        "/compute/gpus/memory",
        "/compute/qos",
    }


def test_volumes_and_names_are_those_of_every_compute_element() -> None:
    raw = full_request()
    raw["compute"] |= {"kind": kinds.CLUSTER_COMPUTE, "gpus": {"min": 1}}
    request = reading(raw).request
    assert request is not None
    assert len(request.volumes) == 2
    again = reissue(request, uuids())
    assert isinstance(again.compute, ClusterCompute)
    assert again.compute.gpus == Gpus(min=1)
    assert again.compute.meta is not None
    assert again.compute.meta.name == "box"


@pytest.mark.parametrize("media_type", ["application/json", "application/yaml"])
def test_it_travels_as_json_and_as_yaml(media_type: str) -> None:
    raw = asked(nodes={"min": 2}, gpus={"min": 1, "model": "1e5"}, licences={"off": 1}, features=["no"], exclusive=True)
    decoded = KINDS.request(media.decode(media.encode(raw, media_type), media_type))
    assert decoded.problems == ()
    assert KINDS.to_builtins(decoded.document) == raw


@settings(deadline=None)
@given(st.text(max_size=80))
def test_a_name_is_taken_as_it_is_or_refused(name: str) -> None:
    paths = {"/compute/gpus/model", "/compute/features/0", "/compute/partition", "/compute/licences"}
    raw = asked(gpus={"model": name}, features=[name], licences={name: 1}, partition=name)
    document = KINDS.request(raw)
    if document.document is None:  # NUL characters are found before
        return
    refused = {path for _, path in found(raw)}
    assert refused <= paths
    plain = 0 < len(name) <= 64 and name.isascii() and name[0].isalnum()
    if not plain or any(sign in name for sign in " \t\r\n,;&|()[]*'\"`$\\/<>{}~!?#%^"):
        assert refused == paths
    elif name.isalnum():
        assert refused == set()


_ENDS = st.none() | st.integers(-3, 2**32)
_RANGES = st.none() | st.fixed_dictionaries({}, optional={"min": _ENDS, "max": _ENDS})


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from(["nodes", "cores", "memory", "gpus", "scratch"]), _RANGES),
    st.none() | st.booleans(),
)
def test_ranges_become_bounds_that_hold_or_are_refused(ranges: dict[str, Any], exclusive: bool | None) -> None:
    def fine(wanted: dict[str, Any] | None) -> bool:
        least, most = (wanted or {}).get("min"), (wanted or {}).get("max")
        return (
            (least is None or 1 <= least < 2**31)
            and (most is None or most >= 1)
            and (least is None or most is None or least <= most)
        )

    result = reading(asked(**ranges, exclusive=exclusive))
    wrong = {name for name, wanted in ranges.items() if not fine(wanted)}
    assert {(problem.values or {})["path"].split("/")[2] for problem in result.problems} == wrong
    if wrong:
        return
    assert result.request is not None
    wanted = result.request.demand
    assert wanted.exclusive == bool(exclusive)
    assert wanted.nodes == (ranges.get("nodes") or {}).get("min", 1) or (ranges["nodes"] or {}).get("min") is None
    for least, most in (
        (wanted.least.cores, wanted.most_cores),
        (wanted.least.memory, wanted.most_memory),
        *((count, wanted.most_devices.get(device)) for device, count in wanted.least.devices.items()),
    ):
        assert least >= 1
        assert most is None or least <= most < 2**41
    assert set(wanted.most_devices) <= set(wanted.least.devices)
    assert ("gpu" in wanted.least.devices) == (ranges.get("gpus") is not None)


def test_devices_are_counted_once_and_know_where_they_were_asked_for() -> None:
    assert gpus_of({"gpu": 4, "gpu:a100": 3, "gpu:t4": 1, "scratch": 800, "fpga": 1}) == 5
    assert asked_at("gpu") == "/compute/gpus/min"
    assert asked_at("gpu:a100") == "/compute/gpus/model"
    assert asked_at("scratch") == "/compute/scratch/min"
    assert asked_at("fpga") == "/compute"
