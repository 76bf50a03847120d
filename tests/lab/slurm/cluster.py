"""A running Slurm cluster of the lab, and what a test does with it."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import psutil

from tests.lab.daemons import Daemon, T, listens, until
from tests.lab.debian import PYTHON
from tests.lab.namespace import GROUPS, Namespace
from tests.lab.slurm import layout as layouts
from tests.lab.slurm.groups import CONF
from tests.lab.slurm.layout import Layout, Node, Ports

SERVICE = "ebhpc"
CHECKOUT = "/opt/ebhpc"
HOST_NAME = "slurmlab"


_SUBMIT_MANY = """
import sys
import pyslurm
count, most = int(sys.argv[1]), int(sys.argv[2])
for number in range(count):
    nodes = number * number % most + 1
    pyslurm.JobSubmitDescription(
        name=f"many-{number}", script="#!/bin/sh\\nsleep 60\\n", working_directory="/tmp", standard_output="/dev/null",
        environment={"PATH": "/usr/bin:/bin"}, time_limit=number * 37 % 600 + 10, nodes=nodes, ntasks=nodes,
    ).submit()
"""


@dataclass(frozen=True)
class Ssh:
    """The way in by SSH, as the service account; the files are the host's."""

    host: str
    port: int
    user: str
    key_file: Path
    known_hosts: Path

    @property
    def argv(self) -> list[str]:
        """Return the words before a command that run it by ssh(1)."""
        options = [f"UserKnownHostsFile={self.known_hosts}", "StrictHostKeyChecking=yes", "BatchMode=yes"]
        words = ["ssh", "-F", "none", "-i", str(self.key_file), "-p", str(self.port)]
        return [*words, *(f"-o{option}" for option in options), f"{self.user}@{self.host}", "--"]


