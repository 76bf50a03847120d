"""Compute on a cluster: several nodes, and what each of them shall have. A kind of ours beside the standard's.

What a node has beside cores and memory travels as devices by type: ``gpu`` counts its GPUs, ``gpu:MODEL`` those of a
model, each of which ``gpu`` counts too; ``scratch`` is local disk space, in GiB.
"""

from __future__ import annotations

from collections.abc import Mapping

from ebhpc.model import kinds
from ebhpc.model.elements import Compute, Range

GPU = "gpu"
"""The type of device that counts all GPUs of a node."""

SCRATCH = "scratch"
"""The type of device that counts the GiB of a node's local disk space."""


class Gpus(Range):
    """GPUs on each node (count), of a ``model`` as the platform names it, or of any."""

    model: str | None = None


class ClusterCompute(Compute, tag=kinds.CLUSTER_COMPUTE):
    """Nodes (count), and on each of them cores (count), memory (GiB), GPUs, scratch (GiB of local disk space).

    Each node has all of ``features``; ``licences`` are counts by name, for all nodes together. ``exclusive``: the nodes
    are taken whole, and nobody else's work is on them. ``partition`` is one of the platform's, by its name.
    """

    nodes: Range | None = None
    cores: Range | None = None
    memory: Range | None = None
    gpus: Gpus | None = None
    scratch: Range | None = None
    features: list[str] | None = None
    licences: dict[str, int] | None = None
    exclusive: bool | None = None
    partition: str | None = None


def of_model(model: str) -> str:
    """Return the type of device that counts the GPUs of a model."""
    return f"{GPU}:{model}"


def gpus_of(devices: Mapping[str, int]) -> int:
    """Return how many devices there are, each counted once: those of a model are counted without it too."""
    return sum(count for device, count in devices.items() if ":" not in device and device != SCRATCH)


def asked_at(device: str) -> str:
    """Return the JSON pointer of that part of a request which asks for devices of a type."""
    if device == SCRATCH:
        return "/compute/scratch/min"
    if device == GPU:
        return "/compute/gpus/min"
    return "/compute/gpus/model" if device.startswith(f"{GPU}:") else "/compute"
