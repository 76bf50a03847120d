"""Rules for firm time on a real cluster: each refusal by its name, approval, and the quoted harm against the truth."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest
from slurm_lab import ALICE, BOB, Place

from ebhpc.client import Broker
from ebhpc.model import Phase, kinds
from ebhpc.model.times import instant_text
from tests.broker import ADMIN, PASSWORD, RunningBroker
from tests.lab.slurm import Cluster

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

HOUR = 3600
USERS = ("ada", "berta", "clara", "dora")
Lab = tuple[Cluster, RunningBroker]


def rules() -> dict[str, Any]:
    """The administrator may do anything; the others try the rules."""
    now = datetime.now(UTC)
    closed = {
        "start": f"{now + timedelta(hours=20):%Y-%m-%d %H:%M}",
        "end": f"{now + timedelta(hours=60):%Y-%m-%d %H:%M}",
        "reason": "the power is tested",
    }
    return {
        "zone": "UTC",
        "groups": [
            {"who": {"users": ["ada"]}, "least_notice": "12h", "during_maintenance": False, "approval": True},
            {"who": {"users": ["berta"]}, "share": 0.5},
            {"who": {"users": ["clara"]}, "hours": [{"days": [f"{now + timedelta(days=4):%a}".lower()]}]},
            {"who": {"users": ["dora"]}, "closed": [closed]},
        ],
    }


class Queues(NamedTuple):
    """By node: a job of a minute, and one that waits behind it; and when the first ones had all started."""

    first: dict[str, int]
    second: dict[str, int]
    begun: float


def equal_queues(cluster: Cluster) -> Queues:
    """Give both GPU nodes the same to do."""
    job = ("-p", "gpu", "--exclusive", "-t", "1")
    first = {node: cluster.submit("sleep 58", *job, "-w", node) for node in ("g1", "g2")}
    second = {node: cluster.submit("sleep 1", *job, "-w", node) for node in ("g1", "g2")}
    return Queues(first, second, max(started(cluster, one) for one in first.values()))


@pytest.fixture(scope="module")
def lab(slurm_2605: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A cluster, and a broker with rules."""
    slurm_2605.clean()
    folder = tmp_path_factory.mktemp("firmtime")
    settings = Place(slurm_2605, "commands", folder).settings(
        look="500ms",
        gap="0s",
        partitions=["gpu", "batch"],
        identities={
            ADMIN: {"user": "alice", "account": "phys", "uid": ALICE},
            "ada": {"user": "alice", "account": "phys", "uid": ALICE},
            "berta": {"user": "bob", "account": "chem", "uid": BOB},
            "clara": {"user": "alice", "account": "phys", "uid": ALICE},
            "dora": {"user": "alice", "account": "phys", "uid": ALICE},
        },
    )
    platform = {
        "name": "lab",
        "kind": "slurm",
        "lead": "1s",
        "refresh": "1s",
        "delay_queue": True,
        "firm": rules(),
        "settings": settings,
    }
    broker = RunningBroker(
        folder, {"platforms": [platform], "api": {"workers": 1}, "offers": {"lifetime": "5s", "per_platform": 1}}
    )
    try:
        broker.make_ready()
        for user in USERS:
            broker.command("account", "add", user, "--password-file", str(folder / "password"))
        broker.start("api")
        broker.start("drive")
        broker.wait_ready()
        yield slurm_2605, broker
    finally:
        broker.stop()
        print(broker.logs())  # noqa: T201  # pytest shows it with a failure
        slurm_2605.clean()


def wish(nodes: int, minutes: int, first: float, last: float, **compute: Any) -> dict[str, Any]:
    """Ask for whole nodes; a start between ``first`` and ``last`` seconds from now."""
    now = time.time()
    return {
        "executable": {"kind": kinds.RESERVED_TIME},
        "compute": {"kind": kinds.CLUSTER_COMPUTE, "nodes": {"min": nodes, "max": nodes}, "exclusive": True, **compute},
        "schedule": {
            "requested": {
                "duration": f"PT{minutes}M",
                "start": f"{instant_text(int(now + first))}/{instant_text(int(now + last))}",
            }
        },
    }


def rule_of(lab: Lab, user: str, document: dict[str, Any]) -> dict[str, str]:
    """Ask as a user, who is refused; return what the one refusal tells."""
    with Broker(lab[1].url, user, PASSWORD) as client:
        answer = client.offers(document)
        assert answer.result == "NO", answer
        (told,) = answer.meta.messages
        return told.values | {"text": str(told)}


def started(cluster: Cluster, job: int) -> float:
    """Wait until a job has started; return when, POSIX seconds, by Slurm."""
    said = cluster.until(
        lambda: (
            (found := cluster.run(["squeue", "-h", "-t", "all", "-j", str(job), "-o", "%T %S"]).stdout.split())
            and found[0] != "PENDING"
            and found[1]
        ),
        240,
        f"job {job} starts",
    )
    stamp = cluster.run(["date", "-d", str(said), "+%s"]).stdout
    return float(stamp)


