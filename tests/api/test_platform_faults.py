"""A platform that fails, hangs, answers nonsense or is silent takes only its own offers out."""

from __future__ import annotations

import time

import pytest
from sqlalchemy import update
from sqlalchemy.exc import OperationalError

from ebhpc import hookimpl
from ebhpc.model import Allocation, Limits, MessageKind, Policy, Quote, SimpleCost, Window, message
from ebhpc.planning import Node
from ebhpc.store import delete_old_offers, expire_offers, live_bookings, publish_trouble
from ebhpc.store.tables import platforms
from tests.api.conftest import NODES, NOW, compute, notebook
from tests.api.paper_platform import Paper, PlanningPaper


def raising(**_):
    raise RuntimeError("the scheduler is on fire")


def hanging(**_):
    time.sleep(3)
    return ()


def ending(**_):
    raise SystemExit(3)


@pytest.mark.parametrize("hook", ["ebhpc_refuses", "ebhpc_policy"])
@pytest.mark.parametrize(
    "fault",
    [raising, ending, lambda **_: 17, lambda **_: ["no"], lambda **_: {"a": 1}],
    ids=["raises", "ends", "number", "text", "mapping"],
)
def test_a_platform_whose_hook_fails_makes_no_offers_and_the_other_does(make_site, hook, fault):
    site = make_site(Paper("good", NODES), Paper("bad", NODES, {hook: fault}))
    document = site.offers()
    with site.store.read() as tx:
        assert {row.platform for row in live_bookings(tx)} == {"good"}
    told = [item for item in document["meta"]["messages"] if item["kind"] == "urn:platform-unavailable"]
    assert [item["values"]["platform"] for item in told] == ["bad"]


def test_a_platform_that_hangs_is_given_up_after_its_timeout(make_site):
    site = make_site(Paper("good", NODES), Paper("bad", NODES, {"ebhpc_refuses": hanging}), platform={"timeout": 0.3})
    begun = time.monotonic()
    document = site.offers()
    assert time.monotonic() - begun < 2.5
    assert [item["kind"] for item in document["meta"]["messages"]] == ["urn:platform-unavailable"]


def test_platforms_are_asked_at_the_same_time(make_site):
    def slow(**_):
        time.sleep(0.4)
        return ()

    site = make_site(
        *(Paper(name, NODES, {"ebhpc_refuses": slow}) for name in ("a", "b", "c", "d")), platform={"timeout": 10.0}
    )
    site.get("/sessions")  # the password is hashed here
    begun = time.monotonic()
    site.offers()
    assert time.monotonic() - begun < 1.5


def test_with_no_platform_left_the_answer_is_no(make_site):
    site = make_site(Paper("bad", NODES, {"ebhpc_refuses": raising}))
    answer = site.post("/requests", notebook())
    assert answer.status == 303
    assert answer.json["result"] == "NO"
    assert answer.kinds() == ["urn:platform-unavailable"]


def test_a_platform_in_trouble_or_with_old_news_is_not_available(make_site):
    site = make_site(Paper("one", NODES), Paper("two", NODES))
    trouble = message(MessageKind.PLATFORM_UNAVAILABLE, "slurmctld does not answer")
    publish_trouble(site.store, "one", trouble, now=NOW)
    told = site.offers()["meta"]["messages"]
    assert [item["values"]["platform"] for item in told] == ["one"]
    assert "slurmctld does not answer" in told[0]["message"]
    states = {item["name"]: item for item in site.get("/platforms").json["platforms"]}
    assert (states["one"]["available"], states["two"]["available"]) == (False, True)
    assert site.get("/platforms/one/timeline").status == 409

    site.clock.now = NOW + 121
    answer = site.post("/requests", notebook())
    assert answer.json["result"] == "NO"
    assert answer.kinds() == ["urn:platform-unavailable"] * 2
    site.publish("two")
    assert site.post("/requests", notebook()).json["result"] == "YES"


