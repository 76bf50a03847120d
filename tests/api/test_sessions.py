"""Sessions: looked at, listed, accepted, rejected, cancelled; by their owner and by others."""

from __future__ import annotations

import pytest

from ebhpc.model import Message, Phase, kinds
from ebhpc.model.documents import Connector
from ebhpc.store import Change, DriverRecord, claim, live_bookings, move, moves_of, register_driver
from tests import standard_schema
from tests.api.conftest import NOW, notebook


def offered(site, **options):
    return [offer["meta"]["uuid"] for offer in site.offers(**options)["offers"]]


def drive(site, uuid, *steps):
    """Move a session as a driver would."""
    record = DriverRecord(name="d", incarnation="d-1", host="h", pid=1, pid_started=0.0, heartbeat=NOW)
    register_driver(site.store, record, replaces=None)
    assert claim(site.store, "d-1", now=site.clock() + 1, lease=3600, most=10)
    for here, there, change in steps:
        site.clock.now += 10
        move(site.store, uuid, driver="d-1", here=here, there=there, cause="a test", change=change, now=site.clock())


TO_RUNNING = (
    (Phase.ACCEPTED, Phase.WAITING, Change()),
    (Phase.WAITING, Phase.PREPARING, Change()),
    (Phase.PREPARING, Phase.AVAILABLE, Change()),
    (
        Phase.AVAILABLE,
        Phase.RUNNING,
        Change(
            started=NOW + 45.5,
            connectors=(Connector(status="AVAILABLE", protocol="HTTP", location="http://example.org:1"),),
        ),
    ),
)


def test_options_are_what_can_be_done_now(site):
    uuids = offered(site)
    for uuid in uuids:
        assert site.get(f"/sessions/{uuid}").json["meta"]["options"] == [
            {"kind": "uri:enum-value-option", "path": "phase", "values": ["ACCEPTED", "REJECTED"]}
        ]
    accepted = site.move(uuids[0], "ACCEPTED").json
    assert accepted["meta"]["options"] == [{"kind": "uri:enum-value-option", "path": "phase", "values": ["CANCELLED"]}]
    assert "expires" not in accepted
    assert "options" not in site.get(f"/sessions/{uuids[1]}").json["meta"]


@pytest.mark.parametrize("path", ["phase", "/phase"])
def test_accepting_answers_the_session_and_rejects_its_siblings(site, path):
    first, *others = offered(site)
    answer = site.post(f"/sessions/{first}", {"kind": kinds.ENUM_UPDATE, "path": path, "value": "ACCEPTED"})
    assert answer.status == 200
    assert answer.json["phase"] == "ACCEPTED"
    standard_schema.validate(answer.json, "AbstractExecutionSession")
    assert others
    for uuid in others:
        assert site.get(f"/sessions/{uuid}").json["phase"] == "REJECTED"
    with site.store.read() as tx:
        assert {row.session for row in live_bookings(tx)} == {first}


def test_accepting_or_cancelling_twice_is_no_error(site):
    first, *_ = offered(site)
    assert [site.move(first, "ACCEPTED").status for _ in range(2)] == [200, 200]
    cancelled = [site.move(first, "CANCELLED") for _ in range(2)]
    assert [answer.status for answer in cancelled] == [200, 200]
    assert cancelled[1].json["phase"] == "CANCELLED"
    with site.store.read() as tx:
        assert [move[2] for move in moves_of(tx, first)] == [Phase.OFFERED, Phase.ACCEPTED, Phase.CANCELLED]


def test_rejecting_frees_one_offer_and_leaves_the_others(site):
    first, *others = offered(site)
    assert site.move(first, "REJECTED").json["phase"] == "REJECTED"
    assert site.move(first, "REJECTED").status == 200
    with site.store.read() as tx:
        assert {row.session for row in live_bookings(tx)} == set(others)


@pytest.mark.parametrize(
    ("before", "wanted"),
    [
        ((), "CANCELLED"),
        (("REJECTED",), "ACCEPTED"),
        (("ACCEPTED",), "REJECTED"),
        (("ACCEPTED", "CANCELLED"), "ACCEPTED"),
        ((), "RUNNING"),
        ((), "OFFERED"),
        ((), "green"),
    ],
)
def test_an_update_that_is_not_among_the_options_is_409_and_changes_nothing(site, before, wanted):
    first, *_ = offered(site)
    for phase in before:
        assert site.move(first, phase).status == 200
    then = site.get(f"/sessions/{first}").json
    answer = site.move(first, wanted)
    assert answer.status == 409
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.kinds() == ["urn:conflict"]
    assert then["phase"] in answer.json["detail"]
    assert site.get(f"/sessions/{first}").json == then


