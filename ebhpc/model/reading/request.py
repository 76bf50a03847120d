"""Reading a request: the whole of it, every problem at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from ebhpc.model.documents import ExecutionRequest
from ebhpc.model.elements import (
    Compute,
    Data,
    Executable,
    Metadata,
    SimpleCompute,
    SimpleStorage,
    Storage,
    VolumeMount,
)
from ebhpc.model.messages import Message, MessageKind
from ebhpc.model.reading.constraints import check_constraints
from ebhpc.model.reading.executables import read_executable
from ebhpc.model.reading.findings import Findings, RequestLimits
from ebhpc.model.reading.quantities import Quantities
from ebhpc.model.reading.references import Directory, mount, place_data, uuid_of
from ebhpc.model.reading.resources import (
    MIB_PER_GIB,
    check_mount_points,
    read_compute,
    read_data,
    read_storage,
    size_of,
)
from ebhpc.model.reading.schedule import read_schedule
from ebhpc.model.sessions import Demand, Request, Shape

DEFAULT_LIMITS = RequestLimits()


class Reading(Struct, frozen=True, kw_only=True):
    """What became of a request's document: a ``request``, or None and all its ``problems``."""

    request: Request | None = None
    problems: tuple[Message, ...] = ()


def read_request(
    document: ExecutionRequest,
    *,
    now: int,
    new_uuid: Callable[[], str],
    limits: RequestLimits = DEFAULT_LIMITS,
) -> Reading:
    """Read a request by the rules of the protocol; what depends on a platform is the platform's to check.

    Defaults are filled in: one core and one GiB where nothing is said, no upper bound where only a minimum
    is; two hours, to start within two hours of ``now`` (POSIX seconds); containers for linux/amd64,
    unprivileged, with TCP ports; storage mounted READWRITE and data READONLY; a SimpleStorage for each data
    element that names none.

    Each element gets a UUID of ``new_uuid`` and keeps its name. References (volume to storage or data, data
    to storage, storage to data) hold these UUIDs, whatever the client wrote, and data and storage name one
    another. The document is left as it is.
    """
    findings = Findings(limits)
    duration, earliest, latest = read_schedule(document.schedule, now, findings)
    check_constraints(document.costs, "/costs", findings)
    check_constraints(document.metrics, "/metrics", findings)
    parts = _Parts(document, Directory(new_uuid, findings), findings)
    parts.resolve()
    if findings.problems or parts.executable is None or parts.compute is None:
        return Reading(problems=tuple(findings.problems))
    quantities = parts.quantities
    demand = Demand(
        least=Shape(cores=quantities.cores, memory=quantities.memory * MIB_PER_GIB, devices=dict(quantities.devices)),
        most_cores=quantities.most_cores,
        most_memory=None if quantities.most_memory is None else quantities.most_memory * MIB_PER_GIB,
        most_devices=dict(quantities.most_devices),
        duration=duration,
        earliest=earliest,
        latest=latest,
        nodes=quantities.nodes,
        features=quantities.features,
        partition=quantities.partition,
        licences=dict(quantities.licences),
        exclusive=quantities.exclusive,
    )
    request = Request(
        document=document,
        executable=parts.executable,
        compute=parts.compute,
        volumes=tuple(parts.volumes),
        storage=tuple(parts.storage),
        data=tuple(parts.data),
        demand=demand,
    )
    return Reading(request=request)