def test_before_a_driver_has_run_the_api_is_live_and_not_ready(make_site):
    site = make_site()
    with site.store.write("test") as tx:
        tx.exec_driver_sql("UPDATE platforms SET taken = NULL, looked = NULL, snapshot = NULL, version = 0")
    assert site.get("/health/live", user=None).json == {"status": "live"}
    answer = site.get("/health/ready", user=None)
    assert answer.status == 503
    assert "paper" in answer.json["reason"]
    assert site.post("/requests", notebook()).kinds() == ["urn:platform-unavailable"]
    site.publish("paper")
    answer = site.get("/health/ready", user=None)
    assert (answer.status, answer.json["platforms"]) == (200, {"paper": True})


def test_a_stored_state_that_cannot_be_read_takes_only_its_platform_out(make_site):
    site = make_site(Paper("one", NODES), Paper("two", NODES))
    with site.store.write("test") as tx:
        tx.execute(update(platforms).where(platforms.c.name == "one").values(snapshot=b"nonsense"))
    assert {item["kind"] for item in site.offers()["meta"]["messages"]} == {"urn:platform-unavailable"}


def test_refusals_of_each_platform_name_it_and_have_the_place(make_site):
    def refuse(request, **_):
        return [message(MessageKind.NOT_SUPPORTED, "no notebooks at {path}", path="/executable")]

    site = make_site(Paper("one", NODES, {"ebhpc_refuses": refuse}), Paper("two", NODES, {"ebhpc_refuses": refuse}))
    document = site.post("/requests", notebook()).json
    assert document["result"] == "NO"
    assert [item["message"] for item in document["meta"]["messages"]] == [
        "one: no notebooks at /executable",
        "two: no notebooks at /executable",
    ]
    assert {item["values"]["path"] for item in document["meta"]["messages"]} == {"/executable"}


def test_a_refusal_and_too_much_are_told_at_once(make_site):
    def refuse(**_):
        return [message(MessageKind.NOT_SUPPORTED, "no notebooks")]

    site = make_site(Paper("one", NODES, {"ebhpc_refuses": refuse}))
    assert site.post("/requests", notebook(compute=compute(64))).kinds() == ["urn:not-supported", "urn:resource-limit"]


def test_the_sites_rules_refuse_and_limit(make_site):
    class Rules:
        @hookimpl
        def ebhpc_policy(self, request, identity, platform):
            if identity.username == "bob":
                return Policy(refusals=(message(MessageKind.POLICY_REFUSED, "not {name}", name="bob"),))
            return Policy(limits=Limits(cores=2, duration=3600))

    site = make_site(plugins=[Rules()])
    refused = site.post("/requests", notebook(), user="bob")
    assert refused.json["result"] == "NO"
    assert refused.kinds() == ["urn:policy-refused"]
    offers = site.offers(notebook(compute=compute(1, max=8)))["offers"]
    assert max(offer["compute"]["cores"]["min"] for offer in offers) == 2
    assert {offer["schedule"]["available"]["duration"] for offer in offers} == {"PT1H"}
    assert site.post("/requests", notebook(compute=compute(4))).json["result"] == "NO"


def test_a_site_rule_that_fails_lets_nothing_through(make_site):
    class Rules:
        @hookimpl
        def ebhpc_policy(self, request, identity, platform):
            raise RuntimeError("no rules today")

    answer = make_site(plugins=[Rules()]).post("/requests", notebook())
    assert answer.json["result"] == "NO"
    assert answer.kinds() == ["urn:platform-unavailable"]


# --- platforms that plan or quote by themselves ----------------------------------------------------------------------


def slot(now, start=600, cores=1, node="n1", label=""):
    return Window(
        start=now + start,
        latest=now + start,
        end=now + start + 3600,
        duration=3600,
        allocations=(Allocation(node=node, cores=cores, memory=1024),),
        label=label,
    )


