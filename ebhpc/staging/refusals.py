"""Why a platform cannot run a request: all reasons at once, each with the path of what it is about.

A platform declares what it is able to in :class:`Abilities`; the reasons follow from that and the request alone.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from msgspec import Struct, field

from ebhpc.config import Network
from ebhpc.model import (
    SCRATCH,
    BatchScript,
    DockerContainer,
    DockerImage,
    DockerPort,
    IvoaData,
    JupyterNotebook,
    Message,
    MessageKind,
    Request,
    ReservedTime,
    S3Data,
    Shape,
    SimpleCompute,
    SimpleData,
    SimpleStorage,
    SimpleVolume,
    SingularityContainer,
    asked_at,
    message,
)
from ebhpc.staging.files import GIBI
from ebhpc.staging.locations import LocationError, read_location
from ebhpc.staging.references import is_digest, read_reference
from ebhpc.staging.scripts import ScriptRules, checked_location, script_refusals
from ebhpc.staging.volumes import data_url, label, mounts, unusable_path

RESULTS = "/ebhpc/results"
"""Where a container finds the directory whose files are kept."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_SHELL_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PROTOCOLS = ("TCP", "UDP", "HTTP", "HTTPS")
_LONGEST_WORD = 100_000
"""Characters of one word or variable: Linux takes 128 KiB (execve(2), MAX_ARG_STRLEN)."""

_NOTHING: Mapping[type, str] = {}


class Abilities(Struct, frozen=True, kw_only=True):
    """What a platform is able to.

    ``executables`` are the kinds that it runs, and ``cannot`` says of some of them why not now, in words that follow
    "This platform cannot run …:". Kinds of the standard are looked into; of other kinds only the type is asked for,
    their content is the platform's to judge. ``most`` is its largest node, ``nodes`` how many there are; None: not
    known here, and not asked. ``spread`` are those executables that can use more than one node; None: all.
    """

    executables: tuple[type, ...]
    cannot: Mapping[type, str] = field(default_factory=lambda: _NOTHING)
    computes: tuple[type, ...] = (SimpleCompute,)
    most: Shape | None = None
    nodes: int | None = None
    spread: tuple[type, ...] | None = None

    architecture: str = "amd64"
    """Of images, as in their ``platform``."""

    system: str = "linux"

    registries: tuple[str, ...] | None = None
    """The registries that images may come from; None: any."""

    privileged: bool = False
    udp: bool = False
    """Whether UDP ports are reached from outside."""

    ports: str | None = None
    """Why no port is reached from outside; None: they are."""

    container_devices: tuple[str, ...] = ()
    """The types of devices that can be handed to containers."""

    shell_names: bool = False
    """Whether names of environment variables must be those of a shell."""

    line_breaks: str | None = None
    """What it is that cannot hand over values with line breaks, or very long ones; None: they are handed over."""

    needs_command: bool = False
    """Whether a container's own command is not known to its runtime, so that the request must name it."""

    image_schemes: tuple[str, ...] = ()
    """Schemes of Singularity images beside http, https and file."""

    data_schemes: tuple[str, ...] = ()
    """Schemes of data's URLs beside http, https and file."""

    file_roots: tuple[Path, ...] = ()
    """Directories that ``file:`` URLs may name files in."""

    private_networks: tuple[Network, ...] | None = None
    """Networks that are not public and that URLs may lead to; None: that is not asked, as where jobs fetch by
    themselves."""

    storage_gib: float = 100.0
    """The most storage in GiB of one session."""

    max_download_gib: float = 100.0
    """The largest file in GiB that is fetched."""

    scripts: ScriptRules = ScriptRules()
    """What batch scripts may do."""


class Asked(Struct, frozen=True, kw_only=True):
    """A request, and what the platform is able to."""

    request: Request
    able: Abilities


def refusals(request: Request, abilities: Abilities) -> Iterator[Message]:
    """Yield every reason why a platform of these abilities cannot run the request."""
    asked = Asked(request=request, able=abilities)
    yield from _executable(asked)
    yield from _compute(asked)
    yield from _storage(asked)
    yield from _data(asked)
    yield from _volumes(asked)


def refusal(about: MessageKind, path: str, template: str, **values: object) -> Message:
    """Make one reason: ``path`` is the JSON pointer of the element meant."""
    return message(about, template, level="ERROR", time=None, path=path, **values)


def unknown_kind(path: str, what: str, element: object) -> Message:
    """Make the reason that an element's kind is not known."""
    kind = getattr(element, "kind", None) or getattr(type(element), "__struct_config__", None)
    name = kind if isinstance(kind, str) else getattr(kind, "tag", None) or type(element).__name__
    return refusal(
        MessageKind.NOT_SUPPORTED,
        f"{path}/kind" if path else path,
        "This platform does not know {what} of kind {name}.",
        what=what,
        name=name,
    )


