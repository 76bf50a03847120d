"""The Debian root with HTCondor."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.lab import cache, debian
from tests.lab.namespace import RECIPE as SHARED
from tests.lab.namespace import Bind, namespace

RECIPE = Path(__file__).parent / "recipe"
HOST_NAME = "condorlab"

_RECIPE = debian.Recipe(
    suite="trixie",
    python="3.13",
    packages=(
        *("condor", "ca-certificates", "python3-venv", "procps"),
        *("busybox-static", "squashfuse", "fuse3", "uidmap", "squashfs-tools"),
        *("podman", "podman-docker", "runc", "slirp4netns"),
    ),
)

# To be counted up where the building changes and neither the recipe nor a script tells
REVISION = 1


def missing() -> list[str]:
    """Return what this machine lacks for the HTCondor lab, in words; nothing: it can be built and run."""
    return debian.missing("HTCondor")


def root() -> Path:
    """Return the root, built where it is not cached yet."""
    return _root().ready()


@contextlib.contextmanager
def used() -> Iterator[Path]:
    """Have the root, kept from `remove_outdated` meanwhile."""
    with _root().used() as place:
        yield place


def remove_outdated() -> list[Path]:
    """Remove the roots that the recipe does not ask for any more and nobody uses, and return them."""
    return debian.remove_outdated(cache() / "htcondor", [_root()])


def _root() -> debian.Root:
    fingerprint = debian.fingerprint(_RECIPE, REVISION, (*debian.SHARED_SCRIPTS, RECIPE / "prepare.sh"))
    return debian.Root(cache() / "htcondor", "root", fingerprint, _build)


def _build(place: Path) -> None:
    debian.debootstrap(_RECIPE.suite, place)
    with tempfile.TemporaryDirectory(prefix="ebl-wheels-") as wheels:
        binds = (
            Bind(SHARED, Path("/debian")),
            Bind(RECIPE, Path("/recipe")),
            Bind(Path(wheels), Path("/wheels")),
        )
        with namespace(place, HOST_NAME, binds, writable=True) as inside:
            inside.run(["/debian/install.sh", *_RECIPE.packages], timeout=1200)
            inside.run(["/debian/apptainer.sh"], timeout=600)
            debian.download_wheels(_RECIPE, Path(wheels))
            debian.install_wheels(_RECIPE, inside)
            inside.run(["/debian/shrink.sh"], timeout=300)
            inside.run(["/recipe/prepare.sh"], timeout=120)
    (place / "etc/resolv.conf").unlink()
