"""Which addresses the broker fetches from on users' behalf; and connections to no address but one that was looked at.

A user names a URL, and the broker's host, which may reach what the user cannot, fetches it. So an address that is not
a public one is refused unless the site names its network; that is asked of the very address that is then connected to,
at each redirect anew, because a name may lead elsewhere the next time it is looked up ("DNS rebinding").
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import urllib.request
from collections.abc import Collection, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpcore
import httpx
import psutil

from ebhpc.config import Network

log = logging.getLogger(__name__)

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_COMPATIBLE = ipaddress.IPv6Network("::/96")

WHY = "its host lies in a private network, from which nothing is fetched here"


class OutOfReach(Exception):
    """A host's address is none that is fetched from. The text is for users: it does not tell the address."""


def may_reach(address: IPAddress, private: Sequence[Network], own: Collection[IPAddress] = ()) -> bool:
    """Whether an address may be fetched from: a public one, or one in a network that the site names.

    ``own`` are this host's addresses: what listens there may be open to this host alone. An IPv6 address that stands
    for an IPv4 address is as private as that.
    """
    for meant in _meanings(address):
        if any(meant in network.range for network in private):
            continue
        if not meant.is_global or meant.is_multicast or meant.is_reserved or meant in own:
            return False
        if isinstance(meant, ipaddress.IPv6Address) and meant.is_site_local:
            return False
    return True


def literal_out_of_reach(host: str, private: Sequence[Network]) -> bool:
    """Whether a URL's host is, as it is written, an address or a name of this host's that is not fetched from."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return not any(ipaddress.ip_address("127.0.0.1") in network.range for network in private)
    try:
        return not may_reach(ipaddress.ip_address(name.partition("%")[0]), private)
    except ValueError:
        return False  # a name; what it leads to is looked at when it is fetched


def own_addresses() -> set[IPAddress]:
    """Return this host's own addresses."""
    found = set()
    for those in psutil.net_if_addrs().values():
        for one in those:
            if one.family in (socket.AF_INET, socket.AF_INET6):
                found.add(ipaddress.ip_address(one.address.partition("%")[0]))
    return found


def reachable(host: str, port: int, private: Sequence[Network]) -> list[str]:
    """Look a host up, and return those of its addresses that may be fetched from.

    Raises:
        OutOfReach: it has addresses, and none of them may.
        OSError: it cannot be looked up.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(one[4][0]) for one in found))
    own = own_addresses()
    usable = [text for text in addresses if may_reach(ipaddress.ip_address(text.partition("%")[0]), private, own)]
    if not usable:
        log.warning("%a leads to %s, from which nothing is fetched", host, ", ".join(addresses))
        raise OutOfReach(WHY)
    return usable


class GuardedTransport(httpx.HTTPTransport):
    """Connects only to addresses that may be fetched from."""

    def __init__(self, private: Sequence[Network]) -> None:
        super().__init__()
        self._pool = httpcore.ConnectionPool(
            ssl_context=httpx.create_ssl_context(), network_backend=_GuardedBackend(private), retries=0
        )


def transport_for(url: str, private: Sequence[Network]) -> httpx.BaseTransport:
    """Return what a URL is fetched through: the network itself, or the proxy that the environment names.

    A proxy looks names up by itself: what it may reach is its own operator's rule. We still refuse a host that is
    out of reach by what we see.

    Raises:
        OutOfReach: behind a proxy, the host is one.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    proxy = urllib.request.getproxies().get(parts.scheme)
    if not proxy or urllib.request.proxy_bypass(host):
        return GuardedTransport(private)
    try:
        reachable(host, parts.port or 443, private)
    except (OSError, UnicodeError):
        log.debug("%a cannot be looked up here; the proxy may know it", host)
    return httpx.HTTPTransport(proxy=httpx.Proxy(proxy if "://" in proxy else f"http://{proxy}"))


class _GuardedBackend(httpcore.SyncBackend):
    """Looks up, looks at, and connects to one and the same address."""

    def __init__(self, private: Sequence[Network]) -> None:
        super().__init__()
        self._private = private

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first address that answers, of those that may be fetched from."""
        try:
            addresses = reachable(host, port, self._private)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(str(error)) from error
        failure: httpcore.ConnectError | httpcore.ConnectTimeout | None = None
        for address in addresses[:4]:
            try:
                return super().connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        assert failure is not None
        raise failure

    def connect_unix_socket(self, *args: Any, **kwargs: Any) -> httpcore.NetworkStream:
        """Refuse: no URL leads to a Unix socket."""
        raise httpcore.ConnectError("no Unix sockets")


def _meanings(address: IPAddress) -> list[IPAddress]:
    """Return an address and the IPv4 addresses that it stands for."""
    meant: list[IPAddress] = [address]
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return [address.ipv4_mapped]
        if address in _NAT64:
            return [_last(address)]
        if address.teredo is not None:
            meant += address.teredo
        if address.sixtofour is not None:
            meant.append(address.sixtofour)
        if address in _COMPATIBLE and int(address) > 1:
            meant.append(_last(address))
    return meant


def _last(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address:
    """Return the IPv4 address in the last 32 bits."""
    return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
