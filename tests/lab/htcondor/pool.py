"""A running HTCondor pool of the lab, and what a test does with it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil

from tests.lab import containers
from tests.lab.daemons import Daemon, T, listens, until
from tests.lab.debian import PYTHON
from tests.lab.htcondor import layout
from tests.lab.htcondor.layout import MACHINES, Machine
from tests.lab.namespace import Namespace

SERVICE = "ebhpc"
_PODMAN = "/run/podman/podman.sock"
CHECKOUT = "/opt/ebhpc"
LIMIT = 90.0
"""Seconds that the pool may take for anything that it does of itself, on a machine that is busy with other things."""
SHIPPED = f"{CHECKOUT}/plugins/ebhpc-htcondor/ebhpc_htcondor/pool"
"""What an operator installs on the machines of a pool that keeps start times."""


@dataclass
class Pool:
    """One pool. ``shared`` is a directory under the same path on the host and in the root, for staging."""

    namespace: Namespace
    port: int
    machines: tuple[Machine, ...] = MACHINES
    changes: dict[str, str] = field(default_factory=dict)

    python = PYTHON
    checkout = CHECKOUT
    domain = layout.DOMAIN

    # --- running things in it

    @property
    def root(self) -> Path:
        """Return the root's files as the host sees them."""
        return self.namespace.root

    @property
    def shared(self) -> Path:
        """Return the directory that the host and the root share; anybody may write there, as in /tmp."""
        return self.namespace.place / "shared"

    @property
    def reservations(self) -> Path:
        """Return the directory, on both sides, in which the startds look for what is kept on them."""
        return self.shared / "reservations"

    @property
    def collector_address(self) -> str:
        """Return the collector's ``host:port``."""
        return f"127.0.0.1:{self.port}"

    def enter_argv(self, user: str = SERVICE, environment: Mapping[str, str] | None = None) -> list[str]:
        """Return the words before a command that run it inside as ``user``: see `Namespace.enter_argv`."""
        return self.namespace.enter_argv(user, environment)

    def run(
        self,
        words: Sequence[str],
        user: str = SERVICE,
        timeout: float = 60.0,
        check: bool = True,
        data: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside as ``user`` and return what it said; it must succeed if ``check`` is set."""
        return self.namespace.run(words, user, timeout, check, data)

    def submit(self, description: str, user: str = "alice") -> str:
        """Submit a description as ``user``; return the first job's number, ``12.0``."""
        said = self.run(["condor_submit", "-terse"], user=user, data=description).stdout
        return said.split()[0]

    def sleep(self, seconds: int = 600, user: str = "alice", count: int = 1, **more: object) -> str:
        """Submit jobs that do nothing for a while; ``more`` are lines of the description, ``queue`` excluded."""
        lines = {"executable": "/bin/sleep", "arguments": seconds, "transfer_executable": False, "request_memory": 100}
        lines = {**lines, "request_disk": 1000, "should_transfer_files": "NO", "initialdir": "/tmp", **more}
        return self.submit("".join(f"{key} = {value}\n" for key, value in lines.items()) + f"queue {count}\n", user)

    def queue(self, *constraint: str) -> list[dict[str, Any]]:
        """Return the jobs in the queue as condor_q says them."""
        said = self.run(["condor_q", "-allusers", "-json", *constraint], user="root").stdout
        return json.loads(said) if said.strip() else []

    def history(self) -> list[dict[str, Any]]:
        """Return the jobs that have left the queue, the last first."""
        said = self.run(["condor_history", "-json"], user="root").stdout
        return json.loads(said) if said.strip() else []

    def token(self, user: str, lifetime: int | None = None, authorizations: Sequence[str] = ()) -> str:
        """Return a token by which one is ``user``; ``lifetime`` in seconds."""
        words = ["condor_token_create", "-identity", f"{user}@{self.domain}"]
        words += ["-lifetime", str(lifetime)] if lifetime else []
        words += [word for one in authorizations for word in ("-authz", one)]
        return self.run(words, user="root").stdout.strip()

    @property
    def token_command(self) -> list[str]:
        """Return the words that print a token of ``{user}``, run on the host as root."""
        create = ["condor_token_create", "-identity", f"{{user}}@{self.domain}", "-lifetime", "600"]
        return [*self.enter_argv("root"), *create]

    def tokens(self, *users: str) -> Path:
        """Return a directory with tokens of the users, as a client wants it."""
        folder = Path(self.namespace.place) / f"tokens-{'-'.join(users)}"
        folder.mkdir(mode=0o700, exist_ok=True)
        for user in users:
            file = folder / user
            file.touch(mode=0o600)
            file.write_text(self.token(user) + "\n", encoding="utf-8")
        return folder

    def until(self, question: Callable[[], T], timeout: float = 30.0, what: str = "it is so") -> T:
        """Ask until the answer is true, and return it; AssertionError after ``timeout`` seconds."""
        return until(question, timeout, what, step=0.1)

    def logs(self) -> dict[str, str]:
        """Return the daemons' logs by name."""
        folder = self.root / "var/log/condor"
        return {path.name: path.read_text(errors="replace") for path in sorted(folder.glob("*")) if path.is_file()}

    # --- daemons

    def _daemon(self, name: str, *words: str) -> Daemon:
        subsystem = f"STARTD_{words[1]}" if words else name.upper()
        start = ["condor_on", "-daemon", subsystem.lower() if not words else subsystem]
        return Daemon(
            self.namespace,
            f"{name} {' '.join(words)}".strip(),
            (f"condor_{name}",),
            lambda: self.run(start, user="root"),
            lambda: self.run(["condor_status", "-any", "-l"], user="root", check=False).returncode == 0,
            words=words,
        )

    @cached_property
    def schedd(self) -> Daemon:
        """Return the schedd. The master starts it again when it was killed; `off` keeps it down."""
        return self._daemon("schedd")

    @cached_property
    def collector(self) -> Daemon:
        """Return the collector."""
        return self._daemon("collector")

    @cached_property
    def negotiator(self) -> Daemon:
        """Return the negotiator."""
        return self._daemon("negotiator")

    def startd(self, machine: str) -> Daemon:
        """Return the startd of a machine."""
        return self._daemon("startd", "-local-name", machine.upper())

    @property
    def master(self) -> psutil.Process:
        """Return the master, which starts the others again when they end."""
        found = [one for one in self.namespace.processes() if one.name() == "condor_master"]
        assert len(found) == 1, found
        return found[0]

    def kill_machine(self, machine: str) -> None:
        """Let a machine die: its startd, starters and jobs are killed at once; the master starts the startd again."""
        startd = self.startd(machine).processes()
        below = [child for one in startd for child in one.children(recursive=True)]
        for process in [*startd, *below]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    @contextlib.contextmanager
    def hanging(self, daemon: Daemon) -> Iterator[None]:
        """Have a daemon that answers nobody for a while; the master would start a killed one again at once."""
        daemon.pause()
        try:
            yield
        finally:
            daemon.resume()
            self.until(self._answers, LIMIT, "the pool answers")

    def killed(self, daemon: Daemon) -> None:
        """Kill a daemon, and wait until the master has started it again."""
        before = {process.pid for process in daemon.processes()}
        daemon.kill()
        self.until(lambda: {one.pid for one in daemon.processes()} - before, LIMIT, f"{daemon.name} is started again")
        self.until(self._answers, LIMIT, "the pool answers")

    # --- the whole

    def start(self) -> None:
        """Start all daemons on a fresh root, and wait until the pool can be used."""
        self._write("/etc/hosts", "127.0.0.1 localhost condorlab\n")
        self._write("/etc/resolv.conf", "")
        self._write_conf()
        self.reservations.mkdir(exist_ok=True)
        place = self.root / layout.RESERVATIONS.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(self.reservations)
        self.run(["/recipe/start.sh", *(machine.name for machine in self.machines)], user="root")
        self.namespace.start(["/usr/sbin/condor_master", "-f"], "root", "/var/log/condor/master.out")
        self.until(lambda: listens(self.port), LIMIT, "the collector listens")
        self.until(self._answers, LIMIT, "all daemons answer")

    @contextlib.contextmanager
    def docker(self, machine: str) -> Iterator[None]:
        """Let a machine have docker for a while, which podman plays."""
        self._start_podman()
        # A startd looks for it when it starts, and what it finds is its own alone
        self.reconfigure(DOCKER="/recipe/docker")
        self._look_for_docker(machine, there=True)
        try:
            yield
        finally:
            del self.changes["DOCKER"]
            self.reconfigure()
            self._look_for_docker(machine, there=False)

    def _look_for_docker(self, machine: str, *, there: bool) -> None:
        self.killed(self.startd(machine))
        # It did not take leave of the collector
        forget = f'MyType = "Query"\nTargetType = "Machine"\nRequirements = regexp("@{machine}@", Name)\n'
        self.run(["condor_advertise", "-tcp", "INVALIDATE_STARTD_ADS"], user="root", data=forget)
        words = ["condor_status", "-af", "HasDocker", "-constraint", f'Name == "slot1@{machine}@localhost"']
        said = {True: "true", False: "undefined"}[there]
        self.until(lambda: self.run(words, user="root").stdout.strip() == said, LIMIT, f"HasDocker is {said}")

    def _start_podman(self) -> None:
        if (self.root / _PODMAN.lstrip("/")).exists():
            return
        conf = Path(containers.__file__).with_name("containers.conf").read_text(encoding="utf-8")
        # Ports are published by a program of the user's: this machine's own firewall is none of the lab's business
        conf = conf.replace("[containers]\n", '[containers]\nnetns = "slirp4netns"\n')
        self._write("/etc/containers/containers.conf", conf)
        words = ["/usr/bin/podman", "system", "service", "--time=0", f"unix://{_PODMAN}"]
        self.namespace.start(words, "root", "/var/log/condor/podman.out")
        socket = self.root / _PODMAN.lstrip("/")
        self.until(socket.exists, LIMIT, "podman answers")
        # Where HTCondor asks for a container's published ports
        (self.root / "run/docker.sock").symlink_to(_PODMAN)
        # Those who may use docker's socket are its administrators; here everybody is
        socket.chmod(0o666)

    def reconfigure(self, **changes: str) -> None:
        """Change settings, and let all daemons read them.

        The master never starts a daemon that has died a moment before it reads its settings: nothing may be dead when
        it is asked to, and nothing may be killed until it has done so.
        """
        self.changes.update(changes)
        self._write_conf()
        daemons = self._daemons()
        self.until(lambda: all(daemon.running for daemon in daemons), 90, "all daemons run")
        before = self._readings()
        self.run(["condor_reconfig", "-all"], user="root")
        self.until(lambda: self._readings() > before, 60, "the master has read its settings")

    def _readings(self) -> int:
        """Return how often the master has read its settings anew."""
        return self.logs()["MasterLog"].count("Reconfiguring all managed daemons")

    def _daemons(self) -> tuple[Daemon, ...]:
        startds = [self.startd(machine.name) for machine in self.machines]
        return (self.collector, self.negotiator, self.schedd, *startds)

    def clean(self, timeout: float = LIMIT) -> None:
        """Make everything as it was at the start: daemons up, nothing queued, nothing reserved."""
        for daemon in self._daemons():
            daemon.resume()
        self.master.resume()
        self.until(self._answers, timeout, "the pool answers")
        for file in self.reservations.iterdir():
            file.unlink()
        (self.reservations / ".keep").touch()
        if self.changes:
            self.changes = {}
            self.reconfigure()
        self.until(self._emptied, timeout, "no job is left")
        self.until(self._idle, timeout, "all machines are idle")

    def states(self) -> dict[str, str]:
        """Return the state of each slot, ``slot1@node1`` …"""
        said = self.run(["condor_status", "-af", "Name", "State"], user="root").stdout
        return {line.split()[0].rpartition("@")[0] or line.split()[0]: line.split()[1] for line in said.splitlines()}

    def stop(self) -> None:
        """Tell the master to end at once what runs; the namespace takes away the rest."""
        with contextlib.suppress(AssertionError, psutil.Error):
            self.master.resume()
            self.master.send_signal(signal.SIGQUIT)

    def _emptied(self) -> bool:
        self.run(["condor_rm", "-all"], user="root", check=False)
        left = self.queue()
        if any(job["JobStatus"] == 3 for job in left):
            self.run(["condor_rm", "-forcex", "-all"], user="root", check=False)
        return not left

    def _idle(self) -> bool:
        said = self.run(["condor_status", "-af", "SlotType", "Cpus", "TotalSlotCpus"], user="root").stdout
        rows = [line.split() for line in said.splitlines()]
        return len(rows) == len(self.machines) and all(row[1] == row[2] for row in rows)

    def _answers(self) -> bool:
        """Whether the collector knows of every daemon, and the schedd answers."""
        said = self.run(["condor_status", "-any", "-af", "MyType"], user="root", check=False).stdout.split()
        there = {"DaemonMaster", "Scheduler", "Negotiator"} <= set(said)
        wanted = there and said.count("Machine") >= len(self.machines)
        return wanted and self.run(["condor_q", "-totals"], user="root", check=False).returncode == 0

    def _write_conf(self) -> None:
        self._write(layout.CONF, layout.configuration(self.machines, self.port, self.changes))
        shipped = Path(__file__).parents[3] / "plugins/ebhpc-htcondor/ebhpc_htcondor/pool"
        for name, mode in (("ebhpc-reservations.conf", 0o644), ("ebhpc-reservation", 0o755)):
            self._write(f"/etc/condor/{name}", (shipped / name).read_text(encoding="utf-8"), mode)

    def _write(self, path: str, text: str, mode: int = 0o644) -> None:
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        new = place.with_name(f"{place.name}.{os.getpid()}")
        new.write_text(text, encoding="utf-8")
        new.chmod(mode)
        new.rename(place)
