"""The batch system: ``python job.py DIRECTORY`` runs the command of ``DIRECTORY/job.json``, once, in the background.

It needs nothing of ebhpc. All that it knows stands in the job's directory, so that it survives every process:

``job.json``   the command, its start and its end (POSIX seconds), what it occupies
``claim``      made by the one process that runs the job; locked as long as that or anything of the command lives
``group``      the command's process group
``cancelled``  made by whoever wants the job to end
``end.json``   how it ended
``stdout``, ``stderr``, ``results/`` (the working directory), ``tmp/``
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def main(directory: Path) -> None:
    """Claim the job and run it in the background; return when it is claimed, by this process or another."""
    mine = directory / f"claim.{os.getpid()}"
    claim = os.open(mine, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    fcntl.flock(claim, fcntl.LOCK_EX)
    try:
        os.link(mine, directory / "claim")  # atomic, and locked from the first moment that others can see it
    except FileExistsError:
        return
    finally:
        mine.unlink()
    if os.fork():
        os._exit(0)
    os.setsid()
    run(directory, json.loads((directory / "job.json").read_text(encoding="utf-8")), claim)


def run(directory: Path, job: dict[str, Any], claim: int) -> None:
    """Wait for the job's start, run it to its end, and write down how it ended."""
    cancelled = directory / "cancelled"
    while time.time() < job["start"] and not cancelled.exists():
        time.sleep(0.1)
    if cancelled.exists():
        return finish(directory, reason="cancelled")
    started = time.time()
    results, tmp = directory / "results", directory / "tmp"
    results.mkdir(exist_ok=True)
    tmp.mkdir(exist_ok=True)
    try:
        with (directory / "stdout").open("wb") as stdout, (directory / "stderr").open("wb") as stderr:
            process = subprocess.Popen(
                job["command"],
                cwd=results,
                env={"PATH": os.defpath, "HOME": str(results), "TMPDIR": str(tmp)},
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
                pass_fds=[claim],
            )
    except (OSError, ValueError) as error:
        return finish(directory, reason=f"cannot be started: {error}", started=started)
    (directory / "group").write_text(str(process.pid), encoding="utf-8")
    reason = None
    while process.poll() is None:
        if cancelled.exists() or time.time() >= job["end"]:
            reason = "cancelled" if cancelled.exists() else "time limit"
            kill(process.pid)
        time.sleep(0.1)
    kill(process.pid)  # what the command left running in the background
    return finish(directory, reason=reason, exit=process.returncode, started=started)


def kill(group: int) -> None:
    """End a process group, if it is still there."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def finish(directory: Path, **end: object) -> None:
    """Write down how the job ended, so that nobody ever reads half of it."""
    draft = directory / "end.json.draft"
    draft.write_text(json.dumps({"ended": time.time(), **end}), encoding="utf-8")
    draft.rename(directory / "end.json")


def alive(directory: Path) -> bool:
    """Whether anything of the job still runs, or waits for its start."""
    try:
        with (directory / "claim").open("rb") as claim:
            fcntl.flock(claim, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


if __name__ == "__main__":
    main(Path(sys.argv[1]))
