"""A session that an operator must approve: held at once, prepared when it is approved, given back otherwise."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from ebhpc.model import MessageKind, Phase, message
from ebhpc.store import Approval, Decided, Wants, decide, pending_approvals
from tests.api.conftest import Make
from tests.driver.world import World
from tests.firm.test_firm_offers import MONDAY, accept_first, ruled, wish

HOUR = 3600


def booked(world: World, **more: Any) -> str:
    """A session that starts in two hours, and must be approved within one."""
    given = {"start": int(world.now) + 2 * HOUR, "approval": Approval(deadline=int(world.now) + HOUR), **more}
    return world.accepted(**given)


def say(world: World, uuid: str, approved: bool, operator: str = "root") -> Decided:
    told = message(MessageKind.APPROVAL, "decided", level="INFO")
    decided = decide(
        world.store, uuid, approved=approved, operator=operator, reason="because", told=told, now=world.now
    )
    assert decided is not None
    return decided


def waiting(world: World) -> list[str]:
    with world.store.read() as tx:
        return [record.uuid for record in pending_approvals(tx)]


@pytest.mark.parametrize("reserved", [False, True])
def test_it_is_held_at_once_and_goes_on_when_it_is_approved(world: World, reserved: bool) -> None:
    driver = world.driver()
    uuid = booked(world, wants=Wants(reserved=reserved))
    world.turn(driver, 600, each=300)
    assert world.phase(uuid) is Phase.WAITING
    assert world.session(uuid).held is not None
    assert waiting(world) == [uuid]
    assert say(world, uuid, approved=True).done
    assert waiting(world) == []
    world.until(driver, lambda: world.phase(uuid) is not Phase.WAITING, most=3 * HOUR, each=300)
    assert Phase.PREPARING in world.phases(uuid)
    approval = world.session(uuid).approval
    assert approval is not None
    assert (approval.approved, approval.operator, approval.reason) == (True, "root", "because")


def test_refused_it_ends_and_all_is_given_back(world: World) -> None:
    driver = world.driver()
    uuid = booked(world)
    world.turn(driver, 60, each=30)
    assert say(world, uuid, approved=False).session.phase is Phase.CANCELLED
    world.until(driver, lambda: world.is_over(uuid))
    world.check_is_over(uuid, Phase.CANCELLED)


def test_what_nobody_has_decided_in_time_is_given_back_and_its_owner_told(world: World) -> None:
    driver = world.driver()
    uuid = booked(world)
    world.turn(driver, HOUR - 10, each=900)
    assert world.phase(uuid) is Phase.WAITING
    world.until(driver, lambda: world.is_over(uuid), each=30)
    world.check_is_over(uuid, Phase.FAILED)
    assert any("no operator of tin approved it by" in told for told in world.told(uuid, MessageKind.APPROVAL))
    assert not say(world, uuid, approved=True).done


def test_the_first_word_counts(world: World) -> None:
    uuid = booked(world)
    assert say(world, uuid, approved=True, operator="root").done
    assert say(world, uuid, approved=True, operator="eve").done, "the same again is no error"
    contrary = say(world, uuid, approved=False, operator="eve")
    assert not contrary.done
    assert contrary.session.approval == replace(contrary.session.approval, operator="root", approved=True)  # type: ignore[type-var]


def test_another_driver_goes_on_where_the_first_was_killed(world: World) -> None:
    first = world.driver("one")
    uuid = booked(world)
    world.turn(first, 60, each=30)
    assert say(world, uuid, approved=True).done
    second = world.driver("two", pid=2)
    world.until(second, lambda: world.phase(uuid) is not Phase.WAITING, most=3 * HOUR, each=300)
    assert Phase.PREPARING in world.phases(uuid)


def test_a_session_without_approval_waits_for_nobody(world: World) -> None:
    uuid = world.accepted()
    assert waiting(world) == []
    decided = decide(
        world.store,
        uuid,
        approved=True,
        operator="root",
        reason=None,
        told=message(MessageKind.APPROVAL, "decided", level="INFO"),
        now=world.now,
    )
    assert decided is not None
    assert not decided.done
    assert world.session(uuid).approval is None


# --- over the API ----------------------------------------------------------------------------------------------------


def test_offers_say_that_and_until_when_an_operator_must_approve(make_site: Make) -> None:
    site = ruled(make_site, {"approval_above": 4, "approval_within": "1d"})
    small = site.offers(wish(nodes=1, hours=2))["offers"][0]
    assert "messages" not in small["meta"]
    offer = site.offers(wish(nodes=4, hours=2, first=MONDAY + 48 * HOUR, last=MONDAY + 60 * HOUR))["offers"][0]
    (told,) = offer["meta"]["messages"]
    assert (told["kind"], told["level"]) == (MessageKind.APPROVAL, "INFO")
    assert told["values"]["deadline"] == "2030-03-18T17:51:40Z", "a day after the offer ends"


def test_administrators_see_what_waits_and_decide_and_others_do_not(make_site: Make) -> None:
    site = ruled(make_site, {"approval": True})
    session = accept_first(site, wish(first=MONDAY + 48 * HOUR, last=MONDAY + 49 * HOUR))
    uuid = session["meta"]["uuid"]
    assert site.get("/admin/approvals").status == 403
    assert site.post(f"/admin/approvals/{uuid}", {"decision": "approve"}).status == 403
    (item,) = site.get("/admin/approvals", user="root").json["approvals"]
    assert (item["session"], item["owner"], item["platform"]) == (uuid, "ada", "cluster")
    assert len(item["nodes"]) == 1
    answer = site.post(f"/admin/approvals/{uuid}", {"decision": "approve", "reason": "well"}, user="root")
    assert answer.status == 200, answer.content
    assert answer.json["meta"]["messages"][-1]["message"] == "an operator of cluster has approved it: well"
    assert site.get("/admin/approvals", user="root").json == {"approvals": []}
    assert site.post(f"/admin/approvals/{uuid}", {"decision": "refuse"}, user="root").status == 409


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        ({}, ["/decision"]),
        ({"decision": "perhaps", "reason": ""}, ["/decision", "/reason"]),
        ({"decision": "approve", "reason": "a\nb"}, ["/reason"]),
        ({"decision": "approve", "reason": "x" * 501}, ["/reason"]),
        ({"decision": "approve", "because": "x"}, ["/because"]),
        ([], [""]),
        ("approve", [""]),
    ],
)
def test_a_word_that_is_none_is_told_with_its_place(make_site: Make, body: Any, paths: list[str]) -> None:
    site = ruled(make_site, {"approval": True})
    uuid = accept_first(site, wish(first=MONDAY + 48 * HOUR, last=MONDAY + 49 * HOUR))["meta"]["uuid"]
    answer = site.post(f"/admin/approvals/{uuid}", body, user="root")
    assert answer.status == 400
    assert [item["values"]["path"] for item in answer.json["messages"]] == paths


@pytest.mark.parametrize("uuid", ["nonsense", "00000000-0000-0000-0000-000000000000", "%00", "..%2F.."])
def test_a_session_that_there_is_not_is_not_found(make_site: Make, uuid: str) -> None:
    site = ruled(make_site, {"approval": True})
    assert site.post(f"/admin/approvals/{uuid}", {"decision": "approve"}, user="root").status == 404


def test_direct_takes_what_must_be_approved_and_says_so(make_site: Make) -> None:
    site = ruled(make_site, {"approval": True})
    answer = site.post("/direct", wish(first=MONDAY + 48 * HOUR, last=MONDAY + 49 * HOUR))
    assert answer.status == 303, answer.content
    assert answer.kinds() == [MessageKind.APPROVAL]
    (item,) = site.get("/admin/approvals", user="root").json["approvals"]
    assert item["session"] == answer.json["meta"]["uuid"]
