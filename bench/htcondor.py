"""What a snapshot of a large HTCondor pool costs: ``python -m bench.htcondor [--slots N] [--jobs N]``.

A pool of the lab is told of many more machines than it has (their ads are sent to its collector), and many jobs that
no machine takes wait in its schedd's queue. Counted is CPU time: of the snapshot, in the process that asks and in ours,
and of condor_status and condor_q with the same attributes.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

from ebhpc_htcondor import ads, ebhpc_platform
from ebhpc_htcondor.platform import HTCondorPlatform
from tests.lab.htcondor import Pool, htcondor_pool

SHAPES, NAMED = 20, 3
"""Kinds of jobs, and how many of them want machines by their names, so that no two machines are alike to them."""


def fill(pool: Pool, slots: int, jobs: int) -> None:
    """Advertise slots and submit jobs."""
    template = pool.run(["condor_status", "-long", "slot1@node1@localhost"], user="root").stdout
    lines = [
        line
        for line in template.splitlines()
        if line and not line.startswith(("Name =", "Machine =", "ClassAdLifetime", "MyAddress", "AddressV1"))
    ]
    text = []
    for number in range(slots):
        own = [f'Name = "slot1@w{number:05}.example.org"', f'Machine = "w{number:05}.example.org"']
        own += ["ClassAdLifetime = 86400", 'MyAddress = "<127.0.0.1:9>"', f"TotalSlotCpus = {32 if number % 3 else 64}"]
        text.append("\n".join([*lines, *own, ""]))
    for start in range(0, slots, 500):
        words = ["condor_advertise", "-multiple", "-tcp", "UPDATE_STARTD_AD"]
        pool.run(words, user="root", data="\n".join(text[start : start + 500]), timeout=120)
    for shape in range(SHAPES):
        more: dict[str, object] = {
            "request_cpus": 1000 + shape,
            "allowed_execute_duration": 600 * (shape + 1),
            "request_memory": 100,
        }
        if shape < NAMED:
            more["requirements"] = f'regexp("^w0{shape}", TARGET.Machine)'
        pool.sleep(600, user=("alice", "bob", "carol")[shape % 3], count=jobs // SHAPES, **more)


def measure(slots: int, jobs: int) -> None:
    """Fill a pool and print what looks at it cost."""
    with htcondor_pool() as pool, tempfile.TemporaryDirectory() as state:
        fill(pool, slots, jobs)
        settings = {
            "jobs": {"root": str(pool.shared / "sessions")},
            "collector": pool.collector_address,
            "token_directory": str(pool.tokens("ebhpc")),
            "token_command": pool.token_command,
            "domain": pool.domain,
            "answer_within": "60s",
        }
        platform = ebhpc_platform("htcondor", "pool", settings, Path(state), 300.0)
        assert isinstance(platform, HTCondorPlatform)
        platform.ebhpc_snapshot(int(time.time()))
        for _ in range(3):
            before, ours = platform.pool.worker.cpu_seconds(), time.process_time()
            told = platform.ebhpc_snapshot(int(time.time()))
            asked, ours = platform.pool.worker.cpu_seconds() - before, time.process_time() - ours
            print(
                f"snapshot of {len(told.nodes)} slots, {len(told.waiting)} waiting jobs: {asked:.2f} s + {ours:.2f} s"
            )
        platform.pool.close()
        only = ["-constraint", "DynamicSlot =!= true"]
        commands = {
            "condor_status": ["condor_status", *only, "-af", *ads.SLOT],
            "condor_q": ["condor_q", "-allusers", "-af", *ads.JOB],
        }
        for name, words in commands.items():
            usage = resource.getrusage(resource.RUSAGE_CHILDREN)
            pool.run(words, user="root", timeout=120)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent = after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime
            print(f"{name} with the same attributes: {spent:.2f} s")


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slots", type=int, default=5000)
    parser.add_argument("--jobs", type=int, default=10000)
    given = parser.parse_args()
    measure(given.slots, given.jobs)


if __name__ == "__main__":
    main()
