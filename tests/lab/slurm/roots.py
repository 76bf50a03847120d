"""The Debian roots with Slurm: built once, cached under a name that tells their recipe, never written to again."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.lab import cache
from tests.lab.slurm.cluster import HOST_NAME, PYTHON, Cluster
from tests.lab.slurm.layout import SMALL, Ports
from tests.lab.slurm.namespace import RECIPE, Bind, Namespace, namespace
from tests.lab.slurm.ports import ports

PROGRAMS = ("debootstrap", "unshare", "nsenter", "setpriv")
_SBIN = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Recipe:
    """What a root is made of: a Debian suite, the packages that stay, those that only the building needs, wheels."""

    suite: str
    python: str
    packages: tuple[str, ...]
    building: tuple[str, ...] = ()
    wheels: tuple[str, ...] = ("ipykernel", "msgspec", "nbclient", "nbconvert")
    pyslurm: str | None = None


_SLURM = (
    *("slurmctld", "slurmd", "slurm-client", "slurmdbd", "slurmrestd", "munge"),
    *("slurm-wlm-basic-plugins", "slurm-wlm-mysql-plugin", "slurm-wlm-jwt-plugin"),
    *("mariadb-server-core", "mariadb-client-core"),
)
_JOBS = ("ca-certificates", "python3-venv", "runc", "squashfuse", "fuse3", "uidmap", "procps")
_ACCESS = ("sudo", "openssh-server")

# To be counted up where the building changes and neither a recipe nor a script tells
REVISION = 2

RECIPES = {
    "26.05": Recipe(
        suite="forky",
        python="3.14",
        packages=(*_SLURM, *_JOBS, *_ACCESS),
        building=("gcc", "libc6-dev", "libslurm-dev", "python3-dev"),
        pyslurm="25.11.2",
    ),
    "24.11": Recipe(suite="trixie", python="3.13", packages=(*_SLURM, *_JOBS, *_ACCESS)),
}


def missing() -> list[str]:
    """Return what this machine lacks for the Slurm lab, in words; nothing: it can be built and run."""
    found = [f"{name} is not installed" for name in PROGRAMS if shutil.which(name, path=_SBIN) is None]
    if os.geteuid() != 0:
        found.append("the Slurm lab needs root: it mounts, and runs programs as several users")
    return found


def root(version: str) -> Path:
    """Return the root with this version of Slurm, built where it is not cached yet; KeyError for another version."""
    recipe = RECIPES[version]
    folder = cache() / "slurm"
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"{version}-{_fingerprint(recipe)}"
    if place.exists():
        return place
    with _locked(folder / f"{version}.lock"):
        if not place.exists():
            part = folder / f"{version}.part"
            shutil.rmtree(part, ignore_errors=True)
            _build(recipe, version, part)
            part.rename(place)
    return place


@contextlib.contextmanager
def used(version: str) -> Iterator[Path]:
    """Have the root of this version, kept from `remove_outdated` meanwhile."""
    place = root(version)
    with _locked(place.with_name(f"{place.name}.lock"), fcntl.LOCK_SH):
        yield place


def remove_outdated() -> list[Path]:
    """Remove the roots that no recipe asks for any more and nobody uses, and return them."""
    wanted = {f"{version}-{_fingerprint(recipe)}" for version, recipe in RECIPES.items()}
    removed = []
    for place in (cache() / "slurm").glob("*-*"):
        if not place.is_dir() or place.name in wanted:
            continue
        lock = place.with_name(f"{place.name}.lock")
        with contextlib.suppress(BlockingIOError), _locked(lock, fcntl.LOCK_EX | fcntl.LOCK_NB):
            shutil.rmtree(place)
            lock.unlink()
            removed.append(place)
    return removed


def _fingerprint(recipe: Recipe) -> str:
    """Return what tells one recipe from another."""
    digest = hashlib.sha256(f"{REVISION} {recipe!r}".encode())
    for script in sorted(RECIPE.glob("*.sh")):
        # These two do their work at each start
        if script.name not in ("namespace.sh", "start.sh"):
            digest.update(script.name.encode() + script.read_bytes())
    return digest.hexdigest()[:12]


@contextlib.contextmanager
def _locked(path: Path, how: int = fcntl.LOCK_EX) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, how)
        yield


def _build(recipe: Recipe, version: str, place: Path) -> None:
    """Build a root at ``place``; what fails raises with what was said."""
    _debootstrap(recipe, place)
    shutil.copy("/etc/resolv.conf", place / "etc/resolv.conf")
    with tempfile.TemporaryDirectory(prefix="ebl-wheels-") as wheels:
        binds = (Bind(RECIPE, Path("/recipe")), Bind(Path(wheels), Path("/wheels")))
        work = Path(tempfile.mkdtemp(prefix="ebl-"))
        (work / "ssh").mkdir()
        with namespace(place, HOST_NAME, binds, writable=True, place=work) as inside:
            inside.run(["/recipe/install.sh", *recipe.packages, *recipe.building], timeout=1200)
            inside.run(["/recipe/apptainer.sh"], timeout=600)
            _download(recipe, place, Path(wheels))
            _install_wheels(recipe, inside)
            inside.run(["/recipe/shrink.sh", *recipe.building], timeout=300)
            inside.run(["/recipe/prepare.sh"], timeout=120)
            with ports(Ports.needed(SMALL.nodes)) as claimed:
                Cluster(version, inside, SMALL, Ports.of(claimed)).prepare_accounts()
            if recipe.pyslurm:
                # It can be imported only where there is a slurm.conf
                inside.run([PYTHON, "-c", "import pyslurm"])
    (place / "etc/resolv.conf").unlink()


def _debootstrap(recipe: Recipe, place: Path) -> None:
    # A suite that is newer than this debootstrap is made like unstable
    scripts = Path("/usr/share/debootstrap/scripts")
    script = scripts / recipe.suite
    words = ["debootstrap", "--variant=minbase", recipe.suite, str(place), _mirror()]
    if not script.exists():
        words.append(str(scripts / "sid"))
    # It mounts, and would leave the mounts if it were killed
    unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    done = subprocess.run(
        [*unshare, *words],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PATH": _SBIN},
        preexec_fn=_end_with_the_builder,
    )
    if done.returncode != 0:
        raise RuntimeError(f"debootstrap of {recipe.suite} failed: {done.stdout[-3000:]}{done.stderr[-3000:]}")


def _end_with_the_builder() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _mirror() -> str:
    """Return the mirror of Debian that this machine's apt uses; empty: debootstrap's own."""
    asked = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Origin: Debian", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=False,
    )
    found = [line for line in asked.stdout.split() if line.startswith("http") and line.rstrip("/").endswith("/debian")]
    return found[0] if found else ""


def _download(recipe: Recipe, place: Path, wheels: Path) -> None:
    """Fetch wheels for the root's Python with this machine's pip, which knows where packages come from."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--dest", str(wheels)]
    number = recipe.python.replace(".", "")
    target = ["--only-binary=:all:", "--python-version", recipe.python, "--implementation", "cp"]
    target += [word for abi in (f"cp{number}", "abi3", "none") for word in ("--abi", abi)]
    machine = os.uname().machine
    for glibc in ("_2_28", "_2_17", "2014"):
        target += ["--platform", f"manylinux{glibc}_{machine}"]
    wanted = [*recipe.wheels]
    if recipe.pyslurm:
        wanted += ["setuptools", "wheel", "cython", "packaging"]
    subprocess.run([*pip, *target, *wanted], check=True, capture_output=True, text=True)
    if recipe.pyslurm:
        library = next((place / "usr/lib").glob("*/libslurm.so")).parent
        with tempfile.TemporaryDirectory(prefix="ebl-headers-") as headers:
            subprocess.run([RECIPE / "pyslurm.sh", place, headers], check=True, capture_output=True)
            # pip asks the source for its metadata, which looks for Slurm's headers
            subprocess.run(
                [*pip, "--no-deps", "--no-binary=pyslurm", f"pyslurm=={recipe.pyslurm}"],
                check=True,
                capture_output=True,
                text=True,
                env={**os.environ, "SLURM_INCLUDE_DIR": headers, "SLURM_LIB_DIR": str(library)},
            )


def _install_wheels(recipe: Recipe, inside: Namespace) -> None:
    environment = {}
    inside.run(["python3", "-m", "venv", PYTHON.removesuffix("/bin/python")], timeout=120)
    pip = [PYTHON, "-m", "pip", "install", "--quiet", "--no-index", "--find-links=/wheels", "--no-cache-dir"]
    inside.run([*pip, *recipe.wheels], timeout=300)
    if recipe.pyslurm:
        inside.run(["/recipe/pyslurm.sh", "", "/tmp/headers"])
        library = inside.run(["sh", "-c", "dirname /usr/lib/*/libslurm.so"]).stdout.strip()
        environment = {"SLURM_INCLUDE_DIR": "/tmp/headers", "SLURM_LIB_DIR": library, "CFLAGS": "-O0"}
        inside.run([*pip, f"pyslurm=={recipe.pyslurm}"], timeout=900, environment=environment)
