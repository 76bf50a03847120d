"""Machines that are network namespaces: each has a name, an address on one network, and a cable that can be pulled."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from ebhpc.local import linux
from tests.labs import require

T = TypeVar("T")

_NETWORK = "10.213.77"


class Network:
    """Machines by name; the switch that joins them is a namespace as well, so the host's network is left alone."""

    def __init__(self, names: Sequence[str]) -> None:
        require(os.geteuid() == 0, "needs root: it makes network namespaces")
        self._mark = f"eb{secrets.token_hex(2)}"
        self.addresses = {name: f"{_NETWORK}.{number}" for number, name in enumerate(names, start=11)}

    def make(self) -> None:
        """Make all machines, cabled to the switch."""
        switch = self.space("switch")
        _ip("netns", "add", switch)
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        for name, address in self.addresses.items():
            space = self.space(name)
            _ip("netns", "add", space)
            _ip("-n", switch, "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", space)
            _ip("-n", switch, "link", "set", name, "master", "bridge", "up")
            _ip("-n", space, "addr", "add", f"{address}/24", "dev", "eth0")
            _ip("-n", space, "link", "set", "eth0", "up")
            _ip("-n", space, "link", "set", "lo", "up")

    def remove(self) -> None:
        """Take all machines away; what runs on them has been ended before."""
        for name in (*self.addresses, "switch"):
            subprocess.run(["ip", "netns", "delete", self.space(name)], check=False, capture_output=True)

    def space(self, name: str) -> str:
        """The name of a machine's namespace."""
        return f"{self._mark}-{name}"

    def enter(self, name: str) -> list[str]:
        """Words before a command that run it on a machine, under the machine's name."""
        script = 'hostname "$1"; shift; exec "$@"'
        return ["ip", "netns", "exec", self.space(name), "unshare", "--uts", "sh", "-c", script, "sh", name]

    def pull_cable(self, name: str) -> None:
        """Take a machine off the network: what it sends is lost, and nobody tells it so."""
        _ip("-n", self.space("switch"), "link", "set", name, "nomaster")

    def plug_cable(self, name: str) -> None:
        """Put a machine on the network again."""
        _ip("-n", self.space("switch"), "link", "set", name, "master", "bridge")

    def on(self, name: str, work: Callable[[], T]) -> T:
        """Do some work in this process, with the network that a machine sees; return or raise what it does."""
        outcome: list[T] = []
        failure: list[BaseException] = []

        def run() -> None:
            try:
                linux.enter_namespace(f"/run/netns/{self.space(name)}", linux.CLONE_NEWNET)
                outcome.append(work())
            except BaseException as error:  # noqa: BLE001  # it is raised below, in the thread that asked
                failure.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if failure:
            raise failure[0]
        return outcome[0]

    def start(
        self, name: str, words: Sequence[str], log: Path, environment: Mapping[str, str] = {}
    ) -> subprocess.Popen[bytes]:
        """Start an ebhpc command on a machine."""
        with log.open("ab") as file:
            return subprocess.Popen(
                [*self.enter(name), sys.executable, "-m", "ebhpc", *words],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
                cwd="/",  # where no folder stands in for what the environment's path names
                env={**os.environ, **environment},
            )


@contextmanager
def network(*names: str) -> Iterator[Network]:
    """Machines that are taken away at the end."""
    made = Network(names)
    try:
        made.make()
        yield made
    finally:
        made.remove()


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")
