"""Which file and directory of a session goes where: data into storage, storage and data into the job's view.

A data element lies in the storage element that it names, or that names it, or in one of its own; its file has the last
part of its URL as name. A volume that names a storage element shows the whole directory at its path. A volume that
names a data element shows that one file: at its path where the path ends with the file's name, else in a directory
of that path.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

from msgspec import Struct

from ebhpc.model import (
    Component,
    Data,
    IvoaData,
    S3Data,
    SimpleData,
    SimpleStorage,
    SimpleVolume,
    Storage,
    VolumeMount,
)
from ebhpc.staging.files import GIBI
from ebhpc.staging.locations import file_name
from ebhpc.staging.rules import StagingRules

_SYSTEM = ("/proc", "/sys", "/dev")


class Place(Struct, frozen=True, kw_only=True):
    """Where a data element lies: the number of the storage directory, and the file's name there."""

    storage: int
    name: str


class Mount(Struct, frozen=True, kw_only=True):
    """A directory or file of the session, relative to its storage, shown to the job at ``target``."""

    source: str
    target: str
    read_only: bool
    is_file: bool


def named(element: Component, name: str | None) -> bool:
    """Whether ``name`` is the element's name or UUID."""
    return name is not None and element.meta is not None and name in (element.meta.name, element.meta.uuid)


def label(element: Component, otherwise: str) -> str:
    """Return the element's name, for words to the user."""
    return (element.meta.name if element.meta is not None else None) or otherwise


def data_url(element: Data) -> str | None:
    """Return the URL of a data element that is fetched by URL; None if it has none.

    That of an object in S3 is ``s3://SERVICE/BUCKET/OBJECT``.
    """
    if isinstance(element, SimpleData):
        return element.location
    if isinstance(element, S3Data) and element.endpoint and element.bucket and element.object:
        service = element.endpoint.rpartition("://")[2].strip("/")
        return f"s3://{service}/{element.bucket}/{element.object}"
    if isinstance(element, IvoaData) and element.ivoa is not None:
        for row in (element.ivoa.obscore, element.ivoa.datalink):
            if row is not None and row.access_url:
                return row.access_url
    return None


def places(storage: Sequence[Storage], data: Sequence[Data]) -> tuple[Place, ...]:
    """Say where each data element lies. The same for the same session, whenever it is asked."""
    found: list[Place] = []
    taken: set[tuple[int, str]] = set()
    own = len(storage)
    for at, element in enumerate(data):
        home = _home(element, storage)
        if home is None:
            home, own = own, own + 1
        path = (data_url(element) or "").partition("#")[0].partition("?")[0]
        name = file_name(unquote(path.rpartition("/")[2]), label(element, f"data-{at}"))
        name = file_name(name, f"data-{at}")
        if (home, name) in taken:
            name = f"{at}-{name}"
        taken.add((home, name))
        found.append(Place(storage=home, name=name))
    return tuple(found)


def sizes(storage: Sequence[Storage], data: Sequence[Data], rules: StagingRules) -> tuple[int, ...]:
    """Return the most bytes that each storage directory may take, in order, those of data alone included."""
    homes = [place.storage for place in places(storage, data)]
    most = int(rules.storage_gib * GIBI)
    found = []
    for at, element in enumerate(storage):
        size = element.size if isinstance(element, SimpleStorage) else None
        wanted = None if size is None else size.max if size.max is not None else size.min
        if wanted is not None:
            found.append(min(wanted * GIBI, most))
        else:
            found.append(most if at in homes else int(rules.default_storage_gib * GIBI))
    found += [most] * (max(homes, default=-1) + 1 - len(storage))
    return tuple(found)


def mounts(volumes: Sequence[VolumeMount], storage: Sequence[Storage], data: Sequence[Data]) -> tuple[Mount, ...]:
    """Say what the volumes show where.

    Raises:
        LookupError: a volume names no element of the session.
    """
    placed = places(storage, data)
    found = []
    for volume in volumes:
        if not isinstance(volume, SimpleVolume) or volume.path is None:
            raise LookupError("a volume without a path")
        read_only = volume.mode != "READWRITE"
        target = posixpath.normpath(volume.path)
        for at, element in enumerate(storage):
            if named(element, volume.resource):
                found.append(Mount(source=str(at), target=target, read_only=read_only, is_file=False))
                break
        else:
            for at, item in enumerate(data):
                if named(item, volume.resource):
                    place = placed[at]
                    if posixpath.basename(target) != place.name:
                        target = posixpath.join(target, place.name)
                    source = f"{place.storage}/{place.name}"
                    found.append(Mount(source=source, target=target, read_only=read_only, is_file=True))
                    break
            else:
                raise LookupError(f"volume {volume.path} names {volume.resource!r}, which is no element")
    return tuple(found)


def read_only_storage(
    volumes: Sequence[VolumeMount], storage: Sequence[Storage], data: Sequence[Data]
) -> tuple[int, ...]:
    """Return the numbers of the storage directories that volumes show, and none of them READWRITE.

    Raises:
        LookupError: a volume names no element of the session.
    """
    shown = [(int(mount.source.partition("/")[0]), mount.read_only) for mount in mounts(volumes, storage, data)]
    return tuple(sorted({at for at, _ in shown} - {at for at, read_only in shown if not read_only}))


def unusable_path(path: str | None, *, inside_container: bool) -> str | None:
    """Say why nothing can be mounted at ``path``; None: it can."""
    if not path:
        return "it is missing"
    if len(path) > 1024 or any(ord(char) < 32 or char in ':,"\x7f' for char in path):
        return "it has characters that a mount cannot have"
    if ".." in path.split("/"):
        return "it goes upwards"
    if inside_container:
        normal = posixpath.normpath(path)
        if not path.startswith("/"):
            return "it is not absolute"
        if normal.strip("/") == "" or any(Path(normal).is_relative_to(system) for system in _SYSTEM):
            return "it is a place of the system"
        return None
    if path.startswith("/"):
        return (
            "a notebook sees this host's own file system; use a path relative to its working directory, "
            "where the volume then appears"
        )
    if posixpath.normpath(path) == "." or path.startswith("."):
        return "it is a place of the system"
    return None


def _home(element: Data, storage: Sequence[Storage]) -> int | None:
    for at, candidate in enumerate(storage):
        if named(candidate, element.storage):
            return at
    for at, candidate in enumerate(storage):
        if any(named(element, name) for name in candidate.data or ()):
            return at
    return None
