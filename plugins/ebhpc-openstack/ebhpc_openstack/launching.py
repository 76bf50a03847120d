"""Our servers: asked for once, found again, deleted always."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from ebhpc import batch
from ebhpc.faults import point
from ebhpc.model import MessageKind, Session, Shape, message
from ebhpc.plugins import SessionFailed
from ebhpc.staging.locations import LocationError
from ebhpc_openstack import guest, notes, records
from ebhpc_openstack.asking import NotLoggedIn, NotReached, Refused, Unanswered
from ebhpc_openstack.cloud import PINNED, VERSION, Cloud, Made, no_room
from ebhpc_openstack.leasing import Leases, NotBegun
from ebhpc_openstack.settings import OpenStackSettings
from ebhpc_openstack.snapshot import session_of
from ebhpc_openstack.volumes import Coming, Volumes, block_device_mapping

log = logging.getLogger("ebhpc_openstack")

SETTLE = 15.0
"""Seconds after which a server that nova was asked for, without an answer, is in the list, or never will be."""

YOUNG = 600
"""Seconds for which a server that belongs to no session is left alone: its session may have come after the list."""

_KEPT = 300.0
"""Seconds for which flavors and the image are taken to be as they were."""


class Launches:
    """Our servers in a cloud; ``leases`` where each is made in a lease of its session's."""

    def __init__(
        self, settings: OpenStackSettings, cloud: Cloud, clock: Callable[[], float], *, leases: Leases | None = None
    ) -> None:
        self._settings = settings
        self._cloud = cloud
        self._clock = clock
        self.leases = leases
        self._root = settings.jobs.root
        self._lock = threading.Lock()
        self._flavors: tuple[records.Flavor, ...] = ()
        self._flavors_until = 0.0
        self._image: str | None = None
        self._image_until = 0.0
        self.zones: frozenset[str] = frozenset()
        self.volumes = Volumes(settings, cloud, clock, self.settling)

    def settling(self, asked: float) -> bool:
        """Whether a server that was asked for then (POSIX seconds) may still come, though it is not in the list.

        The question itself may be on its way for as long as answers are waited for.
        """
        return self._clock() - asked < float(self._settings.answer_within) + SETTLE

    def name(self, uuid: str) -> str:
        """Return the name of a session's server."""
        return f"{self._settings.prefix}-{uuid}"

    def learn(self, look: records.Look) -> None:
        """Take what a look at the cloud has told anyhow."""
        self._flavors, self._flavors_until = look.flavors, self._clock() + _KEPT
        self.zones = frozenset(look.zones)

    def submit(self, session: Session) -> str:
        """Have a server made for a session, at once or at its time; return the server's name.

        Raises:
            SessionFailed: it can never be.
            CloudFault: not now; it may have been made.
        """
        directory = batch.session_directory(self._root, session.uuid)
        if directory.marked_to_end():
            text = "The session was ended before its job began."
            raise SessionFailed(message(MessageKind.FAILED, text, level="INFO"))
        self.body(session)  # what can never be is said at once
        note = notes.read(self._root, session.uuid)
        if self._clock() < session.start:
            notes.write(self._root, session.uuid, replace(note, waits=True, next=float(session.start)))
            return self.name(session.uuid)
        fault = self.launch([session])[session.uuid]
        if fault is None:
            return self.name(session.uuid)
        if isinstance(fault, NotBegun | Coming):
            self.wait(session.uuid, fault)
            return self.name(session.uuid)
        if isinstance(fault, Refused) and not no_room(fault):
            raise SessionFailed(message(MessageKind.FAILED, "The cloud refused the server: {why}.", why=str(fault)))
        if isinstance(fault, Refused) and not session.firm:
            self.wait(session.uuid, fault)
            return self.name(session.uuid)
        raise fault

    def wait(self, uuid: str, why: Exception | str) -> None:
        """Note that a session has no server, and is to get one after a while: soon, where its lease begins, or its
        volumes are made, just now.
        """
        note = notes.read(self._root, uuid)
        again = self._clock() + (0.0 if isinstance(why, NotBegun | Coming) else float(self._settings.retry))
        notes.write(self._root, uuid, replace(note, waits=True, next=again, why=str(why)))

    def launch(self, sessions: Sequence[Session]) -> dict[str, Exception | None]:
        """Have servers made that are not there yet; return for each session None, or what went wrong.

        Raises:
            CloudFault: there was no answer at all.
        """
        found: dict[str, Exception | None] = {}
        with self._lock:
            wanted = self._not_there(sessions, found)
            bodies: list[tuple[Session, dict[str, Any]]] = []
            flavors = self.leases.flavors(wanted) if self.leases is not None and wanted else {}
            begun = [one for one in wanted if not isinstance(flavors.get(one.uuid), Exception)]
            volumes = self.volumes.ready(begun)
            for session in wanted:
                flavor, disks = flavors.get(session.uuid), volumes.get(session.uuid, {})
                if isinstance(flavor, Exception):
                    found[session.uuid] = flavor
                    continue
                if isinstance(disks, Exception):
                    found[session.uuid] = disks
                    continue
                try:
                    bodies.append((session, self.body(session, flavor, disks)))
                except SessionFailed as failed:
                    found[session.uuid] = failed
            for session, _ in bodies:
                note = notes.read(self._root, session.uuid)
                notes.write(self._root, session.uuid, replace(note, asked=self._clock()))
                point("openstack.create.before", session.uuid)
            if bodies:
                pinned = any("hypervisor_hostname" in body for _, body in bodies)
                made = self._cloud.create([body for _, body in bodies], version=PINNED if pinned else VERSION)
                for (session, _), one in zip(bodies, made, strict=True):
                    point("openstack.create.after", session.uuid)
                    found[session.uuid] = self._settled(session, one)
        return found

    def _settled(self, session: Session, made: Made) -> Exception | None:
        note = notes.read(self._root, session.uuid)
        if made.fault is None:
            notes.write(self._root, session.uuid, replace(note, waits=False, why=""))
        elif isinstance(made.fault, Refused | NotReached | NotLoggedIn):
            notes.write(self._root, session.uuid, replace(note, asked=None))
        return made.fault

    def _not_there(self, sessions: Sequence[Session], found: dict[str, Exception | None]) -> list[Session]:
        """Return the sessions that have no server and that none was asked for of late."""
        before = {one.uuid: note for one in sessions if (note := notes.read(self._root, one.uuid)).asked is not None}
        if not before:
            return list(sessions)
        there = {session_of(server, self._settings.prefix) for server in self._cloud.servers()}
        wanted = []
        for session in sessions:
            known = before.get(session.uuid)
            if known is None:
                wanted.append(session)
            elif session.uuid in there:
                notes.write(self._root, session.uuid, replace(known, waits=False, why=""))
                found[session.uuid] = None
            elif self.settling(known.asked or 0.0):
                found[session.uuid] = Unanswered("a server was asked for, and it is not known yet whether there is one")
            else:
                wanted.append(session)
        return wanted

    def body(
        self, session: Session, flavor: str | None = None, volumes: Mapping[int, str] | None = None
    ) -> dict[str, Any]:
        """Return what nova is asked for; ``flavor``: a lease's, that leads to its hypervisor by itself; ``volumes``:
        those of its storage elements, by their numbers.

        Raises:
            SessionFailed: there is no such flavor or image any more, or the request carries too much.
        """
        settings = self._settings
        share = session.allocations[0]
        wanted = Shape(cores=share.cores, memory=share.memory, devices=share.devices)
        try:
            user_data = guest.user_data(session, settings, volumes or {})
        except (guest.TooLarge, LookupError, LocationError, guest.Strange) as error:
            raise SessionFailed(message(MessageKind.FAILED, "No server can run this: {why}.", why=str(error))) from None
        body: dict[str, Any] = {
            "name": self.name(session.uuid),
            "flavorRef": flavor or self._flavor(wanted),
            "imageRef": self._image_id(),
            "user_data": user_data,
            "metadata": {
                f"{settings.prefix}_session": session.uuid,
                f"{settings.prefix}_end": str(self._end(session)),
            },
            "networks": [{"uuid": one} for one in settings.networks]
            if not isinstance(settings.networks, str)
            else settings.networks,
        }
        if volumes:
            body["block_device_mapping_v2"] = block_device_mapping(body["imageRef"], volumes)
        if settings.key_name is not None:
            body["key_name"] = settings.key_name
        if settings.security_groups:
            body["security_groups"] = [{"name": one} for one in settings.security_groups]
        if flavor is None and (zone := self._zone(session)):
            body["availability_zone"] = zone
        if flavor is None and settings.pin and session.firm and share.node not in self.zones:
            body["hypervisor_hostname"] = share.node
            body.pop("availability_zone", None)
        return body

    def _end(self, session: Session) -> int:
        boot = 0 if session.firm else float(self._settings.boot_within)
        return session.end if session.firm else int(self._clock() + session.duration + boot)

    def _zone(self, session: Session) -> str | None:
        asked = [one for one in session.features if one in self.zones]
        if asked:
            return asked[0]
        node = session.allocations[0].node
        if node in self.zones:
            return node
        return self._settings.zones[0] if self._settings.zones else None

    def _flavor(self, shape: Shape) -> str:
        for fresh in (False, True):
            if fresh or self._clock() > self._flavors_until or not self._flavors:
                self.learn(self._cloud.look())
            named = self._settings.flavors
            for one in sorted(self._flavors, key=lambda one: one.name):
                offered = not named or one.name in named or one.id in named
                if offered and records.shape(one, self._settings.devices) == shape:
                    return one.id
        text = "The cloud has no flavor any more with {cores} cores and {memory} MiB, as was offered."
        raise SessionFailed(message(MessageKind.FAILED, text, cores=shape.cores, memory=shape.memory))

    def _image_id(self) -> str:
        if self._image is None or self._clock() > self._image_until:
            self._image, self._image_until = self._cloud.image(self._settings.image), self._clock() + _KEPT
        if self._image is None:
            text = "The cloud has no image {image}: the site's operators have to see to it."
            raise SessionFailed(message(MessageKind.FAILED, text, image=self._settings.image))
        return self._image

    # --- the end

    def of_sessions(self, uuids: Iterable[str]) -> dict[str, list[records.Server]]:
        """Return the servers of sessions, as the cloud lists them now."""
        wanted = set(uuids)
        found: dict[str, list[records.Server]] = {}
        for server in self._cloud.servers():
            uuid = session_of(server, self._settings.prefix)
            if uuid in wanted and uuid is not None:
                found.setdefault(uuid, []).append(server)
        return found

    def delete(self, servers: Iterable[records.Server]) -> None:
        """Delete servers, but those that are being deleted."""
        self._cloud.delete([one.id for one in servers if one.task != "deleting" or one.status == "ERROR"])

    def give_back(self, uuids: Iterable[str]) -> None:
        """Give back the floating IPs of sessions."""
        if self._settings.connectors.through == "floating":
            known = self._cloud.floating(self.name(uuid) for uuid in uuids)
            self._cloud.delete_floating(number for number, _ in known.values())

    def reconcile(self, sessions: Sequence[Session]) -> None:
        """Delete servers, volumes and floating IPs of ours that have no session."""
        living: Mapping[str, Session] = {session.uuid: session for session in sessions}
        orphans = []
        for server in self._cloud.servers():
            uuid = session_of(server, self._settings.prefix)
            old = server.created is not None and server.created < self._clock() - YOUNG
            if uuid is not None and uuid not in living and old:
                log.warning("server %s (session %s) belongs to no session: deleted", server.id, uuid)
                orphans.append(server)
        self.delete(orphans)
        self.volumes.delete_orphans(living)
        if self._settings.connectors.through == "floating":
            left = self._cloud.all_floating(f"{self._settings.prefix}-")
            names = {self.name(uuid) for uuid in living}
            self._cloud.delete_floating(number for mark, number in left.items() if mark not in names)
