"""A booted machine: systemd-nspawn with a control group of its own, and what a test does with it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab.systemd.roots import HOST_NAME, WHEELS, used, wheels_used

CHECKOUT = "/opt/checkout"
"""Inside: the checkout, read-only."""

_HIERARCHIES = ("systemd", "unified", "")
_BOOT_SECONDS = 180.0
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Machine:
    """A machine that has booted: the host's number of its first process."""

    pid: int

    @property
    def root(self) -> Path:
        """Return its files as the host sees them."""
        return Path(f"/proc/{self.pid}/root")

    def run(
        self,
        words: Sequence[str],
        *,
        check: bool = True,
        timeout: float = 180.0,
        data: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside as root and return what it said; AssertionError if it fails and ``check`` is set."""
        variables = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8", **(environment or {})}
        settings = [f"{name}={value}" for name, value in variables.items()]
        done = subprocess.run(
            ["nsenter", f"--target={self.pid}", "--all", "env", "-i", *settings, *words],
            input=data,
            stdin=subprocess.DEVNULL if data is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(words)}: {done.returncode}: {done.stdout}{done.stderr}")
        return done

    def systemctl(self, *words: str, check: bool = True) -> str:
        """Call systemctl inside and return what it said."""
        return self.run(["systemctl", *words], check=check).stdout.strip()

    def property(self, unit: str, name: str) -> str:
        """Return a property of a unit, as ``MainPID``."""
        return self.systemctl("show", "--value", f"--property={name}", unit)

    def journal(self, *words: str) -> str:
        """Return lines of the journal."""
        return self.run(["journalctl", "--no-pager", *words]).stdout

    def until(self, unit: str, name: str, value: str, seconds: float = 120.0) -> None:
        """Wait until a unit's property has a value; AssertionError with its journal where it does not come to that."""
        deadline = time.monotonic() + seconds
        while (found := self.property(unit, name)) != value:
            if time.monotonic() > deadline:
                told = self.journal("-n", "60", "-u", unit)
                raise AssertionError(f"{unit}: {name} is {found}, not {value} after {seconds:.0f} s\n{told}")
            time.sleep(0.1)


@contextlib.contextmanager
def machine(checkout: Path) -> Iterator[Machine]:
    """Boot a machine with a network of its own (loopback alone) and the checkout at `CHECKOUT`."""
    name = f"ebhpc-lab-{os.getpid()}-{secrets.token_hex(3)}"
    groups = [Path("/sys/fs/cgroup") / one / name for one in _HIERARCHIES]
    # On a hybrid layout systemd's own hierarchy and version 2; on a unified one the only one there is
    groups = [group for group in groups if (group.parent / "cgroup.procs").exists()]
    with used() as base, wheels_used() as wheels, tempfile.TemporaryDirectory(prefix="ebl-systemd-") as folder:
        log = Path(folder) / "console"
        for group in groups:
            group.mkdir()
        try:
            with log.open("wb") as console:
                nspawn = subprocess.Popen(
                    _words(base, {CHECKOUT: checkout, WHEELS: wheels}),
                    stdin=subprocess.DEVNULL,
                    stdout=console,
                    stderr=console,
                    start_new_session=True,
                    env={**os.environ, "SYSTEMD_NSPAWN_USE_CGNS": "1", "UNIFIED_CGROUP_HIERARCHY": "1"},
                    preexec_fn=lambda: _enter(groups),
                )
            try:
                yield Machine(_booted(nspawn, groups[-1], log))
            finally:
                nspawn.send_signal(signal.SIGTERM)
                try:
                    nspawn.wait(30)
                except subprocess.TimeoutExpired:
                    nspawn.kill()
                    nspawn.wait()
        finally:
            for group in groups:
                _remove(group)


def _words(base: Path, shown: Mapping[str, Path]) -> list[str]:
    words = ["systemd-nspawn", f"--directory={base}", "--volatile=overlay", "--boot", "--register=no", "--keep-unit"]
    words += ["--private-users=no", "--private-network", "--console=pipe", "--quiet", f"--hostname={HOST_NAME}"]
    return [*words, *(f"--bind-ro={source}:{target}" for target, source in shown.items())]


def _enter(groups: Sequence[Path]) -> None:
    for group in groups:
        (group / "cgroup.procs").write_text(str(os.getpid()))
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _booted(nspawn: subprocess.Popen[bytes], group: Path, log: Path) -> int:
    """Return the number of the first process when systemd says that it has started everything."""
    deadline = time.monotonic() + _BOOT_SECONDS
    while time.monotonic() < deadline and nspawn.poll() is None:
        with contextlib.suppress(OSError, IndexError, subprocess.TimeoutExpired):
            procs = group / "payload" / "init.scope" / "cgroup.procs"
            found = Machine(int(procs.read_text().split()[0]))
            state = found.run(["systemctl", "is-system-running"], check=False, timeout=10).stdout.strip()
            if state in ("running", "degraded"):
                return found.pid
        time.sleep(0.05)
    raise AssertionError(f"systemd did not boot:\n{log.read_text(errors='replace')[-3000:]}")


def _remove(group: Path) -> None:
    """Remove a control group and those below it; what is left in them is being ended by the kernel."""
    for _ in range(100):
        for place in [*sorted(group.rglob("*/"), reverse=True), group]:
            with contextlib.suppress(OSError):
                place.rmdir()
        if not group.exists():
            return
        time.sleep(0.05)
