"""The site's rules: who may use what, how much of it, what may run, and who sees and ends others' sessions."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import pytest

from ebhpc.config import SettingsError, SitePolicy, read_settings
from ebhpc.config.rules import Allowance, ContentRule
from ebhpc.model import Identity, SourceRule, Sources, kinds
from ebhpc.model.reading import read_request
from ebhpc.model.registry import Kinds
from ebhpc.policy import People, in_group
from ebhpc.policy.content import refused_content
from ebhpc.staging.sources import place_matches, place_of
from ebhpc.store import (
    ExternalUser,
    Store,
    as_session,
    count_phases,
    get_identity,
    get_session,
    list_sessions,
    meet_external,
    moves_of,
)
from tests.api.conftest import NODES, NOW, Make, compute, make_site, notebook, site
from tests.api.paper_platform import Paper

__all__ = ["make_site", "site"]

DIGEST = "sha256:" + "0" * 64


def rules(**parts: Any) -> dict[str, Any]:
    return {"more": {"policy": read_settings(SitePolicy, parts)}}


def container(**parts: Any) -> dict[str, Any]:
    image = {"locations": ["quay.io/astro/tools:1"], "digest": DIGEST, **parts.pop("image", {})}
    return {**notebook(), "executable": {"kind": kinds.DOCKER_CONTAINER, "image": image, **parts}}


def script(**parts: Any) -> dict[str, Any]:
    return {**notebook(), "executable": {"kind": kinds.BATCH_SCRIPT, "digest": DIGEST, **parts}}


def said(document: Mapping[str, Any]) -> list[str]:
    return [item["message"] for item in document["meta"].get("messages") or []]


def refused(site: Any, request: dict[str, Any], user: str = "ada") -> list[str]:
    answer = site.post("/requests", request, user=user)
    assert answer.status == 303
    assert answer.json["result"] == "NO", answer.json
    return said(answer.json)


# --- who may use what -------------------------------------------------------------------------------------------------


def test_a_platform_is_for_those_whom_a_rule_names(make_site: Make) -> None:
    here = make_site(
        **rules(
            groups={"staff": ["ada"]},
            access=[
                {"name": "not bob", "who": {"users": ["bob"]}, "allow": False},
                {"name": "staff", "who": {"groups": ["staff"]}, "platforms": ["paper"]},
            ],
        )
    )
    assert here.offers()
    assert refused(here, notebook(), "bob") == ["The site's rule 'not bob' does not let you use paper."]
    assert refused(here, notebook(), "root") == ["None of the site's rules lets you use paper."]


def test_one_platform_of_two_is_offered_to_guests(make_site: Make) -> None:
    here = make_site(
        Paper("big", NODES),
        Paper("small", NODES),
        **rules(
            groups={"staff": ["bob"]},
            access=[
                {"name": "big", "who": {"groups": ["staff"]}, "platforms": ["big"]},
                {"name": "all", "platforms": ["small"]},
            ],
        ),
    )
    seen = {}
    for user in ("ada", "bob"):
        here.offers(user=user)
        with here.store.read() as tx:
            page = list_sessions(tx, owner=here.owners[user], size=100)
        seen[user] = {session.platform for session in page.sessions}
    assert seen == {"ada": {"small"}, "bob": {"big", "small"}}


def test_who_may_no_longer_use_a_platform_cannot_accept_either(make_site: Make) -> None:
    before = make_site()
    uuid = before.offers()["offers"][0]["meta"]["uuid"]
    after = make_site(**rules(access=[{"name": "nobody", "allow": False}]))
    answer = after.call(
        "POST",
        f"/sessions/{uuid}",
        {"kind": kinds.ENUM_UPDATE, "path": "phase", "value": "ACCEPTED"},
    )
    assert answer.status == 403
    assert answer.json["detail"] == "The site's rule 'nobody' does not let you use paper."


def test_groups_of_an_issuer_are_not_those_of_the_site(make_site: Make) -> None:
    people = People(
        read_settings(SitePolicy, {"groups": {"staff": ["ada", "lab:eve"]}, "administrators": [{"groups": ["staff"]}]})
    )
    assert people.known(Identity(uuid="1", username="lab:ada", groups=("lab:staff",))).admin is False
    assert people.known(Identity(uuid="1", username="ada")).admin
    eve = people.known(Identity(uuid="1", username="lab:eve", groups=("lab:x",)))
    assert eve.groups == ("lab:x", "staff")
    assert eve.admin


@pytest.mark.parametrize(
    ("wanted", "has", "is_in"),
    [
        ("lab:/hpc", "lab:/hpc", True),
        ("lab:/hpc", "lab:/hpc/astro", False),
        ("lab:urn:geant:x:group:y", "lab:urn:geant:x:group:y#aai.x", True),
        ("lab:urn:geant:x:group:y#aai.x", "lab:urn:geant:x:group:y#evil.y", False),
        ("lab:urn:geant:x:group:y", "other:urn:geant:x:group:y#aai.x", False),
        ("a", "a#b", False),
    ],
)
def test_entitlements_may_leave_out_their_authority(wanted: str, has: str, is_in: bool) -> None:
    assert in_group(wanted, (has,)) is is_in


# --- how much ---------------------------------------------------------------------------------------------------------


def test_so_many_sessions_at_a_time_and_no_more(make_site: Make) -> None:
    here = make_site(**rules(limits=[{"name": "few", "sessions": 2}]))
    offers = [here.offers(notebook(compute=compute(1, max=1)))["offers"][0]["meta"]["uuid"] for _ in range(3)]
    assert [here.move(uuid, "ACCEPTED").status for uuid in offers] == [200, 200, 403]
    answer = here.move(offers[2], "ACCEPTED")
    assert answer.json["detail"] == (
        "The site's rule 'few' allows you 2 sessions at a time; there are 2 now, and this needs 1."
    )
    assert answer.kinds() == ["urn:policy-refused"]
    assert here.offers(user="bob")
    here.broker.rules._counts.clear()
    assert "rule 'few'" in refused(here, notebook())[0]
    assert here.move(offers[0], "CANCELLED").status == 200
    assert here.move(offers[2], "ACCEPTED").status == 200


def test_two_acceptances_at_once_do_not_exceed_a_limit_together(make_site: Make) -> None:
    here = make_site(**rules(limits=[{"name": "one", "sessions": 1}]))
    offers = [here.offers(notebook(compute=compute(1, max=1)))["offers"][0]["meta"]["uuid"] for _ in range(4)]
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda uuid=uuid: statuses.append(here.move(uuid, "ACCEPTED").status))
        for uuid in offers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200, 403, 403, 403]


def test_core_hours_of_a_day_count_what_is_booked_and_what_was_used(make_site: Make) -> None:
    here = make_site(**rules(limits=[{"name": "hours", "core_hours_per_day": 5}]))
    four = notebook(compute=compute(4, max=4))
    first = here.offers(four)["offers"][0]["meta"]["uuid"]
    assert here.move(first, "ACCEPTED").status == 200
    here.broker.rules._counts.clear()
    assert refused(here, four) == [
        "The site's rule 'hours' allows you 5 core hours in 24 hours; there are 4 now, and this needs 4."
    ]
    assert here.offers(notebook(compute=compute(1, max=1)))
    here.move(first, "CANCELLED")  # it never ran: it counts nothing
    here.broker.rules._counts.clear()
    assert here.offers(four)


def test_members_of_a_group_share_what_the_group_has(make_site: Make) -> None:
    here = make_site(
        **rules(
            groups={"team": ["ada", "bob"]},
            limits=[{"name": "team", "who": {"groups": ["team"]}, "per": "group", "sessions": 1}],
        )
    )
    small = notebook(compute=compute(1, max=1))
    mine, theirs, outside = (
        here.offers(small, user=user)["offers"][0]["meta"]["uuid"] for user in ("ada", "bob", "root")
    )
    assert here.move(mine, "ACCEPTED").status == 200
    answer = here.move(theirs, "ACCEPTED", user="bob")
    assert answer.status == 403
    assert "your group together 1 sessions" in answer.json["detail"]
    assert here.move(outside, "ACCEPTED", user="root").status == 200


def test_the_first_rule_that_names_a_quantity_decides_it(make_site: Make) -> None:
    here = make_site(
        **rules(
            limits=[
                {"name": "bob", "who": {"users": ["bob"]}, "cores": 8},
                {"name": "all", "cores": 2, "duration": "2h", "horizon": "1d", "memory_gib": 4},
            ]
        )
    )
    asked = notebook(compute=compute(1, max=8))

    def cores(user: str) -> float:
        return max(offer["compute"]["cores"]["max"] for offer in here.offers(asked, user=user)["offers"])

    assert cores("ada") == 2
    assert cores("bob") > 2
    assert "2" in " ".join(refused(here, notebook(compute=compute(3))))
    assert refused(here, {**notebook(), "schedule": {"requested": {"duration": "PT3H"}}})


def test_open_offers_are_counted_by_the_rule_where_there_is_one(make_site: Make) -> None:
    here = make_site(
        api={"max_outstanding_offers": 3},
        **rules(limits=[{"name": "bob", "who": {"users": ["bob"]}, "outstanding_offers": 6}]),
    )
    for user, sets in (("ada", 1), ("bob", 2)):
        for _ in range(sets):
            assert len(here.offers(user=user)["offers"]) == 3
        assert "as one user may have" in refused(here, notebook(), user)[0]


def test_direct_acceptance_keeps_to_the_limits(make_site: Make) -> None:
    here = make_site(**rules(limits=[{"name": "one", "sessions": 1}]))
    assert here.post("/direct", notebook()).status == 303
    answer = here.post("/direct", notebook())
    assert answer.status in (400, 403)
    assert "rule 'one'" in answer.content.decode()
    with here.store.read() as tx:
        assert sum(count for (_, phase), count in count_phases(tx).items() if phase == "ACCEPTED") == 1


# --- what may run -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "request_", "allowed"),
    [
        ({"registries": {"allow": ["quay.io"]}}, container(), True),
        ({"registries": {"allow": ["docker.io"]}}, container(), False),
        ({"registries": {"allow": ["docker.io"]}}, container(image={"locations": ["alpine"]}), True),
        ({"registries": {"deny": ["*.evil.org"]}}, container(image={"locations": ["r.evil.org/a"]}), False),
        ({"registries": {"deny": ["r.evil.org"]}}, container(image={"locations": ["R.EVIL.ORG/a"]}), False),
        ({"images": {"allow": ["quay.io/astro/*"]}}, container(), True),
        ({"images": {"allow": ["quay.io/astro/*"]}}, container(image={"locations": ["quay.io/astroevil/x"]}), False),
        ({"images": {"deny": ["quay.io/astro/tools"]}}, container(), False),
        (
            {"images": {"allow": ["quay.io/astro/*"]}},
            container(image={"locations": ["quay.io/astro/a", "b.org/c"]}),
            False,
        ),
        ({"digests": {"deny": [DIGEST.upper()]}}, container(), False),
        ({"digests": {"allow": ["sha256:" + "1" * 64]}}, container(), False),
        ({"digests": {"allow": [DIGEST]}}, container(), True),
        ({"notebooks": {"allow": ["https://example.org/"]}}, notebook(), True),
        ({"notebooks": {"allow": ["https://example.org/safe/"]}}, notebook(), False),
        ({"notebooks": {"deny": ["example.org"]}}, notebook(), False),
        ({"notebooks": {"deny": ["*.example.org"]}}, notebook(), True),
        ({"notebooks": {"deny": ["example.org"]}}, script(location="https://example.org/a.sh"), False),
        ({"notebooks": {"deny": ["example.org"]}}, script(script="#!/bin/sh\n"), True),
        ({"executables": {"deny": ["batch-script"]}}, script(script="#!/bin/sh\n"), False),
        ({"executables": {"allow": ["jupyter-notebook"]}}, notebook(), True),
        ({"executables": {"allow": ["jupyter-notebook"]}}, container(), False),
        ({"executables": {"deny": ["docker-container"]}}, container(), False),
        ({"ports": {"allow": ["8000-8999"]}}, container(network={"ports": [{"internal": {"port": 8888}}]}), True),
        ({"ports": {"allow": ["8000-8999"]}}, container(network={"ports": [{"internal": {"port": 22}}]}), False),
        ({"ports": {"deny": ["22"]}}, container(network={"ports": [{"internal": {"port": 22}}]}), False),
    ],
)
def test_lists_say_what_may_run(rule: dict[str, Any], request_: dict[str, Any], allowed: bool) -> None:
    reasons = judged({"name": "the list", **rule}, request_)
    assert (not reasons) is allowed, reasons
    assert all("rule 'the list' does not allow" in text for text in reasons)
    for hidden in (item for part in rule.values() for item in (*(part.get("allow") or ()), *part.get("deny", ()))):
        if hidden.lower() not in str(request_).lower():
            assert hidden not in " ".join(reasons)


def judged(rule: dict[str, Any], document: dict[str, Any]) -> list[str]:
    """Return why a rule does not allow a request's content."""
    decoded = Kinds().request(document)
    assert decoded.document is not None, decoded.problems
    reading = read_request(decoded.document, now=NOW, new_uuid=lambda: str(uuid4()))
    assert reading.request is not None, reading.problems
    return list(map(str, refused_content([read_settings(ContentRule, rule)], reading.request)))


