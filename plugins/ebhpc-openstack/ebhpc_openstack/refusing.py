"""Why a request cannot become a server, beside what ``ebhpc.batch`` refuses."""

from __future__ import annotations

from collections.abc import Iterator

from ebhpc.model import DockerContainer, Message, MessageKind, Request, message
from ebhpc_openstack.settings import OpenStackSettings

MOST_CARRIED = 60_000
"""Characters of command and environment that have a chance to go into user data, compressed."""


def refusals(request: Request, settings: OpenStackSettings) -> Iterator[Message]:
    """Yield why no server can run the request."""
    if request.demand.nodes > 1:
        text = "A server of this cloud is one node; {nodes} were asked for."
        yield message(MessageKind.NOT_SUPPORTED, text, nodes=request.demand.nodes, path="/compute/nodes")
    if request.demand.exclusive:
        text = "Nobody has a hypervisor of this cloud alone."
        yield message(MessageKind.NOT_SUPPORTED, text, path="/compute/exclusive")
    executable = request.executable
    if not isinstance(executable, DockerContainer):
        return
    ports = (executable.network.ports if executable.network else None) or ()
    if ports and settings.connectors.through == "none":
        text = "The ports of containers cannot be reached on this platform."
        yield message(MessageKind.NOT_SUPPORTED, text, path="/executable/network/ports")
    size = sum(len(word) for word in executable.command or ())
    size += sum(len(name) + len(value) for name, value in (executable.environment or {}).items())
    if size > MOST_CARRIED:
        text = "Command and environment have {size} characters; a server of this cloud takes {most}."
        yield message(MessageKind.RESOURCE_LIMIT, text, size=size, most=MOST_CARRIED, path="/executable/environment")