def test_a_platform_may_plan_and_quote_by_itself(make_site):
    quote = Quote(costs=(SimpleCost(type="urn:example:cost:tokens", min=1.0, max=2.0),))
    paper = PlanningPaper(
        "own",
        NODES,
        {"ebhpc_windows": lambda now, **_: [slot(now), slot(now, 7000)], "ebhpc_costs": lambda **_: quote},
    )
    offers = make_site(paper).offers()["offers"]
    assert len(offers) == 2
    for offer in offers:
        assert [item["type"] for item in offer["costs"]] == ["urn:example:cost:tokens"]
        assert offer["metrics"], "what the plugin does not quote comes from the configuration"


@pytest.mark.parametrize(
    "windows",
    [
        raising,
        lambda **_: 3,
        lambda now, **_: [slot(now, -5)],
        lambda now, **_: [slot(now, cores=9)],
        lambda now, **_: [slot(now, node="elsewhere")],
        lambda now, **_: [slot(now, cores=5), slot(now, cores=5)],
    ],
    ids=["raises", "number", "past", "too much", "no such node", "too much together"],
)
def test_a_platform_that_plans_nonsense_is_not_available(make_site, windows):
    site = make_site(Paper("good", NODES), PlanningPaper("own", NODES, {"ebhpc_windows": windows}))
    told = site.offers()["meta"]["messages"]
    assert [(item["kind"], item["values"]["platform"]) for item in told] == [("urn:platform-unavailable", "own")]
    with site.store.read() as tx:
        assert {row.platform for row in live_bookings(tx)} == {"good"}


def test_a_plugins_windows_keep_to_the_sites_limits(make_site):
    class Rules:
        @hookimpl
        def ebhpc_policy(self, request, identity, platform):
            return Policy(limits=Limits(cores=2))

    paper = PlanningPaper(
        "own", NODES, {"ebhpc_windows": lambda now, **_: [slot(now, cores=3), slot(now, 9000, cores=2)]}
    )
    site = make_site(paper, plugins=[Rules()])
    request = notebook(schedule={"requested": {"duration": "PT1H", "start": "2030-03-17T17:46:40Z/P1D"}})
    assert [offer["compute"]["cores"]["min"] for offer in site.offers(request)["offers"]] == [2]


def test_offers_change_with_the_platforms_state(make_site):
    site = make_site(Paper("paper", (Node(name="n1", cores=2, memory=2048),)))
    assert site.post("/requests", notebook(compute=compute(4))).json["result"] == "NO"
    site.publish("paper", (Node(name="n1", cores=4, memory=4096),))
    assert site.offers(notebook(compute=compute(4)))["result"] == "YES"
    site.publish("paper", (Node(name="n2", cores=1, memory=4096),))
    assert site.post("/requests", notebook(compute=compute(2))).json["result"] == "NO"


def test_a_database_that_does_not_answer_is_503(make_site, monkeypatch):
    site = make_site()
    site.get("/sessions")  # so that the password need not be looked up

    def fail(*_, **__):
        raise OperationalError("SELECT 1", {}, Exception("no connection"))

    monkeypatch.setattr("ebhpc.api.sessions.list_sessions", fail)
    answer = site.get("/sessions")
    assert answer.status == 503
    assert answer.headers["retry-after"] == "5"
    monkeypatch.setattr("ebhpc.api.health.get_platforms", fail)
    assert site.get("/health/ready", user=None).status == 503


def test_what_was_given_back_long_ago_is_forgotten(make_site):
    site = make_site(Paper("paper", (Node(name="n1", cores=1, memory=2048),)), platform={"stale": 1e9})
    later = notebook(schedule={"requested": {"duration": "PT1H", "start": "2030-03-27T00:00:00Z/PT0S"}})
    assert site.post("/requests", later).json["result"] == "YES"
    site.get("/platforms")
    worker = make_site(site.papers["paper"], platform={"stale": 1e9})
    assert worker.post("/requests", later).json["result"] == "NO"
    worker.clock.now = NOW + 8 * 86400
    expire_offers(worker.store, "paper", now=worker.clock())
    assert delete_old_offers(worker.store, before=worker.clock() - 86400)
    assert worker.post("/requests", later).json["result"] == "YES"
