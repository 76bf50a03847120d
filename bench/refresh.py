"""What a large platform's new snapshots do to the answers that others wait for.

The broker's API serves one platform of 5,000 nodes with 100,000 allocations. In one half of the requests its state
stays what it is; in the other a newer one is published whenever a worker may have taken in the one before.
"""

from __future__ import annotations

import base64
import sys
import threading
import time
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from bench.load import Load, load
from bench.machines import NOW, machine
from bench.serving import REQUEST, broker_settings, free_port, process, wait_for
from ebhpc.api import add_account
from ebhpc.cli.assembly import open_site, open_store
from ebhpc.config import load_config
from ebhpc.model import Allocation
from ebhpc.planning import Reservation, Snapshot, encode_snapshot
from ebhpc.store import ensure_platforms, publish_snapshot, upgrade

NODES, ALLOCATIONS = 5000, 100_000
CONNECTIONS = 4
EVERY = 2.0
"""Seconds between two snapshots."""

_USER, _PASSWORD = "bench", "bench bench bench"


class Refreshed(Struct, frozen=True, kw_only=True):
    """The answers without and with new snapshots, and how many of those there were."""

    still: Load
    moving: Load
    snapshots: int


def _state(name: str) -> Snapshot:
    """Make the platform's state, as of now; the broker's bookings of the made-up machine are others' reservations."""
    made = machine(NODES, ALLOCATIONS, busy=False)
    later = int(time.time()) - NOW
    jobs = tuple(
        replace(job, started=job.started + later, ends=None if job.ends is None else job.ends + later)
        for job in made.snapshot.running
    )
    kept = tuple(
        Reservation(
            name=f"r{booking.id}",
            start=booking.start + later,
            end=booking.end + later,
            allocations=(
                Allocation(
                    node=booking.node, cores=booking.cores, memory=booking.memory, devices=dict(booking.devices)
                ),
            ),
        )
        for booking in made.bookings
    )
    return replace(made.snapshot, platform=name, taken=int(time.time()), running=jobs, reservations=kept)


def measure(folder: Path, requests: int) -> Refreshed:
    """Load the API twice, for the same number of requests."""
    port = free_port()
    file = broker_settings(folder, port)
    file.write_text(file.read_text().replace("platforms:\n-", "platforms:\n- stale: 1h\n ", 1))
    config = load_config(file)
    store = open_store(config)
    upgrade(store)
    add_account(store, _USER, _PASSWORD, admin=False, now=time.time())
    site = open_site(config, None)
    ensure_platforms(store, site.platforms)
    [name] = site.platforms
    packed = encode_snapshot(_state(name))

    def publish() -> None:
        publish_snapshot(store, name, packed, taken=time.time(), now=time.time())

    publish()
    signed = base64.b64encode(f"{_USER}:{_PASSWORD}".encode()).decode()
    headers = {"Content-Type": "application/json", "Accept": "application/json", "Authorization": f"Basic {signed}"}
    body = msgspec.json.encode(REQUEST)

    def ask(count: int) -> Load:
        return load("127.0.0.1", port, "/requests", body, headers, connections=CONNECTIONS, requests=count)

    log = folder / "api.log"
    with process([sys.executable, "-m", "ebhpc", "api", "--config", str(file)], log) as running:
        wait_for(f"http://127.0.0.1:{port}/health/live", running, log, 200)
        ask(requests // 2)
        still = ask(requests)
        over = threading.Event()
        published = 0

        def move() -> None:
            nonlocal published
            while not over.wait(EVERY):
                publish()
                published += 1

        mover = threading.Thread(target=move)
        mover.start()
        try:
            moving = ask(requests)
        finally:
            over.set()
            mover.join()
    site.close()
    store.close()
    return Refreshed(still=still, moving=moving, snapshots=published)


def show(figures: Refreshed) -> None:
    """Print the figures with their bound."""
    print(f"new snapshots of {NODES} nodes and {ALLOCATIONS} allocations every {EVERY:g} s, {CONNECTIONS} connections")
    for name, one in (("the state stays", figures.still), (f"{figures.snapshots} new states", figures.moving)):
        print(
            f"  {name:26}{one.throughput:>9.0f}/s   median {one.percentile(0.5) * 1000:.1f} ms"
            f"   p99 {one.percentile(0.99) * 1000:.1f} ms   {one.statuses}"
        )
    ratio = figures.moving.percentile(0.99) / figures.still.percentile(0.99)
    print(f"  {'99th percentile beside it':40}{ratio:>9.2f}   wanted < 2   {'met' if ratio < 2 else 'NOT MET'}")
