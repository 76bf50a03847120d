"""What a site lets its users promise themselves, asked over the API; each refusal names its rule and a figure."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest

from ebhpc.config import Costs, read_settings
from ebhpc.config.firm_time import FirmTime
from ebhpc.model import Allocation, Window, kinds
from ebhpc.model.times import instant_text
from ebhpc.planning import Node, Partition, Reservation, Snapshot, Timeline
from tests.api.conftest import NOW, Make, Site
from tests.api.paper_platform import Paper, PlanningPaper

HOUR, DAY = 3600, 86_400
GIB = 1024
FOUR = tuple(Node(name=f"n{number}", cores=8, memory=16 * GIB) for number in range(1, 5))
# NOW is Sunday 2030-03-17 17:46:40 UTC
MONDAY = NOW - (17 * HOUR + 46 * 60 + 40) + DAY


class Cluster(Paper):
    """Nodes in a partition, and reservations that others made."""

    reservations: tuple[Reservation, ...] = ()

    def ebhpc_snapshot(self, now: int) -> Snapshot:
        return Snapshot(
            platform=self.name,
            taken=now,
            nodes=self.nodes,
            partitions=(Partition(name="batch", nodes=tuple(node.name for node in self.nodes), default=True),),
            reservations=self.reservations,
        )


def ruled(make_site: Make, rules: Mapping[str, Any], *reservations: Reservation, **more: Any) -> Site:
    paper = Cluster("cluster", FOUR)
    paper.reservations = reservations
    firm = read_settings(FirmTime, rules, "")
    return make_site(paper, platform={"firm": firm, **more})


def wish(
    nodes: int = 1, hours: float = 1, first: float = NOW + 2 * HOUR, last: float = NOW + 10 * HOUR, **more: Any
) -> dict[str, Any]:
    """Ask for whole nodes."""
    return {
        "executable": {"kind": kinds.RESERVED_TIME},
        "compute": {
            "kind": kinds.CLUSTER_COMPUTE,
            "nodes": {"min": nodes},
            "cores": {"min": 8},
            "memory": {"min": 16},
        },
        "schedule": {
            "requested": {
                "duration": f"PT{round(hours * 3600)}S",
                "start": f"{instant_text(int(first))}/{instant_text(int(last))}",
            }
        },
        **more,
    }


def refusal(site: Site, document: dict[str, Any], **options: Any) -> dict[str, str]:
    """Ask, and return the values of the one message that says NO; its text has the figure that it names."""
    answer = site.post("/requests", document, **options)
    assert answer.json["result"] == "NO", answer.json
    (message,) = answer.json["meta"]["messages"]
    assert message["kind"] == "urn:policy-refused"
    return {"text": message["message"], **message["values"]}


def starts(document: Any) -> list[str]:
    return [offer["schedule"]["available"]["start"].split("/")[0] for offer in document["offers"]]


def accept_first(site: Site, document: dict[str, Any], **options: Any) -> Any:
    offer = site.offers(document, **options)["offers"][0]
    answer = site.move(offer["meta"]["uuid"], "ACCEPTED", **options)
    assert answer.status == 200, answer.content
    return answer.json


def test_without_enough_notice_it_is_refused_and_the_first_possible_start_is_told(make_site: Make) -> None:
    site = ruled(make_site, {"least_notice": "12h"})
    told = refusal(site, wish())
    assert (told["rule"], told["allowed"]) == ("least_notice", "PT12H")
    assert instant_text(NOW + 12 * HOUR) in told["text"]
    later = site.offers(wish(last=NOW + 20 * HOUR))
    assert min(starts(later)) >= instant_text(NOW + 12 * HOUR)


def test_beyond_the_horizon_it_is_refused(make_site: Make) -> None:
    site = ruled(make_site, {"horizon": "2d"})
    told = refusal(site, wish(first=NOW + 3 * DAY, last=NOW + 4 * DAY))
    assert (told["rule"], told["allowed"]) == ("horizon", "P2D")
    assert max(starts(site.offers(wish(last=NOW + 9 * DAY)))) <= instant_text(NOW + 2 * DAY)


def test_a_block_that_is_too_long_is_refused_and_the_longest_is_told(make_site: Make) -> None:
    told = refusal(ruled(make_site, {"longest": "4h"}), wish(hours=5))
    assert (told["rule"], told["allowed"]) == ("longest", "PT4H")
    assert "4 hours at most" in told["text"]


def test_firm_time_lies_within_the_hours_of_the_week_in_the_zone_of_the_site(make_site: Make) -> None:
    hours = [{"days": ["mon", "tue", "wed", "thu", "fri"], "from": "08:00", "to": "18:00"}]
    site = ruled(make_site, {"hours": hours, "zone": "Europe/Vienna"})
    told = refusal(site, wish(first=NOW + 2 * HOUR, last=NOW + 8 * HOUR))
    assert told["rule"] == "hours"
    assert "mon-fri 08:00 to 18:00 (Europe/Vienna)" in told["text"]
    offers = site.offers(wish(hours=3, first=NOW, last=NOW + 2 * DAY))
    for offer in starts(offers):
        # 08:00 in Vienna is 07:00 UTC in March; the last of three hours begins at 16:00
        assert re.match(r"2030-03-1[89]T(0[7-9]|1[0-3]|14:00)", offer)


def test_in_a_time_that_is_closed_nothing_is_promised_and_the_reason_is_told(make_site: Make) -> None:
    closed = [{"start": "2030-03-17 18:00", "end": "2030-03-18 06:00", "reason": "the power is tested"}]
    site = ruled(make_site, {"closed": closed})
    told = refusal(site, wish())
    assert told["rule"] == "closed"
    assert "the power is tested" in told["text"]
    assert min(starts(site.offers(wish(last=NOW + 2 * DAY)))) >= "2030-03-18T06:00:00Z"


def test_beside_maintenance_nothing_is_promised_where_the_site_says_so(make_site: Make) -> None:
    maintenance = Reservation(
        name="m",
        start=NOW + HOUR,
        end=NOW + 12 * HOUR,
        maintenance=True,
        allocations=(Allocation(node="n1", cores=8, memory=16 * GIB),),
    )
    told = refusal(ruled(make_site, {"during_maintenance": False}, maintenance), wish())
    assert told["rule"] == "during_maintenance"
    assert "partition batch" in told["text"]
    assert instant_text(NOW + 12 * HOUR) in told["allowed"]


def test_beside_maintenance_of_other_nodes_there_is_room_otherwise(make_site: Make) -> None:
    maintenance = Reservation(
        name="m",
        start=NOW,
        end=NOW + 12 * HOUR,
        maintenance=True,
        allocations=(Allocation(node="n1", cores=8, memory=16 * GIB),),
    )
    site = ruled(make_site, {"horizon": "7d"}, maintenance)
    assert site.offers(wish(nodes=3))["result"] == "YES"


def test_no_more_of_a_partition_is_promised_at_once_than_its_share(make_site: Make) -> None:
    site = ruled(make_site, {"share": 0.5})
    told = refusal(site, wish(nodes=3))
    assert (told["rule"], told["allowed"]) == ("share", "2 nodes")
    whole = {"hours": 4.0, "first": NOW + 2 * HOUR, "last": NOW + 2 * HOUR}
    accept_first(site, wish(nodes=1, **whole))
    told = refusal(site, wish(nodes=2, **whole), user="bob")
    assert (told["rule"], told["allowed"]) == ("share", "1 nodes")
    assert "1 are already" in told["text"]
    later = site.offers(wish(nodes=2, hours=4, last=NOW + 10 * HOUR), user="bob")
    assert min(starts(later)) >= instant_text(NOW + 6 * HOUR)


def test_the_offers_of_a_set_are_no_more_than_the_share_together(make_site: Make) -> None:
    site = ruled(make_site, {"share": 0.25})
    offers = site.offers(wish(hours=2))["offers"]
    found = sorted(starts({"offers": offers}))
    assert len(found) > 1
    for one, other in pairwise(found):
        assert _hours_between(one, other) >= 2


def _hours_between(one: str, other: str) -> float:
    return (datetime.fromisoformat(other) - datetime.fromisoformat(one)).total_seconds() / HOUR


def test_a_user_has_no_more_node_hours_in_a_week_than_allowed(make_site: Make) -> None:
    site = ruled(make_site, {"node_hours_per_week": 10})
    begin = MONDAY + 8 * HOUR
    accept_first(site, wish(nodes=2, hours=4, first=begin, last=begin))
    told = refusal(site, wish(nodes=1, hours=3, first=begin, last=begin + 10 * HOUR))
    assert (told["rule"], told["allowed"]) == ("node_hours_per_week", "2 node-hours")
    assert "you have 8" in told["text"]
    assert "2030-03-18" in told["text"]
    site.offers(wish(nodes=1, hours=2, first=begin, last=begin + 10 * HOUR))
    # Another week, another user
    site.offers(wish(nodes=2, hours=5, first=begin + 7 * DAY, last=begin + 8 * DAY))
    site.offers(wish(nodes=2, hours=5, first=begin + 4 * HOUR, last=begin + DAY), user="bob")


def test_what_was_given_back_counts_no_more(make_site: Make) -> None:
    site = ruled(make_site, {"node_hours_per_week": 8})
    begin = MONDAY + 8 * HOUR
    session = accept_first(site, wish(nodes=2, hours=4, first=begin, last=begin))
    assert refusal(site, wish(nodes=1, hours=1, first=begin, last=begin))["allowed"] == "0 node-hours"
    assert site.move(session["meta"]["uuid"], "CANCELLED").status == 200
    site.offers(wish(nodes=1, hours=4, first=begin + 5 * HOUR, last=begin + 6 * HOUR))


def test_a_group_has_rules_of_its_own(make_site: Make) -> None:
    groups = [{"who": {"users": ["bob"]}, "longest": "12h", "share": 1}]
    site = ruled(make_site, {"longest": "4h", "share": 0.5, "least_notice": "1h", "groups": groups})
    assert refusal(site, wish(hours=5))["rule"] == "longest"
    assert site.offers(wish(nodes=4, hours=5), user="bob")["result"] == "YES"
    # What the group does not name is the platform's
    assert refusal(site, wish(first=NOW, last=NOW + 1800), user="bob")["rule"] == "least_notice"


def test_two_users_after_the_last_of_a_share_and_one_gets_it(make_site: Make) -> None:
    site = ruled(make_site, {"share": 0.25})
    again = ruled(make_site, {"share": 0.25})
    at = {"first": NOW + 2 * HOUR, "last": NOW + 2 * HOUR}

    def ask(which: tuple[Site, str]) -> str:
        place, user = which
        return str(place.post("/requests", wish(hours=2, **at), user=user).json["result"])

    for _ in range(3):
        with ThreadPoolExecutor(4) as threads:
            asked = [(site, "ada"), (again, "bob"), (site, "bob"), (again, "ada")]
            answers = list(threads.map(ask, asked))
        assert sorted(answers) == ["NO", "NO", "NO", "YES"]
        site.clock.now += 400
        again.clock.now += 400
        site.publish("cluster")


def test_a_firm_offer_is_quoted_with_its_charge_and_its_harm(make_site: Make) -> None:
    costs = {"monetary": {"per_node_hour": 2.0}}
    site = ruled(make_site, {"charge_factor": 1.5, "unused_charge_factor": 3}, costs=read_settings(Costs, costs, ""))
    offer = site.offers(wish(nodes=2, hours=2))["offers"][0]
    quoted = {item["type"]: (item["min"], item["max"]) for item in (*offer["costs"], *offer["metrics"])}
    assert quoted[kinds.MONETARY] == (12.0, 24.0)
    assert quoted[kinds.FIRM_NODE_HOURS] == (6.0, 12.0)
    assert quoted[kinds.QUEUE_DELAY_SUM] == quoted[kinds.QUEUE_DELAY_WORST] == (0.0, 0.0)
    low, high = quoted[kinds.IDLE_NODE_HOURS]
    assert 0 <= low <= high
    assert offer["compute"]["costs"] == offer["costs"]


def test_a_user_may_say_how_much_may_stay_idle(make_site: Make) -> None:
    site = ruled(make_site, {"horizon": "7d"})
    bounded = [{"kind": kinds.SIMPLE_METRIC, "type": kinds.IDLE_NODE_HOURS, "max": 0.1}]
    offers = site.offers(wish(hours=1, first=NOW, metrics=bounded))["offers"]
    for offer in offers:
        (idle,) = [item for item in offer["metrics"] if item["type"] == kinds.IDLE_NODE_HOURS]
        assert idle["min"] <= 0.1


def test_more_harm_than_the_site_accepts_is_refused_with_both_figures(make_site: Make) -> None:
    site = ruled(make_site, {"most_idle": 0.2})
    told = refusal(site, wish(nodes=4, hours=1, first=NOW + 2 * HOUR, last=NOW + 2.5 * HOUR))
    assert (told["rule"], told["allowed"]) == ("most_idle", "0.2 node-hours")


@pytest.mark.parametrize("prefer", [True, False])
def test_the_first_offer_lies_beside_another_reservation_where_cheap_ones_are_preferred(
    make_site: Make, prefer: bool
) -> None:
    # All nodes are taken but for holes of two hours (now) and of two hours exactly (later)
    everything = tuple(Allocation(node=node.name, cores=8, memory=16 * GIB) for node in FOUR)
    site = ruled(
        make_site,
        {"prefer_cheap": prefer},
        Reservation(name="a", start=NOW, end=NOW + 4 * HOUR, allocations=everything),
        Reservation(name="b", start=NOW + 10 * HOUR, end=NOW + 12 * HOUR, allocations=everything),
        Reservation(name="c", start=NOW + 14 * HOUR, end=NOW + 40 * HOUR, allocations=everything),
    )
    first = starts(site.offers(wish(nodes=4, hours=2, first=NOW, last=NOW + 30 * HOUR)))[0]
    assert first == instant_text(NOW + (12 if prefer else 4) * HOUR)


def test_direct_takes_the_cheapest(make_site: Make) -> None:
    everything = tuple(Allocation(node=node.name, cores=8, memory=16 * GIB) for node in FOUR)
    site = ruled(
        make_site,
        {"prefer_cheap": True},
        Reservation(name="a", start=NOW, end=NOW + 4 * HOUR, allocations=everything),
        Reservation(name="b", start=NOW + 10 * HOUR, end=NOW + 12 * HOUR, allocations=everything),
        Reservation(name="c", start=NOW + 14 * HOUR, end=NOW + 40 * HOUR, allocations=everything),
    )
    answer = site.post("/direct", wish(nodes=4, hours=2, first=NOW, last=NOW + 30 * HOUR))
    assert answer.status == 303, answer.content
    assert starts({"offers": [answer.json]}) == [instant_text(NOW + 12 * HOUR)]


def test_a_platform_without_rules_answers_as_ever(site: Site) -> None:
    offer = site.offers()["offers"][0]
    types = {item["type"] for item in (*offer["costs"], *offer["metrics"])}
    assert types == {kinds.MONETARY, kinds.COMPUTE_PERFORMANCE}


def test_asking_for_any_time_until_the_end_of_all_days_costs_no_more_than_another_question(make_site: Make) -> None:
    rules = {
        "hours": [{"days": ["mon"], "from": "08:00", "to": "09:00"}],
        "node_hours_per_week": 5,
        "share": 0.5,
        "closed": [{"start": "2030-03-18", "end": "2030-03-19"}],
    }
    site = ruled(make_site, rules)
    document = wish(hours=1)
    document["schedule"]["requested"]["start"] = "2020-01-01T00:00:00Z/9999-12-31T00:00:00Z"
    begun = time.process_time()
    offers = site.offers(document)
    assert min(starts(offers)) == "2030-03-25T08:00:00Z"
    document["schedule"]["requested"]["duration"] = "P2000000D"
    assert site.post("/requests", document).json["result"] == "NO"
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(("notice", "found"), [("3h", 1), ("6h", 0)])
def test_windows_that_a_plugin_plans_keep_to_the_rules_as_well(make_site: Make, notice: str, found: int) -> None:
    def planned(request: Any, timeline: Timeline, now: int, limit: int) -> list[Window]:
        return [
            Window(
                start=now + hours * HOUR,
                latest=now + hours * HOUR,
                end=now + (hours + 1) * HOUR,
                duration=HOUR,
                allocations=(Allocation(node="n1", cores=8, memory=16 * GIB),),
            )
            for hours in (2, 5)
        ]

    paper = PlanningPaper("cluster", FOUR, {"ebhpc_windows": planned})
    site = make_site(paper, platform={"firm": read_settings(FirmTime, {"least_notice": notice}, "")})
    answer = site.post("/requests", wish()).json
    assert len(answer.get("offers", ())) == found
    if not found:
        assert answer["meta"]["messages"][0]["values"]["rule"] == "least_notice"


def test_two_workers_do_not_give_one_user_more_node_hours_than_a_week_has(make_site: Make) -> None:
    rules = {"node_hours_per_week": 3}
    site, again = ruled(make_site, rules), ruled(make_site, rules)
    begin = MONDAY + 8 * HOUR

    def ask(number: int) -> str:
        place = (site, again)[number % 2]
        at = begin + number * 4 * HOUR
        return str(place.post("/requests", wish(hours=2, first=at, last=at)).json["result"])

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(ask, range(4)))
    assert sorted(answers) == ["NO", "NO", "NO", "YES"]
