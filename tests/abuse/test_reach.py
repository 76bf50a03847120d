"""What a user's URL makes the broker reach: public addresses, and of others those that the site names."""

from __future__ import annotations

import gzip
import io
import ipaddress
import socket
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from ebhpc.batch import runner
from ebhpc.config import Network
from ebhpc.model import MessageKind, SourceRule, Sources
from ebhpc.staging.fetching import FetchFailed, FetchRefused, Limits, fetch
from ebhpc.staging.locations import LocationError, read_location
from ebhpc.staging.reach import may_reach, own_addresses
from ebhpc.staging.sources import url_allowed
from tests.api.conftest import notebook
from tests.local.conftest import HOUR, Workshop, asked, notebook_at, web, workshop
from tests.local.webserver import WebServer, status

__all__ = ["web", "workshop"]

LIMITS = Limits(size=100_000, connect=5, total=20)
HERE = (Network("127.0.0.1/32"),)


def get(url: str, target: Path, *private: Network, **more: Any) -> int:
    location = read_location(url, ())
    return fetch(location, target, roots=(), private=private, limits=more.pop("limits", LIMITS), uuid="u", **more)


class Elsewhere:
    """A web server at 127.0.0.2, which stands for a service inside of the site."""

    def __init__(self, port: int) -> None:
        self.asked = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                self.send_response(200)
                self.send_header("Content-Length", "6")
                self.end_headers()
                self.wfile.write(b"secret")

            def log_message(self, format: str, *args: Any) -> None:
                return

        self.server = HTTPServer(("127.0.0.2", port), Handler)
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.2:{self.port}/"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def inside(web: WebServer) -> Iterator[Elsewhere]:
    """The service inside, at the same port as the web server that may be reached."""
    made = Elsewhere(web.server.server_address[1])
    yield made
    made.close()


# --- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.0.0.1",
        "100.64.0.1",
        "127.0.0.1",
        "127.255.255.254",
        "169.254.169.254",
        "172.16.0.1",
        "192.0.0.1",
        "192.168.1.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a00:1",
        "2002:7f00:1::",
        "2002:a00:1::1",
        "2001:0:0:0:0:0:80ff:fffe",
        "fc00::1",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "2001:db8::1",
    ],
)
def test_addresses_that_are_not_public_are_out_of_reach(address: str) -> None:
    assert not may_reach(ipaddress.ip_address(address), ())


@pytest.mark.parametrize("address", ["1.1.1.1", "193.0.6.139", "2001:67c:2e8:22::c100:68b", "64:ff9b::101:101"])
def test_public_addresses_are_reached(address: str) -> None:
    assert may_reach(ipaddress.ip_address(address), ())


def test_this_hosts_own_addresses_are_out_of_reach_even_where_they_are_public() -> None:
    assert ipaddress.ip_address("127.0.0.1") in own_addresses()
    mine = ipaddress.ip_address("193.0.6.139")
    assert not may_reach(mine, (), {mine})
    assert may_reach(mine, (Network("193.0.6.139/32"),), {mine})


def test_a_network_that_the_site_names_is_reached_and_no_other() -> None:
    private = (Network("10.1.0.0/16"),)
    assert may_reach(ipaddress.ip_address("10.1.2.3"), private)
    assert may_reach(ipaddress.ip_address("::ffff:10.1.2.3"), private)
    assert not may_reach(ipaddress.ip_address("10.2.2.3"), private)


# --- at the request --------------------------------------------------------------------------------------------------


def test_a_request_that_names_such_an_address_is_refused_at_once(workshop: Workshop) -> None:
    platform = workshop.platform(private_networks=[])
    hosts = (
        "127.0.0.1",
        "localhost",
        "LOCALHOST.",
        "x.localhost",
        "[::1]",
        "[::ffff:169.254.169.254]",
        "169.254.169.254",
    )
    for host in hosts:
        (told,) = platform.ebhpc_refuses(request=asked(notebook_at(f"http://{host}:8080/admin.ipynb")))
        assert told.kind == MessageKind.POLICY_REFUSED, host
        assert "private network" in str(told)
        assert (told.values or {})["path"] == "/executable/location"


