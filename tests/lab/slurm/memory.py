"""A node of the lab's that holds its jobs to the memory that they asked for, by control groups of version 1."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.lab.slurm import layout
from tests.lab.slurm.cluster import Cluster

_GROUPS = "/sys/fs/cgroup"
_CONF = f"""CgroupPlugin=cgroup/v1
CgroupMountpoint={_GROUPS}
ConstrainRAMSpace=yes
"""


def missing() -> str | None:
    """Return what this machine lacks for it, in words; None: nothing."""
    # name, hierarchy (0: none of version 1), number of groups, whether the kernel has it switched on
    fields = [line.split() for line in Path("/proc/cgroups").read_text().splitlines()]
    if any(name == "memory" and hierarchy != "0" for name, hierarchy, *_ in fields):
        return None
    return "limits of memory need the memory controller of version 1 control groups"


@contextlib.contextmanager
def limited_memory(cluster: Cluster, node: str) -> Iterator[None]:
    """Let a node, which must be idle, enforce limits of memory for a while. One cluster of a machine at a time."""
    daemon = cluster.node_daemon(node)
    memory = f"{_GROUPS}/memory"
    mount = f"mount -t tmpfs groups {_GROUPS} && mkdir {memory} && mount -t cgroup -o memory groups {memory}"
    unmount = f"find {memory}/slurm_{node} -depth -type d -exec rmdir {{}} +; umount --lazy {memory} {_GROUPS}"
    conf = f"{layout.DIRECTORY}/cgroup.conf"
    before = (cluster.root / conf.lstrip("/")).read_text()
    cluster.write(conf, _CONF)
    cluster.run(["sh", "-ec", mount], user="root")
    try:
        with cluster.configured(TaskPlugin="task/cgroup"):
            daemon.stop()
            daemon.start()
            yield
    finally:
        daemon.stop()
        cluster.write(conf, before)
        daemon.start()
        cluster.run(["sh", "-c", unmount], user="root")
