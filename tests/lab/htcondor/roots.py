"""The Debian root with HTCondor: built once, cached under a name that tells its recipe, never written to again."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.lab import cache
from tests.lab.slurm import roots as debian
from tests.lab.slurm.namespace import RECIPE as DEBIAN
from tests.lab.slurm.namespace import Bind, namespace

RECIPE = Path(__file__).parent / "recipe"
HOST_NAME = "condorlab"

_ROOT = debian.Recipe(
    suite="trixie",
    python="3.13",
    packages=(
        *("condor", "ca-certificates", "python3-venv", "procps"),
        *("busybox-static", "squashfuse", "fuse3", "uidmap", "squashfs-tools"),
    ),
)

# To be counted up where the building changes and neither the recipe nor a script tells
REVISION = 1


def missing() -> list[str]:
    """Return what this machine lacks for the HTCondor lab, in words; nothing: it can be built and run."""
    return [reason.replace("Slurm", "HTCondor") for reason in debian.missing()]


def root() -> Path:
    """Return the root, built where it is not cached yet."""
    folder = cache() / "htcondor"
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"root-{_fingerprint()}"
    if place.exists():
        return place
    with _locked(folder / "root.lock"):
        if not place.exists():
            part = folder / "root.part"
            shutil.rmtree(part, ignore_errors=True)
            _build(part)
            part.rename(place)
    return place


@contextlib.contextmanager
def used() -> Iterator[Path]:
    """Have the root, kept from `remove_outdated` meanwhile."""
    place = root()
    with _locked(place.with_name(f"{place.name}.lock"), fcntl.LOCK_SH):
        yield place


def remove_outdated() -> None:
    """Remove the roots that the recipe does not ask for any more and nobody uses."""
    for place in (cache() / "htcondor").glob("root-*"):
        if not place.is_dir() or place.name == f"root-{_fingerprint()}":
            continue
        lock = place.with_name(f"{place.name}.lock")
        with contextlib.suppress(BlockingIOError), _locked(lock, fcntl.LOCK_EX | fcntl.LOCK_NB):
            shutil.rmtree(place)
            lock.unlink()


def _fingerprint() -> str:
    digest = hashlib.sha256(f"{REVISION} {_ROOT!r}".encode())
    scripts = [RECIPE / "prepare.sh", *(DEBIAN / f"{name}.sh" for name in ("install", "apptainer", "shrink"))]
    for script in scripts:
        digest.update(script.name.encode() + script.read_bytes())
    return digest.hexdigest()[:12]


@contextlib.contextmanager
def _locked(path: Path, how: int = fcntl.LOCK_EX) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, how)
        yield


def _build(place: Path) -> None:
    """Build the root at ``place``; what fails raises with what was said."""
    debian._debootstrap(_ROOT, place)
    shutil.copy("/etc/resolv.conf", place / "etc/resolv.conf")
    with tempfile.TemporaryDirectory(prefix="ebl-wheels-") as wheels:
        binds = (
            Bind(DEBIAN, Path("/debian")),
            Bind(RECIPE, Path("/recipe")),
            Bind(Path(wheels), Path("/wheels")),
        )
        with namespace(place, HOST_NAME, binds, writable=True) as inside:
            inside.run(["/debian/install.sh", *_ROOT.packages], timeout=1200)
            inside.run(["/debian/apptainer.sh"], timeout=600)
            debian._download(_ROOT, place, Path(wheels))
            debian._install_wheels(_ROOT, inside)
            inside.run(["/debian/shrink.sh"], timeout=300)
            inside.run(["/recipe/prepare.sh"], timeout=120)
    (place / "etc/resolv.conf").unlink()
