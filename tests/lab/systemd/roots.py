"""The Debian root that systemd boots in, and the wheels that a package of ebhpc is built from in it."""

from __future__ import annotations

import configparser
import contextlib
import dataclasses
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.lab import cache, debian
from tests.lab.namespace import RECIPE as SHARED
from tests.lab.namespace import Bind, namespace

RECIPE = Path(__file__).parent / "recipe"
HOST_NAME = "brokerhost"
WHEELS = "/opt/wheels"
EXTRAS = ("notebook", "postgresql")
_CHECKOUT = Path(__file__).parents[3]

# To be counted up where the building changes and neither the recipe nor a script tells
REVISION = 1


def missing() -> list[str]:
    """Return what this machine lacks for booting systemd, in words; nothing: the root can be built and booted."""
    found = debian.missing("systemd")
    if shutil.which("systemd-nspawn") is None:
        found.append("systemd-nspawn is not installed: the package systemd-container")
    return found


def root() -> Path:
    """Return the root, built where it is not cached yet, and so are the wheels."""
    _wheels().ready()
    return _root().ready()


@contextlib.contextmanager
def used() -> Iterator[Path]:
    """Have the root, kept from `remove_outdated` meanwhile."""
    with _root().used() as place:
        yield place


def remove_outdated() -> list[Path]:
    """Remove the roots that the recipe does not ask for any more and nobody uses, and return them."""
    return debian.remove_outdated(cache() / "systemd", [_root(), _wheels()])


@contextlib.contextmanager
def wheels_used() -> Iterator[Path]:
    """Have the directory with the wheels that the checkout depends on, filled where it is not cached yet."""
    with _wheels().used() as place:
        yield place


_RECIPE = debian.Recipe(
    suite="trixie",
    python="3.13",
    packages=(
        *("systemd", "systemd-sysv", "dbus", "libpam-systemd", "procps", "iproute2"),
        *("python3", "python3-venv", "ca-certificates", "curl"),
    ),
    wheels=(),
)


def _wanted() -> tuple[str, ...]:
    """Return what the checkout's ebhpc, with `EXTRAS`, and its plugins depend on."""
    found = ["setuptools>=77"]
    for file in (_CHECKOUT / "setup.cfg", *sorted((_CHECKOUT / "plugins").glob("*/setup.cfg"))):
        settings = configparser.ConfigParser()
        settings.read(file, encoding="utf-8")
        texts = [settings.get("options", "install_requires", fallback="")]
        if file.parent == _CHECKOUT:
            texts += [settings.get("options.extras_require", name) for name in EXTRAS]
        found += [line.strip() for text in texts for line in text.splitlines()]
    return tuple(line for line in found if line and not line.startswith("#") and line.split()[0] != "ebhpc")


def _root() -> debian.Root:
    scripts = (*debian.SHARED_SCRIPTS, RECIPE / "prepare.sh")
    return debian.Root(cache() / "systemd", "root", debian.fingerprint(_RECIPE, REVISION, scripts), _build)


def _wheels() -> debian.Root:
    recipe = dataclasses.replace(_RECIPE, packages=(), wheels=_wanted())

    def download(place: Path) -> None:
        place.mkdir()
        debian.download_wheels(recipe, place)

    return debian.Root(cache() / "systemd", "wheels", debian.fingerprint(recipe, REVISION, ()), download)


def _build(place: Path) -> None:
    debian.debootstrap(_RECIPE.suite, place)
    binds = (Bind(SHARED, Path("/debian")), Bind(RECIPE, Path("/recipe")))
    with namespace(place, HOST_NAME, binds, writable=True) as inside:
        inside.run(["/debian/install.sh", *_RECIPE.packages], timeout=1200)
        inside.run(["/debian/shrink.sh"], timeout=300)
        inside.run(["/recipe/prepare.sh"], timeout=120)
    (place / "etc/resolv.conf").unlink()


def build() -> int:
    """Build the root and fetch the wheels if they are missing, remove what is out of date; 1 if this machine cannot."""
    lacking = missing()
    for reason in lacking:
        print(f"lab: systemd cannot be tested: {reason}", file=sys.stderr)
    if lacking:
        return 1
    began = time.monotonic()
    place = root()
    remove_outdated()
    print(f"lab: systemd in {place} ({time.monotonic() - began:.1f} s)")
    return 0
