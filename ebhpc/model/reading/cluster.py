"""What a compute element for a cluster must say."""

from __future__ import annotations

import re

from msgspec.structs import replace

from ebhpc.model.cluster import GPU, SCRATCH, ClusterCompute, Gpus, of_model
from ebhpc.model.elements import Range
from ebhpc.model.reading.findings import LARGEST, Findings
from ebhpc.model.reading.quantities import Quantities, at_least_one
from ebhpc.model.structure import pointer

# Signs that names may have beside letters and digits. Batch systems build expressions of these names: of features with
# & and |, of licences and models with : and ,
_MODEL = "._+-"
_FEATURE = "._+=:-"
_LICENCE = "._+@-"
_PARTITION = "._+-"


def read_cluster(compute: ClusterCompute, findings: Findings) -> tuple[ClusterCompute, Quantities]:
    """Return the compute element with its ranges filled in, and what it asks for.

    Of nodes that are taken whole, no quantity has an upper bound where no bound is said.
    """
    whole = bool(compute.exclusive)
    nodes, _, nodes_range = at_least_one(compute, "nodes", findings)
    cores, most_cores, cores_range = _share(compute, "cores", whole, findings)
    memory, most_memory, memory_range = _share(compute, "memory", whole, findings)
    least: dict[str, int] = {}
    most: dict[str, int] = {}
    gpus, scratch = compute.gpus, compute.scratch
    if gpus is not None:
        count, upper, bounds = _share(compute, "gpus", whole, findings)
        gpus = Gpus(min=bounds.min, max=bounds.max, model=gpus.model)
        for device in (GPU,) if gpus.model is None else (GPU, of_model(gpus.model)):
            _bound(device, count, upper, least, most)
        _word(gpus.model, _MODEL, "/compute/gpus/model", "the name of a model such as a100", findings)
    if scratch is not None:
        size, upper, scratch = _share(compute, "scratch", whole, findings)
        _bound(SCRATCH, size, upper, least, most)
    _word(compute.partition, _PARTITION, "/compute/partition", "the name of a partition", findings)
    read = replace(
        compute,
        nodes=nodes_range,
        cores=cores_range,
        memory=memory_range,
        gpus=gpus,
        scratch=scratch,
        features=_features(compute.features, findings),
        licences=_licences(compute.licences, findings),
        exclusive=whole or None,
    )
    return read, Quantities(
        nodes=nodes,
        cores=cores,
        most_cores=most_cores,
        memory=memory,
        most_memory=most_memory,
        devices=least,
        most_devices=most,
        features=tuple(read.features or ()),
        licences=read.licences or {},
        exclusive=whole,
        partition=compute.partition,
    )


def _share(compute: ClusterCompute, name: str, whole: bool, findings: Findings) -> tuple[int, int | None, Range]:
    wanted = getattr(compute, name)
    if whole and (wanted is None or (wanted.min is None and wanted.max is None)):
        return 1, None, Range(min=1)
    return at_least_one(compute, name, findings)


def _bound(device: str, count: int, upper: int | None, least: dict[str, int], most: dict[str, int]) -> None:
    least[device] = count
    if upper is not None:
        most[device] = upper


def _features(features: list[str] | None, findings: Findings) -> list[str] | None:
    if not features or not findings.few(features, "/compute/features"):
        return None
    for place, feature in enumerate(features):
        _word(feature, _FEATURE, f"/compute/features/{place}", "a feature of nodes such as bigmem", findings)
    return list(dict.fromkeys(features))


def _licences(licences: dict[str, int] | None, findings: Findings) -> dict[str, int] | None:
    path = "/compute/licences"
    if not licences or not findings.few(licences, path):
        return None
    for name, count in licences.items():
        if _word(name, _LICENCE, path, "names of licences such as matlab", findings) and not 1 <= count <= LARGEST:
            findings.invalid(pointer(path, name), count, f"1 to {LARGEST}")
    return dict(licences)


def _word(value: str | None, signs: str, path: str, expected: str, findings: Findings) -> bool:
    if value is None or re.fullmatch(rf"[A-Za-z0-9][A-Za-z0-9{re.escape(signs)}]{{0,63}}", value):
        return True
    findings.invalid(path, value, f"{expected}: letters, digits and {' '.join(signs)}, 64 at most")
    return False
