"""Several nodes with GPUs, asked for over REST and planned on a platform on paper."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import msgspec
import pytest

from ebhpc.api.drafting import session_draft
from ebhpc.config import Costs, Rates
from ebhpc.model import (
    Allocation,
    Gpus,
    Message,
    MessageKind,
    Quote,
    Range,
    Request,
    SimpleCompute,
    Window,
    kinds,
    message,
)
from ebhpc.planning import Node, NodeState
from ebhpc.store import live_bookings
from tests.api.conftest import NOW, Make, Site, compute, notebook
from tests.api.paper_platform import Paper
from tests.api.test_description import judge
from tests.model.requests import reading, uuids

GIB = 1024
A100 = {"gpu": 4, "gpu:a100": 4, "scratch": 800}
T4 = {"gpu": 2, "gpu:t4": 2}
NODES = (
    Node(name="c1", cores=8, memory=16 * GIB, features=("fast",)),
    Node(name="c2", cores=8, memory=16 * GIB, features=("fast",)),
    Node(name="g1", cores=16, memory=64 * GIB, devices=A100, features=("gpu", "fast")),
    Node(name="g2", cores=16, memory=64 * GIB, devices=A100, features=("gpu",)),
    Node(name="g3", cores=16, memory=64 * GIB, devices=A100, features=("gpu",)),
    Node(name="t1", cores=8, memory=32 * GIB, devices=T4, features=("gpu",)),
)
AT_ONCE = {"requested": {"duration": "PT1H", "start": "2030-03-17T17:50:00Z/PT1M"}}
"""An hour in which everything that is offered runs at the same time."""


def cluster(**wanted: Any) -> dict[str, Any]:
    """A request for a notebook on a cluster."""
    return notebook(compute={"kind": kinds.CLUSTER_COMPUTE, **wanted}, schedule=AT_ONCE)


@pytest.fixture
def site(make_site: Make) -> Site:
    """A broker with one cluster: three nodes with four a100 each, one with two t4, two without."""
    costs = Costs(monetary=Rates(per_core_hour=1.0, per_gpu_hour=10.0, per_node_hour=100.0))
    return make_site(Paper("paper", NODES), platform={"costs": costs})


def booked(site: Site, session: str | None = None) -> list[Allocation]:
    """What is booked, for one session or for all."""
    with site.store.read() as tx:
        rows = [row for row in live_bookings(tx) if session in (None, row.session)]
    return [
        Allocation(node=row.node, cores=row.cores, memory=row.memory, devices=json.loads(row.devices)) for row in rows
    ]


def reasons(site: Site, **wanted: Any) -> list[tuple[str, str]]:
    """The kind and path of each reason of a NO."""
    answer = site.post("/requests", cluster(**wanted)).json
    assert answer["result"] == "NO", answer
    return [(item["kind"], item["values"]["path"]) for item in answer["meta"]["messages"]]


def test_an_offer_of_several_nodes_books_a_share_of_each(site: Site) -> None:
    offers = site.offers(cluster(nodes={"min": 2}, cores={"min": 4}, memory={"min": 8}, gpus={"min": 2}))
    offer = offers["offers"][0]
    shares = booked(site, offer["meta"]["uuid"])
    assert len({share.node for share in shares}) == len(shares) == 2
    assert [(share.cores, share.memory, share.devices) for share in shares] == [(4, 8 * GIB, {"gpu": 2})] * 2


def test_an_offer_shows_what_is_given(site: Site) -> None:
    wanted = {
        "nodes": {"min": 2, "max": 3},
        "cores": {"min": 4},
        "memory": {"min": 8},
        "gpus": {"min": 2, "model": "a100"},
        "scratch": {"min": 100},
        "features": ["gpu"],
    }
    given = site.offers(cluster(**wanted))["offers"][0]["compute"]
    assert given["kind"] == kinds.CLUSTER_COMPUTE
    assert given["nodes"] == {"min": 2, "max": 2}
    assert given["cores"] == {"min": 4, "max": 4}
    assert given["memory"] == {"min": 8, "max": 8}
    assert given["gpus"] == {"min": 2, "max": 2, "model": "a100"}
    assert given["scratch"] == {"min": 100, "max": 100}
    assert given["features"] == ["gpu"]


def test_a_model_is_found_where_it_is_and_nowhere_else(site: Site) -> None:
    offers = site.offers(cluster(gpus={"min": 2, "model": "t4"}))["offers"]
    assert {share.node for offer in offers for share in booked(site, offer["meta"]["uuid"])} == {"t1"}
    assert reasons(site, gpus={"min": 3, "model": "t4"}) == [("urn:resource-limit", "/compute/gpus/model")]
    assert reasons(site, gpus={"min": 1, "model": "h100"}) == [("urn:resource-limit", "/compute/gpus/model")]


def test_the_price_counts_each_gpu_of_each_node_once(site: Site) -> None:
    wanted = cluster(nodes={"min": 3}, cores={"min": 2}, gpus={"min": 4, "model": "a100"}, scratch={"min": 10})
    offer = site.offers(wanted)["offers"][0]
    assert offer["schedule"]["available"]["duration"] == "PT1H"
    costs = {item["type"]: item["min"] for item in offer["costs"]}
    assert costs[kinds.MONETARY] == pytest.approx(3 * (2 * 1.0 + 4 * 10.0 + 100.0))


def test_nothing_is_sold_twice(site: Site) -> None:
    """All twelve a100 are asked for, one on each of three nodes at a time, until there are no more."""
    taken = 0
    while True:
        answer = site.post("/requests", cluster(nodes={"min": 3}, gpus={"min": 1, "model": "a100"})).json
        if answer["result"] == "NO":
            break
        assert site.move(answer["offers"][0]["meta"]["uuid"], "ACCEPTED").status == 200
        taken += 1
    assert taken == 4
    used = Counter[str]()
    for share in booked(site):
        used[share.node] += share.devices["gpu"]
        assert share.devices["gpu:a100"] == share.devices["gpu"]
    assert used == {"g1": 4, "g2": 4, "g3": 4}
    # What has no model asked for is left on t1 alone
    assert {share.node for share in booked(site, site.offers(cluster(gpus={}))["offers"][0]["meta"]["uuid"])} == {"t1"}


def test_ranges_grow_and_a_model_is_never_mixed_with_another(make_site: Make) -> None:
    both = Node(name="m", cores=16, memory=64 * GIB, devices={"gpu": 4, "gpu:a100": 3, "gpu:t4": 1})
    site = make_site(Paper("paper", (both,)))
    offers = site.offers(cluster(gpus={"min": 1, "max": 4, "model": "a100"}))["offers"]
    assert offers
    for offer in offers:
        (share,) = booked(site, offer["meta"]["uuid"])
        assert share.devices["gpu"] == share.devices["gpu:a100"] == offer["compute"]["gpus"]["min"]


def test_whole_nodes_are_taken_whole(site: Site) -> None:
    offers = site.offers(cluster(nodes={"min": 2}, features=["fast"], cores={"max": 8}, exclusive=True))["offers"]
    offer = offers[0]
    shares = {share.node: share for share in booked(site, offer["meta"]["uuid"])}
    assert shares.keys() == {"c1", "c2"}
    assert all((share.cores, share.memory) == (8, 16 * GIB) for share in shares.values())
    assert offer["compute"]["cores"] == {"min": 8, "max": 8}
    assert offer["compute"]["memory"] == {"min": 16, "max": 16}
    assert offer["compute"]["exclusive"] is True


def test_whole_nodes_that_differ_are_told_as_ranges_with_all_their_gpus(site: Site) -> None:
    offer = site.offers(cluster(nodes={"min": 4}, features=["gpu"], gpus={"min": 2}, exclusive=True))["offers"][0]
    assert offer["compute"]["cores"] == {"min": 8, "max": 16}
    assert offer["compute"]["gpus"] == {"min": 2, "max": 4}
    devices = {share.node: share.devices for share in booked(site, offer["meta"]["uuid"])}
    assert devices == {"g1": A100, "g2": A100, "g3": A100, "t1": T4}


def test_of_whole_nodes_that_nobody_knows_yet_an_offer_tells_what_was_asked_for() -> None:
    request = reading(cluster(nodes={"min": 2, "max": 4}, cores={"min": 4}, gpus={}, exclusive=True)).request
    assert request is not None
    shares = tuple(Allocation(node="", cores=4, memory=GIB, devices={"gpu": 1}) for _ in range(2))
    window = Window(start=NOW, latest=NOW, end=NOW + 3600, duration=3600, allocations=shares, firm=False)
    offer = session_draft(request, window, Quote(), now=NOW, lead=0, new_uuid=uuids())
    assert (offer.compute.cores, offer.compute.gpus) == (Range(min=4), Gpus(min=1))
    known = msgspec.structs.replace(window, firm=True)
    offer = session_draft(request, known, Quote(), now=NOW, lead=0, new_uuid=uuids())
    assert (offer.compute.cores, offer.compute.gpus) == (Range(min=4, max=4), Gpus(min=1, max=1))


def test_a_node_with_other_work_on_it_is_none_to_take_whole(site: Site) -> None:
    first = site.offers(cluster(features=["fast"], memory={"max": 16}))["offers"][0]
    assert site.move(first["meta"]["uuid"], "ACCEPTED").status == 200
    (busy,) = {share.node for share in booked(site, first["meta"]["uuid"])}
    offers = site.offers(cluster(features=["fast"], memory={"max": 16}, exclusive=True))["offers"]
    named = {share.node for offer in offers for share in booked(site, offer["meta"]["uuid"])}
    assert named == {"c1", "c2"} - {busy}


@pytest.mark.parametrize(
    ("wanted", "path"),
    [
        ({"nodes": {"min": 7}}, "/compute/nodes/min"),
        ({"nodes": {"min": 2**31 - 1}}, "/compute/nodes/min"),
        ({"nodes": {"min": 4}, "gpus": {"min": 4}}, "/compute/nodes/min"),
        ({"cores": {"min": 17}}, "/compute/cores/min"),
        ({"gpus": {"min": 5}}, "/compute/gpus/min"),
        ({"scratch": {"min": 801}}, "/compute/scratch/min"),
        ({"features": ["fast", "bigmem"]}, "/compute/features"),
        ({"licences": {"matlab": 1}}, "/compute/licences/matlab"),
        ({"exclusive": True, "cores": {"max": 7}}, "/compute/cores/max"),
    ],
)
def test_what_the_platform_does_not_have_is_refused_with_its_place(
    site: Site, wanted: dict[str, Any], path: str
) -> None:
    assert reasons(site, **wanted) == [("urn:resource-limit", path)]


def test_scratch_that_no_node_declares_is_refused(make_site: Make) -> None:
    site = make_site()
    assert reasons(site, scratch={"min": 1}) == [("urn:resource-limit", "/compute/scratch/min")]
    assert reasons(site, gpus={"min": 1}) == [("urn:resource-limit", "/compute/gpus/min")]


def test_a_partition_that_is_not_there_is_refused(site: Site) -> None:
    assert reasons(site, partition="gpu") == [("urn:resource-not-found", "/compute/partition")]


def test_nodes_that_are_down_leave_no_window(site: Site) -> None:
    down = [Node(name=node.name, cores=8, memory=GIB, devices=node.devices, state=NodeState.DOWN) for node in NODES]
    site.publish("paper", down)
    answer = site.post("/requests", cluster(nodes={"min": 3}, gpus={"min": 4})).json
    assert answer["result"] == "NO"
    assert answer["meta"]["messages"][0]["kind"] == "urn:no-window"


def test_a_plugin_that_knows_only_the_standard_refuses_it(make_site: Make) -> None:
    def refuses(request: Request) -> list[Message]:
        if type(request.compute) is SimpleCompute:
            return []
        return [message(MessageKind.NOT_SUPPORTED, "simple compute resources only", path="/compute")]

    site = make_site(Paper("paper", NODES, {"ebhpc_refuses": refuses}))
    assert reasons(site, nodes={"min": 1}) == [("urn:not-supported", "/compute")]
    assert site.offers(notebook(compute=compute(1)))["offers"]


def test_all_that_is_wrong_is_told_at_once(site: Site) -> None:
    wrong = reasons(site, nodes={"min": 3, "max": 2}, gpus={"min": 0, "model": "$(id)"}, licences={"a b": 1})
    assert wrong == [
        ("urn:invalid-value", path)
        for path in ("/compute/nodes/min", "/compute/gpus/min", "/compute/gpus/model", "/compute/licences")
    ]


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_it_is_answered_in_both_forms_and_as_our_description_says(site: Site, form: str) -> None:
    wanted = cluster(nodes={"min": 2}, gpus={"min": 1, "model": "a100"}, features=["gpu"])
    description = site.get("/openapi.json", user=None).json
    judge(wanted, "ExecutionRequest", description)
    accept = {"headers": {"Accept": f"application/{form}"}}
    answer = getattr(site.post("/requests", wanted, **accept), form)
    judge(answer, "OfferSet", description)
    assert answer["offers"][0]["compute"]["gpus"] == {"min": 1, "max": 1, "model": "a100"}
    later = site.get(f"/sessions/{answer['offers'][0]['meta']['uuid']}", **accept)
    assert getattr(later, form) == answer["offers"][0]


def test_who_asks_in_the_standards_words_is_answered_in_them(site: Site) -> None:
    for document in (notebook(), notebook(compute=compute(2))):
        for offer in site.offers(document)["offers"]:
            assert offer["compute"]["kind"] == kinds.SIMPLE_COMPUTE
            assert offer["compute"].keys() <= {
                "kind", "meta", "costs", "metrics", "phase", "schedule", "volumes", "cores", "memory",
            }  # fmt: skip
