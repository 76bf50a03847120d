"""A real guest, in a test and by hand: ``python -m tests.lab.openstack.guest [--seconds N]``.

The lab's hypervisors are fake, and their guests run user data in a copy of the lab's root. Here Debian boots under
qemu's software emulation, with a kernel, systemd, cloud-init and podman of its own; it gets the user data that a server
gets, runs a container from a registry, tells its serial console, and powers itself off. What it tells is compared with
what it was asked for. The image is built once and cached; a boot takes one to three minutes.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import shlex
import sys
import time
from pathlib import Path

from ebhpc.config import read_settings
from ebhpc.model import Allocation, DockerContainer, DockerImage, Identity, Phase, Session, SimpleCompute
from ebhpc_openstack import console, guest
from ebhpc_openstack.settings import OpenStackSettings
from tests.lab import cache, containers, debian
from tests.lab.namespace import RECIPE as SHARED
from tests.lab.namespace import Bind, Namespace, namespace

_RECIPE = debian.Recipe(
    suite="trixie",
    python="3.13",
    packages=(
        *("systemd-sysv", "udev", "dbus", "cloud-init", "linux-image-cloud-amd64", "initramfs-tools", "e2fsprogs"),
        *("ifupdown", "iproute2", "python3", "ca-certificates", "podman", "crun", "netavark"),
    ),
    building=("qemu-system-x86", "genisoimage"),
    wheels=(),
)
_REVISION = 1
_DISK = "srv/disk.img"
_HOST = "10.0.2.2"
"""Where a guest of qemu's own network finds this machine's loopback."""

_NETWORK = f"""version: 2
ethernets:
  eth0:
    addresses: [10.0.2.15/24]
    gateway4: {_HOST}
"""

_HOSTILE = 'x\'; touch /pwned; "$(id)" `id` é'
_UUID = "01234567-89ab-7cde-8f01-23456789abcd"


SECONDS = 1500.0
"""So long a boot may take: the machine may be slow, and busy with other tests."""


def missing() -> list[str]:
    """Return what this machine lacks for a guest, in words; nothing: it can be built and booted."""
    return [*debian.missing("OpenStack"), *containers.missing()]


def root() -> debian.Root:
    """Return the root with qemu, and with the guest's disk in it."""
    mark = debian.fingerprint(_RECIPE, _REVISION, (SHARED / "install.sh",))
    return debian.Root(cache() / "openstack-guest", "root", mark, _build)


def _build(place: Path) -> None:
    debian.debootstrap(_RECIPE.suite, place)
    binds = (Bind(SHARED, Path("/debian")), Bind(place, Path("/mnt")))
    with namespace(place, "guest", binds, writable=True) as inside:
        inside.run(["/debian/install.sh", *_RECIPE.packages], timeout=1800)
        image = "/run/disk.img"
        inside.run(["mke2fs", "-q", "-t", "ext4", "-d", "/mnt", image, "3G"], timeout=300)
        inside.run(["apt-get", "-qq", "-y", "install", *_RECIPE.building], timeout=1800)
        inside.run(["cp", "--sparse=always", image, f"/{_DISK}"], timeout=300)


def settings() -> OpenStackSettings:
    """Return a platform's settings, as far as they concern what a server runs."""
    ssh = {"host": "login", "user": "ebhpc", "known_hosts": "/k", "key_file": "/i"}
    runtime = {"kind": "podman", "pull_options": ["--tls-verify=false"]}
    jobs = {"root": "/r", "access": "own", "staging": "job", "runtime": runtime}
    return read_settings(OpenStackSettings, {"ssh": ssh, "image": "debian", "jobs": jobs})


def session(image: DockerImage) -> Session:
    """Return a session whose container says hostile words, leaves a file and ends with exit code 3."""
    now = int(time.time())
    script = 'printf %s "$1"; printf %s "$WORD" >&2; echo kept >$EBHPC_RESULTS/a; exit 3'
    return Session(
        uuid=_UUID,
        name=_HOSTILE,
        owner=Identity(uuid=_UUID, username="ada"),
        platform="cloud",
        phase=Phase.AVAILABLE,
        executable=DockerContainer(
            image=image, command=["sh", "-c", script, "sh", _HOSTILE], environment={"WORD": _HOSTILE}
        ),
        compute=SimpleCompute(),
        allocations=(Allocation(node="", cores=1, memory=1024),),
        start=now,
        latest=now + 3600,
        end=now + 7200,
        duration=3600,
        firm=False,
    )


