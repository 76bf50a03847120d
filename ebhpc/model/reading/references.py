"""Names and UUIDs in a request: who is meant by a reference, and the broker's own UUIDs in their place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from ebhpc.model.elements import (
    Component,
    Data,
    LifecycleComponent,
    Metadata,
    SimpleVolume,
    Storage,
    VolumeMount,
)
from ebhpc.model.messages import MessageKind
from ebhpc.model.reading.findings import Findings
from ebhpc.model.structure import shown

C = TypeVar("C", bound=Component)


class Part(Struct, frozen=True):
    """An element of the request, where it stands, and the UUID that the broker gave it."""

    element: Component
    path: str
    uuid: str


def uuid_of(element: Component) -> str:
    """Return the UUID that a directory gave an element."""
    if element.meta is None or element.meta.uuid is None:
        raise ValueError(f"a {type(element).__name__} that no directory has entered")
    return element.meta.uuid


class Directory:
    """All parts of a request by name and by the client's UUID."""

    def __init__(self, new_uuid: Callable[[], str], findings: Findings) -> None:
        self.new_uuid = new_uuid
        self._findings = findings
        self._parts: dict[str, Part] = {}
        self._paths: dict[str, str] = {}

    def enter(self, element: C, path: str) -> C:
        """Return the element under a UUID of ours, and remember it by its name and by the client's UUID.

        Its name and description stay. What only the broker can say (phase, schedule, costs, messages) is
        dropped.
        """
        meta = element.meta or Metadata()
        part = Part(element, path, self.new_uuid())
        if meta.description is not None:
            self._findings.text(meta.description, f"{path}/meta/description")
        if meta.name is not None and self._findings.name(meta.name, f"{path}/meta/name"):
            self._remember(meta.name, part, f"{path}/meta/name")
        if meta.uuid is not None:
            self._remember_uuid(meta.uuid, part)
        self._paths[part.uuid] = path
        ours = Metadata(uuid=part.uuid, name=meta.name, description=meta.description)
        changes: dict[str, Any] = {"meta": ours, "costs": None, "metrics": None}
        if isinstance(element, LifecycleComponent):
            changes |= {"phase": None, "schedule": None}
        return replace(element, **changes)

    def path_of(self, element: Component) -> str:
        """Return where an element that was entered stands in the document."""
        return self._paths[uuid_of(element)]

    def _remember_uuid(self, uuid: str, part: Part) -> None:
        path = f"{part.path}/meta/uuid"
        try:
            known = str(UUID(uuid))
        except ValueError:
            self._findings.invalid(path, uuid, "a UUID, or none: the broker gives its own")
        else:
            self._remember(known, part, path)

    def _remember(self, key: str, part: Part, path: str) -> None:
        first = self._parts.setdefault(key, part)
        if first is not part:
            self._findings.reject(
                MessageKind.DUPLICATE_RESOURCE,
                "{value} at {path} is the name or UUID of another element already, {first}",
                path,
                value=shown(key),
                first=first.path,
            )

    def find(self, reference: str, path: str, wanted: tuple[type[Component], ...]) -> Part | None:
        """Return the part that a reference means, one of the ``wanted`` types; report it if there is none."""
        part = self._parts.get(reference) or self._parts.get(_as_uuid(reference))
        if part is None or not isinstance(part.element, wanted):
            self._findings.reject(
                MessageKind.RESOURCE_NOT_FOUND,
                "{value} at {path} is neither the name nor the UUID of a {expected} element of this request",
                path,
                value=shown(reference),
                expected=" or ".join(type_.__name__.lower() for type_ in wanted),
            )
            return None
        return part


def _as_uuid(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        return text


def place_data(storage: list[Storage], data: list[Data], directory: Directory, findings: Findings) -> dict[str, str]:
    """Return the UUID of the storage of each data element, by the data's UUID, where the client named one.

    A data element's ``storage`` and a storage element's ``data`` say the same thing from both sides; they may
    not contradict one another.
    """
    holders: dict[str, str] = {}
    for item in data:
        if item.storage is not None:
            found = directory.find(item.storage, f"{directory.path_of(item)}/storage", (Storage,))
            if found is not None:
                holders[uuid_of(item)] = found.uuid
    for store in storage:
        references = store.data or []
        path = f"{directory.path_of(store)}/data"
        if not findings.few(references, path):
            continue
        for place, reference in enumerate(references):
            found = directory.find(reference, f"{path}/{place}", (Data,))
            if found is not None and holders.setdefault(found.uuid, uuid_of(store)) != uuid_of(store):
                findings.invalid(
                    f"{path}/{place}", reference, f"data that no other storage holds, as {found.path} says"
                )
    return holders


def mount(volume: VolumeMount, directory: Directory) -> VolumeMount:
    """Return the volume with the UUID of what it mounts; its mode READONLY for data, READWRITE for storage."""
    resource: str | None = getattr(volume, "resource", None)
    if resource is None:
        return volume
    found = directory.find(resource, f"{directory.path_of(volume)}/resource", (Storage, Data))
    if found is None:
        return volume
    changes = {"resource": found.uuid}
    if isinstance(volume, SimpleVolume) and volume.mode is None:
        changes["mode"] = "READONLY" if isinstance(found.element, Data) else "READWRITE"
    return replace(volume, **changes)
