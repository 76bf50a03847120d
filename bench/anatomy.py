"""What the time of one ``POST /requests`` goes to: each part's own time, by the profiler, in one process."""

from __future__ import annotations

import cProfile
import pstats
import time
from pathlib import Path

import msgspec
from falcon import testing

from bench.serving import REQUEST, broker_settings
from ebhpc.api import add_account, create_app
from ebhpc.cli.assembly import open_site, open_store
from ebhpc.config import load_config
from ebhpc.planning import encode_snapshot
from ebhpc.store import ensure_platforms, publish_snapshot, upgrade

PARTS = {
    "database": ("sqlalchemy", "sqlite3", "ebhpc/store"),
    "planning": ("ebhpc/planning", "numpy"),
    "model and media": ("ebhpc/model", "ebhpc/media", "msgspec", "json"),
    "plugins and their threads": ("ebhpc/plugins", "ebhpc/local", "threading", "queue", "concurrent"),
    "accounts": ("argon2", "ebhpc/api/accounts", "hmac", "hashlib"),
    "the API's own": ("ebhpc/api",),
    "Falcon": ("falcon",),
}
"""The parts, and what the file names of each contain; the first that fits has it."""


def anatomy(folder: Path, requests: int = 300) -> tuple[float, dict[str, float]]:
    """Serve requests in this process; return the milliseconds of one, and the share of each part."""
    config = load_config(broker_settings(folder, 1))
    store = open_store(config)
    upgrade(store)
    add_account(store, "bench", "bench bench bench", admin=True, now=time.time())
    store.close()
    site = open_site(config, None)
    ensure_platforms(site.store, site.platforms)
    for platform in site.platforms.values():
        snapshot = platform.call("ebhpc_snapshot", now=int(time.time()))
        publish_snapshot(site.store, platform.name, encode_snapshot(snapshot), taken=snapshot.taken, now=time.time())
    app = create_app(
        store=site.store, platforms=site.platforms, kinds=site.kinds, config=config, policies=site.policies
    )
    client = testing.TestClient(app)
    body = msgspec.json.encode(REQUEST)

    def ask() -> None:
        answer = client.simulate_post(
            "/requests",
            body=body,
            headers={"Content-Type": "application/json", "Accept": "application/json"},
            extras={"HTTP_AUTHORIZATION": "Basic YmVuY2g6YmVuY2ggYmVuY2ggYmVuY2g="},
        )
        assert answer.status_code == 303, answer.text
        assert answer.json["result"] == "YES", answer.text

    for _ in range(20):
        ask()
    begun = time.perf_counter()
    for _ in range(requests):
        ask()
    each = (time.perf_counter() - begun) / requests
    profile = cProfile.Profile()
    profile.enable()
    for _ in range(requests):
        ask()
    profile.disable()
    site.close()
    shares: dict[str, float] = dict.fromkeys([*PARTS, "other"], 0.0)
    for (file, _, name), (_, _, own, _, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        where = f"{file} {name}"
        part = next((part for part, words in PARTS.items() if any(word in where for word in words)), "other")
        shares[part] += own
    total = sum(shares.values())
    return each * 1000, {part: own / total for part, own in shares.items()}