def test_what_a_list_refuses_is_answered_no_with_the_rules_name(make_site: Make) -> None:
    here = make_site(**rules(content=[{"name": "no notebooks", "executables": {"deny": ["jupyter-notebook"]}}]))
    assert "The site's rule 'no notebooks' does not allow executables" in refused(here, notebook())[0]


def test_a_session_has_the_rules_on_what_is_fetched_for_it(make_site: Make) -> None:
    here = make_site(
        **rules(
            content=[
                {"name": "ours", "notebooks": {"allow": ["example.org"]}, "data": {"deny": ["example.org/secret/"]}},
                {"name": "of bob", "who": {"users": ["bob"]}, "data": {"allow": []}},
                {"name": "no ports", "ports": {"allow": []}},
            ]
        )
    )
    answer = here.post("/requests", notebook())
    assert answer.json["result"] == "YES", answer.json
    with here.store.read() as tx:
        record = get_session(tx, answer.json["offers"][0]["meta"]["uuid"])
    assert record is not None
    assert as_session(record, Kinds()).sources == Sources(
        data=(SourceRule(rule="ours", deny=("example.org/secret/",)),),
        notebooks=(SourceRule(rule="ours", allow=("example.org",)),),
    )


@pytest.mark.parametrize(
    "url",
    [
        "https://data.example.org/secret/a",
        "HTTPS://DATA.example.org:443/secret/a",
        "https://data.example.org./secret/a",
        "https://data.example.org/public/../secret/a",
        "https://data.example.org/public/%2e%2e/secret/a",
        "https://data.example.org/%73ecret/a",
        "https://data.example.org//secret/a",
        "https://user:pass@data.example.org/secret/a",
        "https://data.example.org/secret",
        "https://data.example.org/x\\..\\secret/a",
    ],
)
def test_no_way_of_writing_a_url_leads_around_a_list(url: str) -> None:
    document = {**notebook(), "data": [{"kind": kinds.SIMPLE_DATA, "location": url}]}
    rule = {"name": "data", "data": {"deny": ["https://data.example.org/secret/"]}}
    (reason,) = judged(rule, document)
    assert "rule 'data' does not allow data from" in reason
    assert "pass" not in reason


