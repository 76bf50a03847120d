"""Offers of a platform whose jobs wait in a queue: what is said of their start, and that nothing is booked for them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

import ebhpc
from ebhpc.driver.learning import Learner, Task
from ebhpc.model import Allocation, Shape
from ebhpc.model.registry import Kinds
from ebhpc.planning import Node, RunningJob, Scheduler, Snapshot, WaitingJob, encode_snapshot, planned_starts
from ebhpc.store import as_session, get_session, lease_learning, live_bookings, publish_forecast, publish_snapshot
from ebhpc.store.sessions import unfinished_sessions
from tests import standard_schema
from tests.api.conftest import NOW, Make, Site, compute, notebook
from tests.api.paper_platform import Paper

HOUR = 3600
SPOOL = (Node(name="n1", cores=4, memory=8192), Node(name="n2", cores=4, memory=8192))


class Queue(Paper):
    """Two nodes, both taken until an hour from now, and as many jobs of an hour in front of the next one."""

    def __init__(self, waiting: int, scheduler: Scheduler = Scheduler(limit_step=60)) -> None:
        super().__init__("queue", SPOOL)
        self.waiting = waiting
        self.scheduler = scheduler

    @ebhpc.hookimpl
    def ebhpc_snapshot(self, now: int) -> Snapshot:
        whole = Shape(cores=4, memory=8192)
        return Snapshot(
            platform=self.name,
            taken=now,
            nodes=self.nodes,
            running=tuple(
                RunningJob(
                    id=f"r{node.name}",
                    allocations=(Allocation(node=node.name, cores=4, memory=8192),),
                    started=now,
                    ends=now + HOUR,
                )
                for node in self.nodes
            ),
            waiting=tuple(
                WaitingJob(id=f"w{number}", shape=whole, time_limit=HOUR, submitted=now)
                for number in range(self.waiting)
            ),
            scheduler=self.scheduler,
        )


def forecast(site: Site) -> None:
    """Publish a forecast of the newest state, as a driver does."""
    snapshot = site.papers["queue"].ebhpc_snapshot(now=int(site.clock()))
    done = Learner().do(Task(platform="queue", snapshot=encode_snapshot(snapshot), ended=(), bookings=(), fresh=True))
    assert done.failure is None
    revision = lease_learning(site.store, "queue", "driver", now=site.clock(), lease=60)
    assert revision is not None
    published = publish_forecast(
        site.store,
        "queue",
        "driver",
        forecast=done.forecast,
        taken=done.taken,
        seconds=done.seconds,
        accuracy=done.accuracy,
        starts=done.starts,
        revision=revision,
        state=done.state,
    )
    assert published is not None


def asked(site: Site, hours: int = 24, **parts: object) -> Sequence[dict]:
    document = notebook(
        schedule={"requested": {"duration": "PT50M30S", "start": f"2030-03-17T17:46:40Z/PT{hours}H"}}, **parts
    )
    return site.offers(document)["offers"]


@pytest.fixture
def site(make_site: Make) -> Site:
    made = make_site(Queue(waiting=2), promises=("queue",))
    forecast(made)
    return made


def test_the_start_is_an_interval_in_the_queue_and_a_message_says_how_sure_it_is(site):
    [offer, *_] = asked(site)
    start, latest = offer["schedule"]["available"]["start"].split("/")
    assert "2030-03-17T17:46:40Z" <= start < latest
    [text] = [item["message"] for item in offer["meta"]["messages"]]
    assert "guarantees no start" in text
    assert f"between {start} and {latest}" in text
    standard_schema.validate(offer, "AbstractExecutionSession")


def test_nothing_is_booked_and_the_same_is_offered_to_everybody(site):
    first = asked(site)
    second = asked(site, compute=compute(4))
    assert first
    assert second
    with site.store.read() as tx:
        assert live_bookings(tx) == []


def test_an_accepted_offer_keeps_what_was_promised_and_what_a_job_needs_to_know(site):
    [offer, *_] = asked(site)
    assert site.move(offer["meta"]["uuid"], "ACCEPTED").json["phase"] == "ACCEPTED"
    with site.store.read() as tx:
        record = get_session(tx, offer["meta"]["uuid"])
    session = as_session(record, Kinds())
    assert not session.firm
    assert session.start == NOW
    assert session.latest == NOW + 24 * HOUR
    assert session.duration == 51 * 60  # in steps of the batch system's limits
    assert session.end == session.latest + session.duration
    assert [share.node for share in session.allocations] == [""]
    assert record.promised is not None
    assert record.promised.start <= record.promised.expected <= record.promised.latest
    assert [one.uuid for one in unfinished_sessions(site.store, "queue")] == [session.uuid]


def test_what_hardly_starts_in_time_is_no_and_why(make_site):
    site = make_site(Queue(waiting=40), promises=("queue",))
    forecast(site)
    answer = site.post(
        "/requests", notebook(schedule={"requested": {"duration": "PT1H", "start": "2030-03-17T17:46:40Z/PT2H"}})
    )
    assert answer.json["result"] == "NO"
    [text] = [item["message"] for item in answer.json["meta"]["messages"]]
    assert "in the queue of queue it would most likely start at" in text


def test_without_a_forecast_or_with_an_old_one_nothing_is_offered(make_site):
    site = make_site(Queue(waiting=0), promises=("queue",))
    answer = site.post("/requests", notebook())
    assert answer.json["result"] == "NO"
    assert "nothing is known yet" in answer.content.decode()
    forecast(site)
    assert site.offers()["offers"]
    site.clock.now += 600
    site.publish("queue")
    assert site.post("/requests", notebook()).json["result"] == "NO"
    forecast(site)
    assert site.offers()["offers"]


def test_a_platform_may_make_both_promises_and_says_which_is_which(make_site):
    site = make_site(Queue(waiting=0), promises=("reservation", "queue"))
    forecast(site)
    offers = asked(site)
    with site.store.read() as tx:
        firm = [get_session(tx, offer["meta"]["uuid"]).firm for offer in offers]
        booked = {row.session for row in live_bookings(tx)}
    assert sorted(firm) == [False, *[True] * (len(firm) - 1)]
    assert len(firm) >= 2
    assert booked == {offer["meta"]["uuid"] for offer, kept in zip(offers, firm, strict=True) if kept}
    told = [bool(offer["meta"].get("messages")) for offer in offers]
    assert told == [not kept for kept in firm]


@pytest.mark.parametrize("delay_queue", [False, True])
def test_a_reservation_comes_behind_the_jobs_that_wait_unless_the_site_lets_it_push_them_back(make_site, delay_queue):
    site = make_site(Queue(waiting=2), platform={"delay_queue": delay_queue})
    snapshot = site.papers["queue"].ebhpc_snapshot(now=NOW)
    snapshot = replace(snapshot, planned=planned_starts(snapshot, now=NOW))
    publish_snapshot(site.store, "queue", encode_snapshot(snapshot), taken=NOW, now=NOW)
    [earliest, *_] = asked(site)
    hours = 1 if delay_queue else 2
    assert earliest["schedule"]["available"]["start"].startswith(f"2030-03-17T{17 + hours}:46:40Z/")


def test_offers_from_a_state_that_should_be_newer_say_how_old_it_is(make_site):
    site = make_site(platform={"stale": 600.0})
    assert "messages" not in site.offers()["meta"]
    site.clock.now += 301
    [item] = site.offers()["meta"]["messages"]
    assert item["message"] == "the offers of paper are planned from its state of PT5M1S ago, at 2030-03-17T17:46:40Z"