@pytest.mark.parametrize(
    "update",
    [
        {"kind": kinds.ENUM_UPDATE, "path": "meta.name", "value": "ACCEPTED"},
        {"kind": kinds.STRING_UPDATE, "path": "phase", "value": "ACCEPTED"},
        {"kind": kinds.INTEGER_UPDATE, "path": "compute.cores", "value": 4},
        {"kind": kinds.DELTA_UPDATE, "path": "compute.cores", "delta": -4},
    ],
)
def test_an_update_of_something_else_is_409(site, update):
    first, *_ = offered(site)
    assert site.post(f"/sessions/{first}", update).status == 409


@pytest.mark.parametrize(
    ("update", "path"),
    [
        ({}, "/kind"),
        ({"kind": "uri:other-update", "path": "phase"}, "/kind"),
        ({"kind": kinds.ENUM_UPDATE, "value": "ACCEPTED"}, "/path"),
        ({"kind": kinds.ENUM_UPDATE, "path": "phase"}, "/value"),
        ({"kind": kinds.ENUM_UPDATE, "path": "phase", "value": 3}, "/value"),
        ([], ""),
        ("ACCEPTED", ""),
    ],
)
def test_an_update_that_is_none_is_400_with_its_place(site, update, path):
    first, *_ = offered(site)
    answer = site.post(f"/sessions/{first}", update)
    assert answer.status == 400
    assert [item["values"]["path"] for item in answer.json["messages"]] == [path]
    assert site.get(f"/sessions/{first}").json["phase"] == "OFFERED"


def test_accepting_too_late_is_409_and_the_offer_has_expired(site):
    first, *others = offered(site)
    site.clock.now = NOW + 301
    answer = site.move(first, "ACCEPTED")
    assert answer.status == 409
    for uuid in (first, *others):
        seen = site.get(f"/sessions/{uuid}").json
        assert seen["phase"] == "EXPIRED"
        assert "expires" not in seen
        assert "options" not in seen["meta"]


def test_an_offer_that_is_due_is_seen_as_expired_and_stays_so_by_a_slower_clock(site):
    document = site.offers()
    site.clock.now = NOW + 301
    seen = site.get(f"/offersets/{document['meta']['uuid']}").json
    assert {offer["phase"] for offer in seen["offers"]} == {"EXPIRED"}
    site.clock.now = NOW + 299
    assert site.move(document["offers"][0]["meta"]["uuid"], "ACCEPTED").status == 409


def test_a_running_session_tells_what_really_happened(site):
    first, *_ = offered(site)
    site.move(first, "ACCEPTED")
    planned = site.get(f"/sessions/{first}").json
    drive(site, first, *TO_RUNNING)
    seen = site.get(f"/sessions/{first}").json
    assert seen["phase"] == "RUNNING"
    assert seen["executable"]["phase"] == seen["compute"]["phase"] == "RUNNING"
    assert seen["connectors"] == [{"status": "AVAILABLE", "protocol": "HTTP", "location": "http://example.org:1"}]
    assert seen["schedule"]["available"]["start"] == "2030-03-17T17:47:25Z/PT0S"
    assert seen["schedule"]["available"]["duration"] == planned["schedule"]["available"]["duration"]
    assert seen["schedule"]["preparing"] == {"start": "2030-03-17T17:47:00Z", "duration": "PT10S"}
    standard_schema.validate(seen, "AbstractExecutionSession")


def test_a_session_that_has_ended_tells_how_long_it_ran_and_its_connectors_lead_nowhere(site):
    first, *_ = offered(site)
    site.move(first, "ACCEPTED")
    told = Message(kind="urn:progress", level="INFO", filled="the job has ended with exit code 0")
    drive(
        site,
        first,
        *TO_RUNNING,
        (Phase.RUNNING, Phase.RELEASING, Change(ended=NOW + 645.5, exit_code=0, messages=(told,))),
        (Phase.RELEASING, Phase.COMPLETED, Change(finished=True)),
    )
    seen = site.get(f"/sessions/{first}").json
    assert seen["phase"] == "COMPLETED"
    assert seen["schedule"]["available"] == {"start": "2030-03-17T17:47:25Z/PT0S", "duration": "PT10M"}
    assert seen["schedule"]["releasing"] == {"start": "2030-03-17T17:47:30Z", "duration": "PT10S"}
    assert seen["connectors"] == [{"status": "FINISHED", "protocol": "HTTP"}]
    assert seen["meta"]["messages"][-1]["message"] == "the job has ended with exit code 0"
    assert "options" not in seen["meta"]
    assert site.move(first, "CANCELLED").status == 409


def test_another_users_session_can_be_neither_read_nor_changed(site):
    document = site.offers()
    uuid = document["offers"][0]["meta"]["uuid"]
    for answer in (
        site.get(f"/sessions/{uuid}", user="bob"),
        site.get(f"/offersets/{document['meta']['uuid']}", user="bob"),
        site.move(uuid, "ACCEPTED", user="bob"),
        site.get(f"/sessions/{uuid}/output/", user="bob"),
        site.get(f"/sessions/{uuid}/output/stdout", user="bob"),
    ):
        assert answer.status == 403
        assert answer.kinds() == ["urn:policy-refused"]
    assert site.get(f"/sessions/{uuid}").json["phase"] == "OFFERED"
    assert site.get(f"/sessions/{uuid}", user="root").status == 200
    assert site.move(uuid, "ACCEPTED", user="root").json["phase"] == "ACCEPTED"


