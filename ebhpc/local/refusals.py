"""Why this platform cannot run a request: all reasons at once, each with the path of what it is about."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator

from msgspec import Struct

from ebhpc.local.capacity import GIBI, Host
from ebhpc.local.engine import EngineSearch
from ebhpc.local.locations import LocationError, read_location
from ebhpc.local.payload import RESULTS, apptainer, unsupported_variables
from ebhpc.local.references import is_digest, read_reference
from ebhpc.local.settings import Local
from ebhpc.local.volumes import data_url, label, mounts, unusable_path
from ebhpc.model import (
    DockerContainer,
    DockerImage,
    DockerPort,
    IvoaData,
    JupyterNotebook,
    Message,
    MessageKind,
    Request,
    Shape,
    SimpleCompute,
    SimpleData,
    SimpleStorage,
    SimpleVolume,
    SingularityContainer,
    message,
)

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_ENGINE_SCHEMES = ("oras", "docker", "library")
_PROTOCOLS = ("TCP", "UDP", "HTTP", "HTTPS")


class Asked(Struct, frozen=True, kw_only=True):
    """A request, and what the platform has for it."""

    request: Request
    settings: Local
    offered: Shape
    host: Host
    engine: EngineSearch
    notebooks: Callable[[], str | None]
    """Why notebooks cannot run here; None: they can."""


def refusals(asked: Asked) -> Iterator[Message]:
    """Yield every reason why the platform cannot run the request."""
    yield from _executable(asked)
    yield from _compute(asked)
    yield from _storage(asked)
    yield from _data(asked)
    yield from _volumes(asked)


def _no(about: MessageKind, path: str, template: str, **values: object) -> Message:
    return message(about, template, level="ERROR", time=None, path=path, **values)


def _unknown(path: str, what: str, element: object) -> Message:
    kind = getattr(element, "kind", None) or getattr(type(element), "__struct_config__", None)
    name = kind if isinstance(kind, str) else getattr(kind, "tag", None) or type(element).__name__
    return _no(
        MessageKind.NOT_SUPPORTED,
        f"{path}/kind" if path else path,
        "This platform does not know {what} of kind {name}.",
        what=what,
        name=name,
    )


# --- what to run -------------------------------------------------------------------------------------------------


def _executable(asked: Asked) -> Iterator[Message]:
    executable = asked.request.executable
    if isinstance(executable, JupyterNotebook):
        reason = asked.notebooks()
        if reason is not None:
            yield _no(
                MessageKind.NOT_SUPPORTED,
                "/executable",
                "This platform cannot run notebooks: {reason}.",
                reason=reason,
            )
        yield from _url(asked, executable.location, "/executable/location")
    elif isinstance(executable, DockerContainer):
        yield from _container(asked, executable)
    elif isinstance(executable, SingularityContainer):
        if apptainer(asked.settings) is None:
            yield _no(
                MessageKind.NOT_SUPPORTED,
                "/executable",
                "This platform cannot run Singularity containers: apptainer is not installed.",
            )
        yield from _url(asked, executable.location, "/executable/location", _ENGINE_SCHEMES)
    else:
        yield _unknown("/executable", "an executable", executable)


def _container(asked: Asked, executable: DockerContainer) -> Iterator[Message]:
    engine = asked.engine.engine()
    if engine is None:
        yield _no(
            MessageKind.NOT_SUPPORTED,
            "/executable",
            "This platform cannot run containers: {reason}.",
            reason=asked.engine.reason,
        )
    if executable.privileged and not asked.settings.runtime.allow_privileged:
        yield _no(
            MessageKind.POLICY_REFUSED,
            "/executable/privileged",
            "This platform does not run privileged containers.",
        )
    if asked.request.demand.least.devices:
        yield _no(
            MessageKind.NOT_SUPPORTED,
            "/compute",
            "This platform cannot hand devices to containers.",
        )
    yield from _image(asked, executable.image)
    for name, value in (executable.environment or {}).items():
        path = f"/executable/environment/{_pointer(name)}"
        if not _VARIABLE.fullmatch(name):
            yield _no(
                MessageKind.INVALID_VALUE,
                path,
                "{name} is no name for an environment variable.",
                name=repr(name),
            )
        elif "\0" in value or len(value) > 100_000:
            yield _no(
                MessageKind.INVALID_VALUE, path, "The value of {name} is none that Unix can hand over.", name=name
            )
    if engine is not None:
        for name in unsupported_variables(executable, engine):
            yield _no(
                MessageKind.NOT_SUPPORTED,
                f"/executable/environment/{_pointer(name)}",
                "{engine} cannot hand over a value with line breaks, or a very long one, to a container.",
                engine=engine.name,
            )
    words = [("/executable/entrypoint", executable.entrypoint or "")]
    words += [(f"/executable/command/{at}", word) for at, word in enumerate(executable.command or ())]
    for path, word in words:
        if "\0" in word or len(word) > 100_000:
            yield _no(MessageKind.INVALID_VALUE, path, "This is no word that a command can have.")
    for at, port in enumerate((executable.network.ports if executable.network else None) or ()):
        yield from _port(asked, port, f"/executable/network/ports/{at}")


def _image(asked: Asked, image: DockerImage | None) -> Iterator[Message]:
    path = "/executable/image"
    if image is None or not image.locations:
        yield _no(MessageKind.MISSING_VALUE, f"{path}/locations", "A container needs a location of its image.")
    for at, location in enumerate((image.locations if image else None) or ()):
        reference = read_reference(location)
        allowed = asked.settings.runtime.registries
        if reference is None:
            yield _no(
                MessageKind.INVALID_VALUE,
                f"{path}/locations/{at}",
                "{location} is no location of an image; expected registry/name:tag.",
                location=location[:200],
            )
        elif allowed is not None and reference.registry not in allowed:
            yield _no(
                MessageKind.POLICY_REFUSED,
                f"{path}/locations/{at}",
                "This platform takes no images from {registry}.",
                registry=reference.registry,
            )
    if image is None or not image.digest:
        yield _no(MessageKind.MISSING_VALUE, f"{path}/digest", "A container needs the digest of its image.")
    elif not is_digest(image.digest):
        yield _no(
            MessageKind.INVALID_VALUE,
            f"{path}/digest",
            "{digest} is no digest; expected sha256: and 64 hexadecimal digits.",
            digest=image.digest[:200],
        )
    platform = image.platform if image else None
    for name, wanted, here in (
        ("architecture", (platform.architecture if platform else None) or "amd64", asked.host.architecture),
        ("os", (platform.os if platform else None) or "linux", asked.host.system),
    ):
        if wanted != here:
            yield _no(
                MessageKind.NOT_SUPPORTED,
                f"{path}/platform/{name}",
                "This platform runs images for {here}, not for {wanted}.",
                here=here,
                wanted=wanted[:100],
            )


def _port(asked: Asked, port: DockerPort, path: str) -> Iterator[Message]:
    number = port.internal.port if port.internal is not None else None
    if number is None:
        yield _no(MessageKind.MISSING_VALUE, f"{path}/internal/port", "A port needs its number inside.")
    elif not 1 <= number <= 65535:
        yield _no(
            MessageKind.INVALID_VALUE,
            f"{path}/internal/port",
            "{number} is no port; expected 1 to 65535.",
            number=number,
        )
    protocol = port.protocol or "TCP"
    if protocol not in _PROTOCOLS:
        yield _no(
            MessageKind.INVALID_VALUE,
            f"{path}/protocol",
            "{protocol} is no protocol; expected one of TCP, UDP, HTTP, HTTPS.",
            protocol=protocol[:100],
        )
    elif protocol == "UDP" and asked.settings.runtime.network != "host":
        yield _no(MessageKind.NOT_SUPPORTED, f"{path}/protocol", "This platform does not publish UDP ports.")
    if any(ord(char) <= 32 or char == "\x7f" for char in port.path or ""):
        yield _no(MessageKind.INVALID_VALUE, f"{path}/path", "The path is no part of a URL.")


# --- what it needs -----------------------------------------------------------------------------------------------


def _compute(asked: Asked) -> Iterator[Message]:
    compute, least, has = asked.request.compute, asked.request.demand.least, asked.offered
    if compute is not None and not isinstance(compute, SimpleCompute):
        yield _unknown("/compute", "a compute resource", compute)
    if asked.request.demand.nodes > 1:
        yield _no(
            MessageKind.RESOURCE_LIMIT,
            "/compute/nodes",
            "This platform has 1 node, not {wanted}.",
            wanted=asked.request.demand.nodes,
        )
    if least.cores > has.cores:
        yield _no(
            MessageKind.RESOURCE_LIMIT,
            "/compute/cores/min",
            "This platform has {has} cores, not {wanted}.",
            has=has.cores,
            wanted=least.cores,
        )
    if least.memory > has.memory:
        yield _no(
            MessageKind.RESOURCE_LIMIT,
            "/compute/memory/min",
            "This platform has {has} GiB of memory, not {wanted}.",
            has=round(has.memory / 1024, 2),
            wanted=round(least.memory / 1024, 2),
        )
    for kind, count in least.devices.items():
        if count > has.devices.get(kind, 0):
            yield _no(
                MessageKind.RESOURCE_LIMIT,
                "/compute",
                "This platform has {has} devices of type {device}, not {wanted}.",
                has=has.devices.get(kind, 0),
                device=kind,
                wanted=count,
            )


def _storage(asked: Asked) -> Iterator[Message]:
    total, most = 0, int(asked.settings.storage_gib * GIBI)
    last = None
    for at, element in enumerate(asked.request.storage):
        path = f"/storage/{at}"
        if not isinstance(element, SimpleStorage):
            yield _unknown(path, "storage", element)
            continue
        least = (element.size.min if element.size is not None else None) or 0
        total += least * GIBI
        if total > most:
            last = path
    if last is not None:
        yield _no(
            MessageKind.RESOURCE_LIMIT,
            f"{last}/size/min",
            "A session gets at most {has} GiB of storage here, not {wanted}.",
            has=asked.settings.storage_gib,
            wanted=total // GIBI,
        )


def _data(asked: Asked) -> Iterator[Message]:
    for at, element in enumerate(asked.request.data):
        path = f"/data/{at}"
        if isinstance(element, SimpleData):
            yield from _url(asked, element.location, f"{path}/location")
        elif isinstance(element, IvoaData):
            url = data_url(element)
            if url is None:
                yield _no(
                    MessageKind.MISSING_VALUE,
                    f"{path}/ivoa/obscore/access_url",
                    "Data {name} has no access_url in its obscore or datalink metadata; "
                    "this platform cannot find data by other identifiers.",
                    name=label(element, str(at)),
                )
                continue
            row = element.ivoa.obscore if element.ivoa is not None else None
            of = "obscore" if row is not None and row.access_url else "datalink"
            yield from _url(asked, url, f"{path}/ivoa/{of}/access_url")
            yield from _stated_length(asked, element, path)
        else:
            yield _unknown(path, "data", element)


def _stated_length(asked: Asked, element: IvoaData, path: str) -> Iterator[Message]:
    link = element.ivoa.datalink if element.ivoa is not None else None
    stated = link.content_length if link is not None else None
    most = int(min(asked.settings.max_download_gib, asked.settings.storage_gib) * GIBI)
    if stated is not None and stated < 0:
        yield _no(MessageKind.INVALID_VALUE, f"{path}/ivoa/datalink/content_length", "A length cannot be below zero.")
    elif stated is not None and stated > most:
        yield _no(
            MessageKind.RESOURCE_LIMIT,
            f"{path}/ivoa/datalink/content_length",
            "This platform fetches at most {has} bytes, not {wanted}.",
            has=most,
            wanted=stated,
        )


def _volumes(asked: Asked) -> Iterator[Message]:
    request = asked.request
    inside = not isinstance(request.executable, JupyterNotebook)
    sound = True
    for at, volume in enumerate(request.volumes):
        path = f"/compute/volumes/{at}"
        if not isinstance(volume, SimpleVolume):
            yield _unknown(path, "a volume", volume)
            sound = False
            continue
        reason = unusable_path(volume.path, inside_container=inside)
        if reason is not None:
            yield _no(
                MessageKind.INVALID_VALUE if inside else MessageKind.NOT_SUPPORTED,
                f"{path}/path",
                "Nothing can be mounted at {where}: {reason}.",
                where=repr(volume.path),
                reason=reason,
            )
            sound = False
    if not sound:
        return
    try:
        shown = mounts(request.volumes, request.storage, request.data)
    except LookupError as error:
        yield _no(
            MessageKind.RESOURCE_NOT_FOUND,
            "/compute/volumes",
            "A volume cannot be mounted: {why}.",
            why=str(error),
        )
        return
    taken = {posixpath.normpath(RESULTS)} if inside else set()
    for at, mount in enumerate(shown):
        if mount.target in taken:
            yield _no(
                MessageKind.DUPLICATE_RESOURCE,
                f"/compute/volumes/{at}/path",
                "{where} is taken already.",
                where=mount.target,
            )
        taken.add(mount.target)


def _url(asked: Asked, url: str | None, path: str, schemes: tuple[str, ...] = ()) -> Iterator[Message]:
    if not url:
        yield _no(MessageKind.MISSING_VALUE, path, "A URL is needed here.")
        return
    try:
        read_location(url, asked.settings.file_roots, schemes)
    except LocationError as error:
        yield _no(
            MessageKind.POLICY_REFUSED if error.forbidden else MessageKind.NOT_SUPPORTED,
            path,
            "{url} cannot be used here: {why}.",
            url=url[:500],
            why=str(error),
        )


def _pointer(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
