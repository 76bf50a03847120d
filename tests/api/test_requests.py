"""Asking for offers: what is answered, stored and booked."""

from __future__ import annotations

import pytest

from ebhpc.model import kinds
from ebhpc.planning import Node
from ebhpc.store import live_bookings
from tests import standard_schema
from tests.api.conftest import NOW, compute, notebook
from tests.api.paper_platform import Paper
from tests.model.requests import full_request


def test_a_request_is_answered_with_303_the_place_of_the_offer_set_and_the_offer_set(site):
    answer = site.post("/requests", notebook())
    assert answer.status == 303
    document = answer.json
    assert document["kind"] == kinds.OFFERSET
    assert document["result"] == "YES"
    assert answer.headers["location"] == document["meta"]["url"]
    assert answer.headers["location"].endswith(f"/offersets/{document['meta']['uuid']}")
    again = site.get(f"/offersets/{document['meta']['uuid']}")
    assert again.status == 200
    assert again.json == document


def test_offers_are_sessions_that_can_be_looked_at_by_themselves(site):
    for offer in site.offers()["offers"]:
        seen = site.get(f"/sessions/{offer['meta']['uuid']}")
        assert seen.status == 200
        assert seen.json == offer
        assert seen.json["phase"] == "OFFERED"


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_what_is_answered_at_once_is_what_is_read_later(site, form):
    document = notebook(
        compute=compute(1),
        storage=[{"kind": kinds.SIMPLE_STORAGE, "meta": {"name": "frames"}, "size": {"min": 2}}],
        data=[{"kind": kinds.SIMPLE_DATA, "location": "https://archive.example/1.fits", "storage": "frames"}],
    )
    accept = {"headers": {"Accept": f"application/{form}"}}
    said = site.post("/requests", document, **accept)
    later = site.get(f"/offersets/{getattr(said, form)['meta']['uuid']}", **accept)
    assert getattr(said, form)["offers"]
    assert getattr(later, form) == getattr(said, form)


def test_everything_sent_is_what_the_standard_says(site):
    document = site.offers(full_request())
    standard_schema.validate(document, "OfferSetResponse")
    for offer in document["offers"]:
        standard_schema.validate(offer, "AbstractExecutionSession")


def test_an_offer_shows_what_was_asked_and_what_of_it_is_offered(site):
    offer = site.offers(full_request())["offers"][0]
    assert offer["executable"]["command"] == full_request()["executable"]["command"]
    assert offer["executable"]["meta"]["name"] == offer["meta"]["name"] == "fit"
    assert offer["compute"]["meta"]["name"] == "box"
    cores, memory = offer["compute"]["cores"], offer["compute"]["memory"]
    assert 2 <= cores["min"] == cores["max"] <= 8
    assert 4 <= memory["min"] == memory["max"] <= 16
    assert next(item["meta"].get("name") for item in offer["storage"]) == "scratch"
    assert offer["data"][0]["meta"]["name"] == "in"


def test_every_component_of_every_offer_has_a_uuid_of_its_own_and_references_hold_them(site):
    offers = site.offers(full_request())["offers"]
    uuids = []
    for offer in offers:
        parts = [offer["executable"], offer["compute"], *offer["storage"], *offer["data"]]
        parts += offer["compute"]["volumes"]
        uuids += [offer["meta"]["uuid"], *(part["meta"]["uuid"] for part in parts)]
        known = {part["meta"]["uuid"] for part in parts}
        assert {volume["resource"] for volume in offer["compute"]["volumes"]} <= known
        assert offer["data"][0]["storage"] in known
    assert len(uuids) == len(set(uuids))


def test_each_offer_and_its_compute_quote_a_cost_and_a_metric(make_site):
    from ebhpc.config import Costs, Rates

    site = make_site(platform={"costs": Costs(monetary=Rates(per_core_hour=2.0), energy=Rates(per_node_hour=1.0))})
    for offer in site.offers(notebook(compute=compute(2)))["offers"]:
        hours = {"PT1H": 1}.get(offer["schedule"]["available"]["duration"])
        for part in (offer, offer["compute"]):
            types = {item["type"]: item for item in part["costs"] + part["metrics"]}
            assert {kinds.MONETARY, kinds.ENERGY, kinds.COMPUTE_PERFORMANCE} <= types.keys()
            assert all(item["min"] <= item["max"] for item in types.values())
            if hours == 1:
                cores = offer["compute"]["cores"]["min"]
                assert types[kinds.MONETARY]["min"] == pytest.approx(2.0 * cores)


