"""podman or docker, as the platform uses it: finding it, fetching images and knowing what is there."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from ebhpc.local.settings import Runtime

_PATIENCE = 30.0
"""Seconds for a command that has nothing to fetch."""

_AGAIN = 60.0
"""Seconds after which an engine that was not there is looked for again."""

_ENVIRONMENT = (
    "PATH",
    "HOME",
    "LANG",
    "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "DBUS_SESSION_BUS_ADDRESS",
    "DOCKER_HOST",
    "DOCKER_CONFIG",
    "CONTAINERS_CONF",
    "CONTAINERS_STORAGE_CONF",
    "CONTAINERS_REGISTRIES_CONF",
    "REGISTRY_AUTH_FILE",
    "TMPDIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
)
"""What an engine gets of the broker's environment, which may hold secrets in the rest."""


class EngineFailed(Exception):
    """The engine said no, or nothing; ``text`` is what it said."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(text)


class Engine(Struct, frozen=True, kw_only=True):
    """A container engine: its ``program``, ``options`` before each command, and ``environment``."""

    program: str
    options: tuple[str, ...]
    environment: dict[str, str]
    podman: bool
    version: str

    @property
    def name(self) -> str:
        """The program's name."""
        return Path(self.program).name

    @property
    def command(self) -> list[str]:
        """Program and options: what each call begins with."""
        return [self.program, *self.options]

    @property
    def rootless(self) -> bool:
        """Whether containers run in a user namespace of this user."""
        return self.podman and os.geteuid() != 0

    @property
    def forwards(self) -> bool:
        """Whether we may enter the network of its containers: as root, or where they are our own."""
        return os.geteuid() == 0 or self.podman

    def call(self, *words: str, timeout: float = _PATIENCE, stdin: bytes | None = None) -> str:
        """Run one command of the engine; return its stdout.

        Raises:
            EngineFailed: its exit code is not zero, or it does not end in ``timeout`` seconds.
        """
        try:
            done = subprocess.run(
                [*self.command, *words],
                env=self.environment,
                input=stdin if stdin is not None else b"",
                capture_output=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise EngineFailed(f"{self.name} {words[0]} did not end within {timeout:.0f} s") from None
        except OSError as error:
            raise EngineFailed(f"{self.program} cannot be run: {error.strerror}") from None
        if done.returncode != 0:
            text = done.stderr.decode("utf-8", "replace").strip() or f"exit code {done.returncode}"
            raise EngineFailed(text[-2000:])
        return done.stdout.decode("utf-8", "replace")

    def image(self, name: str) -> dict[str, Any] | None:
        """Return what the engine knows of a local image; None if it has none of that name."""
        try:
            found = json.loads(self.call("image", "inspect", name))
        except EngineFailed:
            return None
        return found[0] if found else None

    def remove_image(self, name: str) -> None:
        """Remove an image, unless a container still uses it."""
        with contextlib.suppress(EngineFailed):
            self.call("image", "rm", name)


class EngineSearch:
    """Looks for a container engine that works, and remembers the answer."""

    def __init__(self, settings: Runtime) -> None:
        self.settings = settings
        self.reason = "no container engine was looked for yet"
        self._lock = threading.Lock()
        self._found: Engine | None = None
        self._looked: float | None = None

    def engine(self) -> Engine | None:
        """Return the engine; None if there is none, with the ``reason``."""
        with self._lock:
            if self._found is None and (self._looked is None or time.monotonic() > self._looked + _AGAIN):
                self._found = self._look()
                self._looked = time.monotonic()
            return self._found

    def _look(self) -> Engine | None:
        names = (self.settings.program,) if self.settings.program else ("podman", "docker")
        reasons = []
        for name in names:
            program = shutil.which(name)
            if program is None:
                reasons.append(f"{name} is not installed")
                continue
            try:
                return self._try(program)
            except EngineFailed as error:
                reasons.append(f"{name} does not work: {' '.join(error.text.split())[-300:]}")
        self.reason = "; ".join(reasons)
        return None

    def _try(self, program: str) -> Engine:
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        engine = Engine(
            program=program,
            options=tuple(self.settings.options),
            environment={**environment, **self.settings.environment},
            podman=Path(program).name.startswith("podman"),
            version="",
        )
        text = engine.call("version", "--format", "{{json .}}")
        found = json.loads(text)
        # docker answers for itself even where its daemon does not; podman without a daemon has no Server
        if not engine.podman and not found.get("Server"):
            raise EngineFailed("its daemon does not answer")
        version = str((found.get("Server") or found.get("Client") or {}).get("Version", ""))
        # Debian's podman-docker is podman by the name of docker
        podman = engine.podman or "podman" in engine.call("--version").lower()
        return Engine(
            program=program,
            options=engine.options,
            environment=engine.environment,
            podman=podman,
            version=version,
        )


_MISSING_MANIFEST = re.compile(
    r"manifest unknown|manifest for .* not found|does not match (?:provided|expected) manifest digest"
    r"|digest.*(?:does not match|mismatch)|manifest verification failed",
    re.IGNORECASE,
)
_MISSING_IMAGE = re.compile(
    r"name unknown|repository .*not found|unauthorized|denied|pull access|no such image"
    r"|invalid reference format|not known to registry|requested access to the resource",
    re.IGNORECASE,
)


def says_digest_is_unknown(text: str) -> bool:
    """Whether an engine's words mean that the registry answers, and has nothing of that digest there."""
    return _MISSING_MANIFEST.search(text) is not None


def says_image_is_unknown(text: str) -> bool:
    """Whether an engine's words mean that the registry answers, and does not give us that image."""
    return _MISSING_IMAGE.search(text) is not None


def digests(image: dict[str, Any]) -> Sequence[str]:
    """Return the digests by which the engine knows a local image, as inspected."""
    found = [str(image.get("Digest") or "")]
    found += [str(name).rpartition("@")[2] for name in image.get("RepoDigests") or ()]
    return [digest for digest in found if digest]
