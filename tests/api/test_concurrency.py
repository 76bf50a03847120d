"""Several workers at the same time: nothing is sold twice, whoever is faster."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ebhpc.model import Phase
from ebhpc.planning import Node
from ebhpc.store import Store, get_session, live_bookings
from tests.api.conftest import Site, compute, notebook
from tests.api.paper_platform import Paper, PlanningPaper
from tests.api.test_platform_faults import slot

NODES = (Node(name="n1", cores=4, memory=8192), Node(name="n2", cores=2, memory=4096))


def oversold(store: Store, nodes: Sequence[Node]) -> list[str]:
    """Each node and instant at which more is booked than the node has."""
    with store.read() as tx:
        rows = live_bookings(tx)
    assert rows
    wrong = []
    for node in nodes:
        mine = [row for row in rows if row.node == node.name]
        for instant in {row.start for row in mine}:
            then = [row for row in mine if row.start <= instant < row.finish]
            cores, memory = sum(row.cores for row in then), sum(row.memory for row in then)
            if cores > node.cores or memory > node.memory:
                wrong.append(f"{node.name} at {instant}: {cores} cores, {memory} MiB")
    return wrong


def all_at_once(tasks: Sequence[Any]) -> list[Any]:
    """Call functions on threads that begin together."""
    gate = threading.Barrier(len(tasks))

    def begin(task: Any) -> Any:
        gate.wait()
        return task()

    with ThreadPoolExecutor(len(tasks)) as threads:
        return [future.result() for future in [threads.submit(begin, task) for task in tasks]]


def client(site: Site, user: str, seed: int) -> dict[str, str]:
    """Ask for offers again and again, and accept, reject or leave them; return the phases wished for."""
    chance = random.Random(seed)
    wished = {}
    for _ in range(8):
        request = notebook(compute=compute(chance.choice([1, 2, 4]), max=4) if chance.random() < 0.8 else compute(1))
        request["schedule"]["requested"]["start"] = "2030-03-17T17:46:40Z/PT4H"
        if chance.random() < 0.2:
            answer = site.post("/direct", request, user=user)
            assert answer.status in (303, 400)
            if answer.status == 303:
                wished[answer.json["meta"]["uuid"]] = "ACCEPTED"
            continue
        answer = site.post("/requests", request, user=user)
        assert answer.status == 303
        if answer.json["result"] == "YES":
            uuid = chance.choice(answer.json["offers"])["meta"]["uuid"]
            phase = chance.choice(["ACCEPTED", "REJECTED", "REJECTED", ""])
            if phase:
                assert site.move(uuid, phase, user=user).status == 200
                wished[uuid] = phase
    return wished


def test_two_workers_under_load_never_sell_twice(make_site):
    sites = [make_site(Paper("paper", NODES), api={"max_outstanding_offers": 10**6}) for _ in range(2)]
    wishes = all_at_once(
        [lambda number=number: client(sites[number % 2], "ada" if number % 3 else "bob", number) for number in range(6)]
    )
    assert oversold(sites[0].store, NODES) == []
    with sites[0].store.read() as tx:
        for uuid, phase in (item for wished in wishes for item in wished.items()):
            session = get_session(tx, uuid)
            assert session is not None
            assert session.phase == phase
    assert any("ACCEPTED" in wished.values() for wished in wishes)


def test_who_comes_too_late_gets_other_offers_or_a_no(make_site):
    one = (Node(name="n1", cores=1, memory=2048),)
    sites = [make_site(Paper("paper", one), offers={"per_platform": 1}) for _ in range(2)]
    request = notebook(schedule={"requested": {"duration": "PT10H", "start": "2030-03-17T17:46:40Z/PT1H"}})
    answers = all_at_once([lambda site=site: site.post("/requests", request).json for site in sites * 3])
    assert sorted(answer["result"] for answer in answers) == ["NO"] * 5 + ["YES"]
    assert oversold(sites[0].store, one) == []


def test_platforms_that_plan_by_themselves_do_not_sell_twice_either(make_site):
    one = (Node(name="n1", cores=3, memory=8192),)
    papers = [
        PlanningPaper("own", one, {"ebhpc_windows": lambda now, timeline, **_: free_slots(now, timeline)})
        for _ in range(2)
    ]
    sites = [make_site(paper) for paper in papers]
    answers = all_at_once([lambda site=site: site.post("/requests", notebook()).json for site in sites * 3])
    assert sorted(answer["result"] for answer in answers) == ["NO"] * 3 + ["YES"] * 3
    assert oversold(sites[0].store, one) == []


def free_slots(now, timeline, **_):
    wanted = slot(now)
    return [wanted] if timeline.free("n1", wanted.start, wanted.end).cores >= 1 else []


def test_one_offer_is_accepted_once_and_its_siblings_never(make_site):
    sites = [make_site() for _ in range(2)]
    for _ in range(3):
        uuids = [offer["meta"]["uuid"] for offer in sites[0].offers()["offers"]]
        answers = all_at_once(
            [lambda site=site, uuid=uuid: site.move(uuid, "ACCEPTED") for uuid in uuids for site in sites]
        )
        with sites[0].store.read() as tx:
            phases = [get_session(tx, uuid).phase for uuid in uuids]
        assert sorted(phases) == [Phase.ACCEPTED] + [Phase.REJECTED] * (len(uuids) - 1)
        assert sum(answer.status == 200 for answer in answers) == 2
        assert {answer.status for answer in answers} <= {200, 409}


@pytest.mark.parametrize("phases", [("ACCEPTED", "REJECTED"), ("CANCELLED", "CANCELLED")])
def test_updates_at_the_same_time_leave_one_story(make_site, phases):
    sites = [make_site() for _ in range(2)]
    uuid = sites[0].offers()["offers"][0]["meta"]["uuid"]
    if "CANCELLED" in phases:
        sites[0].move(uuid, "ACCEPTED")
    answers = all_at_once([lambda site=site, phase=phase: site.move(uuid, phase) for site in sites for phase in phases])
    final = sites[0].get(f"/sessions/{uuid}").json["phase"]
    assert final in phases
    for answer in answers:
        assert answer.status in (200, 409)
        assert answer.status != 200 or answer.json["phase"] == final
