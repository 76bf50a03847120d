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

ROUNDS = 12
HOUR = 3600


def lab_figures() -> list[tuple[str, float, float]]:
    """Return how long booking takes in seconds of the wall, over REST as a multiple of the bare command."""
    if missing():
        raise SystemExit(f"no lab: {missing()}")
    with slurm_cluster("26.05") as cluster, tempfile.TemporaryDirectory(prefix="ebhpc-bench-") as folder:
        bare = [_bare(cluster, number) for number in range(ROUNDS)]
        print(
            f"  scontrol create reservation: median {statistics.median(bare) * 1000:.0f} ms, "
            f"most {max(bare) * 1000:.0f}"
        )
        found = []
        for reserve_at in ("acceptance", "offer"):
            taken = _over_rest(cluster, Path(folder) / reserve_at, reserve_at)
            words = "after it was accepted" if reserve_at == "acceptance" else "before it is shown"
            print(
                f"  asked and booked over REST, reserved {words}: median {statistics.median(taken) * 1000:.0f} ms, "
                f"most {max(taken) * 1000:.0f}"
            )
            ratio = statistics.median(taken) / statistics.median(bare)
            found.append((f"times scontrol, reserve_at: {reserve_at}", ratio, 2.0))
        return found


def _bare(cluster: Cluster, number: int) -> float:
    words = [f"reservationname=bare{number}", f"starttime=now+{number + 50}hours", "duration=30", "users=alice"]
    begun = time.perf_counter()
    cluster.run(["scontrol", "create", "reservation", *words, "nodes=n1"])
    taken = time.perf_counter() - begun
    cluster.run(["scontrol", "delete", f"reservationname=bare{number}"])
    return taken


def _over_rest(cluster: Cluster, folder: Path, reserve_at: str) -> list[float]:
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
            return [_booked(cluster, client, number, reserve_at) for number in range(ROUNDS)]
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
    assert offers.result == "YES", offers
    uuid = str(offers.offers[0].meta.uuid)
    client.accept(uuid)
    while reserve_at == "acceptance" and client.session(uuid).phase in ("ACCEPTED", "OFFERED"):
        time.sleep(0.005)
    taken = time.perf_counter() - begun
    said = cluster.run(["scontrol", "-o", "show", "reservations"]).stdout
    assert f"ebhpc-{uuid}" in said, "it is booked"
    client.cancel(uuid)
    return taken
