"""What compute, storage, volumes and data must say."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

from msgspec.structs import replace

from ebhpc.model.cluster import ClusterCompute
from ebhpc.model.elements import (
    Compute,
    Data,
    IvoaBlock,
    IvoaData,
    Range,
    RucioData,
    S3Data,
    SimpleCompute,
    SimpleData,
    SimpleStorage,
    SimpleVolume,
    SkaoData,
    Storage,
    VolumeMount,
)
from ebhpc.model.messages import MessageKind
from ebhpc.model.reading.cluster import read_cluster
from ebhpc.model.reading.findings import Findings
from ebhpc.model.reading.quantities import Quantities, at_least_one, read_range
from ebhpc.model.structure import shown

GIB = 2**30
MIB_PER_GIB = 1024


def read_compute(compute: Compute, findings: Findings) -> tuple[Compute, Quantities]:
    """Return the compute element with its ranges filled in, and what it asks for.

    A plugin's kind is read by its properties ``cores`` and ``memory``, if it has them as Ranges; without them
    it counts as one core and one GiB, and its platform has to look at the element itself.
    """
    if isinstance(compute, ClusterCompute):
        return read_cluster(compute, findings)
    cores, most_cores, cores_range = at_least_one(compute, "cores", findings)
    memory, most_memory, memory_range = at_least_one(compute, "memory", findings)
    if isinstance(compute, SimpleCompute):
        compute = replace(compute, cores=cores_range, memory=memory_range)
    return compute, Quantities(cores=cores, most_cores=most_cores, memory=memory, most_memory=most_memory)


def read_storage(storage: Storage, path: str, findings: Findings) -> Storage:
    """Return the storage element, its size checked."""
    if isinstance(storage, SimpleStorage) and storage.size is not None:
        return replace(storage, size=read_range(storage.size, f"{path}/size", findings))
    return storage


def check_mount_points(volumes: Sequence[tuple[str, VolumeMount]], findings: Findings) -> None:
    """Check that each volume, given with where it stands, says what to mount, and where, each elsewhere."""
    taken: dict[str, str] = {}
    for path, volume in volumes:
        if not isinstance(volume, SimpleVolume):
            continue
        if volume.resource is None:
            findings.missing(f"{path}/resource", "the name or UUID of the storage or data to mount")
        if volume.path is None:
            findings.missing(f"{path}/path", "the absolute path to mount at")
        elif findings.line(volume.path, f"{path}/path", "a path"):
            _check_mount_point(volume.path, f"{path}/path", findings)
            first = taken.setdefault(volume.path, path)
            if first != path:
                findings.reject(
                    MessageKind.DUPLICATE_RESOURCE,
                    "{value} at {path} is mounted at already, by {first}",
                    f"{path}/path",
                    value=shown(volume.path),
                    first=first,
                )


def _check_mount_point(mount_point: str, path: str, findings: Findings) -> None:
    # POSIX lets two leading slashes mean something else, and normpath keeps them.
    relative = not mount_point.startswith("/") or mount_point.startswith("//")
    if relative or posixpath.normpath(mount_point) != mount_point:
        findings.invalid(path, mount_point, "an absolute path without ., .., // and / at its end")
    elif mount_point == "/":
        findings.invalid(path, mount_point, "a path below /")


def read_data(data: Data, path: str, findings: Findings) -> None:
    """Check that a data element says where its data is, where its kind has one place for that."""
    if isinstance(data, SimpleData):
        if data.location is None:
            findings.missing(f"{path}/location", "the URL of the data")
        findings.url(data.location, f"{path}/location")
    elif isinstance(data, S3Data):
        findings.url(data.endpoint, f"{path}/endpoint")
    elif isinstance(data, RucioData) and data.rucio:
        findings.url(data.rucio.endpoint, f"{path}/rucio/endpoint")
    elif isinstance(data, IvoaData):
        _check_ivoa(data.ivoa, f"{path}/ivoa", findings)
    elif isinstance(data, SkaoData):
        _check_ivoa(data.ivoa, f"{path}/ivoa", findings)
        if data.skao:
            if data.skao.datasize is not None and not 0 <= data.skao.datasize < 2**63:
                findings.invalid(f"{path}/skao/datasize", data.skao.datasize, "a size in bytes, 0 or more")
            for place, replica in enumerate(data.skao.replicas or ()):
                findings.url(replica.dataurl, f"{path}/skao/replicas/{place}/dataurl")


def _check_ivoa(block: IvoaBlock | None, path: str, findings: Findings) -> None:
    if block is None:
        return
    findings.url(block.ivoid, f"{path}/ivoid")
    if block.obscore:
        findings.url(block.obscore.access_url, f"{path}/obscore/access_url")
    if block.datalink:
        findings.url(block.datalink.access_url, f"{path}/datalink/access_url")
        length = block.datalink.content_length
        if length is not None and not 0 <= length < 2**63:
            findings.invalid(f"{path}/datalink/content_length", length, "a size in bytes, 0 or more")


def size_of(data: Data) -> Range | None:
    """Return the storage that a data element needs (GiB, rounded up), as far as it says how large it is."""
    length = None
    if isinstance(data, SkaoData) and data.skao:
        length = data.skao.datasize
    if length is None and isinstance(data, IvoaData | SkaoData) and data.ivoa and data.ivoa.datalink:
        length = data.ivoa.datalink.content_length
    return None if length is None else Range(min=max(1, -(-length // GIB)))
