"""A worker that is asked all kinds of things for long does not grow."""

from __future__ import annotations

import gc
import json
import random

import psutil
import yaml

from tests.api.conftest import Site, notebook
from tests.api.test_fuzz import broken
from tests.model.requests import full_request

_ODD = [None, True, -1, 0, 10**30, 1e308, "", "P1M", "\x00", "x" * 5000, [], {}, [[]] * 50, {"kind": "urn:strange"}]


def bother(site: Site, chance: random.Random, times: int) -> None:
    """Ask for good, broken, strange and senseless things, in JSON and YAML; time goes on meanwhile."""
    for number in range(times):
        site.clock.now += 2
        if number % 20 == 0:
            site.publish("paper")
        request = notebook() if number % 3 == 0 else full_request()
        for _ in range(chance.randrange(3)):
            request = broken(request, [chance.randrange(10) for _ in range(5)], chance.choice(_ODD))
        if number % 4 == 0:
            text, media_type = yaml.safe_dump(request), "application/yaml"
        else:
            text, media_type = json.dumps(request), "application/json"
        body = text.encode() if number % 7 else text.encode()[: chance.randrange(len(text))]
        assert site.post("/requests", body=body, headers={"Content-Type": media_type}).status in (303, 400)
        site.get(f"/sessions/{chance.getrandbits(128):032x}")
        site.get(f"/{chance.getrandbits(64):x}")


def test_memory_stays_where_it_is(make_site):
    site = make_site(api={"max_outstanding_offers": 10**6})
    chance = random.Random(20)
    process = psutil.Process()

    def memory() -> float:
        gc.collect()
        return process.memory_info().rss / 2**20

    bother(site, chance, 500)
    before = memory()
    bother(site, chance, 1500)
    assert memory() - before < 6, "MiB that 1500 requests left behind"
