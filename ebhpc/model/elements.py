"""The standard's extensible elements as Structs, tagged by ``kind``.

Property names, enums and kind URIs are those of the IVOA Execution Broker schema 1.0. Absent values are left out
when encoding. A property that the schema names like a Python word keeps its wire name through ``rename``.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from msgspec import Struct, field

from ebhpc.model import kinds
from ebhpc.model.messages import Message
from ebhpc.model.phases import LifecyclePhase


class Wire(Struct, kw_only=True, omit_defaults=True):
    """Base of everything that travels: keyword-only, absent values left out."""


# --- options and updates -----------------------------------------------------------------------------------------


class Option(Wire, tag_field="kind"):
    """Something that a client may change now, and where (``path``)."""

    path: str


class StringOption(Option, tag=kinds.STRING_OPTION):
    """A string may be set; ``pattern`` is a regular expression that it must match."""

    pattern: str | None = None


class EnumOption(Option, tag=kinds.ENUM_OPTION):
    """One of ``values`` may be set."""

    values: list[str]


class IntegerOption(Option, tag=kinds.INTEGER_OPTION):
    """An integer may be set."""

    min: int | None = None
    max: int | None = None
    units: str | None = None


class DeltaOption(Option, tag=kinds.DELTA_OPTION):
    """An integer may be changed by an amount."""

    min: int | None = None
    max: int | None = None
    units: str | None = None


class Update(Wire, tag_field="kind"):
    """A change that a client asks for."""

    path: str


class StringUpdate(Update, tag=kinds.STRING_UPDATE):
    """Set a string."""

    value: str


class EnumUpdate(Update, tag=kinds.ENUM_UPDATE):
    """Set an enumerated value."""

    value: str


class IntegerUpdate(Update, tag=kinds.INTEGER_UPDATE):
    """Set an integer."""

    value: int
    units: str | None = None


class DeltaUpdate(Update, tag=kinds.DELTA_UPDATE):
    """Change an integer by an amount."""

    delta: int
    units: str | None = None


# --- what all components share -----------------------------------------------------------------------------------


class Metadata(Wire):
    """ComponentMetadata: identity, times, messages and options of a component."""

    uuid: str | None = None
    name: str | None = None
    url: str | None = None
    description: str | None = None
    created: datetime | None = None
    modified: datetime | None = None
    messages: list[Message] | None = None
    options: list[StringOption | EnumOption | IntegerOption | DeltaOption] | None = None


class CostItem(Wire, tag_field="kind", tag=kinds.ABSTRACT_COST):
    """A cost: ``type`` is a URI that says what is counted."""

    type: str | None = None
    description: str | None = None


class SimpleCost(CostItem, tag=kinds.SIMPLE_COST):
    """A cost as a range; in a request the range that the client accepts."""

    min: float | None = None
    max: float | None = None


class MetricItem(Wire, tag_field="kind", tag=kinds.ABSTRACT_METRIC):
    """A metric: ``type`` is a URI that says what is measured."""

    type: str | None = None
    description: str | None = None


class SimpleMetric(MetricItem, tag=kinds.SIMPLE_METRIC):
    """A metric as a range; in a request the range that the client needs."""

    min: float | None = None
    max: float | None = None


class UnknownElement:
    """An element of a kind that nobody here knows, kept as it came: ``raw`` is the element as plain data.

    Not a Struct, so that msgspec hands it to the encoders of ``registry``, which write ``raw``.
    """

    __slots__ = ("kind", "raw")

    def __init__(self, *, kind: str | None, raw: dict[str, Any]) -> None:
        self.kind = kind
        self.raw = raw

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, UnknownElement):
            return NotImplemented
        return self.kind == other.kind and self.raw == other.raw

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"UnknownElement(kind={self.kind!r}, raw={self.raw!r})"


class InstantSchedule(Wire):
    """A start (RFC 3339) and a duration (ISO 8601)."""

    start: str | None = None
    duration: str | None = None


class IntervalSchedule(Wire):
    """An interval in which the start lies (ISO 8601 ``start/end`` or ``start/duration``), and a duration."""

    start: str | None = None
    duration: str | None = None


class Schedule(Wire):
    """When something is prepared, available and released; the same for sessions and components."""

    preparing: InstantSchedule | None = None
    available: IntervalSchedule | None = None
    releasing: InstantSchedule | None = None


class Component(Wire, tag_field="kind"):
    """AbstractComponent: base of executables, resources, volumes, sessions and offer sets.

    ``costs`` and ``metrics`` hold CostItem and MetricItem, or UnknownElement where a plugin's kind is not loaded.
    """

    meta: Metadata | None = None
    costs: list[Any] | None = None
    metrics: list[Any] | None = None


class LifecycleComponent(Component):
    """A component with a phase and a schedule of its own."""

    phase: LifecyclePhase | None = None
    schedule: Schedule | None = None


# --- executables -------------------------------------------------------------------------------------------------


class Executable(LifecycleComponent):
    """Base of all executables."""


class DockerPlatform(Wire):
    """What an image was built for."""

    architecture: str | None = None
    os: str | None = None


class DockerImage(Wire):
    """A container image: where it can be pulled from, and the digest that it must have."""

    locations: list[str] | None = None
    digest: str | None = None
    platform: DockerPlatform | None = None


class DockerInternalPort(Wire):
    """A port inside the container."""

    port: int | None = None


class DockerExternalPort(Wire):
    """Where a container's port is reached from outside; filled by the broker."""

    port: int | None = None
    addresses: list[str] | None = None


