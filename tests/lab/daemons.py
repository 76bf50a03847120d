"""The daemons of a lab's cluster, to be started, stopped, killed and held."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import psutil

from tests.lab.namespace import Namespace

_STOP_SECONDS = 20.0
T = TypeVar("T")


def until(question: Callable[[], T], timeout: float, what: str, step: float = 0.05) -> T:
    """Ask until the answer is true, and return it; AssertionError with ``what`` after ``timeout`` seconds."""
    end = time.monotonic() + timeout
    while not (answer := question()):
        assert time.monotonic() < end, f"{what} within {timeout:g} s"
        time.sleep(step)
    return answer


def listens(port: int) -> bool:
    """Tell whether somebody listens on a loopback port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@dataclass(frozen=True)
class Daemon:
    """One daemon: ``programs`` are names of its executable, ``words`` tells its processes from others of that name."""

    namespace: Namespace
    name: str
    programs: tuple[str, ...]
    launch: Callable[[], object]
    ready: Callable[[], object]
    words: tuple[str, ...] = ()

    def start(self, timeout: float = 30.0) -> None:
        """Start it, and wait until it answers."""
        self.launch()
        self.wait(timeout)

    def wait(self, timeout: float = 30.0) -> None:
        """Wait until it answers."""
        until(self.ready, timeout, f"{self.name} answers")

    def stop(self) -> None:
        """End it in order; killed after 20 s."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it, as a crash would: what it had not written is lost."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """End it in order and start it again."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Hold it (SIGSTOP): it neither answers nor ends."""
        for process in self.processes():
            process.suspend()

    def resume(self) -> None:
        """Let it go on after `pause`."""
        for process in self.processes():
            process.resume()

    @property
    def running(self) -> bool:
        """Tell whether it has a process."""
        return bool(self.processes())

    @property
    def pid(self) -> int:
        """Return the host's number of its process; AssertionError if it has none, or several."""
        (process,) = self.processes()
        return process.pid

    def cpu_seconds(self) -> float:
        """Return the CPU time that its process has used since its start."""
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)

    def processes(self) -> list[psutil.Process]:
        """Return its processes, without their children."""
        found = {}
        for process in self.namespace.processes():
            with contextlib.suppress(psutil.Error):
                if process.exe().rpartition("/")[2] in self.programs and set(self.words) <= set(process.cmdline()):
                    found[process.pid] = process
        parents = {}
        for process in found.values():
            with contextlib.suppress(psutil.Error):
                parents[process.pid] = process.ppid()
        return [found[pid] for pid, parent in parents.items() if parent not in found]

    def _end(self, number: signal.Signals) -> None:
        ending = self.processes()
        for process in ending:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
                if number == signal.SIGTERM:
                    process.resume()
        _, stubborn = psutil.wait_procs(ending, timeout=_STOP_SECONDS)
        for process in stubborn:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(stubborn, timeout=_STOP_SECONDS)
