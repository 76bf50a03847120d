"""What became of our servers: one listing for all of them, and consoles of those that have just begun or ended."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from msgspec.structs import replace

from ebhpc.batch import Native, SessionDirectory, observation, read_report, session_directory
from ebhpc.model import DockerContainer, Message, MessageKind, Observation, Session, Shape, message
from ebhpc.plugins import SessionFailed
from ebhpc_openstack import console, notes, records, results
from ebhpc_openstack.asking import CloudFault
from ebhpc_openstack.cloud import Cloud
from ebhpc_openstack.launching import SETTLE, Launches
from ebhpc_openstack.settings import OpenStackSettings
from ebhpc_openstack.snapshot import Refusal, session_of
from ebhpc_openstack.states import no_host, status

log = logging.getLogger("ebhpc_openstack")

_PATIENCE = 15.0
"""Seconds after which the console of a server that is off has all that it will ever have."""


class Follower:
    """Follows our servers by one listing for all of them, no more often than the settings' ``look``."""

    def __init__(
        self,
        settings: OpenStackSettings,
        cloud: Cloud,
        launches: Launches,
        clock: Callable[[], float],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._cloud = cloud
        self._launches = launches
        self._clock = clock
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._looked: float | None = None
        self._servers: tuple[records.Server, ...] = ()
        self._faults: dict[str, str] = {}
        self._off_since: dict[str, float] = {}
        self._addresses: dict[str, str] = {}
        self.refusals: list[Refusal] = []

    def expect(self) -> None:
        """Look anew at the next call: something was done to a session's server."""
        with self._lock:
            self._looked = None

    def observe(self, sessions: Sequence[Session]) -> Iterator[Observation]:
        """Yield what became of the sessions.

        Raises:
            CloudFault: there was no answer.
        """
        with self._lock:
            fresh = self._look()
            found = self._by_session(sessions, fresh)
            if fresh:
                self._launch_due([session for session in sessions if session.uuid not in found])
                self._listen([(session, found[session.uuid]) for session in sessions if session.uuid in found])
        for session in sessions:
            said = self._native(session, found.get(session.uuid))
            directory = session_directory(self._settings.jobs.root, session.uuid)
            yield observation(session, said, read_report(directory), self._settings.jobs)

    def room_refused(self, session: Session) -> None:
        """Remember that a server of this shape found no room."""
        share = session.allocations[0]
        now = int(self._clock())
        self.refusals = [one for one in self.refusals if one.until > now]
        zone = share.node if share.node in self._launches.zones else ""
        until = now + int(self._settings.retry) + 1
        shape = Shape(cores=share.cores, memory=share.memory, devices=share.devices)
        self.refusals.append(Refusal(zone=zone, shape=shape, until=until))

    # --- looking

    def _look(self) -> bool:
        now = self._monotonic()
        if self._looked is not None and now - self._looked < self._settings.look:
            return False
        servers = self._cloud.servers()
        failed = [one.id for one in servers if one.status == "ERROR" and not one.fault]
        self._faults = {number: fault for number, fault in self._faults.items() if number in failed}
        self._faults.update(self._cloud.faults([number for number in failed if number not in self._faults]))
        self._servers = tuple(replace(one, fault=one.fault or self._faults.get(one.id, "")) for one in servers)
        self._looked = now
        return True

    def _by_session(self, sessions: Sequence[Session], fresh: bool) -> dict[str, records.Server]:
        """Return each session's server. Of several the first that lives counts, and the others are deleted."""
        wanted = {session.uuid for session in sessions}
        found: dict[str, records.Server] = {}
        doubles: list[records.Server] = []
        ranked = sorted(self._servers, key=lambda one: (status(one.status).seen == "LOST", one.created or 0.0, one.id))
        for server in ranked:
            uuid = session_of(server, self._settings.prefix)
            if uuid is None or uuid not in wanted:
                continue
            if uuid in found:
                doubles.append(server)
            else:
                found[uuid] = server
        if doubles and fresh:
            for server in doubles:
                log.warning("server %s is a second one of session %s: deleted", server.id, server.name)
            self._launches.delete(doubles)
        return found

    def _launch_due(self, missing: Sequence[Session]) -> None:
        """Have servers made for sessions that wait for their time, or for room."""
        root, now = self._settings.jobs.root, self._clock()
        due = []
        for session in missing:
            note = notes.read(root, session.uuid)
            ended = session_directory(root, session.uuid).marked_to_end()
            if note.waits and note.next <= now and not ended:
                due.append(session)
        if not due:
            return
        try:
            outcome = self._launches.launch(due)
        except CloudFault as fault:
            outcome = dict.fromkeys((session.uuid for session in due), fault)
        for session in due:
            fault_of = outcome.get(session.uuid)
            if fault_of is None:
                continue
            log.info("session %s: no server yet: %s", session.uuid, fault_of)
            if isinstance(fault_of, SessionFailed):
                self._launches.wait(session.uuid, f"!{fault_of}")
            else:
                self._launches.wait(session.uuid, str(fault_of))
        self._looked = None

    def _listen(self, found: Sequence[tuple[Session, records.Server]]) -> None:
        """Read the consoles of servers that boot, or that are off; then look which ports answer."""
        wanted: dict[str, tuple[Session, records.Server, SessionDirectory]] = {}
        for session, server in found:
            directory = session_directory(self._settings.jobs.root, session.uuid)
            seen = status(server.status).seen
            boots = seen == "UP" and not results.has_begun(directory)
            if (boots or seen == "OFF") and directory.path.is_dir() and not results.has_ended(directory):
                wanted[server.id] = (session, server, directory)
        texts = self._cloud.consoles(list(wanted)) if wanted else {}
        for number, text in texts.items():
            session, server, directory = wanted[number]
            self._take(session, server, directory, console.told(text, session.uuid))
        self._reach(found)

    def _take(self, session: Session, server: records.Server, directory: SessionDirectory, told: console.Told) -> None:
        node = self._addresses.get(session.uuid, server.name)
        if told.begun is not None and not results.has_begun(directory):
            results.begun(directory, float(told.begun), node, [])
        if told.ended is not None:
            results.ended(directory, told, node, self._answering(session, directory))

    def _answering(self, session: Session, directory: SessionDirectory) -> list[int]:
        report = read_report(directory)
        return [port.port for port in report.ports] if report is not None else []

    def _reach(self, found: Sequence[tuple[Session, records.Server]]) -> None:
        """Look which of the sessions' ports answer at their address, and note those that do."""
        places: list[tuple[Session, SessionDirectory, str, int]] = []
        for session, server in found:
            directory = session_directory(self._settings.jobs.root, session.uuid)
            ports = published(session)
            begun = results.has_begun(directory) and not results.has_ended(directory)
            if not ports or not begun or status(server.status).seen != "UP":
                continue
            if len(self._answering(session, directory)) == len(ports):
                continue
            address = self._address(session, server)
            places += [(session, directory, address, port) for port in ports] if address else []
        if not places:
            return
        answers = self._cloud.reachable([(address, port) for _, _, address, port in places])
        for session, directory, address, _ in {one[0].uuid: one for one in places}.values():
            answering = [
                place[3]
                for place, answer in zip(places, answers, strict=True)
                if answer and place[0].uuid == session.uuid
            ]
            if answering:
                report = read_report(directory)
                started = report.started if report is not None and report.started else self._clock()
                results.begun(directory, started, address, answering)

    def _address(self, session: Session, server: records.Server) -> str | None:
        connectors = self._settings.connectors
        if connectors.through == "address":
            address = server.addresses[0] if server.addresses else None
        elif connectors.through == "floating" and connectors.network is not None:
            known = self._cloud.floating([server.name]).get(server.name)
            address = known[1] if known else self._cloud.give_floating(connectors.network, server.id, server.name)
        else:
            return None
        if address is not None:
            self._addresses[session.uuid] = address
        return address

    # --- saying

    def _native(self, session: Session, server: records.Server | None) -> Native:
        note = notes.read(self._settings.jobs.root, session.uuid)
        directory = session_directory(self._settings.jobs.root, session.uuid)
        if server is None:
            return self._without(session, note)
        known = status(server.status)
        told = [message(MessageKind.PROGRESS, "{what}", what=known.words, level=known.level)] if known.words else []
        if known.seen == "BUILDING":
            return self._building(session, server)
        if known.seen == "LOST":
            return self._lost(session, server, told)
        if known.seen == "OFF":
            return self._off(session, server, directory)
        self._off_since.pop(session.uuid, None)
        if results.has_begun(directory):
            return Native(state="RUNNING", started=server.launched, messages=tuple(told))
        since = server.launched or server.created or self._clock()
        if self._clock() - since > float(self._settings.boot_within):
            text = (
                "The server is there, and nothing in it has told its console of the job: its image may lack cloud-init "
                "or Python, or the cloud gives no consoles."
            )
            return Native(state="FAILED", started=since, messages=(message(MessageKind.FAILED, text),))
        waits = message(MessageKind.PROGRESS, "the server boots", level="INFO")
        return Native(state="PENDING", messages=(waits, *told))

    def _without(self, session: Session, note: notes.Note) -> Native:
        if note.waits and note.why.startswith("!"):
            return Native(state="FAILED", messages=(message(MessageKind.FAILED, "{why}", why=note.why[1:]),))
        if note.waits and note.why:
            text = "the cloud has no room for the server now, and is asked again: {why}"
            return Native(state="PENDING", messages=(message(MessageKind.PROGRESS, text, level="WARN", why=note.why),))
        if note.waits:
            waits = message(MessageKind.PROGRESS, "the server is made at the session's start", level="INFO")
            return Native(state="PENDING", messages=(waits,))
        begun = results.has_begun(session_directory(self._settings.jobs.root, session.uuid))
        if note.asked is not None and self._clock() - note.asked < SETTLE and not begun:
            return Native(state="PENDING")
        return Native(state="GONE")

    def _building(self, session: Session, server: records.Server) -> Native:
        since = server.created or self._clock()
        if server.task == "deleting" or self._clock() - since <= float(self._settings.build_within):
            made = message(MessageKind.PROGRESS, "the server is being made", level="INFO")
            return Native(state="PENDING", messages=(made,))
        self._launches.delete([server])
        return self._no_room(session, "the server was not ready within its time, and was deleted")

    def _lost(self, session: Session, server: records.Server, told: list[Message]) -> Native:
        if no_host(server.fault):
            self.room_refused(session)
            if not session.firm:
                self._launches.delete([server])
            return self._no_room(session, server.fault.strip())
        words = "{what}: {why}" if server.fault else "{what}"
        values: dict[str, Any] = {"why": server.fault} if server.fault else {}
        what = status(server.status).words
        lost = message(MessageKind.FAILED, words, level="ERROR", what=what, **values)
        return Native(state="FAILED", started=server.launched, messages=(lost,))

    def _no_room(self, session: Session, why: str) -> Native:
        if session.firm:
            text = "The cloud had no room for the server: {why}"
            return Native(state="FAILED", messages=(message(MessageKind.FAILED, text, why=why),))
        self._launches.wait(session.uuid, why)
        self._looked = None
        text = "the cloud has no room for the server now, and is asked again: {why}"
        return Native(state="PENDING", messages=(message(MessageKind.PROGRESS, text, level="WARN", why=why),))

    def _off(self, session: Session, server: records.Server, directory: SessionDirectory) -> Native:
        if results.has_ended(directory):
            self._off_since.pop(session.uuid, None)
            return Native(state="SUCCEEDED", started=server.launched)
        since = self._off_since.setdefault(session.uuid, self._monotonic())
        if self._monotonic() - since < _PATIENCE:
            self._looked = None
            if not results.has_begun(directory):
                return Native(state="PENDING")
            return Native(state="RUNNING", started=server.launched)
        text = "The server was stopped before its job had ended: by somebody, by its hypervisor, or by the job itself."
        if not results.has_begun(directory):
            text = (
                "The server has ended, and nothing in it has told its console of the job: its image may lack Python, "
                "or somebody, or its hypervisor, has stopped it before it had booted."
            )
        return Native(state="FAILED", started=server.launched, messages=(message(MessageKind.FAILED, text),))


def published(session: Session) -> list[int]:
    """Return the ports of a session that shall be reached."""
    executable = session.executable
    if not isinstance(executable, DockerContainer):
        return []
    return [
        port.internal.port
        for port in (executable.network.ports if executable.network else None) or ()
        if port.access is not False and port.internal is not None and port.internal.port is not None
    ]