class _Parts:
    """The elements of one request while it is read."""

    def __init__(self, document: ExecutionRequest, directory: Directory, findings: Findings) -> None:
        self._directory = directory
        self._findings = findings
        self.executable = self._read_executable(document.executable)
        self.compute: Compute | None = self._entered(
            SimpleCompute() if document.compute is None else document.compute, "/compute"
        )
        self.quantities = Quantities()
        if self.compute is not None:
            self.compute, self.quantities = read_compute(self.compute, findings)
        self._room = findings.limits.elements
        volumes = self.compute.volumes if self.compute is not None else None
        self.volumes: list[VolumeMount] = self._all_entered(volumes, "/compute/volumes")
        self.storage: list[Storage] = self._all_entered(document.storage, "/storage")
        self.data: list[Data] = self._all_entered(document.data, "/data")

    def _read_executable(self, element: Any) -> Executable | None:
        if element is None:
            self._findings.reject(MessageKind.EXECUTABLE_REQUIRED, "{path} is required: what to run", "/executable")
            return None
        executable: Executable | None = self._entered(element, "/executable")
        return None if executable is None else read_executable(executable, self._findings)

    def _entered(self, element: Any, path: str) -> Any:
        """The element under a UUID of ours; None if its kind is not known."""
        if not self._findings.known(element, path):
            return None
        check_constraints(element.costs, f"{path}/costs", self._findings)
        check_constraints(element.metrics, f"{path}/metrics", self._findings)
        return self._directory.enter(element, path)

    def _all_entered(self, elements: Iterable[Any] | None, path: str) -> list[Any]:
        listed = list(elements or ())
        if len(listed) > self._room:
            self._findings.reject(
                MessageKind.RESOURCE_LIMIT,
                "{path} has too many elements: at most {limit} of storage, data and volumes together",
                path,
                value=len(listed),
                limit=self._findings.limits.elements,
            )
            return []
        self._room -= len(listed)
        found = (self._entered(element, f"{path}/{place}") for place, element in enumerate(listed))
        return [element for element in found if element is not None]

    def resolve(self) -> None:
        """Check storage, data and volumes, and let them refer to one another by the broker's UUIDs."""
        directory, findings = self._directory, self._findings
        self.storage = [read_storage(store, directory.path_of(store), findings) for store in self.storage]
        for item in self.data:
            read_data(item, directory.path_of(item), findings)
        check_mount_points([(directory.path_of(volume), volume) for volume in self.volumes], findings)
        holders = place_data(self.storage, self.data, directory, findings)
        self.volumes = [mount(volume, directory) for volume in self.volumes]
        if findings.problems:
            return
        for item in self.data:
            if uuid_of(item) not in holders:
                own = SimpleStorage(meta=Metadata(uuid=directory.new_uuid()), size=size_of(item))
                self.storage.append(own)
                holders[uuid_of(item)] = uuid_of(own)
        self.data = [replace(item, storage=holders[uuid_of(item)]) for item in self.data]
        held: dict[str, list[str]] = {}
        for data, store in holders.items():
            held.setdefault(store, []).append(data)
        self.storage = [replace(store, data=held.get(uuid_of(store))) for store in self.storage]
        if self.compute is not None:
            self.compute = replace(self.compute, volumes=self.volumes or None)


def reissue(request: Request, new_uuid: Callable[[], str]) -> Request:
    """Copy a request with a new UUID for each element, the references with them: one copy for each offer."""
    renewed: dict[str, str] = {}

    def meta(element: Any) -> Metadata:
        renewed[uuid_of(element)] = uuid = new_uuid()
        return Metadata(uuid=uuid, name=element.meta.name, description=element.meta.description)

    executable = replace(request.executable, meta=meta(request.executable))
    storage = [replace(store, meta=meta(store)) for store in request.storage]
    data = [replace(item, meta=meta(item)) for item in request.data]
    storage = [
        store if store.data is None else replace(store, data=[renewed[uuid] for uuid in store.data])
        for store in storage
    ]
    data = [item if item.storage is None else replace(item, storage=renewed[item.storage]) for item in data]
    volumes = []
    for volume in request.volumes:
        changes: dict[str, Any] = {"meta": meta(volume)}
        resource = getattr(volume, "resource", None)
        if resource is not None:
            changes["resource"] = renewed[resource]
        volumes.append(replace(volume, **changes))
    compute = replace(request.compute, meta=meta(request.compute), volumes=volumes or None)
    return replace(
        request,
        executable=executable,
        compute=compute,
        volumes=tuple(volumes),
        storage=tuple(storage),
        data=tuple(data),
    )
