"""Runs a job and watches it until it has ended: time, memory, disk, and whether somebody wants it to end.

The loop does a little of each thing and then sleeps until a child ends or the next tick. Everything that it knows
of the job stands in job.json (module ``payload`` writes it).
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from ebhpc.local import cgroups, claims, ends, linux, ports, processes
from ebhpc.local.engine_calls import (
    Container,
    first_process,
    ran_out_of_memory,
    was_started,
    writable_layers,
)
from ebhpc.local.places import SessionDirectory
from ebhpc.staging.files import read_json, write_json
from ebhpc.staging.usage import Meter, size

_TICK = 0.25
"""Seconds between two looks."""

_COUNTING = 0.05
"""Seconds of each tick that counting disk usage may take."""

_TO_STOP = (signal.SIGTERM, signal.SIGINT)


def run(directory: SessionDirectory, job: dict[str, Any]) -> None:
    """Run the job to its end, and write running.json and status.json."""
    linux.adopt_orphans()
    Watch(directory, job).run()


class Watch:
    """One job while it runs."""

    def __init__(self, directory: SessionDirectory, job: dict[str, Any]) -> None:
        self.directory = directory
        self.job = job
        self.memory: int = job["memory"]
        self.container = Container(job["container"]) if job["container"] else None
        self.networks: list[str] = list(job["container"]["networks"]) if job["container"] else [""]
        self.ports = ports.Ports(job["container"]["ports"]) if job["container"] else None
        self.meters = [(Meter(meter["path"]), meter) for meter in job["meters"]]
        self.group: cgroups.Group | None = None
        self.cores: list[int] = []
        self.held: list[int] = []
        self.devices: dict[str, list[int]] = {}
        self.main: subprocess.Popen[bytes] | None = None
        self.code: int | None = None
        self.started = time.time()
        self.peak = 0
        self.messages: list[ends.Words] = []
        self.reason: str | None = None
        self.ending_since: float | None = None
        self.kills = 0
        self.told_to_stop = False
        self.inspected = False
        self.memory_kills = 0
        self.counted: cgroups.Group | None = None
        begin, end = self.started, float(job["end"])
        # The job gets its warning before the end, so that it has ended by then
        self.deadline = end - min(float(job["grace"]), max(0.0, end - begin) / 20)
        self.awake = self._listen_to_signals()

    # --- the life of the job ---------------------------------------------------------------------------------

    def run(self) -> None:
        """Claim, start, watch, end, write the status."""
        self._claim()
        try:
            while self._attempt():
                pass
        except OSError as error:
            self.reason = "launch"
            self.messages.append(ends.cannot_launch(str(error)))
        self._finish()

    def _listen_to_signals(self) -> socket.socket:
        """Have every signal make the returned socket readable, so that no sleep misses one."""
        reading, writing = socket.socketpair()
        reading.setblocking(False)
        writing.setblocking(False)
        signal.set_wakeup_fd(writing.detach(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in _TO_STOP:
            signal.signal(number, self._stop)
        return reading

    def _stop(self, *_: object) -> None:
        self.told_to_stop = True

    def _attempt(self) -> bool:
        """Run the job once; True if its container could not start for its network, and another kind is left."""
        self._start(self.networks.pop(0))
        while self.code is None:
            self._sleep()
            self._look()
        return self._network_is_missing()

    def _claim(self) -> None:
        place = Path(self.job["claims"])
        self.cores, held = claims.claim(place, "core", self.job["core_choices"], self.job["cores"])
        self.held += held
        for kind, device in self.job["devices"].items():
            self.devices[kind], held = claims.claim(place, kind, range(device["have"]), device["count"])
            self.held += held
        if self.job["group"]:
            self.group = cgroups.make(
                self.directory.name,
                cores=max(1, len(self.cores)),
                memory=self.memory,
                processes=self.job["processes"],
            )

    def _start(self, network: str) -> None:
        job = self.job
        argv: list[str] = job["argv"]
        if self.ports is not None:
            words = ["--network", network] if network else []
            if not job["container"]["podman"] and not job["watch_memory"]:
                # podman's containers inherit the affinity of their client, docker's are its daemon's children
                words += ["--cpuset-cpus", ",".join(map(str, self.cores))]
            argv = [*argv, *words, *self.ports.open(network), *job["container"]["tail"]]
        self.started = time.time()
        with contextlib.ExitStack() as files:
            out, err = (files.enter_context(_written(self.directory.output / name)) for name in ("stdout", "stderr"))
            self.main = subprocess.Popen(
                argv,
                cwd=job["directory"],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                preexec_fn=self._become_payload(os.getpid()),
                start_new_session=True,
            )
        self.code = None
        self._publish()

    def _environment(self) -> dict[str, str]:
        environment: dict[str, str] = dict(self.job["environment"])
        if self.container is None:
            for kind, numbers in self.devices.items():
                listed = ",".join(map(str, numbers))
                environment[f"EBHPC_DEVICES_{kind.upper()}"] = listed
                if kind == "gpu":
                    environment["CUDA_VISIBLE_DEVICES"] = environment["ROCR_VISIBLE_DEVICES"] = listed
        return environment

    def _become_payload(self, supervisor: int) -> Callable[[], None]:
        """Return what the new process does before it is the job's: single-threaded, so this is safe."""
        binds, user = self.job["binds"], self.job["user"]

        def become() -> None:
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            os.umask(0o022)
            if self.cores:
                os.sched_setaffinity(0, self.cores)
            if self.group is not None:
                self.group.enter()
            if binds:
                linux.leave_mounts()
                for bind in binds:
                    linux.bind(bind["source"], bind["target"], read_only=bind["read_only"])
            if user:
                os.setgroups(user["groups"])
                os.setgid(user["gid"])
                os.setuid(user["uid"])
            # Last: a change of user takes it back
            linux.die_with_parent(signal.SIGKILL, supervisor)

        return become

    # --- while it runs ---------------------------------------------------------------------------------------

    def _sleep(self) -> None:
        select.select([self.awake], [], [], _TICK)
        with contextlib.suppress(BlockingIOError):
            self.awake.recv(4096)
        self._reap()

    def _reap(self) -> None:
        """Take the exit status of every child that has ended: the job's own, and of orphans adopted."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self.main is not None and pid == self.main.pid:
                self.code = self.main.returncode = os.waitstatus_to_exitcode(status)
            elif self.ports is not None and pid == self.ports.forwarder:
                self.ports.forwarder = None

    def _look(self) -> None:
        if self.code is not None:
            return
        if self.ending_since is not None:
            if time.monotonic() > self.ending_since + self.job["grace"]:
                self._kill()
            return
        now = time.time()
        self._look_at_container()
        self._look_at_memory()
        self._look_at_disk()
        if self.reason is not None:
            return
        if self.directory.marked_to_end():
            self._end("cancelled", ends.cancelled())
        elif self.told_to_stop:
            self._end("stopped", ends.stopped())
        elif now >= self.deadline:
            self._end("time", ends.time_is_over(expected=self.job["service"]))

    def _look_at_container(self) -> None:
        """Once it runs: reach its ports, and count what it writes beside its volumes."""
        if self.container is None or self.ports is None or self.inspected:
            return
        found = self.container.inspect()
        pid = first_process(found)
        if not pid:
            return
        self.inspected = True
        self.counted = cgroups.around(pid)
        for layer in writable_layers(found):
            meter = {"path": layer, "bytes": self.job["work"], "what": "what the container writes"}
            self.meters.append((Meter(layer), meter))
        self.ports.connect(pid, found)
        self._publish()

    def _members(self) -> list[psutil.Process]:
        """Return the job's processes, its engine's client and our own forwarder left out."""
        ours = {self.ports.forwarder} if self.ports is not None else set()
        if self.container is not None and self.main is not None:
            ours.add(self.main.pid)
        found = {process for process in processes.descendants(os.getpid()) if process.pid not in ours}
        if self.group is not None:
            found.update(processes.of_pids(self.group.processes()))
        return list(found)

    def _look_at_memory(self) -> None:
        self._count_memory()
        if self.group is not None and self.group.counts_memory:
            return
        used = processes.memory_used(self._members(), self.memory)
        self.peak = max(self.peak, used)
        if used > self.memory and self.job["watch_memory"]:
            self._end("memory", ends.memory_exceeded(self.memory, "looking every quarter of a second"))

    def _count_memory(self) -> None:
        """Note what the kernel has counted: a container's group is gone as soon as the container is."""
        for group in (self.group, self.counted):
            if group is not None and group.counts_memory:
                self.peak = max(self.peak, group.memory_peak() or 0)
                self.memory_kills = max(self.memory_kills, group.memory_kills())

    def _look_at_disk(self) -> None:
        until = time.monotonic() + _COUNTING
        for meter, limit in self.meters:
            if meter.advance(max(0.0, until - time.monotonic())) and meter.bytes > limit["bytes"]:
                self._end("disk", ends.disk_exceeded(limit["what"], limit["bytes"]))
                return

    # --- its end ---------------------------------------------------------------------------------------------

    def _end(self, reason: str, why: ends.Words) -> None:
        """Ask the job to end. Where it is too large, only its first process may still tidy up."""
        self.reason = reason
        self.messages.append(why)
        self.ending_since = time.monotonic()
        if reason in ("memory", "disk"):
            if self.container is not None:
                self.container.kill()
            else:
                self._signal(signal.SIGKILL, but_first=True)
        if self.main is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.main.pid, signal.SIGTERM)

    def _kill(self) -> None:
        """Its grace is over. An engine that does not end its container gets one more grace."""
        self.kills += 1
        self.ending_since = time.monotonic()
        if self.container is not None:
            self.container.kill()
            if self.kills == 1:
                return
        self._signal(signal.SIGKILL)
        if self.main is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.main.pid, signal.SIGKILL)

    def _signal(self, number: int, *, but_first: bool = False) -> None:
        for process in self._members():
            if not (but_first and self.main is not None and process.pid == self.main.pid):
                processes.signal_process(process, number)

    def _network_is_missing(self) -> bool:
        """Whether the container never ran because the engine could not make its network, and there is another."""
        if self.container is None or not self.networks or self.reason or self.code not in (125, 126, 127):
            return False
        found = self.container.inspect()
        if was_started(found) or not _speaks_of_network(self._complaint()):
            return False
        self.container.remove()
        for name in ("stdout", "stderr"):
            os.truncate(self.directory.output / name, 0)
        self.messages.append(ends.no_network(Path(self.container.engine[0]).name))
        return True

    def _complaint(self) -> str:
        with open(self.directory.output / "stderr", "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 2000))
            return file.read().decode("utf-8", "replace").strip()

    def _finish(self) -> None:
        ended = time.time()
        found = self.container.inspect() if self.container is not None else None
        if self.container is not None:
            self.container.remove()
        if self.ports is not None:
            self.ports.close()
        self._end_stragglers()
        self._count_memory()
        state = self._judge(found)
        kept = self._keep()
        if self.group is not None:
            self.group.remove()
        write_json(
            self.directory.status,
            {
                "state": state,
                "exit_code": self.code,
                "reason": self.reason,
                "started": self.started,
                "ended": ended,
                "peak_memory": self.peak or None,
                "connectors": self.ports.listed("FINISHED") if self.ports is not None else [],
                "kept_storage": kept,
                "messages": self.messages,
            },
        )

    def _end_stragglers(self) -> None:
        """End what the job has left behind it: no process of a session outlives its job."""
        uuid = self.directory.uuid

        def find() -> list[psutil.Process]:
            self._reap()
            return [*self._members(), *processes.marked(uuid)]

        if not processes.end_all(find):
            left = ", ".join(str(process.pid) for process in find())
            print(f"processes {left} do not end", file=sys.stderr)  # noqa: T201  # supervisor.log

    def _judge(self, found: dict[str, Any] | None) -> str:
        """Add what there is to say about how the job ended; return the session's state."""
        if self.reason == "time" and self.job["service"]:
            return "SUCCEEDED"
        if self.reason is None and self.code and (self.memory_kills or ran_out_of_memory(found)):
            how = "the container engine" if self.container is not None else "the kernel's control group"
            self.reason = "memory"
            self.messages.append(ends.memory_exceeded(self.memory, how))
        if self.reason is not None:
            return "FAILED"
        if self.memory_kills:
            self.messages.append(ends.memory_was_short(self.memory))
        if self.code == 0:
            return "SUCCEEDED"
        self.reason = "exit"
        code = self.code if self.code is not None else -1
        self._add_outcome()
        if self.container is not None and code in (125, 126, 127) and not was_started(found):
            self.messages.append(ends.not_started(code, self._complaint()[-500:]))
        elif self.container is not None and code == 128 + signal.SIGKILL:
            self.messages.append(ends.memory_suspected(self.memory))
        elif not any(words["level"] == "ERROR" for words in self.messages):
            self.messages.append(ends.exited(code))
        return "FAILED"

    def _add_outcome(self) -> None:
        """Add what the job itself tells of its failure, as the notebook's runner does."""
        if not self.job["outcome"]:
            return
        try:
            descriptor = os.open(self.job["outcome"], os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            with open(descriptor, "rb") as file:
                left = json.loads(file.read(1 << 16))
            told = (str(left["what"]), int(left["cell"]), str(left["error"]), str(left["text"]))
            self.messages.append(ends.notebook(*told))
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, LookupError) as error:
            print(f"the runner's outcome cannot be read: {error}", file=sys.stderr)  # noqa: T201  # supervisor.log

    def _keep(self) -> list[int]:
        """Return the storage elements that become results: as many, in order, as the limit on results allows."""
        limit: int = self.job["output"]
        total, kept = size(str(self.directory.output)), []
        for element in self.job["keep"]:
            taken = size(str(self.directory.storage / str(element["index"])))
            if total + taken <= limit:
                total += taken
                kept.append(int(element["index"]))
            else:
                self.messages.append(ends.not_kept(element["what"], limit))
        return kept

    def _publish(self) -> None:
        """Write running.json: since when, where, and how to reach it."""
        write_json(
            self.directory.running,
            {
                **(read_json(self.directory.running) or {}),
                "started": self.started,
                "watch": os.getpid(),
                "payload": self.main.pid if self.main is not None else None,
                "cores": self.cores,
                "devices": self.devices,
                "memory_kept_by": self._keeper(),
                "connectors": self.ports.listed() if self.ports is not None else [],
            },
        )

    def _keeper(self) -> str:
        if self.group is not None and self.group.counts_memory:
            return "group"
        return "watch" if self.job["watch_memory"] else "engine"


def _written(path: Path) -> Any:
    """Open a file of the job's output for appending; the job's directory must not lead us elsewhere."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    return open(os.open(path, flags, 0o600), "ab")


def _speaks_of_network(text: str) -> bool:
    return any(word in text.lower() for word in ("network", "cni", "netavark", "slirp", "pasta", "bridge"))
