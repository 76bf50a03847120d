"""The Debian roots with Slurm, one of each version."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.lab import cache, debian
from tests.lab.namespace import RECIPE as SHARED
from tests.lab.namespace import Bind, Namespace, namespace
from tests.lab.ports import ports
from tests.lab.slurm.cluster import HOST_NAME, Cluster
from tests.lab.slurm.layout import SMALL, Ports

RECIPE = Path(__file__).parent / "recipe"


@dataclass(frozen=True)
class Recipe(debian.Recipe):
    """What a root with Slurm is made of; ``pyslurm`` is built from its source inside."""

    pyslurm: str | None = None


_SLURM = (
    *("slurmctld", "slurmd", "slurm-client", "slurmdbd", "slurmrestd", "munge"),
    *("slurm-wlm-basic-plugins", "slurm-wlm-mysql-plugin", "slurm-wlm-jwt-plugin"),
    *("mariadb-server-core", "mariadb-client-core"),
)
_JOBS = ("ca-certificates", "python3-venv", "runc", "squashfuse", "fuse3", "uidmap", "procps")
# Beside apptainer and runc, which both roots have
_CONTAINERS = ("podman", "skopeo", "umoci")
_ACCESS = ("sudo", "openssh-server")

_PYSLURM_NEEDS = ("setuptools", "wheel", "cython", "packaging")

# To be counted up where the building changes and neither a recipe nor a script tells
REVISION = 2

RECIPES = {
    "26.05": Recipe(
        suite="forky",
        python="3.14",
        packages=(*_SLURM, *_JOBS, *_CONTAINERS, *_ACCESS),
        building=("gcc", "libc6-dev", "libslurm-dev", "python3-dev"),
        pyslurm="25.11.2",
    ),
    "24.11": Recipe(suite="trixie", python="3.13", packages=(*_SLURM, *_JOBS, *_ACCESS)),
}


def missing() -> list[str]:
    """Return what this machine lacks for the Slurm lab, in words; nothing: it can be built and run."""
    return debian.missing("Slurm")


def root(version: str) -> Path:
    """Return the root with this version of Slurm, built where it is not cached yet; KeyError for another version."""
    return _root(version).ready()


@contextlib.contextmanager
def used(version: str) -> Iterator[Path]:
    """Have the root of this version, kept from `remove_outdated` meanwhile."""
    with _root(version).used() as place:
        yield place


def remove_outdated() -> list[Path]:
    """Remove the roots that no recipe asks for any more and nobody uses, and return them."""
    return debian.remove_outdated(cache() / "slurm", [_root(version) for version in RECIPES])


def _root(version: str) -> debian.Root:
    recipe = RECIPES[version]
    # start.sh does its work at each start
    scripts = [script for script in RECIPE.glob("*.sh") if script.name != "start.sh"]
    fingerprint = debian.fingerprint(recipe, REVISION, (*debian.SHARED_SCRIPTS, *scripts))
    return debian.Root(cache() / "slurm", version, fingerprint, lambda place: _build(recipe, version, place))


def _build(recipe: Recipe, version: str, place: Path) -> None:
    debian.debootstrap(recipe.suite, place)
    with tempfile.TemporaryDirectory(prefix="ebl-wheels-") as wheels:
        binds = (
            Bind(SHARED, Path("/debian")),
            Bind(RECIPE, Path("/recipe")),
            Bind(Path(wheels), Path("/wheels")),
        )
        work = Path(tempfile.mkdtemp(prefix="ebl-"))
        (work / "ssh").mkdir()
        with namespace(place, HOST_NAME, binds, writable=True, place=work) as inside:
            inside.run(["/debian/install.sh", *recipe.packages, *recipe.building], timeout=1200)
            inside.run(["/debian/apptainer.sh"], timeout=600)
            debian.download_wheels(recipe, Path(wheels), _PYSLURM_NEEDS if recipe.pyslurm else ())
            pip = debian.install_wheels(recipe, inside)
            if recipe.pyslurm:
                _build_pyslurm(recipe.pyslurm, place, Path(wheels), pip, inside)
            inside.run(["/debian/shrink.sh", *recipe.building], timeout=300)
            inside.run(["/recipe/prepare.sh"], timeout=120)
            with ports(Ports.needed(SMALL.nodes)) as claimed:
                Cluster(version, inside, SMALL, Ports.of(claimed)).prepare_accounts()
            if recipe.pyslurm:
                # It can be imported only where there is a slurm.conf
                inside.run([debian.PYTHON, "-c", "import pyslurm"])
    (place / "etc/resolv.conf").unlink()


def _build_pyslurm(number: str, place: Path, wheels: Path, pip: list[str], inside: Namespace) -> None:
    library = next((place / "usr/lib").glob("*/libslurm.so")).parent
    with tempfile.TemporaryDirectory(prefix="ebl-headers-") as headers:
        here = {"SLURM_INCLUDE_DIR": headers, "SLURM_LIB_DIR": str(library)}
        subprocess.run([RECIPE / "pyslurm.sh", place, headers], check=True, capture_output=True)
        # pip asks the source for its metadata, which looks for Slurm's headers
        debian.download_source(f"pyslurm=={number}", wheels, here)
    inside.run(["/recipe/pyslurm.sh", "", "/tmp/headers"])
    found = inside.run(["sh", "-c", "dirname /usr/lib/*/libslurm.so"]).stdout.strip()
    environment = {"SLURM_INCLUDE_DIR": "/tmp/headers", "SLURM_LIB_DIR": found, "CFLAGS": "-O0"}
    inside.run([*pip, f"pyslurm=={number}"], timeout=900, environment=environment)