def test_the_harm_is_what_comes_true_in_the_queue(lab: Lab) -> None:
    """Two equal nodes have equal queues; on one of them a minute is booked in the way of its second job."""
    cluster, broker = lab
    with broker.client() as client:
        for _ in range(5):
            queues = equal_queues(cluster)
            offer = _in_the_way(client, queues)
            if offer is not None:
                break
            cluster.clean()  # so slow was it that the first jobs are as good as over
        assert offer is not None
        second = queues.second
        quoted = {item.type: item for item in offer.metrics}
        client.accept(offer.meta.uuid)
        _refusals(lab)
        _approval(lab)
        worst = quoted[kinds.QUEUE_DELAY_WORST].max * HOUR
        assert quoted[kinds.QUEUE_DELAY_SUM].max == quoted[kinds.QUEUE_DELAY_WORST].max, "one job is in its way"
        truth = started(cluster, second["g2"]) - started(cluster, second["g1"])
        print(f"quoted {worst:.0f} s, in truth {truth:.0f} s")  # noqa: T201
        # Slurm looks every two seconds, and plans by whole minutes (bf_resolution)
        assert 0 < truth <= worst + 60
        assert abs(truth - worst) <= 60


def _in_the_way(client: Broker, queues: Queues) -> Any:
    """Ask for the minute behind the first job until the driver has seen the queue; None: the time for that is over."""
    while (left := queues.begun + 60 - time.time()) > 10:
        offers = client.offers(wish(1, 1, left, left + 20, gpus={"min": 1, "model": "t4"}))
        for offer in offers.offers or ():
            delay = next(item.max for item in offer.metrics if item.type == kinds.QUEUE_DELAY_SUM)
            if delay > 0:
                return offer
            client.reject(offer.meta.uuid)
        time.sleep(0.5)
    return None


def _refusals(lab: Lab) -> None:
    """While the queue runs: each rule refuses by its name."""
    cluster = lab[0]
    told = rule_of(lab, "clara", wish(1, 10, 30 * HOUR, 40 * HOUR, partition="batch"))
    assert told["rule"] == "hours"
    told = rule_of(lab, "dora", wish(1, 10, 30 * HOUR, 40 * HOUR, partition="batch"))
    assert told["rule"] == "closed"
    assert "the power is tested" in told["text"]
    told = rule_of(lab, "ada", wish(1, 10, HOUR, 2 * HOUR))
    assert (told["rule"], told["allowed"]) == ("least_notice", "PT12H")
    told = rule_of(lab, "berta", wish(4, 10, 30 * HOUR, 40 * HOUR, partition="batch"))
    assert (told["rule"], told["allowed"]) == ("share", "3.5 nodes")
    care = "reservationname=care starttime=now+20hours duration=1200 flags=maint users=root nodes=g1"
    cluster.run(["scontrol", "create", "reservation", *care.split()], user="root")
    deadline = time.monotonic() + 120
    while True:
        with Broker(lab[1].url, "ada", PASSWORD) as client:
            document = wish(1, 10, 21 * HOUR, 22 * HOUR, partition="gpu")
            answer = client.offers(document)
            if answer.result == "NO":
                break
            client.reject(answer.offers[0].meta.uuid)
        assert time.monotonic() < deadline
        time.sleep(1)
    told = rule_of(lab, "ada", document)
    assert told["rule"] == "during_maintenance"
    assert "partition gpu of lab during its maintenance" in told["text"]
    cluster.run(["scontrol", "delete", "reservationname=care"], user="root")


def _approval(lab: Lab) -> None:
    """While the queue runs: what an operator must approve is held by Slurm, and given back when it is refused."""
    cluster, broker = lab
    with Broker(broker.url, "ada", PASSWORD) as client, broker.client() as operator:
        offers = client.offers(wish(1, 10, 30 * HOUR, 40 * HOUR, partition="batch"))
        assert offers.result == "YES", [str(item) for item in offers.meta.messages]
        uuid = offers.offers[0].meta.uuid
        client.accept(uuid)

        def reserved() -> bool:
            return f"ebhpc-{uuid}" in cluster.run(["scontrol", "-o", "show", "reservations"]).stdout

        cluster.until(reserved, what="Slurm keeps it")
        assert [item["session"] for item in operator.approvals()] == [uuid]
        assert client.session(uuid).phase in (Phase.ACCEPTED, Phase.WAITING)
        operator.decide(uuid, approve=False, reason="the power is tested")
        cluster.until(lambda: not reserved(), what="Slurm has given it back")
        assert client.session(uuid).phase is Phase.CANCELLED
        assert operator.approvals() == []
