"""Debian roots of the lab: built once, cached under a name that tells their recipe, never written to again.

A batch system's lab says its `Recipe` and how it goes on from there in a `Root`, whose ``build`` starts with
`debootstrap`, then runs the scripts in ``RECIPE`` (install.sh, apptainer.sh, shrink.sh) and its own inside.
"""

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
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab.namespace import RECIPE, Namespace

PYTHON = "/opt/lab/bin/python"
"""Inside a root: the interpreter of a virtual environment with the recipe's wheels."""

_PROGRAMS = ("debootstrap", "unshare", "nsenter", "setpriv")
_SBIN = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
_PR_SET_PDEATHSIG = 1

SHARED_SCRIPTS = tuple(RECIPE / f"{name}.sh" for name in ("install", "apptainer", "shrink"))


@dataclass(frozen=True)
class Recipe:
    """What a root is made of: a Debian suite, the packages that stay, those that only the building needs, wheels."""

    suite: str
    python: str
    packages: tuple[str, ...]
    building: tuple[str, ...] = ()
    wheels: tuple[str, ...] = ("ipykernel", "msgspec", "nbclient", "nbconvert")


@dataclass(frozen=True)
class Root:
    """A root in the cache's ``folder``: ``name`` and ``fingerprint`` name it, ``build`` makes it at a place."""

    folder: Path
    name: str
    fingerprint: str
    build: Callable[[Path], None]

    @property
    def place(self) -> Path:
        """Return where it is, or would be."""
        return self.folder / f"{self.name}-{self.fingerprint}"

    def ready(self) -> Path:
        """Return where it is, built if it is not cached yet; what fails raises with what was said."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.place.exists():
            return self.place
        with _locked(self.folder / f"{self.name}.lock"):
            if not self.place.exists():
                part = self.folder / f"{self.name}.part"
                shutil.rmtree(part, ignore_errors=True)
                self.build(part)
                part.rename(self.place)
        return self.place

    @contextlib.contextmanager
    def used(self) -> Iterator[Path]:
        """Have the root, kept from `remove_outdated` meanwhile."""
        place = self.ready()
        with _locked(place.with_name(f"{place.name}.lock"), fcntl.LOCK_SH):
            yield place


def missing(lab: str) -> list[str]:
    """Return what this machine lacks for a lab of such roots, in words; nothing: it can be built and run."""
    found = [f"{name} is not installed" for name in _PROGRAMS if shutil.which(name, path=_SBIN) is None]
    if os.geteuid() != 0:
        found.append(f"the {lab} lab needs root: it mounts, and runs programs as several users")
    return found


def remove_outdated(folder: Path, wanted: Collection[Root]) -> list[Path]:
    """Remove the roots in ``folder`` that are not wanted any more and that nobody uses, and return them."""
    removed = []
    for place in folder.glob("*-*"):
        if not place.is_dir() or place in {root.place for root in wanted}:
            continue
        lock = place.with_name(f"{place.name}.lock")
        with contextlib.suppress(BlockingIOError), _locked(lock, fcntl.LOCK_EX | fcntl.LOCK_NB):
            shutil.rmtree(place)
            lock.unlink()
            removed.append(place)
    return removed


def fingerprint(recipe: Recipe, revision: int, scripts: Iterable[Path]) -> str:
    """Return what tells one way of building from another.

    ``revision`` is counted up where the building changes and neither the recipe nor one of its scripts tells.
    """
    digest = hashlib.sha256(f"{revision} {recipe!r}".encode())
    for script in sorted(scripts, key=lambda path: path.name):
        digest.update(script.name.encode() + script.read_bytes())
    return digest.hexdigest()[:12]


def debootstrap(suite: str, place: Path) -> None:
    """Make a small Debian at ``place``, with this machine's resolv.conf; RuntimeError with what was said."""
    # A suite that is newer than this debootstrap is made like unstable
    scripts = Path("/usr/share/debootstrap/scripts")
    words = ["debootstrap", "--variant=minbase", suite, str(place), _mirror()]
    if not (scripts / suite).exists():
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
        raise RuntimeError(f"debootstrap of {suite} failed: {done.stdout[-3000:]}{done.stderr[-3000:]}")
    shutil.copy("/etc/resolv.conf", place / "etc/resolv.conf")


def download_wheels(recipe: Recipe, folder: Path, more: Sequence[str] = ()) -> None:
    """Fetch wheels for the root's Python with this machine's pip, which knows where packages come from."""
    number = recipe.python.replace(".", "")
    target = ["--only-binary=:all:", "--python-version", recipe.python, "--implementation", "cp"]
    target += [word for abi in (f"cp{number}", "abi3", "none") for word in ("--abi", abi)]
    for glibc in ("_2_28", "_2_17", "2014"):
        target += ["--platform", f"manylinux{glibc}_{os.uname().machine}"]
    _download(folder, [*target, *recipe.wheels, *more], {})


def download_source(requirement: str, folder: Path, environment: Mapping[str, str]) -> None:
    """Fetch a package's source, which is asked for its metadata in ``environment``."""
    name = requirement.partition("==")[0]
    _download(folder, ["--no-deps", f"--no-binary={name}", requirement], environment)


def _download(folder: Path, words: Sequence[str], environment: Mapping[str, str]) -> None:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--dest", str(folder)]
    subprocess.run([*pip, *words], check=True, capture_output=True, text=True, env={**os.environ, **environment})


def install_wheels(recipe: Recipe, inside: Namespace) -> list[str]:
    """Make `PYTHON` inside a root with wheels under /wheels; return pip's words for installing more of them."""
    inside.run(["python3", "-m", "venv", PYTHON.removesuffix("/bin/python")], timeout=120)
    pip = [PYTHON, "-m", "pip", "install", "--quiet", "--no-index", "--find-links=/wheels", "--no-cache-dir"]
    inside.run([*pip, *recipe.wheels], timeout=300)
    return pip


@contextlib.contextmanager
def _locked(path: Path, how: int = fcntl.LOCK_EX) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, how)
        yield


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