@dataclass
class Cluster:
    """One cluster. ``shared`` is a directory under the same path on the host and in the root, for staging.

    ``groups`` are the control groups that it has on the host, by their controller: with ``freezer`` it tracks processes
    by them, without by who started whom.
    """

    version: str
    namespace: Namespace
    layout: Layout
    ports: Ports
    changes: dict[str, str | int | None] = field(default_factory=dict)
    groups: Mapping[str, Path] = field(default_factory=dict)

    python = PYTHON
    checkout = CHECKOUT
    conf = layouts.CONF
    impatient_conf = layouts.IMPATIENT_CONF

    # --- running things in it

    @property
    def name(self) -> str:
        """Return the cluster's name in Slurm."""
        return "lab"

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Return its nodes."""
        return self.layout.nodes

    @property
    def root(self) -> Path:
        """Return the root's files as the host sees them."""
        return self.namespace.root

    @property
    def shared(self) -> Path:
        """Return the directory that the host and the root share; anybody may write there, as in /tmp."""
        return self.namespace.place / "shared"

    def enter_argv(
        self, user: str = SERVICE, environment: Mapping[str, str] | None = None, keep_environment: bool = False
    ) -> list[str]:
        """Return the words before a command that run it inside as ``user``: see `Namespace.enter_argv`."""
        return self.namespace.enter_argv(user, environment, keep_environment)

    def run(
        self,
        words: Sequence[str],
        user: str = SERVICE,
        timeout: float = 60.0,
        check: bool = True,
        data: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside as ``user`` and return what it said; it must succeed if ``check`` is set."""
        return self.namespace.run(words, user, timeout, check, data, environment)

    def submit(self, script: str, *options: str, user: str = "alice") -> int:
        """Submit a batch script, without its first line, as ``user``, and return the job's number."""
        words = ["sbatch", "--parsable", "--chdir=/tmp", "--output=/dev/null", *options]
        return int(self.run(words, user=user, data=f"#!/bin/bash\n{script}\n").stdout.strip().split(";")[0])

    def submit_many(self, count: int, user: str = "alice") -> None:
        """Fill the queue for a measurement: one job on all nodes, and ``count`` of many shapes that wait behind it.

        Through pyslurm (so with 26.05 alone), because starting sbatch so many times takes much longer.
        """
        everywhere = ["--exclusive", f"--nodes={len(self.nodes)}", "--time=2-00:00:00"]
        first = self.submit("sleep 200000", *everywhere, user=user)
        self.until(lambda: self.job_state(first) == "RUNNING", 120, "the job on all nodes runs")
        words = [self.python, "-c", _SUBMIT_MANY, str(count), str(max(1, len(self.nodes) // 8))]
        self.run(words, user=user, timeout=900)

    def job_state(self, job: int) -> str:
        """Return a job's state as squeue says it (COMPLETED, PENDING, …); empty: the controller knows no such job."""
        said = self.run(["squeue", "-h", "-t", "all", "-j", str(job), "-o", "%T"], check=False)
        return said.stdout.strip()

    def until(self, question: Callable[[], T], timeout: float = 30.0, what: str = "it is so") -> T:
        """Ask until the answer is true, and return it; AssertionError after ``timeout`` seconds."""
        return until(question, timeout, what, step=0.1)

    def requests(self, work: Callable[[], object], user: str = SERVICE) -> int:
        """Return how many requests of a user's the controller answers while ``work`` is done, by sdiag's count."""
        self.run(["sdiag", "--reset"], user="root")
        work()
        said = self.run(["sdiag"], user="root").stdout.partition("Remote Procedure Call statistics by user")[2]
        found = re.search(rf"^\s*{re.escape(user)}\s*\(.*?count:(\d+)", said, re.MULTILINE)
        return int(found[1]) if found else 0

    def token(self, user: str, lifespan: int = 600) -> str:
        """Return a token (SLURM_JWT) by which one is ``user`` for ``lifespan`` seconds."""
        said = self.run(["scontrol", "token", f"username={user}", f"lifespan={lifespan}"], user="slurm")
        return said.stdout.strip().removeprefix("SLURM_JWT=")

    def logs(self) -> dict[str, str]:
        """Return the daemons' logs by name."""
        folder = self.root / "var/log/slurm"
        return {path.name: path.read_text(errors="replace") for path in sorted(folder.glob("*")) if path.is_file()}

    # --- the ways in from outside

    @property
    def rest(self) -> str:
        """Return slurmrestd's URL."""
        return f"http://127.0.0.1:{self.ports.rest}"

    @property
    def ssh(self) -> Ssh:
        """Return the way in by SSH."""
        folder = self.namespace.place / "ssh"
        return Ssh("127.0.0.1", self.ports.ssh, SERVICE, folder / "id", folder / "known_hosts")

    # --- daemons

    @cached_property
    def munge(self) -> Daemon:
        """Return munged, by which everybody proves who he is."""
        return Daemon(
            self.namespace,
            "munged",
            ("munged",),
            lambda: self.run(["/usr/sbin/munged"], user="munge"),
            lambda: self.run(["munge", "-n"], check=False).returncode == 0,
        )

    @cached_property
    def database(self) -> Daemon:
        """Return the database server."""
        return Daemon(
            self.namespace,
            "mariadbd",
            ("mariadbd",),
            lambda: self.namespace.start(["/usr/sbin/mariadbd", "--user=mysql"], "root", "/var/log/slurm/mariadbd.log"),
            lambda: self.run(["mariadb", "-e", "select 1"], user="root", check=False).returncode == 0,
        )

    @cached_property
    def accounting(self) -> Daemon:
        """Return slurmdbd: accounts, associations, history."""
        return Daemon(
            self.namespace,
            "slurmdbd",
            ("slurmdbd",),
            lambda: self.run(["/usr/sbin/slurmdbd"], user="slurm"),
            lambda: (
                listens(self.ports.accounting)
                and self.run(["sacctmgr", "-n", "show", "cluster"], user="root", check=False).returncode == 0
            ),
        )

    @cached_property
    def controller(self) -> Daemon:
        """Return slurmctld."""
        return Daemon(
            self.namespace,
            "slurmctld",
            # The second is what it is called once it was told to read its configuration again
            ("slurmctld", "slurmctld-wlm"),
            lambda: self.run(["/usr/sbin/slurmctld"], user="slurm"),
            lambda: (
                listens(self.ports.controller)
                and self.run(["scontrol", "ping"], user="root", check=False).returncode == 0
            ),
        )

    @cached_property
    def restd(self) -> Daemon:
        """Return slurmrestd."""
        words = ["/usr/sbin/slurmrestd", "-a", "rest_auth/jwt", f"127.0.0.1:{self.ports.rest}"]
        return Daemon(
            self.namespace,
            "slurmrestd",
            ("slurmrestd",),
            lambda: self.namespace.start(words, "restd", "/tmp/slurmrestd.log", {"SLURM_JWT": "daemon"}),
            lambda: listens(self.ports.rest),
        )

    @cached_property
    def sshd(self) -> Daemon:
        """Return sshd."""
        return Daemon(
            self.namespace,
            "sshd",
            ("sshd",),
            lambda: self.run(["/usr/sbin/sshd", "-f", f"{layouts.SSH_DIRECTORY}/sshd_config"], user="root"),
            lambda: listens(self.ports.ssh),
        )

    def node_daemon(self, name: str) -> Daemon:
        """Return the slurmd of the node ``name``; KeyError if there is no such node."""
        port = dict(zip((node.name for node in self.nodes), self.ports.nodes, strict=True))[name]
        return Daemon(
            self.namespace,
            f"slurmd of {name}",
            ("slurmd", "slurmd-wlm"),
            lambda: self._launch_nodes([name]),
            lambda: listens(port),
            words=("-N", name),
        )

    # --- nodes

    def kill_node(self, name: str) -> None:
        """Let a node die: its slurmd and its jobs' processes are killed at once."""
        victims = {process.pid: process for process in self.node_daemon(name).processes()}
        for process in self.namespace.processes():
            with contextlib.suppress(OSError, psutil.Error):
                environment = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
                if f"SLURMD_NODENAME={name}".encode() not in environment:
                    continue
                victims[process.pid] = process
                parent = process.parent()
                if parent is not None and parent.exe().rpartition("/")[2].startswith("slurmstepd"):
                    victims[parent.pid] = parent
        # Held first, so that none can tell the controller how another one died
        for act in (psutil.Process.suspend, psutil.Process.kill):
            for process in victims.values():
                with contextlib.suppress(psutil.NoSuchProcess):
                    act(process)
        psutil.wait_procs(list(victims.values()), timeout=10)

    def start_node(self, name: str) -> None:
        """Start a dead node again; returns when it listens, a second or so before Slurm calls it idle."""
        self.node_daemon(name).start()

    def pause_node(self, name: str) -> None:
        """Make a node's slurmd hang."""
        self.node_daemon(name).pause()

    def resume_node(self, name: str) -> None:
        """Let a node's slurmd that hangs go on."""
        self.node_daemon(name).resume()

    def drain(self, name: str, reason: str = "lab") -> None:
        """Let no new job start on a node."""
        self.run(["scontrol", "update", f"nodename={name}", "state=drain", f"reason={reason}"], user="root")

    def down(self, name: str, reason: str = "lab") -> None:
        """Call a node down; a slurmd that lives undoes this after a second, so `kill_node` first."""
        self.run(["scontrol", "update", f"nodename={name}", "state=down", f"reason={reason}"], user="root")

    def undrain(self, name: str) -> None:
        """Take a node back into service after `drain` or `down`."""
        self.run(["scontrol", "update", f"nodename={name}", "state=resume"], user="root")

    def node_states(self) -> dict[str, str]:
        """Return the state of each node as sinfo says it (idle, mix, alloc, drain, down*, …)."""
        said = self.run(["sinfo", "-h", "-N", "-o", "%N %T"]).stdout
        return dict(line.split() for line in said.splitlines())

    def wait_idle(self, timeout: float = 30.0) -> None:
        """Wait until all nodes are idle."""
        self.until(lambda: set(self.node_states().values()) == {"idle"}, timeout, "all nodes are idle")

    # --- the whole

    def reconfigure(self, **changes: str | int | None) -> None:
        """Change settings of slurm.conf, None takes one away, and start the controller again with them."""
        self.changes.update(changes)
        self._write_conf()
        if self.controller.running:
            self.controller.restart()
        else:
            self.controller.start()

    @contextlib.contextmanager
    def configured(self, **changes: str | int | None) -> Iterator[None]:
        """Have changed settings for a while."""
        before = dict(self.changes)
        self.reconfigure(**changes)
        try:
            yield
        finally:
            self.changes = before
            self.reconfigure()

    def clean(self, timeout: float = 60.0) -> None:
        """Make everything as it was at the start: daemons up, settings back, nothing reserved or queued, nodes idle."""
        for daemon in (self.munge, self.database, self.accounting, self.controller):
            daemon.resume()
            if not daemon.running:
                daemon.start()
        if self.changes:
            self.changes = {}
            self.reconfigure()
        for name in sorted(name for name, state in self.node_states().items() if state not in ("idle", "mixed")):
            node = self.node_daemon(name)
            node.resume()
            if not node.running:
                node.start()
        states = self.node_states()
        for name in sorted(name for name, state in states.items() if state.startswith(("drain", "down", "fail"))):
            self.run(["scontrol", "update", f"nodename={name}", "state=resume"], user="root", check=False)
        for line in self.layout.partitions:
            name = line.split()[0].removeprefix("PartitionName=")
            self.run(["scontrol", "update", f"partitionname={name}", "state=up"], user="root")
        self.until(self._emptied, timeout, "no job and no reservation is left")
        self.wait_idle(timeout)

    def _emptied(self) -> bool:
        """Cancel all jobs, delete all reservations, and tell whether none is left."""
        if self.run(["squeue", "-h", "-o", "%i"], user="root").stdout.strip():
            users = ",".join(("alice", "bob", "carol", SERVICE, "root"))
            self.run(["scancel", "--full", "-u", users.split(",")[0]], user="root", check=False)
            for user in users.split(",")[1:]:
                self.run(["scancel", "--full", "-u", user], user="root", check=False)
            return False
        said = self.run(["scontrol", "show", "reservation", "-o"], user="root").stdout
        names = [line.split()[0].partition("=")[2] for line in said.splitlines() if line.startswith("ReservationName=")]
        for name in names:
            self.run(["scontrol", "delete", f"reservationname={name}"], user="root", check=False)
        return not names

    def start(self) -> None:
        """Start all daemons on a fresh root, and wait until the cluster can be used."""
        self._write_files()
        self.database.launch()
        self.munge.start()
        self.sshd.launch()
        self.database.wait()
        self.accounting.start()
        self.controller.start()
        # It writes some of its state only after minutes, or when it ends, and killed before that does not start again
        self.controller.restart()
        self._launch_nodes([node.name for node in self.nodes])
        self.restd.launch()
        self.wait_idle(120.0)
        self.restd.wait()
        self.sshd.wait()

    def prepare_accounts(self) -> None:
        """Make the database with its accounts, in a root that is being built; ends with the daemons stopped."""
        self._write_files()
        self.database.launch()
        self.munge.start()
        self.database.wait()
        grants = (
            "create database slurm_acct_db; create user slurm@localhost identified via unix_socket; "
            "grant all on slurm_acct_db.* to slurm@localhost"
        )
        self.run(["mariadb", "-e", grants], user="root")
        self.accounting.start()
        self.run(["/recipe/accounts.sh"], user="root")
        for daemon in (self.accounting, self.database, self.munge):
            daemon.stop()

    def _launch_nodes(self, names: Sequence[str]) -> None:
        script = "for node in $(cat); do mkdir -p /var/lib/slurm/slurmd-$node; /usr/sbin/slurmd -N $node; done"
        self.run(["/bin/sh", "-ec", script], user="root", data=" ".join(names), timeout=60 + len(names) / 10)

    def _write_conf(self) -> None:
        for path, changes in (
            (self.conf, {}),
            (self.impatient_conf, {"MessageTimeout": layouts.IMPATIENT_SECONDS}),
        ):
            tracked = {"ProctrackType": "proctrack/cgroup"} if "freezer" in self.groups else {}
            text = layouts.slurm_conf(self.layout, self.ports, {**tracked, **self.changes, **changes})
            self.write(path, text)

    @contextlib.contextmanager
    def tracking_parents(self, name: str) -> Iterator[None]:
        """Let an idle node know a job's processes by who started whom only, whatever the lab could do."""
        daemon = self.node_daemon(name)
        with self.configured(ProctrackType="proctrack/linuxproc"):
            daemon.restart()
            yield
        self.wait_idle(120)
        daemon.restart()

    def limit_memory(self, limited: bool) -> None:
        """Say in cgroup.conf whether task/cgroup keeps jobs to their memory; for slurmds that start from now on."""
        text = CONF.format(mountpoint=GROUPS, limited="yes" if limited else "no")
        self.write(f"{layouts.DIRECTORY}/cgroup.conf", text)

    def _write_files(self) -> None:
        if self.groups:
            self.limit_memory(False)
        self.write("/etc/hosts", f"127.0.0.1 localhost {HOST_NAME}\n")
        # apptainer wants the file; nothing in the lab asks anybody beyond loopback
        self.write("/etc/resolv.conf", "")
        self._write_conf()
        self.write(f"{layouts.DIRECTORY}/gres.conf", layouts.gres_conf(self.layout))
        self.write(f"{layouts.DIRECTORY}/slurmdbd.conf", layouts.slurmdbd_conf(self.ports), "slurm")
        # Each start has keys of its own
        self.write(f"{layouts.DIRECTORY}/jwt_hs256.key", os.urandom(32).hex(), "slurm")
        self.write("/etc/munge/munge.key", os.urandom(512).hex(), "munge")
        self.write(f"{layouts.SSH_DIRECTORY}/sshd_config", layouts.sshd_config(self.ports))
        self.run(["/recipe/start.sh", str(self.ssh.key_file.parent), str(self.ports.ssh)], user="root")

    def write(self, path: str, text: str, owner: str | None = None) -> None:
        """Write a file in the root; with ``owner`` nobody else can read it."""
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        place.touch(mode=0o600)
        place.chmod(0o600 if owner else 0o644)
        place.write_text(text, encoding="utf-8")
        if owner:
            self.run(["chown", f"{owner}:{owner}", path], user="root")
