"""Offers that Slurm has reserved before they are shown (``reserve_at: offer``)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from slurm_lab import ALICE, Place

from ebhpc.model import Phase, kinds
from tests.broker import ADMIN, RunningBroker
from tests.lab.slurm import Cluster

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

Lab = tuple[Cluster, RunningBroker]


@pytest.fixture(scope="module")
def lab(slurm_2605: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A cluster, and a broker that looks at it so rarely that what it knows is soon wrong."""
    slurm_2605.clean()
    folder = tmp_path_factory.mktemp("offers")
    identities = {ADMIN: {"user": "alice", "account": "phys", "uid": ALICE}}
    settings = Place(slurm_2605, "commands", folder).settings(look="500ms", identities=identities, gap="60s")
    settings["partitions"] = ["gpu"]
    platform = {
        "name": "lab",
        "kind": "slurm",
        "lead": "1s",
        "refresh": "1h",
        "stale": "2h",
        "reserve_at": "offer",
        "settings": settings,
    }
    broker = RunningBroker(
        folder, {"platforms": [platform], "api": {"workers": 1}, "offers": {"lifetime": "8s", "per_platform": 1}}
    )
    try:
        broker.make_ready()
        broker.start("api")
        broker.start("drive")
        broker.wait_ready()
        yield slurm_2605, broker
    finally:
        broker.stop()
        print(broker.logs())  # noqa: T201  # pytest shows it with a failure
        slurm_2605.clean()


WANTED = {
    "executable": {"kind": kinds.RESERVED_TIME},
    "compute": {"kind": kinds.CLUSTER_COMPUTE, "nodes": {"min": 1, "max": 1}, "exclusive": True},
    "schedule": {"requested": {"duration": "PT10M", "start": "2020-01-01T00:00:00Z/2099-01-01T00:00:00Z"}},
}
HOURS = 90000


def names(cluster: Cluster) -> list[str]:
    """The names of the cluster's reservations."""
    said = cluster.run(["scontrol", "--oneliner", "show", "reservations"]).stdout
    return [line.split()[0].partition("=")[2] for line in said.splitlines() if line.startswith("ReservationName=")]


def made_by_an_operator(cluster: Cluster, name: str, nodes: str, minutes: int) -> None:
    words = [f"reservationname={name}", "starttime=now", f"duration={minutes}", "users=root", f"nodes={nodes}"]
    cluster.run(["scontrol", "create", "reservation", *words], user="root")


def words(element: Any) -> str:
    return " ".join(str(told) for told in element.meta.messages or ())


def test_an_offer_is_reserved_before_it_is_shown_and_released_when_nobody_takes_it(lab: Lab) -> None:
    cluster, broker = lab
    with broker.client() as client:
        kept = client.offers(WANTED).offers[0].meta.uuid
        assert names(cluster) == [f"ebhpc-{kept}"]
        rejected = client.offers(WANTED).offers[0].meta.uuid
        assert set(names(cluster)) == {f"ebhpc-{kept}", f"ebhpc-{rejected}"}
        client.reject(rejected)
        cluster.until(lambda: names(cluster) == [f"ebhpc-{kept}"])
        expires = client.offers(WANTED).offers[0].meta.uuid
        client.accept(kept)
        cluster.until(lambda: client.session(kept).phase is Phase.AVAILABLE)
        cluster.until(lambda: client.session(expires).phase is Phase.EXPIRED, timeout=40)
        cluster.until(lambda: names(cluster) == [f"ebhpc-{kept}"])
        client.cancel(kept)
        cluster.until(lambda: names(cluster) == [])


def test_what_slurm_refuses_makes_the_next_window_tried_and_then_an_honest_no(lab: Lab) -> None:
    cluster, broker = lab
    with broker.client() as client:
        first = client.offers(WANTED).offers[0]
        where = _nodes(cluster, f"ebhpc-{first.meta.uuid}")
        client.reject(first.meta.uuid)
        cluster.until(lambda: names(cluster) == [])
        made_by_an_operator(cluster, "taken", where, 60)
        offers = client.offers(WANTED)
        assert offers.result == "YES", words(offers)
        uuid = offers.offers[0].meta.uuid
        assert _nodes(cluster, f"ebhpc-{uuid}") != where
        client.reject(uuid)
        cluster.until(lambda: names(cluster) == ["taken"])
        made_by_an_operator(cluster, "rest", ",".join(sorted({"g1", "g2"} - {where})), HOURS)
        cluster.run(["scontrol", "update", "reservationname=taken", f"duration={HOURS}"], user="root")
        no = client.offers(WANTED)
        assert no.result == "NO"
        assert "did not reserve what was planned" in words(no)
        assert "overlaps" in words(no)
        cluster.until(lambda: set(names(cluster)) == {"taken", "rest"})
        assert all(one.phase is not Phase.OFFERED for one in client.sessions())


def _nodes(cluster: Cluster, name: str) -> str:
    said = cluster.run(["scontrol", "--oneliner", "show", "reservations", name]).stdout
    return next(word for word in said.split() if word.startswith("Nodes=")).partition("=")[2]