# --- what to run -------------------------------------------------------------------------------------------------


def _executable(asked: Asked) -> Iterator[Message]:
    executable, able = asked.request.executable, asked.able
    if not isinstance(executable, able.executables):
        yield unknown_kind("/executable", "an executable", executable)
        return
    why = next((why for kind, why in able.cannot.items() if isinstance(executable, kind)), None)
    if why is not None:
        yield refusal(
            MessageKind.NOT_SUPPORTED,
            "/executable",
            "This platform cannot run {what}: {reason}.",
            what=_plural(executable),
            reason=why,
        )
    if isinstance(executable, JupyterNotebook):
        yield from _url(asked, executable.location, "/executable/location")
    elif isinstance(executable, DockerContainer):
        yield from _container(asked, executable)
    elif isinstance(executable, SingularityContainer):
        yield from _url(asked, executable.location, "/executable/location", able.image_schemes)
    elif isinstance(executable, BatchScript):
        yield from script_refusals(executable, able.scripts)
        if executable.location is not None:
            yield from _url(asked, checked_location(executable), "/executable/location")
    elif isinstance(executable, ReservedTime):
        yield from _nothing_runs(asked)


def _nothing_runs(asked: Asked) -> Iterator[Message]:
    """Nothing is put into reserved time: what its user runs there brings its own storage and data."""
    for name, elements in (
        ("storage", asked.request.storage),
        ("data", asked.request.data),
        ("compute/volumes", asked.request.volumes),
    ):
        if elements:
            yield refusal(
                MessageKind.NOT_SUPPORTED,
                f"/{name}",
                "Reserved time has neither storage nor data of its own: what its user runs there brings them.",
            )


def _plural(executable: object) -> str:
    if isinstance(executable, JupyterNotebook):
        return "notebooks"
    if isinstance(executable, DockerContainer):
        return "containers"
    if isinstance(executable, BatchScript):
        return "batch scripts"
    if isinstance(executable, ReservedTime):
        return "reserved time"
    return "Singularity containers" if isinstance(executable, SingularityContainer) else "executables of this kind"


def _container(asked: Asked, executable: DockerContainer) -> Iterator[Message]:
    able = asked.able
    if executable.privileged and not able.privileged:
        yield refusal(
            MessageKind.POLICY_REFUSED,
            "/executable/privileged",
            "This platform does not run privileged containers.",
        )
    if not set(asked.request.demand.least.devices) <= {*able.container_devices, SCRATCH}:
        yield refusal(
            MessageKind.NOT_SUPPORTED,
            "/compute",
            "This platform cannot hand devices to containers.",
        )
    yield from _image(asked, executable.image)
    yield from _environment(asked, executable)
    words = [("/executable/entrypoint", executable.entrypoint or "")]
    words += [(f"/executable/command/{at}", word) for at, word in enumerate(executable.command or ())]
    for path, word in words:
        if unusable_text(word):
            yield refusal(MessageKind.INVALID_VALUE, path, "This is no word that a command can have.")
    if able.needs_command and not executable.command and not executable.entrypoint:
        yield refusal(
            MessageKind.NOT_SUPPORTED,
            "/executable/command",
            "This platform cannot run the command that an image has for its own; name it in the request.",
        )
    ports = (executable.network.ports if executable.network else None) or ()
    for at, port in enumerate(ports):
        yield from _port(asked, port, f"/executable/network/ports/{at}")


def _environment(asked: Asked, executable: DockerContainer) -> Iterator[Message]:
    able = asked.able
    allowed = _SHELL_VARIABLE if able.shell_names else _VARIABLE
    for name, value in (executable.environment or {}).items():
        path = f"/executable/environment/{_pointer(name)}"
        if not allowed.fullmatch(name):
            yield refusal(
                MessageKind.INVALID_VALUE,
                path,
                "{name} is no name for an environment variable.",
                name=repr(name),
            )
        elif unusable_text(value):
            yield refusal(
                MessageKind.INVALID_VALUE, path, "The value of {name} is none that Unix can hand over.", name=name
            )
        if able.line_breaks is not None and not fits_a_line(value):
            yield refusal(
                MessageKind.NOT_SUPPORTED,
                path,
                "{engine} cannot hand over a value with line breaks, or a very long one, to a container.",
                engine=able.line_breaks,
            )


def unusable_text(text: str) -> bool:
    """Whether a string cannot be a word or variable of a process: it has a NUL, no UTF-8 form, or is too long."""
    if "\0" in text or len(text) > _LONGEST_WORD:
        return True
    try:
        return len(text.encode("utf-8")) > _LONGEST_WORD
    except UnicodeEncodeError:
        return True