# --- at the fetch ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "0x7f000001", "127.1", "0177.0.0.1", "[::ffff:127.0.0.1]"]
)
def test_no_way_of_writing_loopback_reaches_it(web: WebServer, tmp_path: Path, host: str) -> None:
    web.put("/a", b"secret")
    port = web.server.server_address[1]
    with pytest.raises((FetchRefused, LocationError, FetchFailed)) as raised:
        get(f"http://{host}:{port}/a", tmp_path / "a")
    assert web.asked == {}
    assert "127.0.0.1" not in str(raised.value).replace(host, "")


def test_a_redirect_inside_is_not_followed(web: WebServer, inside: Elsewhere, tmp_path: Path) -> None:
    url = web.put("/a", status(302, Location=inside.url))
    with pytest.raises(FetchRefused) as raised:
        get(url, tmp_path / "a", *HERE)
    assert raised.value.forbidden
    assert inside.asked == 0
    assert get(url, tmp_path / "a", *HERE, Network("127.0.0.2/32")) == 6  # where the site says so, it is


def test_each_hop_is_held_to_the_sites_lists(web: WebServer, tmp_path: Path) -> None:
    rules = (SourceRule(rule="only public", allow=(web.url("/public/"),), deny=(web.url("/public/not-this"),)),)
    good = web.put("/public/a", b"good")
    web.put("/elsewhere", b"secret")
    web.put("/public/not-this", b"secret")
    assert get(web.put("/public/b", status(302, Location=good)), tmp_path / "b", *HERE, sources=rules) == 4
    web.put("/public/c", status(307, Location="/public/../elsewhere"))
    for at, (first, asked_before) in enumerate(
        [
            (web.put("/public/d", status(302, Location="/elsewhere")), 1),
            (web.put("/public/e", status(301, Location="/public/c")), 2),  # the second of two
            (web.put("/public/f", status(308, Location="/public/%6eot-this")), 1),
            (web.url("/elsewhere"), 0),
        ]
    ):
        before = sum(web.asked.values())
        with pytest.raises(FetchRefused, match="the site's rule 'only public'") as raised:
            get(first, tmp_path / f"refused-{at}", *HERE, sources=rules)
        assert raised.value.forbidden
        assert "not-this" not in str(raised.value), "what stands in a rule is not told"
        assert sum(web.asked.values()) - before == asked_before
    assert "/elsewhere" not in web.asked
    assert "/public/not-this" not in web.asked


def test_a_session_brings_its_rules_to_where_its_things_are_fetched(workshop: Workshop, web: WebServer) -> None:
    from ebhpc.plugins import SessionFailed

    platform = workshop.platform(private_networks=["127.0.0.0/8"])
    web.put("/other.ipynb", b"{}")
    first = web.put("/public/a.ipynb", status(302, Location="/other.ipynb"))
    session = workshop.session(platform, notebook_at(first), duration=HOUR)
    sources = Sources(notebooks=(SourceRule(rule="only public", allow=(web.url("/public/"),)),))
    with pytest.raises(SessionFailed) as raised:
        platform.ebhpc_prepare(session=replace(session, sources=sources))
    (told,) = raised.value.messages
    assert told.kind == MessageKind.POLICY_REFUSED
    assert "only public" in str(told)
    assert "/other.ipynb" not in web.asked


PATTERNS = (
    "*", "example.org", "*.example.org", "https://example.org/public/", "https://example.org/public", "http://example.org:8080/",
    "ftp://example.org/", "https://*.example.org/a/../b", "https://EXAMPLE.ORG./x", "https://*/x", "s3://bucket/x",
)  # fmt: skip
URLS = (
    "https://example.org/public/x", "https://example.org/public", "https://example.org/publicity",
    "HTTPS://EXAMPLE.ORG:443/public//x", "https://example.org/public/%2e%2e/secret", "https://user:pw@example.org/public/x",
    "https://a.example.org/b/c", "http://example.org:8080/x", "http://example.org:80/x", "ftp://example.org/x",
    "https://example.org.evil.net/public/", "https://evil.net\\@example.org/public/", "//example.org/public",
    "not a url", "", "https://[::1]/x", "https://[bad/x", "s3://bucket/x/y", "https://example.org./x",
    "https://example.org/x?y=/public/", "https://example.org:99999/public/x",
)  # fmt: skip


