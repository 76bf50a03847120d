"""Runs a command in reserved time on this host.

    python -m ebhpc.local.use DIRECTORY [--cores N] -- COMMAND …

It waits until the time begins and until so many of its cores are free (all of them, where nothing is said), runs the
command on them, and ends it when the time is over or is given back. Exit code: the command's (128 + n where signal n
ended it); 125 where it could not be run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import psutil

from ebhpc.local import cgroups, claims, linux, processes
from ebhpc.local.places import SessionDirectory
from ebhpc.local.slots import inside, slot_file
from ebhpc.staging.files import read_json, write_json

BROKEN = 125
_LOOK = 0.2
"""Seconds between two looks."""

_TOUCH = 1.0
"""Seconds between two signs of life."""


class NotNow(Exception):
    """There is no time to run in, or no more."""


def main(words: Sequence[str] | None = None) -> int:
    """Run the command that ``words`` name; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m ebhpc.local.use", description="Run a command in reserved time.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--cores", type=int, help="how many of its cores; absent: all")
    parser.add_argument("command", nargs="+")
    asked = parser.parse_args(words)
    directory = SessionDirectory(asked.directory.resolve())
    try:
        slot = _slot(directory)
        cores = slot["cores"] if asked.cores is None else asked.cores
        if not 1 <= cores <= slot["cores"]:
            raise NotNow(f"this reserved time has {slot['cores']} cores")
        _wait_for_start(directory)
        tokens = _take(directory, cores)
        numbers, held = claims.claim(Path(slot["claims"]), "core", slot["core_choices"], cores)
        return _Command(directory, asked.command, cores, numbers, [*tokens, *held]).run()
    except NotNow as error:
        return _refuse(str(error))
    except PermissionError as error:
        return _refuse(f"this reserved time is not yours: {error.strerror}")


def _refuse(text: str) -> int:
    print(f"ebhpc: {text}", file=sys.stderr)  # noqa: T201  # a program of its own
    return BROKEN


def _slot(directory: SessionDirectory) -> dict[str, Any]:
    """Return what the slot is now: its end may be moved.

    Raises:
        NotNow: there is none, or it is over.
    """
    slot = read_json(slot_file(directory))
    if slot is None:
        raise NotNow("there is no reserved time here")
    if directory.marked_to_end():
        raise NotNow("this reserved time was given back")
    if time.time() >= slot["end"]:
        raise NotNow("this reserved time is over")
    return slot


def _wait_for_start(directory: SessionDirectory) -> None:
    while (left := _slot(directory)["start"] - time.time()) > 0:
        time.sleep(min(left, 1.0))


def _take(directory: SessionDirectory, cores: int) -> list[int]:
    """Take so many of the slot's cores; return what holds them until it is closed."""
    while True:
        have = range(_slot(directory)["cores"])
        _, held = claims.claim(inside(directory), "core", have, cores)
        if len(held) == cores:
            return held
        for descriptor in held:
            os.close(descriptor)
        time.sleep(_LOOK)


class _Command:
    """One command in a slot, from its start to its end."""

    def __init__(
        self, directory: SessionDirectory, command: list[str], cores: int, numbers: list[int], held: list[int]
    ) -> None:
        self.directory = directory
        self.command = command
        self.cores = cores
        self.numbers = numbers
        self.held = held
        self.stopped: int | None = None
        self.file = self._file()

    def _file(self) -> Path:
        """Make this command's file, of the next number that is free."""
        folder = inside(self.directory)
        number = 1 + max((int(one.stem) for one in folder.glob("*.json") if one.stem.isdecimal()), default=0)
        while True:
            file = folder / f"{number}.json"
            try:
                os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            except FileExistsError:
                number += 1
            else:
                return file

    def run(self) -> int:
        """Run it; return its exit code."""
        linux.adopt_orphans()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._stop)
        entry = {
            "name": os.path.basename(self.command[0]),
            "user": pwd.getpwuid(os.getuid()).pw_name,
            "cores": self.cores,
            "pid": os.getpid(),
            "pid_started": psutil.Process().create_time(),
            "started": time.time(),
            "ended": None,
            "exit_code": None,
        }
        write_json(self.file, entry)
        try:
            child = subprocess.Popen(
                self.command,
                env={
                    **os.environ,
                    processes.MARK: self.directory.uuid,
                    "EBHPC_CORES": str(self.cores),
                    "OMP_NUM_THREADS": str(self.cores),
                },
                preexec_fn=self._become(os.getpid()),
            )
        except OSError as error:
            write_json(self.file, {**entry, "ended": time.time(), "exit_code": BROKEN})
            return _refuse(f"{self.command[0]}: {error.strerror}")
        why = self._watch(child)
        processes.end_all(lambda: processes.descendants(os.getpid()))
        code = child.returncode if child.returncode >= 0 else 128 - child.returncode
        write_json(self.file, {**entry, "ended": time.time(), "exit_code": code})
        if why is not None:
            _refuse(f"{why}; the command was ended")
        return code

    def _stop(self, number: int, _: object) -> None:
        self.stopped = number

    def _become(self, parent: int) -> Callable[[], None]:
        slot = _slot(self.directory)
        group = cgroups.Group(self.directory.name, {name: Path(path) for name, path in slot["group"].items()})
        numbers = self.numbers

        def become() -> None:
            if numbers:
                os.sched_setaffinity(0, numbers)
            with contextlib.suppress(OSError):  # the group is another user's: the cores are kept all the same
                group.enter()
            linux.die_with_parent(signal.SIGKILL, parent)

        return become

    def _watch(self, child: subprocess.Popen[bytes]) -> str | None:
        """Wait for the command's end, or end it; return why that had to be."""
        touched = 0.0
        why = None
        while child.poll() is None:
            now = time.time()
            if now - touched >= _TOUCH:
                touched = now
                os.utime(self.file)
            try:
                slot = _slot(self.directory)
                # It gets its warning before the end, so that it has ended by then
                span = slot["end"] - slot["start"]
                if now >= slot["end"] - min(slot["grace"], span / 20):
                    raise NotNow("this reserved time is over")
            except (NotNow, json.JSONDecodeError) as error:
                why = str(error)
            if self.stopped is not None or why is not None:
                self._end(child)
                break
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_LOOK)
        return why

    def _end(self, child: subprocess.Popen[bytes]) -> None:
        slot = read_json(slot_file(self.directory)) or {"grace": 1.0}
        child.send_signal(self.stopped or signal.SIGTERM)
        try:
            child.wait(slot["grace"])
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _run() -> NoReturn:
    sys.exit(main())


if __name__ == "__main__":
    _run()
