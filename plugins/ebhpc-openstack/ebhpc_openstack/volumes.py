"""Volumes of Cinder for our sessions' storage: asked for once, found again by their metadata, deleted always.

A storage element of which the request says how large it must be becomes a volume of that size, where the settings say
so; every other one is a directory on the server's own disk.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from msgspec import Struct
from msgspec.structs import replace

from ebhpc.faults import point
from ebhpc.model import MessageKind, Session, SimpleStorage, Storage, message
from ebhpc.plugins import SessionFailed
from ebhpc_openstack import notes, records
from ebhpc_openstack.asking import Call, CloudFault, NotLoggedIn, NotReached, Refused, Unanswered
from ebhpc_openstack.cloud import STORAGE, STORAGE_VERSION, VOLUMES, Cloud, no_room
from ebhpc_openstack.settings import OpenStackSettings
from ebhpc_openstack.snapshot import by_session

log = logging.getLogger("ebhpc_openstack")

YOUNG = 600
"""Seconds for which a volume that belongs to no session is left alone: its session may have come after the list."""

_TO_BE_DELETED = ("available", "error", "error_deleting", "error_restoring", "error_extending", "error_managing")
"""In these states Cinder deletes a volume that is asked for no more."""

_GOING = ("deleting", "deleted")
_MADE = ("creating", "downloading")


class Coming(CloudFault):
    """The session's volumes are being made, or are about to be free again."""

    def __init__(self) -> None:
        super().__init__("the volumes for its storage are being made")


class Wanted(Struct, frozen=True):
    """A volume of a session: the number of its storage element, and its size in GiB."""

    at: int
    gib: int


def wanted(storage: Iterable[Storage], settings: OpenStackSettings) -> tuple[Wanted, ...]:
    """Return the volumes that storage elements become."""
    if settings.volumes.through == "none":
        return ()
    return tuple(
        Wanted(at, least)
        for at, element in enumerate(storage)
        if isinstance(element, SimpleStorage) and element.size is not None and (least := element.size.min or 0) > 0
    )


