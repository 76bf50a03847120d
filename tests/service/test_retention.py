"""What is kept no longer goes in small portions, while requests are answered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import func, select

from ebhpc.model import Phase
from ebhpc.store import Store
from ebhpc.store.inserting import insert_rows
from ebhpc.store.tables import bookings, events, identities, offersets, sessions
from tests.databases import PostgresqlServer
from tests.service.ledgers import REQUEST, LedgerBroker

CORES = 2000
OLD = 4_000
"""Offer sets that are kept no longer."""
LONG_AGO = 1_600_000_000


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def broker(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[LedgerBroker]:
    url = None
    if request.param == "postgresql":
        server: PostgresqlServer = request.getfixturevalue("postgresql_server")
        url = server.url(server.create())
    made = LedgerBroker(
        tmp_path,
        database=url,
        cores=CORES,
        memory_gib=CORES,
        seconds=1,
        settings={"api": {"max_outstanding_offers": 1_000_000}},
    )
    try:
        yield made
    finally:
        made.stop()


def make_old(store: Store) -> None:
    """Write offer sets that expired years ago, each with an offer, its booking and its events."""
    names = [(str(uuid4()), str(uuid4())) for _ in range(OLD)]
    with store.write("test") as tx:
        owner = tx.execute(select(identities.c.uuid)).scalars().first()
        common = {"created": LONG_AGO, "expires": LONG_AGO + 300}
        insert_rows(tx, offersets, [{"uuid": one, "owner": owner, "document": "{}", **common} for one, _ in names])
        session = {
            "position": 0,
            "owner": owner,
            "platform": "cluster",
            "phase": Phase.EXPIRED.value,
            "modified": LONG_AGO + 300,
            "start": LONG_AGO,
            "latest": LONG_AGO,
            "finish": LONG_AGO + 600,
            "duration": 600,
            "firm": True,
            "allocations": "[]",
            "document": "{}",
            "messages": "[]",
            "unfinished": False,
            "submitting": False,
            "attempt": 0,
            "due": LONG_AGO,
            **common,
        }
        insert_rows(tx, sessions, [{"uuid": uuid, "offerset": one, **session} for one, uuid in names])
        booking = {"platform": "cluster", "node": "n1", "start": LONG_AGO, "finish": LONG_AGO + 600, "cores": 1}
        booking |= {"memory": 1024, "devices": "{}", "licences": "{}", "changed": 0, "freed": LONG_AGO + 300}
        insert_rows(tx, bookings, [{"session": uuid, **booking} for _, uuid in names])
        move = {"time": LONG_AGO, "previous": Phase.INITIAL.value, "phase": Phase.OFFERED.value, "cause": "offered"}
        insert_rows(tx, events, [{"session": uuid, **move} for _, uuid in names])


def left(store: Store) -> int:
    """How many old offer sets there are."""
    with store.read() as tx:
        query = select(func.count()).select_from(offersets).where(offersets.c.expires < LONG_AGO + 1000)
        return int(tx.execute(query).scalar_one())


def test_requests_are_answered_while_very_much_is_deleted(broker: LedgerBroker):
    broker.run()
    broker.kill("driver-1")
    store = Store(broker.database)
    try:
        make_old(store)
        assert left(store) == OLD
        broker.start("drive", "driver-1")  # it begins with what is kept no longer
        meanwhile = []
        while there := left(store):
            answer = broker.ask("POST", "/requests", json=REQUEST)
            assert answer.status_code == 303, answer.text
            assert answer.json()["result"] == "YES", answer.text
            meanwhile.append(there)
        # Each was answered between two portions, of which there were many
        assert len({count for count in meanwhile if 0 < count < OLD}) >= 2, meanwhile
        with store.read() as tx:
            old = sessions.c.expires < LONG_AGO + 1000
            assert tx.execute(select(func.count()).select_from(sessions).where(old)).scalar_one() == 0
            assert (
                tx.execute(select(func.count()).select_from(events).where(events.c.time < LONG_AGO + 1)).scalar_one()
                == 0
            )
            assert (
                tx.execute(select(func.count()).select_from(bookings).where(bookings.c.changed == 0)).scalar_one() == 0
            )
    finally:
        store.close()
