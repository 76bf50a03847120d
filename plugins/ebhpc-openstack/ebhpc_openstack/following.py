"""What became of our servers: one listing for all of them, and consoles of those that have just begun or ended."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

from msgspec.structs import replace

from ebhpc.batch import Native, SessionDirectory, observation, read_report, session_directory
from ebhpc.model import DockerContainer, Message, MessageKind, Observation, Session, Shape, message
from ebhpc.plugins import SessionFailed
from ebhpc_openstack import console, notes, records, results
from ebhpc_openstack.asking import CloudFault
from ebhpc_openstack.cloud import Cloud
from ebhpc_openstack.forwarding import Forwards, NoPort
from ebhpc_openstack.launching import SETTLE, Launches
from ebhpc_openstack.leasing import NotBegun
from ebhpc_openstack.settings import OpenStackSettings
from ebhpc_openstack.snapshot import AWAY, Refusal, session_of
from ebhpc_openstack.states import no_host, status
from ebhpc_openstack.volumes import Coming

log = logging.getLogger("ebhpc_openstack")

_KNOWN = 4096
"""Sessions whose directories' names are kept."""

_BEGINNING = 120
"""Seconds from a session's start in which its lease's hypervisor is asked for again."""

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
        *,
        forwards: Forwards | None = None,
    ) -> None:
        self._settings = settings
        self._cloud = cloud
        self._launches = launches
        self._clock = clock
        self._monotonic = monotonic
        self._forwards = forwards
        self._directory = lru_cache(_KNOWN)(partial(session_directory, settings.jobs.root))
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
            directory = self._directory(session.uuid)
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
            ended = self._directory(session.uuid).marked_to_end()
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
                self._launches.wait(session.uuid, fault_of)
        self._looked = None

    def _listen(self, found: Sequence[tuple[Session, records.Server]]) -> None:
        """Read the consoles of servers that boot, or that are off; then look which ports answer."""
        wanted: dict[str, tuple[Session, records.Server, SessionDirectory]] = {}
        for session, server in found:
            directory = self._directory(session.uuid)
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
        report = read_report(directory)
        known = report.node if report is not None and report.ports else server.name
        node = self._addresses.get(session.uuid, known)
        if told.begun is not None and not results.has_begun(directory):
            results.begun(directory, float(told.begun), node, {})
        if told.ended is not None:
            results.ended(directory, told, node, self._answering(directory))
            if self._forwards is not None:
                self._forwards.end(session.uuid)

    def _answering(self, directory: SessionDirectory) -> dict[int, int]:
        """Return the ports that are known to answer, and of each by which port it is reached."""
        report = read_report(directory)
        return {port.port: port.outer for port in report.ports} if report is not None else {}

    def _reach(self, found: Sequence[tuple[Session, records.Server]]) -> None:
        """Look which of the sessions' ports answer at their address, and note those that do."""
        asked: list[_Reached] = []
        for session, server in found:
            ports = published(session)
            if not ports or status(server.status).seen != "UP":
                continue
            directory = self._directory(session.uuid)
            if not results.has_begun(directory) or results.has_ended(directory):
                continue
            known = self._answering(directory)
            if self._forwards is None and len(known) == len(ports):
                continue
            address = self._address(session, server)
            if address is not None:
                asked.append(_Reached(session, directory, address, known, ports))
        places = [(one.address, port) for one in asked for port in one.ports if port not in one.known]
        answers = dict(zip(places, self._cloud.reachable(places), strict=True)) if places else {}
        for one in asked:
            answering = [port for port in one.ports if port in one.known or answers[one.address, port]]
            self._note(one, answering)

    def _note(self, one: _Reached, answering: Sequence[int]) -> None:
        """Note by which ports those that answer are reached; where they are forwarded, see that they are still."""
        node, ports = one.address, {port: port for port in answering}
        if self._forwards is not None and (address := self._settings.connectors.address) is not None:
            node = self._settings.connectors.name or address
            ports = {}
            for port in answering:
                try:
                    ports[port] = self._forwards.keep(one.session.uuid, one.address, port, one.known.get(port))
                except NoPort as none:
                    log.warning("session %s: port %d is not forwarded: %s", one.session.uuid, port, none)
        self._addresses[one.session.uuid] = node
        if ports != one.known:
            report = read_report(one.directory)
            started = report.started if report is not None and report.started else self._clock()
            results.begun(one.directory, started, node, ports)

    def _address(self, session: Session, server: records.Server) -> str | None:
        connectors = self._settings.connectors
        if connectors.through in ("address", "forward"):
            address = server.addresses[0] if server.addresses else None
        elif connectors.through == "floating" and connectors.network is not None:
            known = self._cloud.floating([server.name]).get(server.name)
            address = known[1] if known else self._cloud.give_floating(connectors.network, server.id, server.name)
        else:
            return None
        return address

    # --- saying

    def _native(self, session: Session, server: records.Server | None) -> Native:
        if server is None:
            return self._without(session, notes.read(self._settings.jobs.root, session.uuid))
        directory = self._directory(session.uuid)
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
        if note.waits and note.why == str(NotBegun()):
            text = "the server is made when the session's lease has begun"
            begins = message(MessageKind.PROGRESS, text, level="INFO")
            return Native(state="PENDING", messages=(begins,))
        if note.waits and note.why == str(Coming()):
            made = message(MessageKind.PROGRESS, note.why, level="INFO")
            return Native(state="PENDING", messages=(made,))
        if note.waits and note.why:
            text = "the cloud has no room for the server now, and is asked again: {why}"
            return Native(state="PENDING", messages=(message(MessageKind.PROGRESS, text, level="WARN", why=note.why),))
        if note.waits:
            waits = message(MessageKind.PROGRESS, "the server is made at the session's start", level="INFO")
            return Native(state="PENDING", messages=(waits,))
        begun = results.has_begun(self._directory(session.uuid))
        if note.asked is not None and self._clock() - note.asked < SETTLE and not begun:
            return Native(state="PENDING")
        return self._lease_over(session) or Native(state="GONE")

    def _lease_over(self, session: Session) -> Native | None:
        """Return what is said of a session whose server is gone because its lease is."""
        over = self._launches.leases.over(session.uuid) if self._launches.leases is not None else None
        if over is None or results.has_ended(self._directory(session.uuid)):
            return None
        text = "{what}, and the server with it; what its job had not told before is lost."
        return Native(state="FAILED", messages=(message(MessageKind.FAILED, text, what=over),))

    def _building(self, session: Session, server: records.Server) -> Native:
        since = server.created or self._clock()
        if server.task == "deleting" or self._clock() - since <= float(self._settings.build_within):
            made = message(MessageKind.PROGRESS, "the server is being made", level="INFO")
            return Native(state="PENDING", messages=(made,))
        self._launches.delete([server])
        return self._no_room(session, "the server was not ready within its time, and was deleted")

    def _lost(self, session: Session, server: records.Server, told: list[Message]) -> Native:
        if server.status in AWAY and (over := self._lease_over(session)) is not None:
            return over
        if no_host(server.fault):
            self.room_refused(session)
            if not session.firm or self._just_begun(session):
                self._launches.delete([server])
            return self._no_room(session, server.fault.strip())
        words = "{what}: {why}" if server.fault else "{what}"
        values: dict[str, Any] = {"why": server.fault} if server.fault else {}
        what = status(server.status).words
        lost = message(MessageKind.FAILED, words, level="ERROR", what=what, **values)
        return Native(state="FAILED", started=server.launched, messages=(lost,))

    def _just_begun(self, session: Session) -> bool:
        """Whether nova's scheduler may not know yet which hypervisor is the session's lease's: it is told later."""
        return self._launches.leases is not None and self._clock() < session.start + _BEGINNING

    def _no_room(self, session: Session, why: str) -> Native:
        if session.firm and not self._just_begun(session):
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


class _Reached(NamedTuple):
    """A session whose ports are looked at: the address of its server, and the ports that are known to answer."""

    session: Session
    directory: SessionDirectory
    address: str
    known: dict[int, int]
    ports: list[int]


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
