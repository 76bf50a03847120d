"""The IVOA's support interfaces (VOSI 1.1): ``/availability`` and ``/capabilities``, for registries and monitors.

Their namespaces are those of the schemas VOSIAvailability 1.0, VOSICapabilities 1.0, VOResource 1.1 and
VODataService 1.1. The draft of the Execution Broker has no registered identifier yet, so its capability has none.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from xml.etree import ElementTree as ET

import falcon
from msgspec import Struct

from ebhpc.api.access import Access, Readable
from ebhpc.api.broker import Broker
from ebhpc.api.health import look
from ebhpc.api.wire import base_url

XML = "application/xml"

_AVAILABILITY = "http://www.ivoa.net/xml/VOSIAvailability/v1.0"
_CAPABILITIES = "http://www.ivoa.net/xml/VOSICapabilities/v1.0"
_RESOURCE = "http://www.ivoa.net/xml/VOResource/v1.0"
_DATA_SERVICE = "http://www.ivoa.net/xml/VODataService/v1.1"
_INSTANCE = "http://www.w3.org/2001/XMLSchema-instance"

_VOSI = "ivo://ivoa.net/std/VOSI#"
_BASIC = "ivo://ivoa.net/sso#BasicAA"
_TOKENS = "ivo://ivoa.net/sso#OAuth"

for _prefix, _uri in (("avl", _AVAILABILITY), ("vosi", _CAPABILITIES), ("vr", _RESOURCE), ("xsi", _INSTANCE)):
    ET.register_namespace(_prefix, _uri)


class Interface(Struct, frozen=True, kw_only=True):
    """One way to a capability: a URL, the method, the form of the answer, and how one is known (None: not at all)."""

    url: str
    method: str
    answer: str
    security: str | None = None


class Capability(Struct, frozen=True, kw_only=True):
    """What a service can do: the standard's identifier, where it has one, words about it, and its interfaces."""

    standard: str | None
    description: str | None = None
    interfaces: tuple[Interface, ...]


class Availability(Readable):
    """``/availability``."""

    access = Access.EVERYBODY
    form = False

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._since: float | None = None

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer whether requests can be answered now, and what is wrong."""
        health = look(self._broker, self._broker.clock())
        available = health.status != "not ready"
        if not available:
            self._since = None
        elif self._since is None:
            self._since = self._broker.clock()
        notes = [health.reason] if health.reason else []
        resp.data = availability_document(available, self._since, notes)
        resp.content_type = XML


class Capabilities(Readable):
    """``/capabilities``."""

    access = Access.EVERYBODY
    form = False

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer what this service can do, and how it is reached."""
        tokens = bool(self._broker.config.issuers)
        resp.data = capabilities_document(capabilities(base_url(req, self._broker.config.api), tokens=tokens))
        resp.content_type = XML


def capabilities(base: str, *, tokens: bool) -> tuple[Capability, ...]:
    """Return the capabilities of a broker at ``base``; ``tokens``: it takes bearer tokens beside passwords."""
    ways = (_BASIC, _TOKENS) if tokens else (_BASIC,)
    return (
        *(
            Capability(standard=_VOSI + name, interfaces=(Interface(url=f"{base}/{name}", method="GET", answer=XML),))
            for name in ("capabilities", "availability")
        ),
        Capability(
            standard=None,
            description="IVOA Execution Broker (draft 1.0): asks when something can run here, and runs it",
            interfaces=tuple(
                Interface(url=f"{base}/requests", method="POST", answer="application/json", security=way)
                for way in ways
            ),
        ),
    )


def availability_document(available: bool, since: float | None, notes: Iterable[str]) -> bytes:
    """Return the document; ``since`` (POSIX seconds) is when the service was first seen to be up."""
    root = ET.Element(_name(_AVAILABILITY, "availability"))
    ET.SubElement(root, _name(_AVAILABILITY, "available")).text = "true" if available else "false"
    if since is not None:
        text = datetime.fromtimestamp(int(since), UTC).isoformat().replace("+00:00", "Z")
        ET.SubElement(root, _name(_AVAILABILITY, "upSince")).text = text
    for note in notes:
        ET.SubElement(root, _name(_AVAILABILITY, "note")).text = note
    return _text(root)


def capabilities_document(found: Iterable[Capability]) -> bytes:
    """Return the document."""
    # The prefix stands in a value, which ElementTree does not look at
    root = ET.Element(_name(_CAPABILITIES, "capabilities"), {"xmlns:vs": _DATA_SERVICE})
    for one in found:
        item = ET.SubElement(root, "capability", {} if one.standard is None else {"standardID": one.standard})
        if one.description is not None:
            ET.SubElement(item, "description").text = one.description
        for way in one.interfaces:
            role = {} if one.standard is None else {"role": "std"}
            interface = ET.SubElement(item, "interface", {_name(_INSTANCE, "type"): "vs:ParamHTTP", **role})
            ET.SubElement(interface, "accessURL", {"use": "full"}).text = way.url
            if way.security is not None:
                ET.SubElement(interface, "securityMethod", {"standardID": way.security})
            ET.SubElement(interface, "queryType").text = way.method
            ET.SubElement(interface, "resultType").text = way.answer
    return _text(root)


def _name(namespace: str, name: str) -> str:
    return f"{{{namespace}}}{name}"


def _text(root: ET.Element) -> bytes:
    return bytes(ET.tostring(root, encoding="UTF-8", xml_declaration=True))