def fits_a_line(value: str) -> bool:
    """Whether a value survives in a file of lines, as engines read their environment from."""
    return len(value) <= 32_000 and not any(char in value for char in "\r\n")


def _image(asked: Asked, image: DockerImage | None) -> Iterator[Message]:
    path = "/executable/image"
    if image is None or not image.locations:
        yield refusal(MessageKind.MISSING_VALUE, f"{path}/locations", "A container needs a location of its image.")
    for at, location in enumerate((image.locations if image else None) or ()):
        reference = read_reference(location)
        allowed = asked.able.registries
        if reference is None:
            yield refusal(
                MessageKind.INVALID_VALUE,
                f"{path}/locations/{at}",
                "{location} is no location of an image; expected registry/name:tag.",
                location=location[:200],
            )
        elif allowed is not None and reference.registry not in allowed:
            yield refusal(
                MessageKind.POLICY_REFUSED,
                f"{path}/locations/{at}",
                "This platform takes no images from {registry}.",
                registry=reference.registry,
            )
    if image is None or not image.digest:
        yield refusal(MessageKind.MISSING_VALUE, f"{path}/digest", "A container needs the digest of its image.")
    elif not is_digest(image.digest):
        yield refusal(
            MessageKind.INVALID_VALUE,
            f"{path}/digest",
            "{digest} is no digest; expected sha256: and 64 hexadecimal digits.",
            digest=image.digest[:200],
        )
    platform = image.platform if image else None
    for name, wanted, here in (
        ("architecture", (platform.architecture if platform else None) or "amd64", asked.able.architecture),
        ("os", (platform.os if platform else None) or "linux", asked.able.system),
    ):
        if wanted != here:
            yield refusal(
                MessageKind.NOT_SUPPORTED,
                f"{path}/platform/{name}",
                "This platform runs images for {here}, not for {wanted}.",
                here=here,
                wanted=wanted[:100],
            )


def _port(asked: Asked, port: DockerPort, path: str) -> Iterator[Message]:
    number = port.internal.port if port.internal is not None else None
    if number is None:
        yield refusal(MessageKind.MISSING_VALUE, f"{path}/internal/port", "A port needs its number inside.")
    elif not 1 <= number <= 65535:
        yield refusal(
            MessageKind.INVALID_VALUE,
            f"{path}/internal/port",
            "{number} is no port; expected 1 to 65535.",
            number=number,
        )
    protocol = port.protocol or "TCP"
    if protocol not in _PROTOCOLS:
        yield refusal(
            MessageKind.INVALID_VALUE,
            f"{path}/protocol",
            "{protocol} is no protocol; expected one of TCP, UDP, HTTP, HTTPS.",
            protocol=protocol[:100],
        )
    elif protocol == "UDP" and not asked.able.udp:
        yield refusal(MessageKind.NOT_SUPPORTED, f"{path}/protocol", "This platform does not publish UDP ports.")
    if asked.able.ports is not None and port.access is not False:
        yield refusal(MessageKind.NOT_SUPPORTED, path, "No port is reached here: {reason}.", reason=asked.able.ports)
    if any(ord(char) <= 32 or char == "\x7f" for char in port.path or ""):
        yield refusal(MessageKind.INVALID_VALUE, f"{path}/path", "The path is no part of a URL.")


# --- what it needs -----------------------------------------------------------------------------------------------


def _compute(asked: Asked) -> Iterator[Message]:
    compute, least, able = asked.request.compute, asked.request.demand.least, asked.able
    if compute is not None and not isinstance(compute, able.computes):
        yield unknown_kind("/compute", "a compute resource", compute)
    wanted = asked.request.demand.nodes
    if able.nodes is not None and wanted > able.nodes:
        yield refusal(
            MessageKind.RESOURCE_LIMIT,
            "/compute/nodes/min",
            "This platform has {has} node{s}, not {wanted}.",
            has=able.nodes,
            s="" if able.nodes == 1 else "s",
            wanted=wanted,
        )
    elif able.spread is not None and wanted > 1 and not isinstance(asked.request.executable, able.spread):
        yield refusal(
            MessageKind.NOT_SUPPORTED,
            "/compute/nodes/min",
            "This platform runs {what} on one node, not on {wanted}.",
            what=_plural(asked.request.executable),
            wanted=wanted,
        )
    if able.most is not None:
        yield from _too_large(least, able.most)