@pytest.mark.parametrize(
    ("pattern", "url", "fits"),
    [
        ("https://a.org/pub/", "https://a.org/public/x", False),
        ("https://a.org/pub", "https://a.org/pub", True),
        ("https://a.org/", "http://a.org/", False),
        ("a.org", "http://a.org/x", True),
        ("a.org", "file:///a.org/x", False),
        ("https://*.a.org/", "https://b.a.org/x", True),
        ("https://*.a.org/", "https://evila.org/x", False),
        ("https://a.org:8443/", "https://a.org/x", False),
        ("file:///data/", "file:///data/x", True),
        ("file:///data/", "file:///data/../etc/passwd", False),
        ("*", "ftp://x/y", True),
    ],
)
def test_patterns_mean_whole_parts(pattern: str, url: str, fits: bool) -> None:
    place = place_of(url)
    assert place is not None
    assert place_matches(pattern, place) is fits


def test_data_whose_place_cannot_be_seen_is_not_on_a_list() -> None:
    rule = {"name": "data", "data": {"allow": ["https://a.org/"]}}
    document = {**notebook(), "data": [{"kind": kinds.S3_DATA, "bucket": "b", "object": "o"}]}
    (reason,) = judged(rule, document)
    assert "a place that it does not tell" in reason


# --- others' sessions -------------------------------------------------------------------------------------------------


