"""Record a cluster's answers for the tests of the translation: ``python record.py 26.05`` (starts the lab)."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from ebhpc_slurm import answers
from ebhpc_slurm.commands import QUEUE
from tests.lab.slurm import Cluster, slurm_cluster

HERE = Path(__file__).parent / "samples"
MARK = "QmarkQ"

ASKED = {
    "nodes.json": ("scontrol", "--json=v0.0.42", "show", "nodes"),
    "partitions.txt": ("scontrol", "--oneliner", "show", "partitions"),
    "reservations.json": ("scontrol", "--json=v0.0.42", "show", "reservations"),
    "licences.json": ("scontrol", "--json=v0.0.42", "show", "licenses"),
    "configuration.txt": ("scontrol", "show", "config"),
    "sacct.txt": (
        *("sacct", "--allusers", "--allocations", "--duplicates", "--noheader", "--parsable"),
        f"--delimiter={MARK}",
        f"--format={','.join(answers.ACCOUNTING_FIELDS)}",
    ),
    "ping.txt": ("scontrol", "ping"),
}


def scene(cluster: Cluster) -> None:
    """Something of everything: jobs that run, wait for every reason, and have ended; reservations of all shapes."""

    def reserve(*words: str) -> None:
        cluster.run(["scontrol", "create", "reservation", *words])

    ours = "ebhpc-12345678-1234-4321-8765-123456789abc"
    reserve("reservationname=whole", "starttime=now+1hour", "duration=60", "users=alice", "nodes=n7")
    reserve(f"reservationname={ours}", "starttime=now", "duration=30", "users=alice", "nodes=n6", "tres=cpu=3")
    reserve(
        "reservationname=gpus",
        "starttime=now+1hour",
        "duration=30",
        "users=bob",
        "nodes=g1",
        "partition=gpu",
        "tres=cpu=4,gres/gpu=2",
    )
    reserve(
        "reservationname=licences",
        "starttime=now+1hour",
        "duration=30",
        "users=bob",
        "licenses=matlab:4",
        "flags=ANY_NODES",
    )
    reserve(
        "reservationname=service",
        "starttime=now+1day",
        "duration=120",
        "users=root",
        "nodes=n1,n2",
        "flags=MAINT,WEEKLY",
    )
    sleep = "#!/bin/sh\nsleep 600\n"
    base = ("-t", "10", "-o", "/dev/null")
    first = cluster.submit(sleep, *base, "-J", "two\nlines|and, more", "-N2", "--exclusive")
    cluster.submit(sleep, *base, "-J", "gpu", "-p", "gpu", "--gres=gpu:a100:1", "-n2")
    cluster.submit(sleep, *base, "-J", ours, "--comment", ours, f"--reservation={ours}", "-n2", "--mem=500")
    cluster.submit(sleep, *base, "-J", "later", "--begin=now+1hour")
    cluster.submit(sleep, *base, "-J", "held", "-H")
    cluster.submit(sleep, *base, "-J", "big", "-N7", user="bob")
    cluster.submit(sleep, *base, "-J", "feature", "-C", "fast&fast", "-L", "matlab:2", "-n4", "-t", "1-00:00:00")
    cluster.submit(sleep, *base, "-J", "array", "-a", "3-9%2")
    cluster.submit(sleep, *base, "-J", "dependent", "-d", f"afterok:{first}", "-w", "n1", "-x", "n2")
    cluster.submit("#!/bin/sh\nexit 3\n", *base, "-J", "fails")
    cluster.submit("#!/bin/sh\n:\n", *base, "-J", "works", user="bob")
    cancelled = cluster.submit(sleep, *base, "-J", "cancelled", "-H")
    cluster.run(["scancel", str(cancelled)])


def main(version: str) -> None:
    """Set the scene, and write down what the commands answer."""
    folder = HERE / version
    folder.mkdir(parents=True, exist_ok=True)
    with slurm_cluster(version) as cluster:
        cluster.clean()
        scene(cluster)
        cluster.drain("n5")
        time.sleep(8)
        queue = (*QUEUE, f"--Format={answers.queue_format(MARK, older=version == '24.11')}")
        for name, words in {**ASKED, "squeue.txt": queue}.items():
            ran: subprocess.CompletedProcess[str] = cluster.run(
                list(words), environment={"SLURM_TIME_FORMAT": "%s", "SLURM_BITSTR_LEN": "0"}
            )
            (folder / name).write_text(ran.stdout, encoding="utf-8")
        cluster.undrain("n5")


if __name__ == "__main__":
    main(sys.argv[1])
