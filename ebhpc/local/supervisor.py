"""Runs one session's job, keeps it to its limits, and writes down how it ended.

    python -m ebhpc.local.supervisor SESSION-DIRECTORY

Three processes, each a fork of the one before:

- The *launcher* waits until it is known whether the job has a supervisor, and ends (exit code: ``Launch``).
- The *guard* takes ``alive.lock`` for as long as it lives, makes ``started``, which exists once, and so has the job to
  itself. It waits for the watch. Where that is killed, it ends what is left, and writes the status in its place.
- The *watch* runs the job (module ``watch``). Where the guard is killed, it ends the job.

None of them needs the driver, which may end and come back. Only the standard library and psutil are imported.
"""

from __future__ import annotations

import contextlib
import enum
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

from ebhpc.local import ends, linux, remains, watch
from ebhpc.local.places import SessionDirectory
from ebhpc.staging.files import Busy, held, read_json, write_json

_PROBES = 2.0
"""Seconds for which ``alive.lock`` may be held by somebody who only looks at it."""


class Launch(enum.IntEnum):
    """What came of a launch: the exit code of the launcher."""

    STARTED = 0
    BROKEN = 1
    TAKEN = 10
    ENDED = 11


def main() -> NoReturn:
    """Launch the supervisor of the session directory named on the command line."""
    directory = SessionDirectory(Path(sys.argv[1]))
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.close(reading)
        os._exit(_detached(directory, writing))
    os.close(writing)
    answer = os.read(reading, 1)
    sys.exit(answer[0] if answer else Launch.BROKEN)


def _detached(directory: SessionDirectory, answer: int) -> int:
    try:
        os.setsid()
        return _guard(directory, answer)
    except BaseException:  # noqa: BLE001  # the last frame of this process: what is not logged here is lost
        traceback.print_exc()
        return Launch.BROKEN
    finally:
        sys.stderr.flush()


def _guard(directory: SessionDirectory, answer: int) -> int:
    def tell(outcome: Launch) -> None:
        with contextlib.suppress(BrokenPipeError):  # the launcher was killed; we were not
            os.write(answer, bytes([outcome]))
        os.close(answer)

    with contextlib.ExitStack() as stack:
        until = time.monotonic() + _PROBES
        while True:
            try:
                stack.enter_context(held(directory.alive_lock, wait=False))
                break
            except Busy:
                if directory.started.exists() or time.monotonic() > until:
                    tell(Launch.TAKEN)
                    return 0
                time.sleep(0.02)
        if directory.marked_to_end():
            tell(Launch.ENDED)
            return 0
        if not _begin(directory):
            tell(Launch.TAKEN)
            return 0
        tell(Launch.STARTED)
        job = read_json(directory.job)
        if job is None:
            raise FileNotFoundError(directory.job)
        linux.adopt_orphans()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        guard = os.getpid()
        child = os.fork()
        if child == 0:
            os._exit(_watch(directory, job, guard))
        signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
        _, status = os.waitpid(child, 0)
        if read_json(directory.status) is None:
            code = os.waitstatus_to_exitcode(status)
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            settle(directory, job, how, children_of=guard)
    return 0


def _begin(directory: SessionDirectory) -> bool:
    """Make ``started`` with its content; False if it is there already: a hard link is made once."""
    part = directory.started.with_name(f"started.{os.getpid()}.part")
    part.write_text(json.dumps({"guard": os.getpid(), "time": time.time()}), encoding="utf-8")
    try:
        os.link(part, directory.started)
    except FileExistsError:
        return False
    finally:
        part.unlink()
    return True


def _watch(directory: SessionDirectory, job: dict[str, Any], guard: int) -> int:
    try:
        linux.die_with_parent(signal.SIGTERM, guard)
        watch.run(directory, job)
    except BaseException:  # noqa: BLE001  # as above; the guard settles the session
        traceback.print_exc()
        return 1
    finally:
        sys.stderr.flush()
    return 0


def settle(
    directory: SessionDirectory, job: dict[str, Any] | None, how: str, *, children_of: int | None = None
) -> None:
    """End what a lost supervisor has left, and write the status that it did not.

    Called by the guard, whose descendants (``children_of``) are all the job's, and by the platform where the guard is
    lost, too.
    """
    container = (job or {}).get("container")
    remains.end(directory.uuid, directory.name, container, children_of=children_of)
    running = read_json(directory.running) or {}
    write_json(
        directory.status,
        {
            "state": "FAILED",
            "exit_code": None,
            "reason": "supervisor",
            "started": running.get("started"),
            "ended": time.time(),
            "connectors": running.get("connectors") or [],
            "messages": [ends.supervisor_lost(how)],
        },
    )


if __name__ == "__main__":
    main()