class Volumes:
    """Our volumes in a cloud; ``settling`` says whether what was asked for at an instant may still come."""

    def __init__(
        self,
        settings: OpenStackSettings,
        cloud: Cloud,
        clock: Callable[[], float],
        settling: Callable[[float], bool],
    ) -> None:
        self._settings = settings
        self._cloud = cloud
        self._clock = clock
        self._settling = settling
        self._root = settings.jobs.root
        self.used = settings.volumes.through != "none"

    # --- before the server

    def ready(self, sessions: Sequence[Session]) -> dict[str, dict[int, str] | Exception]:
        """Return for each session the numbers of its volumes by storage element, or why they are not there.

        Those that are missing are asked for: :class:`Coming`. One that Cinder could not make is a SessionFailed.

        Raises:
            CloudFault: there was no answer at all.
        """
        needing = {session.uuid: found for session in sessions if (found := wanted(session.storage, self._settings))}
        outcome: dict[str, dict[int, str] | Exception] = {one.uuid: {} for one in sessions if one.uuid not in needing}
        if not needing:
            return outcome
        listed = self._of(needing)
        missing: list[tuple[Session, Wanted]] = []
        for session in sessions:
            if session.uuid not in needing:
                continue
            there, lacking, fault = self._sorted(listed.get(session.uuid, []), needing[session.uuid])
            asked = notes.read(self._root, session.uuid).volumes
            if fault is not None:
                outcome[session.uuid] = fault
            elif not lacking:
                outcome[session.uuid] = there if len(there) == len(needing[session.uuid]) else self._late(session)
            elif asked is not None and self._settling(asked):
                why = "volumes were asked for, and it is not known yet whether they are there"
                outcome[session.uuid] = Unanswered(why)
            else:
                missing += [(session, one) for one in lacking]
                outcome[session.uuid] = Coming()
        self._make(missing, outcome)
        return outcome

    def _sorted(
        self, listed: Sequence[records.Volume], needed: Sequence[Wanted]
    ) -> tuple[dict[int, str], list[Wanted], Exception | None]:
        """Return which are ready, which are not there at all, and what went wrong; second ones are deleted."""
        there: dict[int, str] = {}
        lacking: list[Wanted] = []
        for one in needed:
            mine = [
                volume
                for volume in sorted(listed, key=lambda volume: (volume.created or 0.0, volume.id))
                if volume.metadata.get(f"{self._settings.prefix}_storage") == str(one.at)
                and volume.status not in _GOING
            ]
            if any(volume.status.startswith("error") for volume in mine):
                failed = next(volume for volume in mine if volume.status.startswith("error"))
                why = self._why(failed.id)
                self._delete(mine)
                text = "The cloud could not make the volume of {gib} GiB for the session's storage: {why}"
                return {}, [], SessionFailed(message(MessageKind.FAILED, text, gib=failed.gib, why=why))
            if not mine:
                lacking.append(one)
                continue
            for double in mine[1:]:
                log.warning("volume %s is a second one of %s: deleted", double.id, double.name)
            self._delete(mine[1:])
            if mine[0].status == "available":
                there[one.at] = mine[0].id
        return there, lacking, None

    def _late(self, session: Session) -> Exception:
        """Return what to say of a session whose volumes are there, and not ready."""
        asked = notes.read(self._root, session.uuid).volumes
        within = float(self._settings.volumes.made_within)
        if asked is None:
            # Somebody else has asked for them: from now on they are waited for
            note = notes.read(self._root, session.uuid)
            notes.write(self._root, session.uuid, replace(note, volumes=self._clock()))
        elif self._clock() - asked > within:
            text = "The cloud did not make the volumes for the session's storage within {within} s."
            return SessionFailed(message(MessageKind.FAILED, text, within=int(within)))
        return Coming()

    def _make(self, missing: Sequence[tuple[Session, Wanted]], outcome: dict[str, dict[int, str] | Exception]) -> None:
        """Ask for volumes that are not there."""
        for session in {session.uuid: session for session, _ in missing}.values():
            note = notes.read(self._root, session.uuid)
            notes.write(self._root, session.uuid, replace(note, volumes=self._clock()))
            point("openstack.volume.before", session.uuid)
        calls = [
            Call(
                service=STORAGE,
                path="/volumes",
                method="POST",
                version=STORAGE_VERSION,
                json={"volume": self._body(session, one)},
            )
            for session, one in missing
        ]
        answers = self._cloud.ask(*calls) if calls else []
        for session in {session.uuid: session for session, _ in missing}.values():
            point("openstack.volume.after", session.uuid)
            mine = [answer for (of, _), answer in zip(missing, answers, strict=True) if of.uuid == session.uuid]
            faults = [answer.failure() for answer in mine if answer.status not in (200, 202)]
            if not faults:
                continue
            if all(isinstance(fault, Refused | NotReached | NotLoggedIn) for fault in faults):
                note = notes.read(self._root, session.uuid)
                notes.write(self._root, session.uuid, replace(note, volumes=None))
            outcome[session.uuid] = _worst(faults)

    def _body(self, session: Session, one: Wanted) -> dict[str, Any]:
        prefix = self._settings.prefix
        body: dict[str, Any] = {
            "name": f"{prefix}-{session.uuid}-{one.at}",
            "size": one.gib,
            "metadata": {f"{prefix}_session": session.uuid, f"{prefix}_storage": str(one.at)},
        }
        if self._settings.volumes.type is not None:
            body["volume_type"] = self._settings.volumes.type
        return body

    def _why(self, volume: str) -> str:
        """Return Cinder's words on why a volume could not be made."""
        path = f"/messages?resource_uuid={quote(volume)}"
        (answer,) = self._cloud.ask(Call(service=STORAGE, path=path, version=STORAGE_VERSION))
        told = answer.body.get("messages") if answer.status == 200 and isinstance(answer.body, dict) else None
        said = [str(one.get("user_message") or "") for one in told or () if isinstance(one, dict)]
        return next((words for words in said if words), "it did not say why")

    # --- the end

    def delete_of(self, uuids: Iterable[str]) -> None:
        """Delete sessions' volumes; one that is attached to a server goes with the server.

        Raises:
            Unanswered: one is still being made, and cannot be deleted yet.
            CloudFault: there was no answer, or one could not be deleted.
        """
        if not self.used:
            return
        found = [volume for of in self._of(set(uuids)).values() for volume in of]
        self._delete(found)
        if any(volume.status in _MADE for volume in found):
            raise Unanswered("a volume is being made, and cannot be deleted before it is there")

    def delete_orphans(self, living: Iterable[str]) -> None:
        """Delete volumes of ours that belong to none of these sessions."""
        if not self.used:
            return
        known = set(living)
        orphans = []
        for uuid, found in self._of(None).items():
            for volume in found:
                old = volume.created is not None and volume.created < self._clock() - YOUNG
                if uuid not in known and old and volume.status in _TO_BE_DELETED:
                    log.warning("volume %s (session %s) belongs to no session: deleted", volume.id, uuid)
                    orphans.append(volume)
        self._delete(orphans)

    def _delete(self, volumes: Iterable[records.Volume]) -> None:
        calls = [
            Call(service=STORAGE, path=f"/volumes/{quote(one.id)}", method="DELETE", version=STORAGE_VERSION)
            for one in volumes
            if one.status in _TO_BE_DELETED
        ]
        for answer in self._cloud.ask(*calls) if calls else ():
            # 400: somebody has it deleted, or attached to a server that goes, at this moment
            if answer.status not in (202, 204, 400, 404):
                raise answer.failure()

    def _of(self, uuids: Iterable[str] | None) -> dict[str, list[records.Volume]]:
        """Return our volumes by session, those of these sessions alone, or all."""
        (answer,) = self._cloud.ask(VOLUMES)
        found = by_session((records.volume(one) for one in answer.ok()["volumes"]), self._settings.prefix)
        if uuids is None:
            return found
        known = set(uuids)
        return {uuid: volumes for uuid, volumes in found.items() if uuid in known}


def block_device_mapping(image: str, volumes: Mapping[int, str]) -> list[dict[str, Any]]:
    """Return what nova is to give a server as disks: its own one, and volumes that are deleted with it."""
    own = {"boot_index": 0, "uuid": image, "source_type": "image", "destination_type": "local"}
    more = [
        {"boot_index": -1, "uuid": one, "source_type": "volume", "destination_type": "volume"}
        for one in volumes.values()
    ]
    return [{**disk, "delete_on_termination": True} for disk in (own, *more)]


def _worst(faults: Sequence[Exception]) -> Exception:
    """Return the fault that says most: what was refused for good, else for its quota, else what is not known."""
    for fault in faults:
        if isinstance(fault, Refused) and not no_room(fault):
            text = "The cloud refused a volume for the session's storage: {why}."
            return SessionFailed(message(MessageKind.FAILED, text, why=str(fault)))
    return next((fault for fault in faults if isinstance(fault, Refused)), faults[0])
