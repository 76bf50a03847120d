"""From asking over REST to a booked reservation on the lab's Slurm, beside a bare ``scontrol create reservation``."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from ebhpc.client import Broker
from ebhpc.model import kinds
from ebhpc.model.times import instant_text
from tests.broker import ADMIN, RunningBroker
from tests.lab.slurm import Cluster, missing, slurm_cluster

ROUNDS = 15
HOUR = 3600

WAYS = (("pyslurm", "offer"), ("commands", "offer"), ("pyslurm", "acceptance"), ("commands", "acceptance"))
"""How Slurm is asked, and when it reserves."""


def lab_figures() -> list[tuple[str, float, float]]:
    """Return how long booking takes in seconds of the wall, over REST as a multiple of the bare command.

    Each booking over REST stands beside a bare command, so that a machine that is busy for a while is so for both.
    """
    if missing():
        raise SystemExit(f"no lab: {missing()}")
    with slurm_cluster("26.05") as cluster, tempfile.TemporaryDirectory(prefix="ebhpc-bench-") as folder:
        found = []
        for transport, reserve_at in WAYS:
            bare, taken = _measured(cluster, Path(folder) / f"{transport}-{reserve_at}", transport, reserve_at)
            words = "after it was accepted" if reserve_at == "acceptance" else "before it is shown"
            print(
                f"  by {transport}, reserved {words}: asked and booked over REST in {_words(taken)}; "
                f"scontrol create reservation in {_words(bare)}"
            )
            ratio = statistics.median(taken) / statistics.median(bare)
            found.append((f"times scontrol, {transport}, reserve_at: {reserve_at}", ratio, 2.0))
        return found


def _words(seconds: list[float]) -> str:
    return f"{statistics.median(seconds) * 1000:.0f} ms (median; most {max(seconds) * 1000:.0f})"


def _bare(cluster: Cluster, number: int) -> float:
    words = [f"reservationname=bare{number}", f"starttime=now+{number + 10}hours", "duration=30", "users=alice"]
    begun = time.perf_counter()
    cluster.run(["scontrol", "create", "reservation", *words, "nodes=n1"])
    taken = time.perf_counter() - begun
    cluster.run(["scontrol", "delete", f"reservationname=bare{number}"])
    return taken


def _measured(cluster: Cluster, folder: Path, transport: str, reserve_at: str) -> tuple[list[float], list[float]]:
    folder.mkdir()
    platform = {
        "name": "lab",
        "kind": "slurm",
        "lead": "1s",
        "refresh": "2s",
        "reserve_at": reserve_at,
        "firm": {"share": 1},
        "settings": {
            "jobs": {"root": str(cluster.shared / "sessions"), "python": cluster.python, "runtime": {"kind": "none"}},
            "identities": {ADMIN: {"user": "alice", "account": "phys", "uid": 2001}},
            "command_prefix": cluster.enter_argv("ebhpc"),
            "transport": transport,
            "pyslurm": [cluster.python],
            "partitions": ["batch"],
        },
    }
    broker = RunningBroker(
        folder,
        {
            "platforms": [platform],
            "api": {"workers": 1},
            "offers": {"per_platform": 1},
            "driver": {"interval": "50ms", "lease": "10s"},
        },
    )
    try:
        broker.make_ready()
        broker.start("api")
        broker.start("drive")
        broker.wait_ready()
        with broker.client() as client:
            _booked(cluster, client, ROUNDS, reserve_at)  # what is known from the first time on is not measured
            bare, taken = [], []
            for number in range(ROUNDS):
                bare.append(_bare(cluster, number))
                taken.append(_booked(cluster, client, number, reserve_at))
            return bare, taken
    finally:
        broker.stop()


def _booked(cluster: Cluster, client: Broker, number: int, reserve_at: str) -> float:
    now = time.time()
    start = int(now) + (number + 60) * HOUR
    wish: dict[str, Any] = {
        "executable": {"kind": kinds.RESERVED_TIME},
        "compute": {"kind": kinds.CLUSTER_COMPUTE, "nodes": {"min": 1, "max": 1}, "exclusive": True},
        "schedule": {
            "requested": {"duration": "PT30M", "start": f"{instant_text(start)}/{instant_text(start + HOUR)}"}
        },
    }
    begun = time.perf_counter()
    offers = client.offers(wish)
    assert offers.offers, offers
    uuid = str(offers.offers[0].meta.uuid)
    client.accept(uuid)
    while reserve_at == "acceptance" and client.session(uuid).phase in ("ACCEPTED", "OFFERED"):
        time.sleep(0.005)
    taken = time.perf_counter() - begun
    said = cluster.run(["scontrol", "-o", "show", "reservations"]).stdout
    assert f"ebhpc-{uuid}" in said, "it is booked"
    client.cancel(uuid)
    return taken
