"""Build a Debian package of ebhpc: ``python3 packaging/debian/build.py [--into DIR] [--extras A,B] [--plugins A,B]``.

ebhpc, its plugins and all that they depend on go into a virtual environment in /opt/ebhpc, for the Python of the Debian
that this runs on; beside it come the units of systemd, the service's user and a configuration. It needs dpkg-deb,
python3-venv and pip's access to packages (PIP_* variables count as ever), and nothing but the standard library.
"""

from __future__ import annotations

import argparse
import configparser
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
HOME = Path("opt/ebhpc")
UNITS = ("ebhpc-api.service", "ebhpc-api.socket", "ebhpc-driver@.service")
_SOURCES = ("ebhpc", "plugins", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")
_INSTALLED = {
    # Who runs a command by hand means the service's state too
    r"(?m)^#state: null$": "state: /var/lib/ebhpc",
    r"(?m)^#logging:(\n(?:  #.*\n)*?)  #format: text$": r"logging:\1  format: journal",
}
"""What the installed configuration says beyond the defaults."""
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "*.pyc")


def main() -> int:
    """Build the package and print where it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=Path, default=CHECKOUT / "build", help="the directory of the package")
    parser.add_argument("--extras", default="notebook,postgresql", help="extras of ebhpc (default %(default)s)")
    parser.add_argument("--plugins", default=",".join(_plugins()), help="plugins of the checkout (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="a larger package in less time")
    wanted = parser.parse_args()
    lacking = [name for name in ("dpkg-deb", "dpkg") if shutil.which(name) is None]
    if lacking:
        print(f"make deb needs {', '.join(lacking)}: it runs on Debian and what is made from it", file=sys.stderr)
        return 1
    wanted.into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ebhpc-deb-") as folder:
        work = Path(folder)
        root = work / "root"
        _environment(work, root, _split(wanted.extras), _split(wanted.plugins))
        _files(root)
        _control(root)
        package = wanted.into / f"ebhpc_{_version()}_{_architecture()}.deb"
        compression = ["-Zgzip", "-z1"] if wanted.quick else ["-Zxz"]
        _run("dpkg-deb", "--root-owner-group", *compression, "--build", root, package)
    print(package)
    return 0


def _environment(work: Path, root: Path, extras: Sequence[str], plugins: Sequence[str]) -> None:
    """Make the virtual environment as it will lie in /opt/ebhpc; pip itself stays out of it."""
    source = work / "source"
    for name in _SOURCES:
        place = CHECKOUT / name
        if place.is_dir():
            shutil.copytree(place, source / name, ignore=_LEFT_OUT)
        else:
            shutil.copy2(place, source / name)
    builder, home = work / "builder", root / HOME
    python = _python()
    _run(python, "-m", "venv", builder)
    _run(python, "-m", "venv", "--without-pip", home)
    things = [f"{source}[{','.join(extras)}]" if extras else str(source)]
    things += [str(source / "plugins" / name) for name in plugins]
    pip = [builder / "bin/python", "-m", "pip", "--python", home / "bin/python", "--disable-pip-version-check"]
    _run(*pip, "install", "--quiet", "--no-compile", "--no-warn-script-location", *things)
    for script in (home / "bin").iterdir():
        if script.name.lower().startswith("activate"):
            script.unlink()
        elif not script.is_symlink():
            text = script.read_text(encoding="utf-8")
            script.write_text(text.replace(f"#!{home}/bin/", f"#!/{HOME}/bin/", 1), encoding="utf-8")
    (home / "pyvenv.cfg").write_text(
        re.sub(r"(?m)^command = .*\n", "", (home / "pyvenv.cfg").read_text(encoding="utf-8")), encoding="utf-8"
    )
    for record in home.glob("lib/*/site-packages/*/direct_url.json"):
        record.unlink()  # where this machine had the source is nobody's business
    # dpkg keeps times, so what is compiled here stays good there; a traceback names the place there
    _run(home / "bin/python", "-m", "compileall", "-q", "-j0", "-s", root, "-p", "/", home / "lib")


def _files(root: Path) -> None:
    """Lay out what lies outside of /opt."""
    for unit in UNITS:
        _copy(CHECKOUT / "systemd" / unit, root / "usr/lib/systemd/system" / unit)
    _copy(CHECKOUT / "systemd/ebhpc.sysusers", root / "usr/lib/sysusers.d/ebhpc.conf")
    _copy(CHECKOUT / "systemd/ebhpc.tmpfiles", root / "usr/lib/tmpfiles.d/ebhpc.conf")
    _copy(CHECKOUT / "conf/ebhpc.yaml", root / "etc/ebhpc/ebhpc.yaml")
    settings = root / "etc/ebhpc/ebhpc.yaml"
    text = settings.read_text(encoding="utf-8")
    for pattern, value in _INSTALLED.items():
        text, found = re.subn(pattern, value, text)
        if found != 1:
            raise SystemExit(f"conf/ebhpc.yaml has nothing like {pattern!r}, which the package sets")
    settings.write_text(text, encoding="utf-8")
    for name in sorted((CHECKOUT / "conf/platforms.d").iterdir()):
        _copy(name, root / "usr/share/doc/ebhpc/examples/platforms.d" / name.name)
    (root / "etc/ebhpc/platforms.d").mkdir()
    for name in sorted((HERE / "examples").iterdir()):
        _copy(name, root / "usr/share/doc/ebhpc/examples" / name.name)
    _copy(CHECKOUT / "README.md", root / "usr/share/doc/ebhpc/README.md")
    _copy(CHECKOUT / "CHANGELOG.md", root / "usr/share/doc/ebhpc/CHANGELOG.md")
    _copy(CHECKOUT / "LICENSE", root / "usr/share/doc/ebhpc/copyright")
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/ebhpc").symlink_to(f"/{HOME}/bin/ebhpc")


def _control(root: Path) -> None:
    folder = root / "DEBIAN"
    folder.mkdir()
    major, minor = (int(part) for part in _said(_python(), "-c", _ASK_VERSION).split())
    size = sum(path.lstat().st_size for path in root.rglob("*")) // 1024
    fields = {
        "Package": "ebhpc",
        "Version": _version(),
        "Architecture": _architecture(),
        "Maintainer": "The ebhpc developers <ebhpc@localhost>",
        "Installed-Size": str(size),
        "Depends": f"python3 (>= {major}.{minor}~), python3 (<< {major}.{minor + 1}~), systemd (>= 252)",
        "Suggests": "podman, postgresql-client",
        "Section": "science",
        "Priority": "optional",
        "Description": "IVOA Execution Broker for HPC centres\n"
        " Users ask when something can run here, accept an offer and get the result;\n"
        " the site's batch systems do the computing.",
    }
    (folder / "control").write_text("".join(f"{key}: {value}\n" for key, value in fields.items()), encoding="utf-8")
    (folder / "conffiles").write_text("/etc/ebhpc/ebhpc.yaml\n", encoding="utf-8")
    for script in ("postinst", "prerm", "postrm"):
        _copy(HERE / script, folder / script)
        (folder / script).chmod(0o755)


_ASK_VERSION = "import sys; print(*sys.version_info[:2])"


def _plugins() -> Iterator[str]:
    return (path.parent.name for path in sorted((CHECKOUT / "plugins").glob("*/setup.cfg")))


def _split(words: str) -> list[str]:
    return [word for word in words.split(",") if word]


def _version() -> str:
    settings = configparser.ConfigParser()
    settings.read(CHECKOUT / "setup.cfg", encoding="utf-8")
    return settings["metadata"]["version"]


def _architecture() -> str:
    return _said("dpkg", "--print-architecture")


def _python() -> str:
    return os.environ.get("DEB_PYTHON", "/usr/bin/python3")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o644)


def _said(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def _run(*words: str | Path) -> None:
    done = subprocess.run([os.fspath(word) for word in words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, words))} failed:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    sys.exit(main())
