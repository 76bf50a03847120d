"""A cloud by hand: ``python -m tests.lab.openstack build|up|down|run``.

build               build the roots that are not cached yet
up                  start a cloud, and leave it running
run USER WORDS      run a command in the running cloud as that user
down                take the running cloud away
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

from tests.lab import cache, debian
from tests.lab.openstack import guest, missing, openstack_cloud, root
from tests.lab.openstack.roots import remove_outdated

_UP_SECONDS = 600.0


def build() -> int:
    """Build the roots that are missing, and remove those that no recipe asks for; 1 if this machine cannot."""
    lacking = missing()
    for reason in lacking:
        print(f"lab: OpenStack cannot be tested: {reason}", file=sys.stderr)
    if lacking:
        return 1
    began = time.monotonic()
    place = root()
    remove_outdated()
    print(f"lab: OpenStack in {place} ({time.monotonic() - began:.1f} s)")
    began = time.monotonic()
    wanted = guest.root()
    place = wanted.ready()
    debian.remove_outdated(wanted.folder, [wanted])
    print(f"lab: a guest for OpenStack in {place} ({time.monotonic() - began:.1f} s)")
    return 0


def up() -> int:
    """Start a cloud that stays when this ends."""
    if build() != 0:
        return 1
    if _running():
        print("lab: OpenStack runs already")
        return 0
    began = time.monotonic()
    log = _state().with_suffix(".log")
    checkout = str(Path(__file__).parents[3])
    with log.open("wb") as file:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "tests.lab.openstack", "keep"],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
            cwd="/",
            env={**os.environ, "PYTHONPATH": checkout},
        )
    while not _running():
        if keeper.poll() is not None or time.monotonic() - began > _UP_SECONDS:
            print(f"lab: OpenStack did not start:\n{log.read_text()}", file=sys.stderr)
            return 1
        time.sleep(0.1)
    print(f"lab: OpenStack is up ({time.monotonic() - began:.1f} s):", json.loads(_state().read_text()))
    print("     .venv/bin/python -m tests.lab.openstack run ebhpc openstack --os-cloud planner server list")
    return 0


def keep() -> NoReturn:
    """Hold a cloud until somebody sends SIGTERM."""

    def end(*_: object) -> None:
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    state = _state()
    with openstack_cloud() as cloud:
        told: dict[str, Any] = {
            "keeper": os.getpid(),
            "pid": cloud.namespace.pid,
            "ssh": [cloud.ssh.host, cloud.ssh.port, cloud.ssh.user],
            "key_file": str(cloud.ssh.key_file),
            "known_hosts": str(cloud.ssh.known_hosts),
        }
        new = state.with_suffix(".new")
        new.write_text(json.dumps(told), encoding="utf-8")
        new.rename(state)
        try:
            while True:
                signal.pause()
        finally:
            state.unlink(missing_ok=True)


def run(user: str, words: list[str]) -> int:
    """Run a command in the cloud that `up` started."""
    told = _running()
    if not told:
        print("lab: OpenStack does not run; make lab-openstack starts it", file=sys.stderr)
        return 1
    enter = ["nsenter", f"--target={told['pid']}", "--mount", "--uts", "--pid", "--", "/usr/bin/setpriv"]
    enter += [f"--reuid={user}", f"--regid={user}", "--init-groups", "--reset-env"]
    return subprocess.call([*enter, *words])


def down() -> int:
    """Take away the cloud that `up` started."""
    if told := _running():
        keeper = psutil.Process(told["keeper"])
        keeper.terminate()
        keeper.wait(60)
        print("lab: OpenStack is down")
    for name in ("json", "log"):
        _state().with_suffix(f".{name}").unlink(missing_ok=True)
    return 0


def _state() -> Path:
    folder = cache() / "openstack"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "up.json"


def _running() -> dict[str, Any]:
    """Return what the keeper of a cloud has told about it; empty: there is none."""
    try:
        told: dict[str, Any] = json.loads(_state().read_text(encoding="utf-8"))
        words = psutil.Process(told["keeper"]).cmdline()
    except (OSError, ValueError, KeyError, psutil.Error):
        return {}
    return told if "tests.lab.openstack" in words else {}


def main() -> int:
    """Do what the words say."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.openstack", description=__doc__)
    parser.add_argument("what", choices=["build", "up", "keep", "run", "down"])
    parser.add_argument("words", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    if given.what == "run":
        return run(given.words[0], given.words[1:])
    return {"build": build, "up": up, "keep": keep, "down": down}[given.what]()


if __name__ == "__main__":
    sys.exit(main())
