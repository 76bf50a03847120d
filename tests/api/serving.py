"""``python -m tests.api.serving FOLDER PORT``: the API of a broker with a platform on paper, under real gunicorn.

It says READY and the address on standard output when the first worker serves.
"""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from uuid import uuid4

from ebhpc.api import create_app, run_api
from ebhpc.api.accounts import HASHER
from ebhpc.config import Address, Api, Config, Duration, PlatformConfig
from ebhpc.model.registry import Kinds
from ebhpc.planning import Node, encode_snapshot
from ebhpc.plugins import Platform, Policies, load_plugins
from ebhpc.store import IdentityRecord, Store, add_identity, ensure_platforms, publish_snapshot, upgrade
from tests.api.paper_platform import Paper

PASSWORD = "a password for tests"


def main(folder: Path, port: int) -> int:
    """Serve until a signal comes; return the exit code."""
    url = f"sqlite:///{folder / 'ebhpc.sqlite3'}"
    paper = Paper("paper", (Node(name="n1", cores=64, memory=64 * 1024),))
    store = Store(url)
    upgrade(store)
    ensure_platforms(store, ["paper"])
    account = IdentityRecord(uuid=str(uuid4()), username="ada", password=HASHER.hash(PASSWORD), admin=True, created=0)
    add_identity(store, account)
    now = int(time.time())
    publish_snapshot(store, "paper", encode_snapshot(paper.ebhpc_snapshot(now=now)), taken=now, now=now)
    store.close()
    api = Api(
        bind=Address(f"127.0.0.1:{port}"),
        workers=2,
        threads=4,
        max_body_bytes=100_000,
        request_timeout=Duration(2),
        max_outstanding_offers=10**6,
    )
    config = Config(api=api)

    def make_app():
        pm = load_plugins()
        pm.register(paper, name="paper")
        pm.built["paper"] = "paper"
        settings = PlatformConfig(name="paper", kind="paper", stale=Duration(600))
        return create_app(
            store=Store(url),
            platforms={"paper": Platform(pm, settings, paper)},
            kinds=Kinds(),
            config=config,
            policies=Policies(pm),
        )

    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    return run_api(make_app, config, ready=lambda address: print("READY", address, flush=True))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