def test_storage_and_data_are_ready_before_compute(site):
    offer = site.offers(full_request())["offers"][0]
    starts = [
        part["schedule"]["available"]["start"].partition("/")[0]
        for part in (offer["storage"][0], offer["data"][0], offer["compute"])
    ]
    assert starts == sorted(set(starts))


def test_offers_differ_and_are_no_more_than_configured(make_site):
    offers = make_site(offers={"per_platform": 2}).offers(notebook(compute=compute(1, max=4)))
    seen = {
        (
            offer["schedule"]["available"]["start"],
            offer["schedule"]["available"]["duration"],
            str(offer["compute"]["cores"]),
        )
        for offer in offers["offers"]
    }
    assert 1 <= len(offers["offers"]) <= 2
    assert len(seen) == len(offers["offers"])


def test_offers_of_several_platforms_come_in_the_order_of_their_starts(make_site):
    site = make_site(
        Paper("one", (Node(name="n", cores=1, memory=2048),)), Paper("two", (Node(name="n", cores=1, memory=2048),))
    )
    document = site.offers()
    starts = [offer["schedule"]["available"]["start"].partition("/")[0] for offer in document["offers"]]
    assert starts == sorted(starts)
    with site.store.read() as tx:
        assert {row.platform for row in live_bookings(tx)} == {"one", "two"}


def test_offers_are_booked_from_the_moment_they_are_made(site):
    document = site.offers()
    with site.store.read() as tx:
        booked = {row.session for row in live_bookings(tx)}
    assert booked == {offer["meta"]["uuid"] for offer in document["offers"]}


def test_what_cannot_run_is_303_with_no_and_every_reason(site):
    answer = site.post("/requests", {"compute": {"kind": kinds.SIMPLE_COMPUTE, "cores": {"min": -1}}})
    assert answer.status == 303
    document = answer.json
    assert document["result"] == "NO"
    assert "offers" not in document
    assert set(answer.kinds()) == {"urn:executable-required", "urn:invalid-value"}
    paths = {item["values"]["path"] for item in document["meta"]["messages"]}
    assert paths == {"/executable", "/compute/cores/min"}
    standard_schema.validate(document, "OfferSetResponse")
    assert site.get(f"/offersets/{document['meta']['uuid']}").json == document


def test_an_unknown_kind_is_no_and_not_an_error(site):
    answer = site.post("/requests", {"executable": {"kind": "urn:example:thing", "size": 3}})
    assert answer.status == 303
    assert answer.json["result"] == "NO"
    assert answer.kinds() == ["urn:not-supported"]
    assert answer.json["meta"]["messages"][0]["values"]["path"] == "/executable"


def test_more_than_a_platform_has_is_no_with_the_place_and_the_limit(site):
    answer = site.post("/requests", notebook(compute=compute(64, 1024)))
    assert answer.json["result"] == "NO"
    assert answer.kinds() == ["urn:resource-limit", "urn:resource-limit"]
    paths = {item["values"]["path"] for item in answer.json["meta"]["messages"]}
    assert paths == {"/compute/cores/min", "/compute/memory/min"}


def test_no_time_in_the_interval_is_no_window(site):
    site.offers(notebook(compute=compute(8, 16)))
    answer = site.post(
        "/requests",
        notebook(
            compute=compute(8, 16), schedule={"requested": {"duration": "PT2H", "start": "2030-03-17T17:46:40Z/PT10M"}}
        ),
    )
    assert answer.json["result"] == "NO"
    assert answer.kinds() == ["urn:no-window"]


def test_a_property_that_nobody_knows_is_a_warning(site):
    document = site.offers(notebook(colour="green"))
    warning = document["meta"]["messages"][0]
    assert (warning["kind"], warning["level"], warning["values"]["path"]) == ("urn:unknown-property", "WARN", "/colour")


