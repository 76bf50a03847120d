"""A node of the lab's that holds its jobs to the memory that they asked for, by control groups of version 1."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tests.lab.slurm.cluster import Cluster


def missing(cluster: Cluster) -> str | None:
    """Return what this machine's kernel lacks for it, in words; None: nothing."""
    if {"freezer", "memory"} <= set(cluster.groups):
        return None
    return "limits of memory in the lab need control groups of version 1 with the controllers freezer and memory"


@contextlib.contextmanager
def limited_memory(cluster: Cluster, node: str) -> Iterator[None]:
    """Let a node, which must be idle, enforce limits of memory for a while."""
    daemon = cluster.node_daemon(node)
    cluster.limit_memory(True)
    try:
        with cluster.configured(TaskPlugin="task/cgroup"):
            daemon.restart()
            yield
    finally:
        cluster.limit_memory(False)
        daemon.restart()
