"""A broker without its API, for the driver's tests: a real database, platforms, a clock that the test turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid4

import msgspec
from sqlalchemy import delete

from ebhpc.config import Driver as Settings
from ebhpc.config import Duration, PlatformConfig, Seconds
from ebhpc.driver import Driver
from ebhpc.driver.workers import AtOnce
from ebhpc.model import Allocation, Phase, kinds
from ebhpc.model.phases import may_move
from ebhpc.model.registry import Kinds
from ebhpc.plugins import Platform, PluginManager
from ebhpc.store import (
    Booked,
    IdentityRecord,
    NewOffer,
    OfferSetRecord,
    SessionRecord,
    Store,
    accept,
    add_identity,
    book_offers,
    cancel,
    ensure_platforms,
    get_session,
    live_bookings,
    moves_of,
    select_sessions,
    tables,
)
from tests.driver.scripted_platform import ScriptedPlatform

EPOCH = 1_900_000_000.0

NOTEBOOK = {"kind": kinds.JUPYTER_NOTEBOOK, "location": "https://example.org/a.ipynb"}
WITH_ACCESS = {
    "kind": kinds.DOCKER_CONTAINER,
    "image": {"locations": ["example.org/jupyter"], "digest": "sha256:" + "0" * 64},
    "network": {"ports": [{"access": True, "internal": {"port": 8888}, "protocol": "HTTP"}]},
}

SETTINGS = Settings(
    interval=Duration(1),
    lease=Duration(30),
    retry_first=Duration(1),
    retry_most=Duration(60),
    give_up=Duration(86400),
    give_up_cleanup=Duration(3600),
    keep_results=Seconds(7 * 86400),
)


class World:
    """``now`` is the time, ``fakes`` the scripted platforms, ``tin`` the one that offers are for by default."""

    def __init__(self, url: str, platforms: Sequence[str] = ("tin",)) -> None:
        self.now = EPOCH
        self.store = Store(url)
        self.fakes = {name: ScriptedPlatform(name, self.clock) for name in platforms}
        self.tin = self.fakes[platforms[0]]
        self.platforms = {name: self.platform(name, fake) for name, fake in self.fakes.items()}
        self.drivers: list[Driver] = []
        ensure_platforms(self.store, self.platforms)
        self.owner = str(uuid4())
        record = IdentityRecord(uuid=self.owner, username="ada", password="-", admin=False, created=EPOCH)
        self.owner = present.uuid if (present := add_identity(self.store, record)) else self.owner

    def close(self) -> None:
        """End all that was started."""
        for platform in self.platforms.values():
            platform.close()
        self.store.close()

    def clock(self) -> float:
        return self.now

    def platform(self, name: str, implementation: object, **settings: Any) -> Platform:
        """A platform around an object with hooks."""
        pm = PluginManager()
        pm.register(implementation, name=name)
        config = PlatformConfig(
            name=name,
            kind="scripted",
            **{"lead": Seconds(60), "timeout": Duration(10), "refresh": Duration(10), **settings},
        )
        return Platform(pm, config, implementation, clock=self.clock)

    def driver(self, name: str = "d", pid: int = 1, **options: Any) -> Driver:
        """A driver that has joined, and whose work is done within ``step``."""
        merged: dict[str, Any] = {
            "clock": self.clock,
            "jitter": lambda: 0.0,
            "workers": AtOnce,
            "settle": 20.0,
            "process": ("here", pid, 1.0),
            "lives": lambda pid, started: False,
            **options,
        }
        settings = merged.pop("settings", SETTINGS)
        platforms = merged.pop("platforms", self.platforms)
        driver = Driver(self.store, platforms, Kinds(), settings, name=name, **merged)
        driver.join()
        self.drivers.append(driver)
        return driver

    def turn(self, driver: Driver, seconds: float = 0.0, *, each: float = 1.0) -> None:
        """Let time pass, with a turn of the driver's loop ``each`` second and one at the end."""
        end = self.now + seconds
        while self.now + each < end:
            self.now += each
            driver.step(self.now)
        self.now = end
        driver.step(self.now)

    def until(self, driver: Driver, met: Callable[[], bool], *, most: float = 4000, each: float = 5.0) -> None:
        """Turn the driver's loop until something is so."""
        deadline = self.now + most
        driver.step(self.now)
        while not met():
            assert self.now < deadline, "it never came to that"
            self.now += each
            driver.step(self.now)

    def offer(self, **given: Any) -> NewOffer:
        """An offer that starts two minutes from now and lasts ten."""
        start = given.get("start", int(self.now) + 120)
        latest = given.get("latest", start)
        duration = given.get("duration", 600)
        values: dict[str, Any] = {
            "uuid": str(uuid4()),
            "platform": self.tin.name,
            "expires": int(self.now) + 300,
            "start": start,
            "latest": latest,
            "finish": latest + duration,
            "duration": duration,
            "firm": True,
            "allocations": (Allocation(node="n1", cores=1, memory=1024),),
            "document": self.document(given.pop("executable", NOTEBOOK)),
        }
        return NewOffer(**{**values, **given})

    def document(self, executable: dict[str, Any]) -> bytes:
        """The wire form of a session."""
        compute = {"kind": kinds.SIMPLE_COMPUTE, "cores": {"min": 1, "max": 1}, "memory": {"min": 1, "max": 1}}
        session = {"kind": kinds.SCHEDULED_SESSION, "executable": executable, "compute": compute}
        return msgspec.json.encode(session)

    def book(self, *offers: NewOffer, accept_first: bool = False) -> None:
        """Book a set of offers."""
        record = OfferSetRecord(
            uuid=str(uuid4()),
            owner=self.owner,
            created=self.now,
            expires=max(one.expires for one in offers),
            document=b"{}",
        )
        known = {one.platform: 0 for one in offers}
        done = book_offers(
            self.store,
            record,
            offers,
            known,
            lambda *_: True,
            now=self.now,
            accept_first=accept_first,
        )
        assert done is Booked.DONE

    def accepted(self, **given: Any) -> str:
        """The UUID of a session that was just accepted."""
        offer = self.offer(**given)
        self.book(offer)
        answer = accept(self.store, offer.uuid, now=self.now)
        assert answer is not None
        assert answer.done
        return offer.uuid

    def cancel(self, uuid: str) -> None:
        """Cancel a session as its owner does."""
        assert cancel(self.store, uuid, now=self.now, cause="cancelled by its owner") is not None

    def session(self, uuid: str) -> SessionRecord:
        """A session as it is stored."""
        with self.store.read() as tx:
            record = get_session(tx, uuid)
        assert record is not None
        return record

    def phase(self, uuid: str) -> Phase:
        return self.session(uuid).phase

    def phases(self, uuid: str) -> list[Phase]:
        """All phases that a session has been in."""
        with self.store.read() as tx:
            moves = moves_of(tx, uuid)
        for _, here, there, _ in moves:
            assert may_move(here, there)
        assert [here for _, here, _, _ in moves[1:]] == [there for _, _, there, _ in moves[:-1]]
        return [there for _, _, there, _ in moves]

    def booked(self, uuid: str) -> list[Any]:
        """A session's bookings that count."""
        with self.store.read() as tx:
            return [row for row in live_bookings(tx) if row.session == uuid]

    def told(self, uuid: str, kind: str | None = None) -> list[str]:
        """What a session's owner was told."""
        return [str(one) for one in self.session(uuid).messages if kind in (None, one.kind)]

    def is_over(self, uuid: str) -> bool:
        return not self.session(uuid).unfinished

    def check_is_over(self, uuid: str, phase: Phase) -> None:
        """A session has ended as it should, and nothing of it is left."""
        record = self.session(uuid)
        assert record.phase is phase
        assert not record.unfinished
        assert record.lease is None
        assert self.booked(uuid) == []
        assert self.phases(uuid)[-1] is phase
        for fake in self.fakes.values():
            assert uuid not in fake.left_behind()
            assert fake.starts[uuid] <= 1

    def all_sessions(self) -> list[SessionRecord]:
        with self.store.read() as tx:
            return select_sessions(tx)

    def empty(self) -> None:
        """Delete all rows but accounts and platforms."""
        with self.store.write("empty") as tx:
            for table in ("events", "bookings", "sessions", "offersets", "drivers"):
                tx.execute(delete(tables.metadata.tables[table]))