def test_a_cost_below_what_the_platform_takes_is_no(make_site):
    from ebhpc.config import Costs, Rates

    site = make_site(platform={"costs": Costs(monetary=Rates(per_core_hour=10.0))})
    cheap = notebook(costs=[{"kind": kinds.SIMPLE_COST, "type": kinds.MONETARY, "max": 1.0}])
    dear = notebook(costs=[{"kind": kinds.SIMPLE_COST, "type": kinds.MONETARY, "max": 20.0}])
    assert site.post("/requests", cheap).json["result"] == "NO"
    offers = site.offers(dear)["offers"]
    assert all(offer["costs"][0]["min"] <= 20.0 for offer in offers)


def test_an_offer_ends_in_time_for_the_platform_to_prepare(site):
    request = notebook(schedule={"requested": {"duration": "PT1H", "start": "2030-03-17T17:46:40Z/PT2M"}})
    offer = site.offers(request)["offers"][0]
    assert offer["expires"] == "2030-03-17T17:47:40Z"
    latest = offer["schedule"]["available"]["start"].partition("/")[2]
    assert latest == "2030-03-17T17:48:40Z"


def test_direct_takes_the_first_offer_and_answers_the_accepted_session(site):
    answer = site.post("/direct", notebook())
    assert answer.status == 303
    session = answer.json
    assert session["phase"] == "ACCEPTED"
    assert answer.headers["location"] == session["meta"]["url"]
    standard_schema.validate(session, "AbstractExecutionSession")
    with site.store.read() as tx:
        assert [(row.session, row.expires) for row in live_bookings(tx)] == [(session["meta"]["uuid"], None)]


def test_direct_asked_twice_makes_two_sessions_that_never_share_what_they_were_given(site):
    first, second = site.post("/direct", notebook()).json, site.post("/direct", notebook()).json
    assert first["meta"]["uuid"] != second["meta"]["uuid"]
    assert [one["phase"] for one in (first, second)] == ["ACCEPTED", "ACCEPTED"]
    listed = site.get("/sessions").json["sessions"]
    assert {one["meta"]["uuid"] for one in listed} >= {first["meta"]["uuid"], second["meta"]["uuid"]}


def test_direct_answers_what_cannot_run_with_400_in_the_shape_of_a_session(site):
    for request in ({}, notebook(compute=compute(64))):
        answer = site.post("/direct", request)
        assert answer.status == 400
        assert answer.headers["content-type"] == "application/json"
        assert answer.json["kind"] == kinds.SCHEDULED_SESSION
        assert answer.kinds()
        standard_schema.validate(answer.json, "AbstractExecutionSession")


def test_the_wrong_spelling_of_an_existing_broker_is_understood_and_never_sent(site):
    wrong = compute(2)
    wrong["kind"] = wrong["kind"].replace("/compute/", "/computer/")
    offer = site.offers(notebook(compute=wrong))["offers"][0]
    assert offer["compute"]["kind"] == kinds.SIMPLE_COMPUTE


def test_a_user_has_no_more_offers_open_than_allowed(make_site):
    site = make_site(api={"max_outstanding_offers": 4}, offers={"per_platform": 3})
    first = site.offers()
    answer = site.post("/requests", notebook())
    assert answer.status == 303
    assert answer.json["result"] == "NO"
    assert answer.kinds() == ["urn:policy-refused"]
    assert site.offers(user="bob")["result"] == "YES"
    site.move(first["offers"][0]["meta"]["uuid"], "ACCEPTED")
    assert site.post("/requests", notebook()).json["result"] == "YES"


def test_expired_offers_give_back_what_they_held_without_a_driver(make_site):
    site = make_site(Paper("paper", (Node(name="n", cores=1, memory=2048),)), offers={"lifetime": 30.0})
    hour = {"requested": {"duration": "PT100H", "start": "2030-03-17T17:46:40Z/PT1H"}}
    site.offers(notebook(schedule=hour))
    assert site.post("/requests", notebook(schedule=hour)).json["result"] == "NO"
    site.clock.now = NOW + 31
    assert site.post("/requests", notebook(schedule=hour)).json["result"] == "YES"


def test_an_offer_set_of_no_one_is_404(site):
    for uuid in ("0b0e6ad0-0000-4000-8000-000000000000", "nonsense", "%00", "..%2f.."):
        answer = site.get(f"/offersets/{uuid}")
        assert answer.status == 404
        assert answer.kinds() == ["urn:resource-not-found"]