def _too_large(least: Shape, has: Shape) -> Iterator[Message]:
    if least.cores > has.cores:
        yield refusal(
            MessageKind.RESOURCE_LIMIT,
            "/compute/cores/min",
            "This platform has {has} cores, not {wanted}.",
            has=has.cores,
            wanted=least.cores,
        )
    if least.memory > has.memory:
        yield refusal(
            MessageKind.RESOURCE_LIMIT,
            "/compute/memory/min",
            "This platform has {has} GiB of memory, not {wanted}.",
            has=round(has.memory / 1024, 2),
            wanted=round(least.memory / 1024, 2),
        )
    for kind, count in least.devices.items():
        if count > has.devices.get(kind, 0):
            yield refusal(
                MessageKind.RESOURCE_LIMIT,
                asked_at(kind),
                "This platform has {has} {device} on a node, not {wanted}.",
                has=has.devices.get(kind, 0),
                device=kind,
                wanted=count,
            )


def _storage(asked: Asked) -> Iterator[Message]:
    total, most = 0, int(asked.able.storage_gib * GIBI)
    last = None
    for at, element in enumerate(asked.request.storage):
        path = f"/storage/{at}"
        if not isinstance(element, SimpleStorage):
            yield unknown_kind(path, "storage", element)
            continue
        least = (element.size.min if element.size is not None else None) or 0
        total += least * GIBI
        if total > most:
            last = path
    if last is not None:
        yield refusal(
            MessageKind.RESOURCE_LIMIT,
            f"{last}/size/min",
            "A session gets at most {has} GiB of storage here, not {wanted}.",
            has=asked.able.storage_gib,
            wanted=total // GIBI,
        )


def _data(asked: Asked) -> Iterator[Message]:
    for at, element in enumerate(asked.request.data):
        path = f"/data/{at}"
        if isinstance(element, SimpleData):
            yield from _url(asked, element.location, f"{path}/location", asked.able.data_schemes)
        elif isinstance(element, S3Data) and "s3" in asked.able.data_schemes:
            yield from _url(asked, data_url(element), f"{path}/object", asked.able.data_schemes)
        elif isinstance(element, IvoaData):
            url = data_url(element)
            if url is None:
                yield refusal(
                    MessageKind.MISSING_VALUE,
                    f"{path}/ivoa/obscore/access_url",
                    "Data {name} has no access_url in its obscore or datalink metadata; "
                    "this platform cannot find data by other identifiers.",
                    name=label(element, str(at)),
                )
                continue
            row = element.ivoa.obscore if element.ivoa is not None else None
            of = "obscore" if row is not None and row.access_url else "datalink"
            yield from _url(asked, url, f"{path}/ivoa/{of}/access_url", asked.able.data_schemes)
            yield from _stated_length(asked, element, path)
        else:
            yield unknown_kind(path, "data", element)


def _stated_length(asked: Asked, element: IvoaData, path: str) -> Iterator[Message]:
    link = element.ivoa.datalink if element.ivoa is not None else None
    stated = link.content_length if link is not None else None
    most = int(min(asked.able.max_download_gib, asked.able.storage_gib) * GIBI)
    where = f"{path}/ivoa/datalink/content_length"
    if stated is not None and stated < 0:
        yield refusal(MessageKind.INVALID_VALUE, where, "A length cannot be below zero.")
    elif stated is not None and stated > most:
        yield refusal(
            MessageKind.RESOURCE_LIMIT,
            where,
            "This platform fetches at most {has} bytes, not {wanted}.",
            has=most,
            wanted=stated,
        )


def _volumes(asked: Asked) -> Iterator[Message]:
    request = asked.request
    inside = not isinstance(request.executable, JupyterNotebook | BatchScript)
    sound = True
    for at, volume in enumerate(request.volumes):
        path = f"/compute/volumes/{at}"
        if not isinstance(volume, SimpleVolume):
            yield unknown_kind(path, "a volume", volume)
            sound = False
            continue
        reason = unusable_path(volume.path, inside_container=inside)
        if reason is not None:
            yield refusal(
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
        yield refusal(
            MessageKind.RESOURCE_NOT_FOUND,
            "/compute/volumes",
            "A volume cannot be mounted: {why}.",
            why=str(error),
        )
        return
    taken = {posixpath.normpath(RESULTS)} if inside else set()
    for at, mount in enumerate(shown):
        if mount.target in taken:
            yield refusal(
                MessageKind.DUPLICATE_RESOURCE,
                f"/compute/volumes/{at}/path",
                "{where} is taken already.",
                where=mount.target,
            )
        taken.add(mount.target)


def _url(asked: Asked, url: str | None, path: str, schemes: tuple[str, ...] = ()) -> Iterator[Message]:
    if not url:
        yield refusal(MessageKind.MISSING_VALUE, path, "A URL is needed here.")
        return
    try:
        read_location(url, asked.able.file_roots, schemes, private=asked.able.private_networks)
    except LocationError as error:
        yield refusal(
            MessageKind.POLICY_REFUSED if error.forbidden else MessageKind.NOT_SUPPORTED,
            path,
            "{url} cannot be used here: {why}.",
            url=url[:500],
            why=str(error),
        )


def _pointer(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
