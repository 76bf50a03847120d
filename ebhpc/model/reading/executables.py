"""What executables must say to be run."""

from __future__ import annotations

import re
from collections.abc import Iterable

from msgspec.structs import replace

from ebhpc.model.batch_script import BatchScript
from ebhpc.model.elements import (
    DockerContainer,
    DockerImage,
    DockerNetwork,
    DockerPlatform,
    DockerPort,
    Executable,
    JupyterNotebook,
    SingularityContainer,
)
from ebhpc.model.messages import MessageKind
from ebhpc.model.reading.batch_script import read_batch_script
from ebhpc.model.reading.environment import check_environment
from ebhpc.model.reading.findings import Findings
from ebhpc.model.reading.reserved_time import read_reserved_time
from ebhpc.model.reserved_time import ReservedTime

PROTOCOLS = ("TCP", "UDP", "HTTP", "HTTPS")
"""What a published port may speak; all but UDP are TCP to the network."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,63}")

_LONGEST_LOCATION = 512
# The grammar of image references, as the OCI distribution project's `reference` package has it.
_HOST_PART = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_PATH_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_LOCATION = re.compile(
    rf"(?:(?:{_HOST_PART}(?:\.{_HOST_PART})*|\[[0-9A-Fa-f:]+\])(?::[0-9]{{1,5}})?/)?"
    rf"{_PATH_PART}(?:/{_PATH_PART})*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?",
    re.ASCII,
)


def read_executable(executable: Executable, findings: Findings) -> Executable:
    """Return the executable with its defaults filled in; what is wrong goes to ``findings``."""
    if isinstance(executable, DockerContainer):
        return _read_container(executable, findings)
    if isinstance(executable, BatchScript):
        return read_batch_script(executable, findings)
    if isinstance(executable, ReservedTime):
        return read_reserved_time(executable, findings)
    if isinstance(executable, JupyterNotebook | SingularityContainer):
        if executable.location is None:
            what = "notebook" if isinstance(executable, JupyterNotebook) else "container image"
            findings.missing("/executable/location", f"the URL of the {what}")
        findings.url(executable.location, "/executable/location")
    return executable


def _read_container(container: DockerContainer, findings: Findings) -> DockerContainer:
    command = container.command or []
    if findings.few(command, "/executable/command"):
        for place, argument in enumerate(command):
            findings.text(argument, f"/executable/command/{place}")
    if container.entrypoint is not None:
        findings.line(container.entrypoint, "/executable/entrypoint", "a program")
    check_environment(container.environment or {}, findings)
    return replace(
        container,
        image=_read_image(container.image, findings),
        privileged=bool(container.privileged),
        network=_read_network(container.network, findings),
    )


def _read_image(image: DockerImage | None, findings: Findings) -> DockerImage:
    image = image or DockerImage()
    path = "/executable/image"
    if not image.locations:
        findings.missing(f"{path}/locations", "at least one image location")
    if image.digest is None:
        findings.missing(f"{path}/digest", "the image's digest, sha256: and 64 hexadecimal digits")
    elif not _DIGEST.fullmatch(image.digest):
        findings.invalid(f"{path}/digest", image.digest, "sha256: and 64 hexadecimal digits in lower case")
    if image.locations and findings.few(image.locations, f"{path}/locations"):
        for place, location in enumerate(image.locations):
            _check_location(location, image.digest, f"{path}/locations/{place}", findings)
    platform = image.platform or DockerPlatform()
    platform = DockerPlatform(architecture=platform.architecture or "amd64", os=platform.os or "linux")
    for field, value in (("architecture", platform.architecture), ("os", platform.os)):
        if value and not _WORD.fullmatch(value):
            findings.invalid(f"{path}/platform/{field}", value, "a word such as amd64, arm64 or linux")
    return replace(image, platform=platform)


def _check_location(location: str, digest: str | None, path: str, findings: Findings) -> None:
    match = _LOCATION.fullmatch(location) if len(location) <= _LONGEST_LOCATION else None
    if match is None:
        findings.invalid(path, location, "an image reference such as registry.example.org/group/image:tag")
    elif match["digest"] and digest and match["digest"] != digest:
        findings.invalid(path, location, f"the digest that /executable/image/digest has, {digest}")


def _read_network(network: DockerNetwork | None, findings: Findings) -> DockerNetwork | None:
    if network is None or network.ports is None:
        return network
    path = "/executable/network/ports"
    if not findings.few(network.ports, path):
        return network
    ports = [_read_port(port, f"{path}/{place}", findings) for place, port in enumerate(network.ports)]
    _check_published_once(ports, path, findings)
    return DockerNetwork(ports=ports)


def _read_port(port: DockerPort, path: str, findings: Findings) -> DockerPort:
    number = port.internal.port if port.internal else None
    if number is None:
        findings.missing(f"{path}/internal/port", "the port inside the container, 1 to 65535")
    elif not 1 <= number <= 65_535:
        findings.invalid(f"{path}/internal/port", number, "1 to 65535")
    protocol = (port.protocol or "TCP").upper()
    if protocol not in PROTOCOLS:
        findings.invalid(f"{path}/protocol", port.protocol, "one of " + ", ".join(PROTOCOLS))
    if port.path:
        findings.line(port.path, f"{path}/path", "the path of a URL")
    # Where it is reached from outside is the broker's to say.
    return replace(port, protocol=protocol, external=None)


def _check_published_once(ports: Iterable[DockerPort], path: str, findings: Findings) -> None:
    seen: dict[tuple[int, bool], int] = {}
    for place, port in enumerate(ports):
        if port.internal is None or port.internal.port is None:
            continue
        key = (port.internal.port, port.protocol == "UDP")
        first = seen.setdefault(key, place)
        if first != place:
            findings.reject(
                MessageKind.DUPLICATE_RESOURCE,
                "port {value} at {path} is published already, by {first}",
                f"{path}/{place}",
                value=f"{key[0]}/{'udp' if key[1] else 'tcp'}",
                first=f"{path}/{first}",
            )
