"""A broker's API without a server: the real application on a real database, asked through WSGI."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from falcon import testing

from ebhpc.api import create_app
from ebhpc.api.accounts import HASHER
from ebhpc.api.broker import Broker
from ebhpc.config import Api, Config, Offers, PlatformConfig
from ebhpc.model import Promise, kinds
from ebhpc.model.registry import Kinds
from ebhpc.planning import Node, encode_snapshot
from ebhpc.plugins import Platform, Policies, load_plugins
from ebhpc.store import IdentityRecord, Store, add_identity, ensure_platforms, publish_snapshot
from tests.api.paper_platform import Paper

NOW = 1_900_000_000
"""2030-03-17T17:46:40Z"""

PASSWORD = "a password for tests"
NODES = (Node(name="n1", cores=8, memory=16 * 1024), Node(name="n2", cores=4, memory=8 * 1024))


@dataclass
class Clock:
    """A clock that stands still until it is moved."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now


@dataclass
class Answer:
    """An answer: its status, headers by lower-case names, and document."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        assert self.headers["content-type"].endswith("json"), self.headers
        return json.loads(self.content)

    @property
    def yaml(self) -> Any:
        assert self.headers["content-type"].endswith("yaml"), self.headers
        return yaml.safe_load(self.content)

    def kinds(self) -> list[str]:
        """The kinds of the messages of a problem document, an offer set or a session."""
        document = self.json
        messages = document.get("messages") or document.get("meta", {}).get("messages") or []
        return [item["kind"] for item in messages]


@dataclass
class Site:
    """A broker with platforms on paper and two accounts, ada and bob; root is the administrator."""

    store: Store
    app: Any
    platforms: dict[str, Platform]
    clock: Clock
    config: Config
    owners: dict[str, str]
    papers: dict[str, Paper]
    broker: Broker
    wsgi: testing.TestClient = field(init=False)

    def __post_init__(self) -> None:
        self.wsgi = testing.TestClient(self.app)

    def call(
        self,
        method: str,
        path: str,
        document: Any = None,
        *,
        user: str | None = "ada",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Answer:
        given = {"Accept": "application/json", **(headers or {})}
        if user is not None:
            mark = base64.b64encode(f"{user}:{PASSWORD}".encode()).decode()
            given.setdefault("Authorization", f"Basic {mark}")
        if document is not None:
            body = json.dumps(document).encode()
            given.setdefault("Content-Type", "application/json")
        result = self.wsgi.simulate_request(
            method, path, body=body, headers={k: v for k, v in given.items() if v}, **options
        )
        return Answer(
            result.status_code, {name.lower(): value for name, value in result.headers.items()}, result.content
        )

    def get(self, path: str, **options: Any) -> Answer:
        return self.call("GET", path, **options)

    def post(self, path: str, document: Any = None, **options: Any) -> Answer:
        return self.call("POST", path, document, **options)

    def offers(self, document: Any = None, **options: Any) -> Any:
        """Ask and return the offer set, which must be a YES."""
        answer = self.post("/requests", document or notebook(), **options)
        assert answer.status == 303, answer.content
        assert answer.json["result"] == "YES", answer.json
        return answer.json

    def move(self, uuid: str, phase: str, **options: Any) -> Answer:
        update = {"kind": kinds.ENUM_UPDATE, "path": "phase", "value": phase}
        return self.post(f"/sessions/{uuid}", update, **options)

    def publish(self, name: str, nodes: Sequence[Node] | None = None) -> None:
        """Publish a platform's state as a driver would."""
        paper = self.papers[name]
        if nodes is not None:
            paper.nodes = tuple(nodes)
        now = int(self.clock())
        publish_snapshot(self.store, name, encode_snapshot(paper.ebhpc_snapshot(now=now)), taken=now, now=now)


def notebook(**parts: Any) -> dict[str, Any]:
    """A request for a notebook: one core, 1 GiB, an hour, from now on."""
    return {
        "executable": {"kind": kinds.JUPYTER_NOTEBOOK, "location": "https://example.org/a.ipynb"},
        "schedule": {"requested": {"duration": "PT1H"}},
        **parts,
    }


def compute(cores: int, memory: int = 1, **more: int) -> dict[str, Any]:
    """A compute element that asks for at least so much; ``max=…`` cores at most."""
    return {"kind": kinds.SIMPLE_COMPUTE, "cores": {"min": cores, **more}, "memory": {"min": memory}}


Make = Callable[..., Site]


@pytest.fixture
def make_site(ready_database_url: str, tmp_path: Path) -> Iterator[Make]:
    """Make a broker whose papers have published their states; called again, another worker of it."""
    made: list[Site] = []

    def make(
        *papers: Paper,
        api: Mapping[str, Any] | None = None,
        offers: Mapping[str, Any] | None = None,
        platform: Mapping[str, Any] | None = None,
        plugins: Sequence[object] = (),
        promises: Sequence[Promise] = ("reservation",),
        more: Mapping[str, Any] | None = None,
    ) -> Site:
        given = papers or (Paper("paper", NODES),)
        pm = load_plugins()
        settings = {"kind": "paper", "lead": 60.0, "stale": 120.0, "timeout": 1.0, **(platform or {})}
        platforms = {}
        for paper in given:
            pm.register(paper, name=paper.name)
            pm.built[paper.name] = "paper"
            configured = PlatformConfig(name=paper.name, **settings)
            platforms[paper.name] = Platform(pm, configured, paper, promises=promises)
        for plugin in plugins:
            pm.register(plugin)
        config = Config(api=Api(**(api or {})), offers=Offers(**(offers or {})), **(more or {}))
        parts: list[Broker] = []
        store = Store(ready_database_url)
        clock = Clock()
        app = create_app(
            store=store,
            platforms=platforms,
            kinds=Kinds(),
            config=config,
            policies=Policies(pm),
            clock=clock,
            made=parts.append,
        )
        owners = {}
        if not made:  # else it is another worker of the same broker
            ensure_platforms(store, platforms)
            owners = {name: _account(store, name, admin=name == "root") for name in ("ada", "bob", "root")}
        by_name = {paper.name: paper for paper in given}
        site = Site(store, app, platforms, clock, config, owners, by_name, parts[0])
        for paper in given:
            site.publish(paper.name)
        made.append(site)
        return site

    yield make
    for site in made:
        for platform in site.platforms.values():
            platform.close()
        site.store.close()


_HASH = HASHER.hash(PASSWORD)  # once: a hash is slow on purpose


def _account(store: Store, name: str, *, admin: bool) -> str:
    record = IdentityRecord(uuid=str(uuid4()), username=name, password=_HASH, admin=admin, created=NOW)
    assert add_identity(store, record) is None
    return record.uuid


@pytest.fixture
def site(make_site: Make) -> Site:
    """A broker with one platform: two nodes, 12 cores."""
    return make_site()