def test_some_may_see_and_some_may_end_others_sessions(make_site: Make) -> None:
    here = make_site(
        **rules(
            groups={"helpdesk": ["bob"]},
            others=[{"name": "helpdesk", "who": {"groups": ["helpdesk"]}, "may": ["see"]}],
        )
    )
    uuid = here.offers()["offers"][0]["meta"]["uuid"]
    assert here.move(uuid, "ACCEPTED").status == 200
    assert here.get(f"/sessions/{uuid}", user="bob").status == 200
    assert here.get("/sessions?everybody=true", user="bob").status == 200
    assert here.get("/sessions?everybody=true", user="ada").status == 403
    assert here.move(uuid, "CANCELLED", user="bob").status == 403
    ender = make_site(
        **rules(
            others=[
                {
                    "name": "ends those of ada",
                    "who": {"users": ["bob"]},
                    "whose": {"users": ["ada"]},
                    "may": ["see", "end"],
                }
            ]
        )
    )
    theirs = ender.offers(user="root")["offers"][0]["meta"]["uuid"]
    assert ender.get(f"/sessions/{theirs}", user="bob").status == 403
    assert ender.get("/sessions?everybody=true", user="bob").status == 403
    assert ender.move(uuid, "CANCELLED", user="bob").status == 200
    with ender.store.read() as tx:
        assert moves_of(tx, uuid)[-1][3] == "cancelled by bob"


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"access": [{"who": {}}]}, "name is missing"),
        ({"access": [{"name": "a"}, {"name": "a"}]}, "two rules are called a"),
        ({"limits": [{"name": "a", "per": "group", "sessions": 1}]}, "who.groups"),
        ({"content": [{"name": "a", "ports": {"allow": ["0"]}}]}, "expected a port"),
        ({"content": [{"name": "a", "ports": {"deny": ["9-8"]}}]}, "expected a port"),
        ({"groups": {"a:b": ["x"]}}, "groups"),
        ({"administrators": [{}]}, "administrators"),
        ({"others": [{"name": "a", "who": {}}]}, "who"),
        ({"accces": []}, "did you mean access"),
    ],
)
def test_wrong_rules_are_told(parts: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        read_settings(SitePolicy, parts)


def test_nothing_listed_allows_all() -> None:
    assert Allowance() == Allowance(allow=None, deny=())


# --- who an issuer's users are ----------------------------------------------------------------------------------------


def test_two_people_of_one_name_are_two(ready_database_url: str) -> None:
    store = Store(ready_database_url)

    def meet(issuer: str, subject: str, uuid: str, *groups: str) -> Any:
        user = ExternalUser(issuer=issuer, subject=subject, username="lab:ada", groups=groups)
        return meet_external(store, user, uuid=uuid, now=NOW)

    first = meet("https://a", "1", "u1", "lab:g")
    second = meet("https://a", "2", "u2")
    assert first.username == "lab:ada"
    assert second.username.startswith("lab:ada~")
    assert meet("https://a", "1", "u3", "lab:h").uuid == "u1"
    assert meet("https://b", "1", "u4").uuid == "u4"
    found = get_identity(store, "u1")
    assert found is not None
    assert found[1] == ("lab:h",)
    store.close()
