"""A root file system of its own with processes of its own, which the kernel takes away with its holder.

Mounts, processes and the host name are the namespace's; the network and the Unix users are the host's. Its first
process waits for the end of its stdin, whose other end is ours: with us ends everything, also by ``kill -9``.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

RECIPE = Path(__file__).parent / "recipe"
_START_SECONDS = 30.0

GROUPS = "/run/groups"
"""Where the control groups of a lab are inside."""

# It outlives us if we are killed, and takes away what is left on the host once the namespaces are gone
_HOLD = """
place=$1 groups=$2
shift 2
"$@"
IFS=:
for group in $groups; do
    for try in 1 2 3 4 5; do
        find "$group" -depth -type d -exec rmdir {} + && break
        sleep 0.2
    done
done
rm -rf --one-file-system "$place"
"""


@dataclass(frozen=True)
class Bind:
    """A file or directory of the host that is also in the root; ``target`` None: under the same path."""

    source: Path
    target: Path | None = None
    writable: bool = False


@dataclass(frozen=True)
class Namespace:
    """Running namespaces: the host's number of their first process, and their directory ``place`` on the host."""

    pid: int
    place: Path
    identity: str = field(repr=False)

    @property
    def root(self) -> Path:
        """Return the root's files as the host sees them."""
        return Path(f"/proc/{self.pid}/root")

    def enter_argv(
        self, user: str = "root", environment: Mapping[str, str] | None = None, keep_environment: bool = False
    ) -> list[str]:
        """Return the words before a command that run it inside as ``user``, with the user's groups.

        It gets HOME, USER, LOGNAME, SHELL, PATH and ``environment``; with ``keep_environment`` it gets the caller's
        environment and ``environment``. It ends with the process that these words start.
        """
        words = ["nsenter", f"--target={self.pid}", "--mount", "--uts", "--pid", "--", "/usr/bin/setpriv"]
        words += [f"--reuid={user}", f"--regid={user}", "--init-groups", "--pdeathsig=KILL"]
        if not keep_environment:
            words.append("--reset-env")
        if environment:
            words += ["/usr/bin/env", *(f"{name}={value}" for name, value in environment.items())]
        return words

    def run(
        self,
        words: Sequence[str],
        user: str = "root",
        timeout: float = 60.0,
        check: bool = True,
        data: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside and return what it said; AssertionError if it fails and ``check`` is set."""
        done = subprocess.run(
            [*self.enter_argv(user, environment), *words],
            input=data,
            stdin=subprocess.DEVNULL if data is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(words)} as {user}: {done.returncode}: {done.stdout}{done.stderr}")
        return done

    def start(self, words: Sequence[str], user: str, log: str, environment: Mapping[str, str] | None = None) -> None:
        """Start a program that stays in the foreground, as a child of the first process; ``log``: its output."""
        script = 'log=$1; shift; setsid "$@" >>"$log" 2>&1 </dev/null &'
        self.run(["/bin/sh", "-c", script, "sh", log, *words], user=user, environment=environment)

    def processes(self) -> Iterator[psutil.Process]:
        """Yield the processes inside, the first one among them."""
        for process in psutil.process_iter():
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{process.pid}/ns/pid") == self.identity:
                    yield process


@contextlib.contextmanager
def namespace(
    root: Path,
    name: str,
    binds: Sequence[Bind] = (),
    writable: bool = False,
    place: Path | None = None,
    groups: Mapping[str, Path] | None = None,
) -> Iterator[Namespace]:
    """Run namespaces on ``root``, with host name ``name``; ``writable``: changes go into ``root`` itself.

    ``place``: the lab's directory on the host, taken away at the end; one is made where none is given. ``groups`` are
    control groups of the host by their controller, version 1, made at the start and taken away at the end; inside
    each is ``/run/groups/CONTROLLER``.
    """
    place = place or Path(tempfile.mkdtemp(prefix="ebl-"))
    for folder in ("root", "upper"):
        (place / folder).mkdir()
    words = [str(RECIPE / "namespace.sh"), str(root), str(place), "direct" if writable else "overlay", name]
    for bind in binds:
        words += [str(bind.source), str(bind.target or bind.source), "rw" if bind.writable else "ro"]
    for controller, group in (groups or {}).items():
        group.mkdir()
        words += [str(group), f"{GROUPS}/{controller}", "rw"]
    unshare = ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--propagation", "private"]
    holder = subprocess.Popen(
        [
            "/bin/sh",
            "-c",
            _HOLD,
            "sh",
            str(place),
            ":".join(map(str, (groups or {}).values())),
            *unshare,
            "bash",
            *words,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert holder.stdin is not None
    try:
        pid = _first_line(holder)
        yield Namespace(pid=pid, place=place, identity=os.readlink(f"/proc/{pid}/ns/pid"))
    finally:
        holder.stdin.close()
        try:
            holder.wait(30)
        finally:
            for stream in (holder.stdout, holder.stderr):
                assert stream is not None
                stream.close()
            shutil.rmtree(place, ignore_errors=True)


def _first_line(holder: subprocess.Popen[str]) -> int:
    """Return the number that the first process says when all is mounted; AssertionError with what went wrong."""
    assert holder.stdout is not None
    assert holder.stderr is not None
    with selectors.DefaultSelector() as selector:
        selector.register(holder.stdout, selectors.EVENT_READ)
        line = holder.stdout.readline() if selector.select(_START_SECONDS) else ""
    if not line.strip():
        holder.kill()
        raise AssertionError(f"the lab's namespaces did not start: {holder.stderr.read()}")
    return int(line)
