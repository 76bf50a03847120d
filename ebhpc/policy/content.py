"""What may run, and on what data: the reasons why a request's content is not allowed, with the rule's name.

A refusal names the rule and what it refused, and nothing else that stands in the rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import msgspec

from ebhpc.config.rules import Allowance, ContentRule, port_range
from ebhpc.model import (
    BatchScript,
    Data,
    DockerContainer,
    IvoaData,
    JupyterNotebook,
    Message,
    MessageKind,
    Request,
    SimpleData,
    SingularityContainer,
    SourceRule,
    Sources,
    message,
)
from ebhpc.policy.patterns import image_matches, kind_matches
from ebhpc.staging.references import read_reference
from ebhpc.staging.sources import Place, host_matches, place_matches, place_of, url_allowed
from ebhpc.staging.volumes import data_url

_IMAGES = ("docker", "oras", "library", "shub", "oci")
"""Schemes of images that come from registries."""


def refused_content(rules: Sequence[ContentRule], request: Request) -> Iterator[Message]:
    """Yield why a request's content is not allowed: a message for each thing and rule."""
    for rule in rules:
        yield from _executable(rule, request)
        for at, item in enumerate(request.data):
            yield from _data(rule, item, f"/data/{at}")


def sources_of(rules: Sequence[ContentRule]) -> Sources:
    """Return from where the rules let a session's things be fetched, for those who fetch them."""

    def of(what: Literal["data", "notebooks"]) -> tuple[SourceRule, ...]:
        lists = [(rule.name, getattr(rule, what)) for rule in rules]
        return tuple(SourceRule(rule=name, allow=one.allow, deny=one.deny) for name, one in lists if one != Allowance())

    return Sources(data=of("data"), notebooks=of("notebooks"))


def _executable(rule: ContentRule, request: Request) -> Iterator[Message]:
    executable = request.executable
    kind = str(type(executable).__struct_config__.tag or "")
    if not _allowed(rule.executables, kind, kind_matches):
        yield _refusal(rule, "/executable/kind", "executables of the kind {executable}", executable=kind)
    if isinstance(executable, DockerContainer):
        image = executable.image
        for at, location in enumerate((image.locations if image else None) or ()):
            yield from _image(rule, location, f"/executable/image/locations/{at}")
        yield from _digest(rule, image.digest if image else None)
        for at, port in enumerate((executable.network.ports if executable.network else None) or ()):
            numbers = [one.port for one in (port.internal, port.external) if one is not None and one.port is not None]
            for number in dict.fromkeys(numbers):
                if not _port_allowed(rule, number):
                    yield _refusal(rule, f"/executable/network/ports/{at}", "the port {port}", port=number)
    elif isinstance(executable, SingularityContainer):
        yield from _image(rule, executable.location or "", "/executable/location")
        yield from _digest(rule, _digest_of(executable.location or ""))
    elif isinstance(executable, JupyterNotebook):
        yield from _fetched(rule, executable.location or "", "notebooks")
    elif isinstance(executable, BatchScript) and executable.script is None:
        yield from _fetched(rule, executable.location or "", "scripts")


def _fetched(rule: ContentRule, location: str, what: str) -> Iterator[Message]:
    if not url_allowed(location, rule.notebooks.allow, rule.notebooks.deny):
        yield _refusal(rule, "/executable/location", what + " from {location}", location=_shown(location))


def _image(rule: ContentRule, location: str, path: str) -> Iterator[Message]:
    registry, name, place = _source(location)
    if not _allowed(rule.registries, registry, host_matches):
        yield _refusal(rule, path, "images from {registry}", registry=registry or _shown(location))

    def fits(pattern: str, value: str) -> bool:
        if "://" in pattern:
            return place is not None and place_matches(pattern, place)
        return bool(name) and image_matches(pattern, value)

    if not _allowed(rule.images, name, fits):
        yield _refusal(rule, path, "the image {image}", image=name or _shown(location))


def _source(location: str) -> tuple[str, str, Place | None]:
    """Return the registry or host that an image comes from, its plain name there, and its place if it is a URL."""
    scheme, colon, rest = location.partition("://")
    if not colon or scheme.lower() == "docker":
        reference = read_reference(rest if colon else location)
        if reference is None:
            return "", "", None
        registry = reference.registry.lower()
        return registry, f"{registry}/{reference.path}", None
    place = place_of(location)
    if place is None:
        return "", "", None
    name = f"{place.host}{place.path}" if scheme.lower() in _IMAGES else ""
    return place.host, name.partition("@")[0], place


def _digest_of(location: str) -> str | None:
    """Return the digest in an image's location: ``…@sha256:…``, or ``…#sha256=…`` of a URL."""
    for mark in ("@sha256:", "#sha256="):
        _, found, digits = location.partition(mark)
        if found:
            return "sha256:" + digits
    return None


def _digest(rule: ContentRule, digest: str | None) -> Iterator[Message]:
    if not _allowed(
        rule.digests, digest or "", lambda pattern, value: bool(value) and pattern.lower() == value.lower()
    ):
        yield _refusal(rule, "/executable", "an image with the digest {digest}", digest=digest or "(none)")


def _data(rule: ContentRule, item: Data, path: str) -> Iterator[Message]:
    if rule.data == Allowance():
        return
    urls = [data_url(item) or ""] if isinstance(item, SimpleData | IvoaData) else _urls(msgspec.to_builtins(item))
    for url in urls or [""]:  # where it comes from cannot be seen
        if not url_allowed(url, rule.data.allow, rule.data.deny):
            yield _refusal(rule, path, "data from {location}", location=_shown(url) or "a place that it does not tell")


def _urls(value: object) -> list[str]:
    """Return all that looks like a URL in plain data."""
    if isinstance(value, str):
        return [value] if "://" in value else []
    if isinstance(value, dict):
        return [url for name, item in value.items() if name not in ("kind", "meta") for url in _urls(item)]
    if isinstance(value, list):
        return [url for item in value for url in _urls(item)]
    return []


def _allowed(allowance: Allowance, value: str, fits: Callable[[str, str], bool]) -> bool:
    if any(fits(pattern, value) for pattern in allowance.deny):
        return False
    return allowance.allow is None or any(fits(pattern, value) for pattern in allowance.allow)


def _port_allowed(rule: ContentRule, number: int) -> bool:
    if any(number in port_range(text) for text in rule.ports.deny):
        return False
    return rule.ports.allow is None or any(number in port_range(text) for text in rule.ports.allow)


def _shown(url: str) -> str:
    """Return a URL without what may be secret in it: its user, its query."""
    place = place_of(url)
    return f"{place.scheme}://{place.host}{place.path}"[:200] if place is not None else url.partition("?")[0][:200]


def _refusal(rule: ContentRule, path: str, what: str, **values: object) -> Message:
    text = "The site's rule {rule} does not allow " + what + "."
    about = MessageKind.POLICY_REFUSED
    return message(about, text, level="ERROR", time=None, path=path, rule=repr(rule.name), **values)
