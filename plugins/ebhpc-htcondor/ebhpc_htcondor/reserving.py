"""Start times that a pool keeps: what we keep on which machine, told to the machines by files that they read.

A machine of the pool runs ``pool/ebhpc-reservation`` every few seconds, which prints the machine's file, and its START
expression (``pool/ebhpc-reservations.conf``) then starts no job that would still have what is kept when its time comes.
The file says one amount for all that is kept: what is kept for those who have not begun, as much as is ever kept at a
time, from the first start to the last end. That is more than needed where several are kept on one machine, never less.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from ebhpc.model import SCRATCH, Allocation, Message, MessageKind, Session, message
from ebhpc.plugins import SessionFailed
from ebhpc_htcondor import records
from ebhpc_htcondor.asking import NotReached, Pool
from ebhpc_htcondor.names import string
from ebhpc_htcondor.settings import HTCondorSettings, Mapped
from ebhpc_htcondor.snapshot import ends
from ebhpc_htcondor.states import LIVE

log = logging.getLogger("ebhpc_htcondor")

_KEEP = ".keep"
_LEDGER = ".ledger.json"
_STALE = 60
"""Seconds after which a machine that did not look again is taken for one that does not look."""


class Kept(Struct, frozen=True, kw_only=True):
    """What is kept for one session on one machine; ``begun``: its job has it already."""

    session: str
    user: str
    start: int
    end: int
    share: Allocation
    made: float
    begun: bool = False


class Reservations:
    """What we keep in a pool. The ledger lies beside the machines' files, so that all drivers have the same."""

    def __init__(self, settings: HTCondorSettings, pool: Pool, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._pool = pool
        self._clock = clock

    def hold(self, session: Session, who: Mapped) -> str:
        """Keep a session's share from its start on; returns when the machine says that it does.

        Raises:
            SessionFailed: the machine is taken, by a job that will not have ended, or it keeps no times.
            PoolFault, OSError: not now.
        """
        share = session.allocations[0]
        kept = Kept(
            session=session.uuid,
            user=who.user,
            start=session.start,
            end=session.end,
            share=share,
            made=self._clock(),
        )
        with self._ledger() as ledger:
            present = ledger.get(session.uuid)
            if present is None or present.share.node != share.node:  # a machine that was lost gave its place to another
                ledger[session.uuid] = kept
            kept = ledger[session.uuid]
        try:
            self._confirmed(kept)
        except SessionFailed:
            self.release(session.uuid)
            raise
        return f"{share.node}#{session.uuid}"

    def release(self, uuid: str) -> None:
        """Keep nothing more for a session. Safe to repeat."""
        if self._settings.reservations is None:
            return
        with self._ledger() as ledger:
            ledger.pop(uuid, None)

    def claimed(self, sessions: Mapping[str, bool]) -> None:
        """Note whose jobs have what was kept for them: nothing is kept beside it, until it is lost before its time."""
        if self._settings.reservations is None or not sessions:
            return
        known = self._read()
        new = {uuid: has for uuid, has in sessions.items() if uuid in known and known[uuid].begun != has}
        if not new:
            return
        with self._ledger() as ledger:
            for uuid, has in new.items():
                if uuid in ledger:
                    ledger[uuid] = msgspec.structs.replace(ledger[uuid], begun=has)

    def reconcile(self, sessions: Sequence[Session]) -> None:
        """Keep nothing for sessions that are not there."""
        if self._settings.reservations is None:
            return
        living = {session.uuid for session in sessions}
        now = self._clock()
        with self._ledger() as ledger:
            for uuid in [uuid for uuid, kept in ledger.items() if uuid not in living and kept.made < now - 600]:
                log.warning("session %s: it is none, and %s keeps nothing more for it", uuid, ledger[uuid].share.node)
                del ledger[uuid]

    def _confirmed(self, kept: Kept) -> None:
        """Wait until the machine says that it keeps what it shall, and see that nobody will be in the way.

        Raises:
            SessionFailed: somebody will be, or the machine does not look.
            NotReached: it has not said so yet.
        """
        deadline = time.monotonic() + min(float(self._settings.reserve_within), float(self._settings.answer_within))
        mark = f"{kept.session} {kept.user}"
        while True:
            slot = next((one for one in self._pool.kept() if one.name == kept.share.node), None)
            if slot is None:
                raise SessionFailed(_failed("{node} is no longer in the pool.", node=kept.share.node))
            if mark in slot.kept:
                missing = sorted(set(map(resource_of, counted(kept.share))) - set(slot.keeps))
                if missing:
                    text = "{node} does not keep {what} for a time."
                    raise SessionFailed(_failed(text, node=slot.name, what=", ".join(missing)))
                break
            waited = self._clock() - kept.made
            if time.monotonic() > deadline:
                if waited > float(self._settings.reserve_within):
                    text = "{node} does not say that it keeps what it was asked to."
                    raise SessionFailed(_failed(text, node=kept.share.node))
                raise NotReached(f"{kept.share.node} does not say yet that it keeps what it was asked to")
            time.sleep(0.5)
        self._free_in_time(kept, slot)

    def _free_in_time(self, kept: Kept, slot: records.Slot) -> None:
        """See that what runs on the machine leaves enough: what came in before it knew may stay longer."""
        jobs = {job.slot: job for job in self._pool.look(None).jobs if job.status in LIVE}
        others = 0
        memory = 0
        devices: Counter[str] = Counter(counted(kept.share))
        for share in slot.shares:
            job = jobs.get(share.name)
            until = ends(job) if job is not None else None
            if share.claimed and (job is None or job.session != kept.session) and (until is None or until > kept.start):
                others += share.cores
                memory += share.memory
                devices.update(share.devices)
        short = any(devices[kind] > slot.devices.get(kind, 0) for kind in counted(kept.share))
        if short or others + kept.share.cores > slot.cores or memory + kept.share.memory > slot.memory:
            text = "{node} has jobs that will not have ended at the start."
            raise SessionFailed(_failed(text, node=slot.name))

    # --- files -----------------------------------------------------------------------------------------------

    def _path(self, name: str) -> Path:
        assert self._settings.reservations is not None
        return self._settings.reservations / name

    def _read(self) -> dict[str, Kept]:
        try:
            return msgspec.json.decode(self._path(_LEDGER).read_bytes(), type=dict[str, Kept])
        except FileNotFoundError:
            return {}

    @contextmanager
    def _ledger(self) -> Iterator[dict[str, Kept]]:
        """Change the ledger, one at a time, and then the files of the machines that are concerned."""
        directory = self._path("")
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        with (directory / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            ledger = self._read()
            before = dict(ledger)
            yield ledger
            now = self._clock()
            for uuid in [uuid for uuid, kept in ledger.items() if kept.end < now - _STALE]:
                del ledger[uuid]
            if ledger == before and self._path(_KEEP).exists():
                return
            _replace(self._path(_LEDGER), msgspec.json.encode(ledger))
            for node in {kept.share.node for kept in (*before.values(), *ledger.values())}:
                kept_there = [kept for kept in ledger.values() if kept.share.node == node]
                place = self._path(file_name(node))
                if kept_there:
                    _replace(place, attributes(kept_there).encode())
                else:
                    place.unlink(missing_ok=True)
            # A machine that sees this file knows that it looks at the right place
            self._path(_KEEP).touch()


def attributes(kept: Sequence[Kept]) -> str:
    """Return what a machine shall say of what is kept on it, as attributes of its slots."""
    owed = [one for one in kept if not one.begun]
    kinds = {"gpu": resource_of("gpu"), **{kind: resource_of(kind) for one in kept for kind in counted(one.share)}}
    lines = {
        "ReservedFor": "{" + ", ".join(string(f"{one.session} {one.user}") for one in kept) + "}",
        "ReservedFrom": min((one.start for one in owed), default=max(one.end for one in kept)),
        "ReservedUntil": max((one.end for one in owed), default=0),
        "ReservedCpus": most(owed, lambda one: one.share.cores),
        "ReservedMemory": most(owed, lambda one: one.share.memory),
        **{
            f"Reserved{name}": most(owed, lambda one, kind=kind: one.share.devices.get(kind, 0))  # type: ignore[misc]
            for kind, name in kinds.items()
        },
    }
    return "".join(f"{name} = {value}\n" for name, value in lines.items())


def counted(share: Allocation) -> dict[str, int]:
    """Return the devices of a share that a machine counts: not their models, and not scratch space."""
    return {kind: count for kind, count in share.devices.items() if count and kind != SCRATCH and ":" not in kind}


def resource_of(kind: str) -> str:
    """Return the name of a device's type as a part of an attribute's, in which case tells nothing."""
    return "GPUs" if kind == "gpu" else kind


def most(kept: Sequence[Kept], amount: Callable[[Kept], int]) -> int:
    """Return how much of something is kept at most at one time."""
    return max((sum(amount(two) for two in kept if two.start <= one.start < two.end) for one in kept), default=0)


def file_name(node: str) -> str:
    """Return the name of a machine's file: that of its host, or of the local name of its startd.

    Raises:
        ValueError: it is no name of a file.
    """
    name = node.partition("@")[0].lower()
    if not name or name.startswith(".") or "/" in name or "\0" in name:
        raise ValueError(f"no machine: {node!r}")
    return name


def _replace(path: Path, content: bytes) -> None:
    part = path.with_name(f".{path.name.lstrip('.')}.part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.chmod(0o644)
    os.replace(part, path)


def _failed(text: str, **values: Any) -> Message:
    return message(MessageKind.FAILED, text, **values)