def test_nothing_is_read_without_an_account_unless_the_site_says_so(make_site):
    site = make_site()
    document = site.offers()
    paths = [
        f"/offersets/{document['meta']['uuid']}",
        f"/sessions/{document['offers'][0]['meta']['uuid']}",
        "/platforms",
        "/platforms/paper/timeline",
    ]
    for path in (*paths, "/sessions"):
        answer = site.get(path, user=None)
        assert answer.status == 401
        assert answer.headers["www-authenticate"].startswith("Basic realm=")


def test_with_public_reads_everybody_reads_and_only_the_owner_changes(make_site):
    site = make_site(api={"public_reads": True})
    document = site.offers()
    uuid = document["offers"][0]["meta"]["uuid"]
    for path in (
        f"/offersets/{document['meta']['uuid']}",
        f"/sessions/{uuid}",
        "/platforms",
        "/platforms/paper/timeline",
    ):
        assert site.get(path, user=None).status == 200
        assert site.get(path, user="bob").status == 200
    assert site.move(uuid, "ACCEPTED", user=None).status == 401
    assert site.move(uuid, "ACCEPTED", user="bob").status == 403
    assert site.post("/requests", notebook(), user=None).status == 401
    assert site.get("/sessions", user=None).status == 401
    assert site.get(f"/sessions/{uuid}/output", user="bob").status == 403


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://broker.example.org:81", ""])
def test_a_page_of_another_site_changes_nothing_with_the_password_that_a_browser_remembers(site, origin):
    first, *_ = offered(site)
    headers = {"Host": "broker.example.org", "Origin": origin or " "}
    answer = site.move(first, "ACCEPTED", headers=headers)
    assert answer.status == 403
    assert site.get(f"/sessions/{first}", headers=headers).json["phase"] == "OFFERED"
    headers["Origin"] = "http://broker.example.org"
    assert site.move(first, "ACCEPTED", headers=headers).status == 200


def test_a_session_of_no_one_is_404(site):
    for uuid in ("0b0e6ad0-0000-4000-8000-000000000000", "x", "0B0E6AD0-0000-4000-8000-000000000000"):
        assert site.get(f"/sessions/{uuid}").status == 404
        assert site.move(uuid, "ACCEPTED").status == 404
        assert site.get(f"/sessions/{uuid}/output").status == 404


def test_a_listing_has_the_callers_own_sessions_page_by_page(site):
    mine = set(offered(site))
    site.clock.now += 1
    mine |= set(offered(site))
    theirs = set(offered(site, user="bob"))
    seen = []
    path = "/sessions?limit=2"
    while path:
        answer = site.get(path)
        assert answer.status == 200
        assert len(answer.json["sessions"]) <= 2
        seen += [session["meta"]["uuid"] for session in answer.json["sessions"]]
        following = answer.json.get("next")
        assert ("link" in answer.headers) == bool(following)
        path = following and following.partition("//")[2].partition("/")[2].join(["/", ""])
    assert len(seen) == len(set(seen))
    assert set(seen) == mine
    everybody = site.get("/sessions?everybody=true&limit=200", user="root").json["sessions"]
    assert {session["meta"]["uuid"] for session in everybody} == mine | theirs
    assert site.get("/sessions?everybody=true").status == 403


def test_a_listing_can_be_filtered_by_phase_and_platform(site):
    first, *others = offered(site)
    site.move(first, "ACCEPTED")
    found = site.get("/sessions?phase=ACCEPTED").json["sessions"]
    assert [session["meta"]["uuid"] for session in found] == [first]
    both = site.get("/sessions?phase=ACCEPTED&phase=REJECTED&platform=paper").json["sessions"]
    assert len(both) == 1 + len(others)
    assert site.get("/sessions?platform=other").json["sessions"] == []


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=x",
        "limit=201",
        "limit=99999999999999999999",
        "limit=%C2%B2",
        "phase=GREEN",
        "after=1",
        "everybody=maybe",
        "colour=green",
        "platform=%00",
        "limit=",
    ],
)
def test_a_query_that_cannot_be_used_is_400_and_says_what_is_expected(site, query):
    answer = site.get(f"/sessions?{query}")
    assert answer.status == 400
    assert answer.kinds() == ["urn:invalid-value"]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_a_session_is_neither_replaced_nor_deleted(site, method):
    first, *_ = offered(site)
    answer = site.call(method, f"/sessions/{first}")
    assert answer.status == 405
    assert {item.strip() for item in answer.headers["allow"].split(",")} >= {"GET", "POST"}
    assert answer.kinds()
