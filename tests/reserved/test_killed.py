"""A driver that is killed while one session takes over another's time: it is taken over once, and nothing is lost."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest

from ebhpc.store import Store, live_bookings
from tests.broker import ADMIN, PASSWORD, local_platform, running_broker
from tests.reserved.asking import accepted, in_phase, offers, reserved, session, until, update, use, words


@pytest.mark.parametrize("point", ["driver.hold.after", "driver.take-over.before", "driver.take-over.after"])
def test_an_extension_survives_its_driver(tmp_path: Path, point: str) -> None:
    settings = {"platforms": [local_platform(grace="1s")], "api": {"workers": 1}, "offers": {"lifetime": "5s"}}
    faults = tmp_path / "faults"
    faults.mkdir()
    with running_broker(tmp_path, settings, {"EBHPC_FAULTS": str(faults)}) as broker:
        client = httpx.Client(
            base_url=broker.url,
            auth=(ADMIN, PASSWORD),
            headers={"Accept": "application/json"},
            trust_env=False,
            timeout=60,
        )
        with client as http:
            first = accepted(http, reserved(cores=8, seconds=40))
            found = until(http, first, lambda one: one.get("connectors"))
            runs = use(found, "sleep", "300", cores=1)
            until(http, first, in_phase("RUNNING"))
            uuid = offers(http, reserved(cores=8, seconds=120, replaces=first))[0]["meta"]["uuid"]
            armed = faults / "armed"
            armed.write_text(f"{point} 1", encoding="utf-8")
            update(http, uuid, "ACCEPTED")
            deadline = time.monotonic() + 20
            while armed.exists():
                assert time.monotonic() < deadline, broker.logs()
                time.sleep(0.05)
            broker.kill("driver-1")
            assert session(http, first)["phase"] in ("RUNNING", "COMPLETED")
            broker.start("drive", "driver-1")
            until(http, uuid, in_phase("RUNNING"))
            assert session(http, first)["phase"] == "COMPLETED"
            assert len([word for word in words(session(http, first)) if "goes on" in word]) == 1
            assert runs.poll() is None
            store = Store(f"sqlite:///{broker.state / 'ebhpc.sqlite3'}")
            with store.read() as tx:
                assert [booking.session for booking in live_bookings(tx)] == [uuid]
            update(http, uuid, "CANCELLED")
            until(http, uuid, lambda one: "results are kept" in words(one)[-1])
            assert runs.wait(10) != 0
            with store.read() as tx:
                assert live_bookings(tx) == []
            store.close()
