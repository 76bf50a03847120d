"""Slurm clusters by hand: ``python -m tests.lab.slurm build|up|down|run``.

build               build the roots that are not cached yet
up [VERSION]...     start clusters, by default one of each version, and leave them running
run VERSION USER WORDS   run a command in a running cluster as that user
down                take all running clusters away
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import psutil

from tests.lab import cache
from tests.lab.slurm import VERSIONS, missing, root, slurm_cluster
from tests.lab.slurm.roots import remove_outdated

_UP_SECONDS = 600.0


def build() -> int:
    """Build the roots that are missing, and remove those that no recipe asks for; 1 if this machine cannot."""
    lacking = missing()
    for reason in lacking:
        print(f"lab: Slurm cannot be tested: {reason}", file=sys.stderr)
    if lacking:
        return 1
    remove_outdated()
    for version in VERSIONS:
        began = time.monotonic()
        place = root(version)
        print(f"lab: Slurm {version} in {place} ({time.monotonic() - began:.1f} s)")
    return 0


def up(versions: list[str], nodes: int | None) -> int:
    """Start clusters that stay when this ends."""
    if build() != 0:
        return 1
    for version in versions:
        if _running(version):
            print(f"lab: Slurm {version} runs already")
            continue
        began = time.monotonic()
        words = [sys.executable, "-m", "tests.lab.slurm", "keep", version, *([f"--nodes={nodes}"] if nodes else [])]
        log = _state(version).with_suffix(".log")
        with log.open("wb") as file:
            keeper = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
                cwd="/",
                env=_environment(),
            )
        while not _running(version):
            if keeper.poll() is not None or time.monotonic() - began > _UP_SECONDS:
                print(f"lab: Slurm {version} did not start:\n{log.read_text()}", file=sys.stderr)
                return 1
            time.sleep(0.1)
        print(
            f"lab: Slurm {version} is up ({time.monotonic() - began:.1f} s):", json.loads(_state(version).read_text())
        )
        print(f"     .venv/bin/python -m tests.lab.slurm run {version} alice squeue")
    return 0


def keep(version: str, nodes: int | None) -> NoReturn:
    """Hold a cluster until somebody sends SIGTERM."""

    def end(*_: object) -> None:
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    state = _state(version)
    with slurm_cluster(version, nodes) as cluster:
        told: dict[str, Any] = {
            "keeper": os.getpid(),
            "started": psutil.Process().create_time(),
            "pid": cluster.namespace.pid,
            "shared": str(cluster.shared),
            "ssh": cluster.ssh.argv,
            "rest": cluster.rest,
        }
        new = state.with_suffix(".new")
        new.write_text(json.dumps(told), encoding="utf-8")
        new.rename(state)
        try:
            while True:
                signal.pause()
        finally:
            state.unlink(missing_ok=True)


def run(version: str, user: str, words: list[str]) -> int:
    """Run a command in a cluster that `up` started."""
    told = _running(version)
    if not told:
        print(f"lab: Slurm {version} does not run; make lab-slurm starts it", file=sys.stderr)
        return 1
    enter = ["nsenter", f"--target={told['pid']}", "--mount", "--uts", "--pid", "--", "/usr/bin/setpriv"]
    enter += [f"--reuid={user}", f"--regid={user}", "--init-groups", "--reset-env"]
    return subprocess.call([*enter, *words])


def down() -> int:
    """Take all clusters away that `up` started."""
    for version in VERSIONS:
        if told := _running(version):
            keeper = psutil.Process(told["keeper"])
            keeper.terminate()
            keeper.wait(60)
            print(f"lab: Slurm {version} is down")
        for name in ("json", "log"):
            _state(version).with_suffix(f".{name}").unlink(missing_ok=True)
    return 0


def _state(version: str) -> Path:
    folder = cache() / "slurm"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"up-{version.replace('.', '')}.json"


def _running(version: str) -> dict[str, Any]:
    """Return what the keeper of a cluster has told about it; empty: there is none."""
    try:
        told: dict[str, Any] = json.loads(_state(version).read_text(encoding="utf-8"))
        # A process of this number that started at another time is another one
        alive = abs(psutil.Process(told["keeper"]).create_time() - told["started"]) < 1.0
    except (FileNotFoundError, psutil.NoSuchProcess):
        return {}
    return told if alive else {}


def _environment() -> dict[str, str]:
    here = str(Path(__file__).parents[3])
    return {**os.environ, "PYTHONPATH": os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])}


def main() -> int:
    """Carry out a command."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.slurm", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="build the roots that are not cached yet")
    starts = commands.add_parser("up", help="start clusters and leave them running")
    starts.add_argument("versions", nargs="*", default=list(VERSIONS), metavar="VERSION")
    keeps = commands.add_parser("keep", help="hold one cluster until SIGTERM (what up starts)")
    keeps.add_argument("version", choices=VERSIONS)
    for one in (starts, keeps):
        one.add_argument("--nodes", type=int, help="that many equal nodes instead of the small layout")
    runs = commands.add_parser("run", help="run a command in a running cluster")
    runs.add_argument("version", choices=VERSIONS)
    runs.add_argument("user")
    runs.add_argument("words", nargs=argparse.REMAINDER)
    commands.add_parser("down", help="take all running clusters away")
    wanted = parser.parse_args()
    if wanted.command == "up":
        return up(wanted.versions, wanted.nodes)
    if wanted.command == "keep":
        keep(wanted.version, wanted.nodes)
    if wanted.command == "run":
        return run(wanted.version, wanted.user, wanted.words)
    return build() if wanted.command == "build" else down()


if __name__ == "__main__":
    sys.exit(main())
