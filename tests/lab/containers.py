"""podman with storage of its own, a tiny image, and a real registry on loopback.

The image is busybox, statically linked, and nothing else: ``sh``, ``httpd``, ``cat``, ``sleep`` and the rest by links
in /bin. It is cached as an OCI layout. Nothing here touches the podman of the user who runs the tests.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab import cache

CONTAINERS_CONF = Path(__file__).with_name("containers.conf")
BUSYBOX = Path("/bin/busybox")
PROGRAMS = ("podman", "runc", "skopeo", "docker-registry")
_SBIN = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def missing() -> list[str]:
    """Return what this machine lacks for containers, in words; nothing: containers can be tested."""
    found = [f"{name} is not installed" for name in PROGRAMS if shutil.which(name, path=_SBIN) is None]
    if not BUSYBOX.exists():
        found.append("busybox-static is not installed")
    elif b"statically linked" not in _described(BUSYBOX):
        found.append("/bin/busybox is not the static one of busybox-static")
    if os.geteuid() != 0:
        found.append("the lab's containers need root")
    return found


def _described(program: Path) -> bytes:
    """Return words on how a program is linked: an ELF file without an interpreter is static."""
    with program.open("rb") as file:
        head = file.read(4096)
    return b"dynamically linked" if b"/ld-linux" in head or b"/ld-musl" in head else b"statically linked"


@dataclass(frozen=True)
class Podman:
    """podman on storage of its own: ``options`` before each command, ``environment``."""

    place: Path
    environment: dict[str, str]

    @property
    def options(self) -> list[str]:
        """Return the options that keep it to its own storage."""
        return [
            f"--root={self.place}/root",
            f"--runroot={self.place}/run",
            f"--tmpdir={self.place}/tmp",
            "--storage-driver=overlay",
        ]

    @property
    def runtime(self) -> dict[str, Any]:
        """Return the setting ``runtime`` of a local platform that uses it, without traces in this host's network."""
        return {
            "program": "podman",
            "options": self.options,
            "environment": self.environment,
            "network": "none",
        }

    def run(self, *words: str, data: bytes | None = None) -> str:
        """Run a command of podman and return its stdout; it must succeed."""
        done = subprocess.run(
            ["podman", *self.options, *words],
            env={**os.environ, **self.environment},
            input=data,
            capture_output=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"podman {words}: {done.stderr.decode()}"
        return done.stdout.decode()

    def containers(self) -> list[str]:
        """Return the names of all containers there are."""
        return [name for one in json.loads(self.run("ps", "--all", "--format", "json")) for name in one["Names"]]


@contextlib.contextmanager
def podman(registries: str = "") -> Iterator[Podman]:
    """Make podman's storage, and take all of it away in the end. ``registries``: the content of registries.conf."""
    # Short, because podman's sockets lie in it, whose names may have 107 bytes
    place = Path(tempfile.mkdtemp(prefix="ebl-", dir="/tmp"))
    (place / "registries.conf").write_text(registries, encoding="utf-8")
    engine = Podman(
        place=place,
        environment={
            "CONTAINERS_CONF": str(CONTAINERS_CONF),
            "CONTAINERS_REGISTRIES_CONF": str(place / "registries.conf"),
        },
    )
    before = _control_groups()
    try:
        yield engine
    finally:
        _take_down(engine)
        _remove_control_groups(before)


def image(place: Path | None = None) -> Path:
    """Return the OCI layout of the lab's image, made where it is not cached yet."""
    layout = (place or cache()) / "containers" / "busybox-1"
    if (layout / "index.json").exists():
        return layout
    layout.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=layout.parent) as work, podman() as engine:
        root = Path(work) / "root"
        for folder in ("bin", "etc", "tmp", "www"):
            (root / folder).mkdir(parents=True)
        (root / "tmp").chmod(0o1777)
        shutil.copy(BUSYBOX, root / "bin" / "busybox")
        names = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
        for name in names:
            if name != "busybox":
                (root / "bin" / name).symlink_to("busybox")
        (root / "etc" / "passwd").write_text("root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")
        (root / "www" / "index.html").write_text("busybox serves\n")
        archive = subprocess.run(["tar", "-C", str(root), "-c", "."], capture_output=True, check=True).stdout
        engine.run("import", "--change", "ENV PATH=/bin", "-", "localhost/busybox:1", data=archive)
        made = Path(work) / "layout"
        engine.run("push", "--quiet", "localhost/busybox:1", f"oci:{made}:1")
        with contextlib.suppress(OSError):  # somebody else was faster
            made.rename(layout)
    return layout


@dataclass(frozen=True)
class Registry:
    """A registry that has the lab's image: its ``address``, the image's ``location`` and ``digest``."""

    address: str
    location: str
    digest: str

    @property
    def registries(self) -> str:
        """Return a registries.conf by which engines talk to it without TLS."""
        return f'[[registry]]\nlocation = "{self.address}"\ninsecure = true\n'


@contextlib.contextmanager
def registry() -> Iterator[Registry]:
    """Run a registry on a loopback port, with the lab's image in it."""
    layout = image()
    with tempfile.TemporaryDirectory(prefix="ebl-registry-") as place, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
        probe.close()
        settings = Path(place) / "config.yml"
        settings.write_text(
            "version: 0.1\nlog: {level: error}\n"
            f"storage: {{filesystem: {{rootdirectory: {place}/data}}, delete: {{enabled: true}}}}\n"
            f"http: {{addr: '{address}'}}\n"
        )
        log = (Path(place) / "log").open("wb")
        program = shutil.which("docker-registry", path=_SBIN)
        assert program is not None
        server = subprocess.Popen([program, "serve", str(settings)], stdout=log, stderr=log)
        try:
            _wait_for(f"http://{address}/v2/", server)
            location = f"{address}/ebhpc/busybox:1"
            copy = ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"oci:{layout}:1"]
            subprocess.run([*copy, f"docker://{location}"], check=True, capture_output=True, timeout=60)
            look = ["skopeo", "inspect", "--tls-verify=false", f"docker://{location}"]
            found: Any = json.loads(subprocess.run(look, check=True, capture_output=True, timeout=60).stdout)
            yield Registry(address=address, location=location, digest=found["Digest"])
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(10)
            log.close()


def _wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 20
    while True:
        assert server.poll() is None, "the registry ended at once"
        try:
            urllib.request.urlopen(url, timeout=2).close()
        except urllib.error.URLError:
            assert time.monotonic() < until, "the registry does not answer"
            time.sleep(0.05)
        else:
            return


def _take_down(engine: Podman) -> None:
    """Remove all containers and the storage; somebody whom a test has killed may still be removing his own."""
    until = time.monotonic() + 20
    while True:
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            engine.run("rm", "--all", "--force", "--time", "0")
        _unmount(engine.place)
        try:
            shutil.rmtree(engine.place)
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)
        else:
            return


def _unmount(place: Path) -> None:
    """Unmount what podman has mounted below its storage."""
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        below = [line.split()[1] for line in mounts if line.split()[1].startswith(f"{place}/")]
    for mount in sorted(below, reverse=True):
        subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)


def _control_groups() -> set[Path]:
    return set(Path("/sys/fs/cgroup").glob("*/libpod_parent")) | set(Path("/sys/fs/cgroup").glob("libpod_parent"))


def _remove_control_groups(before: set[Path]) -> None:
    """Remove the groups that podman makes for itself and leaves, unless they were here before."""
    for top in _control_groups() - before:
        for folder, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