class DockerPort(Wire):
    """A port to publish; ``access`` lists it among the session's connectors."""

    access: bool | None = None
    internal: DockerInternalPort | None = None
    external: DockerExternalPort | None = None
    protocol: str | None = None
    path: str | None = None


class DockerNetwork(Wire):
    """The container's network access."""

    ports: list[DockerPort] | None = None


class DockerContainer(Executable, tag=kinds.DOCKER_CONTAINER):
    """A Docker or OCI container."""

    image: DockerImage | None = None
    privileged: bool | None = None
    command: list[str] | None = None
    entrypoint: str | None = None
    environment: dict[str, str] | None = None
    network: DockerNetwork | None = None


class SingularityContainer(Executable, tag=kinds.SINGULARITY_CONTAINER):
    """A Singularity (Apptainer) container by the URL of its image."""

    location: str | None = None


class JupyterNotebook(Executable, tag=kinds.JUPYTER_NOTEBOOK):
    """A Jupyter notebook by its URL."""

    location: str | None = None


# --- compute, storage, volumes -----------------------------------------------------------------------------------


class VolumeMount(Component):
    """Base of all volume mounts."""


class SimpleVolume(VolumeMount, tag=kinds.SIMPLE_VOLUME):
    """A storage or data element (``resource``: its name or UUID) mounted at ``path``."""

    path: str | None = None
    mode: Literal["READONLY", "READWRITE"] | None = None
    resource: str | None = None


class Range(Wire):
    """A minimum and a maximum, either of which may be absent."""

    min: int | None = None
    max: int | None = None


class Compute(LifecycleComponent):
    """Base of all compute resources. ``volumes`` holds VolumeMount or UnknownElement."""

    volumes: list[Any] | None = None


class SimpleCompute(Compute, tag=kinds.SIMPLE_COMPUTE):
    """Cores (count) and memory (GiB) on one node."""

    cores: Range | None = None
    memory: Range | None = None


class Storage(LifecycleComponent):
    """Base of all storage resources; ``data`` names the data elements that it holds."""

    data: list[str] | None = None


class SimpleStorage(Storage, tag=kinds.SIMPLE_STORAGE):
    """A directory of a size (GiB)."""

    size: Range | None = None


# --- data --------------------------------------------------------------------------------------------------------


class Data(LifecycleComponent):
    """Base of all data resources; ``storage`` is the name or UUID of the storage that takes it."""

    storage: str | None = None


class SimpleData(Data, tag=kinds.SIMPLE_DATA):
    """Data by URL."""

    location: str | None = None


class S3Data(Data, tag=kinds.S3_DATA):
    """An object, or a whole bucket, of an S3 service."""

    endpoint: str | None = None
    template: str | None = None
    bucket: str | None = None
    object: str | None = None


class ObsCore(Wire):
    """A row of ObsCore metadata."""

    obs_id: str | None = None
    obs_collection: str | None = None
    obs_publisher_did: str | None = None
    obs_creator_did: str | None = None
    dataproduct_type: str | None = None
    calib_level: int | None = None
    access_url: str | None = None
    access_format: str | None = None


class DataLink(Wire):
    """A row of DataLink metadata."""

    id: str | None = field(name="ID", default=None)
    access_url: str | None = None
    service_def: str | None = None
    error_message: str | None = None
    description: str | None = None
    semantics: str | None = None
    content_type: str | None = None
    content_length: int | None = None
    content_qualifier: str | None = None
    local_semantics: str | None = None
    link_auth: str | None = None
    link_authorized: str | None = None


class IvoaBlock(Wire):
    """IVOA metadata of a data resource."""

    ivoid: str | None = None
    obscore: ObsCore | None = None
    datalink: DataLink | None = None


class IvoaData(Data, tag=kinds.IVOA_DATA):
    """Data described by IVOA metadata."""

    ivoa: IvoaBlock | None = None


class RucioBlock(Wire):
    """A Rucio data identifier."""

    endpoint: str | None = None
    scope: str | None = None
    object: str | None = None
    type: Literal["FILE", "CONTAINER", "DATASET"] | None = None


class RucioData(Data, tag=kinds.RUCIO_DATA):
    """Data in a Rucio storage system."""

    rucio: RucioBlock | None = None


class SkaoChecksum(Wire):
    """A checksum and its algorithm."""

    type: str | None = None
    value: str | None = None


class SkaoReplica(Wire):
    """One replica of an object."""

    rsename: str | None = None
    dataurl: str | None = None


class SkaoBlock(Wire):
    """SKAO metadata of a data resource; ``datasize`` in bytes."""

    namespace: str | None = None
    objectname: str | None = None
    objecttype: Literal["FILE", "CONTAINER", "DATASET"] | None = None
    datasize: int | None = None
    checksum: SkaoChecksum | None = None
    replicas: list[SkaoReplica] | None = None


class SkaoData(Data, tag=kinds.SKAO_DATA):
    """Data in the SKAO data lake."""

    ivoa: IvoaBlock | None = None
    skao: SkaoBlock | None = None