def test_on_nodes_without_ebhpc_urls_are_compared_in_the_same_way() -> None:
    compared = Counter(
        (here := url_allowed(url, allow, deny), here == runner.url_allowed(url, allow, deny))
        for url in URLS
        for pattern in PATTERNS
        for allow, deny in (((pattern,), ()), (None, (pattern,)), (("*",), (pattern,)))
    )
    assert compared.keys() == {(True, True), (False, True)}, "the two differ"


class Names:
    """Answers for names as a hostile name server does: each time something else."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked = 0
        self.real = socket.getaddrinfo

    def __call__(self, host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host != "rebind.example.org":
            return self.real(host, port, *args, **kwargs)
        answer = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in answer]


def test_a_name_that_leads_elsewhere_the_next_time_is_connected_to_where_it_was_looked_at(
    web: WebServer, inside: Elsewhere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.put("/a", b"public")
    names = Names(["127.0.0.1"], ["127.0.0.2"])
    monkeypatch.setattr(socket, "getaddrinfo", names)
    assert get(f"http://rebind.example.org:{inside.port}/a", tmp_path / "a", *HERE) == 6
    assert (tmp_path / "a").read_bytes() == b"public"
    assert names.asked == 1
    with pytest.raises(FetchRefused, match="private network"):
        get(f"http://rebind.example.org:{inside.port}/a", tmp_path / "b", *HERE)
    assert inside.asked == 0


def test_of_several_addresses_only_those_are_tried_that_may_be(
    web: WebServer, inside: Elsewhere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.put("/a", b"public")
    monkeypatch.setattr(socket, "getaddrinfo", Names(["127.0.0.2", "127.0.0.1"]))
    assert get(f"http://rebind.example.org:{inside.port}/a", tmp_path / "a", *HERE) == 6
    assert inside.asked == 0


def test_a_name_that_turns_at_a_redirect_is_looked_at_again(
    web: WebServer, inside: Elsewhere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.put("/a", status(302, Location="/b"))
    monkeypatch.setattr(socket, "getaddrinfo", Names(["127.0.0.1"], ["127.0.0.2"]))
    with pytest.raises(FetchRefused, match="private network"):
        get(f"http://rebind.example.org:{inside.port}/a", tmp_path / "a", *HERE)
    assert inside.asked == 0


def test_behind_a_proxy_an_address_inside_is_refused_too(
    web: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", web.url(""))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(FetchRefused, match="private network"):
        get("http://10.0.0.1/secret", tmp_path / "a")
    assert web.asked == {}


def test_the_session_ends_with_the_rule_and_nothing_of_the_inside(workshop: Workshop, web: WebServer) -> None:
    from ebhpc.plugins import SessionFailed

    platform = workshop.platform(private_networks=[])
    port = web.server.server_address[1]
    session = workshop.session(platform, notebook_at(f"http://127.1:{port}/a.ipynb"), duration=HOUR)
    with pytest.raises(SessionFailed) as raised:
        platform.ebhpc_prepare(session=session)
    (told,) = raised.value.messages
    assert told.kind == MessageKind.POLICY_REFUSED
    assert "127.0.0.1" not in str(told)
    assert web.asked == {}


# --- what is fetched -------------------------------------------------------------------------------------------------


def test_an_archive_that_would_unpack_to_gigabytes_stays_as_it_came(web: WebServer, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", b"\0" * 20_000_000)
        archive.writestr("../../etc/cron.d/evil", b"* * * * * root true\n")
    body = packed.getvalue()
    assert len(body) < LIMITS.size
    assert get(web.put("/bomb.zip", body), tmp_path / "bomb.zip", *HERE) == len(body)
    assert (tmp_path / "bomb.zip").read_bytes() == body
    assert [entry.name for entry in tmp_path.iterdir()] == ["bomb.zip"]


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, gzip"])
def test_an_answer_that_would_unpack_on_the_way_is_not_taken(web: WebServer, tmp_path: Path, encoding: str) -> None:
    body = gzip.compress(gzip.compress(b"\0" * 20_000_000))
    with pytest.raises(FetchFailed, match="encoding"):
        get(web.put("/bomb", body, Content_Encoding=encoding), tmp_path / "bomb", *HERE)
    assert not (tmp_path / "bomb").exists()


def test_an_example_request_is_public() -> None:
    assert read_location(notebook()["executable"]["location"], (), private=()).scheme == "https"