def boot(inside: Namespace, user_data: bytes, seconds: float) -> str:
    """Boot a guest with user data, and return what it said on its console until it powered off.

    Raises:
        TimeoutError: it did not do so within ``seconds``.
    """
    seed = inside.root / "tmp/seed"
    seed.mkdir()
    texts = {
        "user-data": user_data,
        "meta-data": f"instance-id: {_UUID}\n".encode(),
        "network-config": _NETWORK.encode(),
    }
    for name, text in texts.items():
        (seed / name).write_bytes(text)
    inside.run(["genisoimage", "-quiet", "-o", "/tmp/seed.iso", "-V", "cidata", "-J", "-R", "/tmp/seed"])
    (kernel,) = (path.name for path in (inside.root / "boot").glob("vmlinuz-*"))
    words = [
        *("timeout", f"{seconds:.0f}", "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"),
        *("-m", "1024", "-display", "none", "-nodefaults", "-no-reboot", "-serial", "file:/tmp/console"),
        *("-kernel", f"/boot/{kernel}", "-initrd", f"/boot/{kernel.replace('vmlinuz', 'initrd.img')}"),
        *("-append", "root=/dev/vda rw console=ttyS0 panic=-1 net.ifnames=0"),
        *("-drive", f"file=/{_DISK},format=raw,if=virtio,snapshot=on"),
        *("-drive", "file=/tmp/seed.iso,format=raw,if=virtio,readonly=on"),
        *("-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net"),
    ]
    done = inside.run(words, timeout=seconds + 60, check=False)
    said = inside.root / "tmp/console"
    text = said.read_text(encoding="utf-8", errors="replace") if said.exists() else ""
    if done.returncode:
        raise TimeoutError(f"{shlex.join(words[:3])}: {done.returncode}: {done.stderr}\n{text[-3000:]}")
    return text


def wrong(text: str) -> list[str]:
    """Return what of a console is not as it should be."""
    told = console.told(text, _UUID)
    if told.ended is None or told.data is None:
        return [f"the console does not tell how the job ended: {text[-3000:]}"]
    files = console.unpacked(told.data)
    expected = {
        "output/stdout": _HOSTILE.encode(),
        "output/stderr": _HOSTILE.encode(),
        "output/results/a": b"kept\n",
    }
    found = [
        f"{name} is {files.get(name)!r}, not {content!r}"
        for name, content in expected.items()
        # podman tells of the image that it fetches, too
        if not files.get(name, b"").endswith(content)
    ]
    if told.begun is None:
        found.append("the console does not tell that the job has begun")
    if told.ended.code != 3:
        found.append(f"the exit code is {told.ended.code}, not 3: {files.get('report/status.json')!r}")
    if "Power down" not in text:
        found.append("the guest did not power off")
    return found


def booted(seconds: float = SECONDS) -> str:
    """Boot a guest beside a registry, and return what it said on its console until it powered off.

    Raises:
        TimeoutError: it did not do so within ``seconds``.
    """
    with contextlib.ExitStack() as stack:
        base = stack.enter_context(root().used())
        registry = stack.enter_context(containers.registry())
        inside = stack.enter_context(namespace(base, "guest"))
        image = DockerImage(locations=[registry.location.replace("127.0.0.1", _HOST)], digest=registry.digest)
        return boot(inside, base64.b64decode(guest.user_data(session(image), settings())), seconds)


def main() -> int:
    """Boot a guest; return 0 if it did as it should."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.openstack.guest", description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long it may take (default %(default)s)")
    given = parser.parse_args()
    root().ready()
    began = time.monotonic()
    found = wrong(booted(given.seconds))
    took = time.monotonic() - began
    print("\n".join(found) or f"the guest booted, ran its container, told its console and went in {took:.0f} s")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
