"""Fetching files: whole, checked, within limits, or not at all."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from ebhpc.config import Network
from ebhpc.staging.fetching import FetchFailed, FetchRefused, Limits, fetch
from ebhpc.staging.locations import LocationError, file_name, read_location
from tests.local.webserver import WebServer, cut_off, endless, status

BODY = b"some light from a star\n"
LIMITS = Limits(size=10_000, connect=5, total=5)


def get(url: str, target: Path, **more: Any) -> int:
    """Fetch a URL."""
    roots = more.pop("roots", ())
    private = (Network("127.0.0.0/8"),)
    location = read_location(url, roots, private=private)
    limits = more.pop("limits", LIMITS)
    return fetch(location, target, roots=roots, private=private, limits=limits, uuid="u", **more)


def b64(algorithm: str, body: bytes = BODY) -> str:
    """Return a checksum as headers have it."""
    return base64.b64encode(hashlib.new(algorithm, body, usedforsecurity=False).digest()).decode()


def test_a_file_is_fetched_once(web: WebServer, tmp_path: Path) -> None:
    url = web.put("/star", BODY)
    assert get(url, tmp_path / "star") == len(BODY)
    assert get(url, tmp_path / "star") == len(BODY)
    assert (tmp_path / "star").read_bytes() == BODY
    assert web.asked["/star"] == 1
    assert os.listdir(tmp_path) == ["star"]


def test_what_a_crash_has_left_is_begun_anew(web: WebServer, tmp_path: Path) -> None:
    (tmp_path / "star.part").write_bytes(b"x" * 100_000)
    get(web.put("/star", BODY), tmp_path / "star")
    assert (tmp_path / "star").read_bytes() == BODY
    assert os.listdir(tmp_path) == ["star"]


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410, 451])
def test_a_server_that_says_no_is_believed(web: WebServer, tmp_path: Path, code: int) -> None:
    with pytest.raises(FetchRefused, match=str(code)) as refused:
        get(web.put("/gone", status(code)), tmp_path / "gone")
    assert refused.value.missing == (code in (401, 403, 404, 410))
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize("code", [408, 425, 429, 500, 502, 503, 504])
def test_a_server_in_trouble_is_asked_again(web: WebServer, tmp_path: Path, code: int) -> None:
    url = web.put("/star", status(code))
    with pytest.raises(FetchFailed, match=str(code)):
        get(url, tmp_path / "star")
    web.put("/star", BODY)
    assert get(url, tmp_path / "star") == len(BODY)


def test_nobody_there_is_a_passing_fault(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(FetchFailed):
        get(f"http://127.0.0.1:{port}/star", tmp_path / "star")


def test_a_server_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/star"
        with pytest.raises(FetchFailed):
            get(url, tmp_path / "star", limits=Limits(size=100, connect=0.2, total=5))


def test_a_transfer_that_is_cut_off_is_a_passing_fault(web: WebServer, tmp_path: Path) -> None:
    with pytest.raises(FetchFailed):
        get(web.put("/star", cut_off(BODY, len(BODY) + 1)), tmp_path / "star")
    assert not (tmp_path / "star").exists()


def test_a_file_that_says_it_is_too_large_is_not_begun(web: WebServer, tmp_path: Path) -> None:
    with pytest.raises(FetchRefused, match="more than 10") as refused:
        get(web.put("/star", BODY), tmp_path / "star", limits=Limits(size=10, connect=5, total=5))
    assert refused.value.large


def test_a_file_that_never_ends_is_cut_off_at_the_limit(web: WebServer, tmp_path: Path) -> None:
    with pytest.raises(FetchRefused, match="more than 10000") as refused:
        get(web.put("/star", endless(b"x" * 1000)), tmp_path / "star")
    assert refused.value.large
    assert not (tmp_path / "star").exists()


def test_a_transfer_that_takes_too_long_is_given_up(web: WebServer, tmp_path: Path) -> None:
    def trickle(request: BaseHTTPRequestHandler) -> None:
        import time

        request.close_connection = True
        request.send_response(200)
        request.end_headers()
        try:
            while True:
                request.wfile.write(b"x")
                request.wfile.flush()
                time.sleep(0.05)
        except OSError:
            return

    with pytest.raises(FetchFailed, match="takes longer"):
        get(web.put("/star", trickle), tmp_path / "star", limits=Limits(size=100_000, connect=5, total=0.5))


def test_redirects_are_followed(web: WebServer, tmp_path: Path) -> None:
    web.put("/there", BODY)
    web.put("/hop", status(302, Location="/there"))
    assert get(web.put("/here", status(301, Location=web.url("/hop"))), tmp_path / "star") == len(BODY)


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://x/"])
def test_a_redirect_leads_to_no_other_scheme(web: WebServer, tmp_path: Path, target: str) -> None:
    with pytest.raises(FetchRefused, match="neither http nor https"):
        get(web.put("/star", status(302, Location=target)), tmp_path / "star")


def test_redirects_in_a_circle_end(web: WebServer, tmp_path: Path) -> None:
    with pytest.raises(FetchRefused, match="redirects more than"):
        get(web.put("/star", status(302, Location="/star")), tmp_path / "star")


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256", "sha384", "sha512"])
def test_the_checksum_in_a_url_is_compared(web: WebServer, tmp_path: Path, algorithm: str) -> None:
    url = web.put("/star", BODY)
    digits = hashlib.new(algorithm, BODY, usedforsecurity=False).hexdigest()
    assert get(f"{url}#{algorithm}={digits}", tmp_path / "star") == len(BODY)
    wrong = digits[:-1] + ("0" if digits[-1] != "0" else "1")
    with pytest.raises(FetchRefused, match=f"{algorithm} is {digits}, not {wrong}"):
        get(f"{url}#{algorithm}={wrong}", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_checksum_of_a_wrong_length_is_no_checksum() -> None:
    with pytest.raises(LocationError, match="64 hexadecimal digits"):
        read_location("https://example.org/x#sha256=abc", ())


@pytest.mark.parametrize(
    ("header", "form"),
    [
        ("Digest", "SHA-256={}"),
        ("Content_Digest", "sha-256=:{}:"),
        ("Repr_Digest", "unknown=:AAAA:, sha-256=:{}:"),
    ],
)
def test_the_checksum_that_a_server_states_is_compared(web: WebServer, tmp_path: Path, header: str, form: str) -> None:
    url = web.put("/star", BODY, **{header: form.format(b64("sha256"))})
    assert get(url, tmp_path / "star") == len(BODY)
    web.put("/star", BODY, **{header: form.format(b64("sha256", b"other"))})
    with pytest.raises(FetchFailed, match="came with the sha256"):
        get(url, tmp_path / "other")


def test_content_md5_is_compared(web: WebServer, tmp_path: Path) -> None:
    url = web.put("/star", BODY, Content_MD5=b64("md5"))
    assert get(url, tmp_path / "star") == len(BODY)
    web.put("/star", BODY, Content_MD5=b64("md5", b"other"))
    with pytest.raises(FetchFailed, match="md5"):
        get(url, tmp_path / "other")


def test_a_header_that_is_no_checksum_says_nothing(web: WebServer, tmp_path: Path) -> None:
    url = web.put("/star", BODY, Digest="sha-256=?, nonsense", Content_MD5="=====")
    assert get(url, tmp_path / "star") == len(BODY)


def test_a_transfer_that_nobody_wants_any_more_stops(web: WebServer, tmp_path: Path) -> None:
    with pytest.raises(FetchFailed, match="not wanted"):
        get(web.put("/star", BODY), tmp_path / "star", stop=lambda: True)


def test_a_file_below_a_root_is_copied(tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    (shelf / "a star.csv").write_bytes(BODY)
    url = (shelf / "a star.csv").as_uri()
    assert get(url, tmp_path / "copy", roots=(shelf,)) == len(BODY)
    with pytest.raises(LocationError, match="file roots"):
        read_location(url, ())


@pytest.mark.parametrize("way", ["link to a file", "link to a folder", "upwards", "encoded"])
def test_no_trick_leads_out_of_a_root(tmp_path: Path, way: str) -> None:
    shelf, secret = tmp_path / "shelf", tmp_path / "secret"
    shelf.mkdir()
    secret.mkdir()
    (secret / "key").write_bytes(BODY)
    (shelf / "file").symlink_to(secret / "key")
    (shelf / "folder").symlink_to(secret)
    url = {
        "link to a file": f"file://{shelf}/file",
        "link to a folder": f"file://{shelf}/folder/key",
        "upwards": f"file://{shelf}/../secret/key",
        "encoded": f"file://{shelf}/%2e%2e/secret/key",
    }[way]
    with pytest.raises(LocationError, match="file roots") as refused:
        read_location(url, (shelf,))
    assert refused.value.forbidden


def test_a_link_that_turns_after_the_look_leads_nowhere(tmp_path: Path) -> None:
    shelf, secret = tmp_path / "shelf", tmp_path / "secret"
    shelf.mkdir()
    secret.write_bytes(BODY)
    (shelf / "star").write_bytes(BODY)
    location = read_location(f"file://{shelf}/star", (shelf,))
    (shelf / "star").unlink()
    (shelf / "star").symlink_to(secret)
    with pytest.raises(FetchRefused, match="file roots"):
        fetch(location, tmp_path / "copy", roots=(shelf,), limits=LIMITS, uuid="u")


def test_a_pipe_or_a_folder_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        with pytest.raises(FetchRefused, match="regular file"):
            get(f"file://{tmp_path}/{name}", tmp_path / "copy", roots=(tmp_path,))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "star.csv",
        "//example.org/star",
        "ftp://example.org/star",
        "http://",
        "http:///star",
        "http://[::1/star",
        "http://example.org:port/",
        "https://example.org/\nHost: other",
        "javascript:alert(1)",
        "file://other.example.org/etc/passwd",
        "file:relative",
        "http://" + "x" * 10_000,
    ],
)
def test_what_is_no_usable_url_is_refused(url: str) -> None:
    with pytest.raises(LocationError):
        read_location(url, (Path("/"),))


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("stars.csv", "stars.csv"),
        ("a/b", "ab"),
        ("..", "data"),
        ("", "data"),
        ("new\nline\0", "newline"),
        ("Šárka.fits", "Šárka.fits"),
        ("x" * 300, "x" * 200),
    ],
)
def test_names_of_files_are_safe(given: str, made: str) -> None:
    assert file_name(given) == made
