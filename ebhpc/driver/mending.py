"""Promises that mend themselves: a node that is lost before a session starts gives its place to another.

Looked at with each new snapshot. A node is lost when it is down or drained, has gone, or when somebody else reserved
it, in two snapshots one after another. Its place is taken by a node that is free for all of the session's time, so that
nobody else is harmed: booked first, under the platform's lock, then reserved by calling ``ebhpc_hold`` again. Where
the batch system refuses that node, the next one is tried. Where there is none, the session's owner is told, and when
he could ask again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

from msgspec.structs import replace

from ebhpc.driver.notices import at, lasting, notice
from ebhpc.faults import point
from ebhpc.model import (
    Allocation,
    Demand,
    Message,
    MessageKind,
    Session,
    Shape,
    Window,
)
from ebhpc.model.registry import Kinds
from ebhpc.planning import Node, NodeState, Snapshot, Timeline, decode_snapshot, fits, windows
from ebhpc.plugins import Platform, PlatformUnavailable, SessionFailed
from ebhpc.store import (
    BrokenDocument,
    Changes,
    SessionRecord,
    Store,
    as_session,
    booked_nodes,
    bookings_revision,
    not_begun,
    reallocate,
    tell,
)

log = logging.getLogger("ebhpc.driver")

_MOST_TRIES = 5
"""Nodes that are tried for one place, where the batch system refuses them."""

_AHEAD = 14 * 86_400
"""Seconds ahead in which other windows are looked for."""

_HOPELESS = "{nodes}: {why}; no other node is free for the session's time{instead}"
_WELL = "{nodes} can be used again: the session has all its nodes"


class Mending:
    """Looks after the nodes of one platform's sessions that have not begun. ``clock`` gives POSIX seconds."""

    def __init__(self, store: Store, platform: Platform, kinds: Kinds, *, clock: Callable[[], float]) -> None:
        self._store = store
        self._platform = platform
        self._kinds = kinds
        self._clock = clock
        self._newest: tuple[Snapshot, bytes] | None = None
        self._all_was_well = False
        self._suspected: dict[str, frozenset[str]] = {}
        self._unsettled: set[str] = set()
        self._able = platform.implements("ebhpc_hold")

    @property
    def waits(self) -> bool:
        """Whether there is a snapshot that was not looked at."""
        return self._newest is not None

    def offer(self, snapshot: Snapshot, packed: bytes) -> None:
        """Take a snapshot that was published, for the next ``run``."""
        if self._able:
            self._newest = snapshot, packed

    def run(self) -> None:
        """Look at the newest snapshot, and mend what has lost a node."""
        newest, self._newest = self._newest, None
        if newest is None:
            return
        now = self._clock()
        well = not self._unsettled and _State(newest[0]).has(booked_nodes(self._store, self._platform.name))
        # After a loss one more look, to tell that all is well again
        if well and self._all_was_well:
            return
        self._all_was_well = well
        records = not_begun(self._store, self._platform.name, now=now)
        if not records:
            self._suspected = {}
            return
        state = _State(decode_snapshot(newest[1]))
        suspected: dict[str, frozenset[str]] = {}
        for record in records:
            lost = state.lost(record)
            suspected[record.uuid] = frozenset(lost)
            sure = {node: why for node, why in lost.items() if node in self._suspected.get(record.uuid, ())}
            try:
                if record.uuid in self._unsettled:
                    self._settle(record)
                if sure and len(sure) == len(lost):
                    self._mend(record, sure, state, now)
                elif not lost:
                    self._tell_well(record, now)
            except (PlatformUnavailable, BrokenDocument) as error:
                log.warning("session %s: not mended: %s", record.uuid, error, extra={"session": record.uuid})
        self._suspected = suspected
        self._unsettled &= {record.uuid for record in records}

    # --- one session ---------------------------------------------------------------------------------------------

    def _mend(self, record: SessionRecord, lost: dict[str, str], state: _State, now: float) -> None:
        """Find other nodes for those that are lost, and have them reserved."""
        refused: set[str] = set()
        for _ in range(_MOST_TRIES):
            revision, changes = bookings_revision(self._store, self._platform.name)
            timeline = self._timeline(state.snapshot, changes)
            allocations = _replacements(record, lost, state, timeline, refused, now)
            if allocations is None:
                break
            taken = [new for old, new in zip(record.allocations, allocations, strict=True) if new != old]
            windows_of = [_window(record, taken, now)]

            def still_fit(
                since: Changes, timeline: Timeline = timeline, windows_of: Sequence[Window] = windows_of
            ) -> bool:
                return fits(timeline.with_bookings(since.present, since.gone), windows_of)

            told = notice(
                now,
                MessageKind.PROGRESS,
                "WARN",
                "{lost}: {why}; the session gets {others} instead",
                lost=", ".join(lost),
                why="; ".join(lost.values()),
                others=", ".join(share.node for share in taken),
            )
            after = reallocate(self._store, record, allocations, told, revision=revision, still_fit=still_fit, now=now)
            if after is None:
                continue
            point("driver.mend.booked", record.uuid)
            try:
                self._hold(after)
            except SessionFailed as error:
                log.warning("session %s: %s", record.uuid, error, extra={"session": record.uuid})
                refused |= {share.node for share in taken}
                back = notice(
                    now,
                    MessageKind.PROGRESS,
                    "WARN",
                    "{platform} did not give {others}: {why}",
                    platform=self._platform.name,
                    others=", ".join(share.node for share in taken),
                    why=str(error),
                )
                revision, _ = bookings_revision(self._store, self._platform.name)
                before = reallocate(
                    self._store, after, record.allocations, back, revision=revision, still_fit=lambda _: True, now=now
                )
                if before is None:
                    return  # it has begun or ended meanwhile
                record = before
            except PlatformUnavailable:
                self._unsettled.add(record.uuid)  # it is booked; the reservation follows
                raise
            else:
                log.info(
                    "session %s: %s instead of %s",
                    record.uuid,
                    [share.node for share in taken],
                    list(lost),
                    extra={"session": record.uuid},
                )
                return
        self._tell_hopeless(record, lost, state, now)

    def _settle(self, record: SessionRecord) -> None:
        """Reserve what was booked in place of a lost node, where there was no answer before."""
        try:
            self._hold(record)
        except SessionFailed as error:
            log.warning("session %s: %s", record.uuid, error, extra={"session": record.uuid})
        self._unsettled.discard(record.uuid)

    def _hold(self, record: SessionRecord) -> None:
        session: Session = as_session(record, self._kinds)
        self._platform.call("ebhpc_hold", session=session)
        point("driver.mend.held", record.uuid)

    def _timeline(self, snapshot: Snapshot, changes: Changes) -> Timeline:
        gap = snapshot.scheduler.gap if snapshot.scheduler is not None else 0
        return Timeline.of(snapshot, changes.present, gap=gap, delay_queue=self._platform.config.delay_queue)

    # --- what is told --------------------------------------------------------------------------------------------

    def _tell_hopeless(self, record: SessionRecord, lost: dict[str, str], state: _State, now: float) -> None:
        nodes = ", ".join(lost)
        last = _last(record)
        if last is not None and last.template == _HOPELESS and (last.values or {}).get("nodes") == nodes:
            return
        _, changes = bookings_revision(self._store, self._platform.name)
        # What the session has itself is there for the window that would come in its place
        own = [booking.id for booking in changes.present if booking.session == record.uuid]
        timeline = self._timeline(state.snapshot, changes).with_bookings((), own)
        found = windows(_demand(record, now), timeline, now=int(now), limit=3)
        starts = ", ".join(f"{at(window.start)} for {lasting(window.duration)}" for window in found)
        instead = f"; the next windows like it begin at {starts}" if starts else "; nor is there another window"
        told = notice(
            now,
            MessageKind.NO_WINDOW,
            "ERROR",
            _HOPELESS,
            nodes=nodes,
            why="; ".join(lost.values()),
            instead=instead,
        )
        tell(self._store, record.uuid, (told,), now=now)

    def _tell_well(self, record: SessionRecord, now: float) -> None:
        last = _last(record)
        if last is not None and last.template == _HOPELESS:
            nodes = (last.values or {}).get("nodes", "")
            tell(self._store, record.uuid, (notice(now, MessageKind.PROGRESS, "INFO", _WELL, nodes=nodes),), now=now)


def _last(record: SessionRecord) -> Message | None:
    """Return what was told last of nodes that cannot be replaced."""
    return next((one for one in reversed(record.messages) if one.template in (_HOPELESS, _WELL)), None)


def _demand(record: SessionRecord, now: float) -> Demand:
    """Return what a session has, as a wish for another time."""
    cores = min(share.cores for share in record.allocations)
    memory = min(share.memory for share in record.allocations)
    return Demand(
        least=Shape(cores=cores, memory=memory, devices=dict(record.allocations[0].devices)),
        duration=record.duration,
        earliest=int(now),
        latest=int(now) + _AHEAD,
        nodes=len(record.allocations),
        features=record.wants.features,
        partition=record.wants.partition,
        licences=record.wants.licences,
        exclusive=record.wants.exclusive or len(record.allocations) > 1,
    )


def _window(record: SessionRecord, shares: Sequence[Allocation], now: float) -> Window:
    start = max(record.start, int(now))
    return Window(
        start=start,
        latest=start,
        end=record.finish,
        duration=record.finish - start,
        allocations=tuple(shares),
    )


class _State:
    """A platform's nodes by name, and what is reserved by others."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.nodes = {node.name: node for node in snapshot.nodes}

    def has(self, names: frozenset[str]) -> bool:
        """Whether all nodes of these names can be used, and nobody else has reserved any of them, whenever."""
        usable = (name in self.nodes and self.nodes[name].state is NodeState.UP for name in names)
        taken = (share.node for one in self.snapshot.reservations if one.session is None for share in one.allocations)
        return all(usable) and names.isdisjoint(taken)

    def lost(self, record: SessionRecord) -> dict[str, str]:
        """Return the nodes of a session that will not be there for it, and why."""
        found = {}
        for share in record.allocations:
            why = self._why(share.node, record)
            if why is not None:
                found[share.node] = why
        return found

    def _why(self, name: str, record: SessionRecord) -> str | None:
        node = self.nodes.get(name)
        if node is None:
            return "it is not among the nodes any more"
        if node.state is not NodeState.UP:
            return "it is down" if node.state is NodeState.DOWN else "it is drained"
        for one in self.snapshot.reservations:
            theirs = one.session is None and one.start < record.finish and record.start < one.end
            if theirs and any(share.node == name for share in one.allocations):
                return f"{'maintenance' if one.maintenance else 'the reservation'} {one.name} takes it"
        return None

    def others(self, record: SessionRecord) -> Iterator[Node]:
        """Yield the nodes that could take a place: in a partition that has all the session's own, with its features."""
        own = {share.node for share in record.allocations}
        named = record.wants.partition
        partitions = [
            one
            for one in self.snapshot.partitions
            if one.open
            and (one.name == named if named is not None else own & set(one.nodes) == own & self.nodes.keys())
        ]
        members = dict.fromkeys(name for one in partitions for name in one.nodes)
        names = list(members) if self.snapshot.partitions else list(self.nodes)
        for name in names:
            node = self.nodes.get(name)
            if node is None or name in own or node.state is not NodeState.UP:
                continue
            if set(record.wants.features) <= set(node.features):
                yield node


def _replacements(
    record: SessionRecord, lost: dict[str, str], state: _State, timeline: Timeline, refused: set[str], now: float
) -> tuple[Allocation, ...] | None:
    """Return the session's allocations with other nodes in the places of those that are lost; None: there are none."""
    whole = record.wants.exclusive or len(record.allocations) > 1
    kept: list[Allocation] = []
    taken: list[Allocation] = []
    candidates = [node for node in state.others(record) if node.name not in refused]
    for share in record.allocations:
        if share.node not in lost:
            kept.append(share)
            continue
        found = None
        for node in candidates:
            given = _given(share, node, whole=whole)
            if given is not None and fits(timeline, [_window(record, [*taken, given], now)]):
                found = given
                break
        if found is None:
            return None
        candidates = [node for node in candidates if node.name != found.node]
        taken.append(found)
        kept.append(found)
    return tuple(kept)


def _given(share: Allocation, node: Node, *, whole: bool) -> Allocation | None:
    """Return a share of another node that is as good; None: it has not so much."""
    has = node.devices
    enough = node.cores >= share.cores and node.memory >= share.memory
    if not enough or any(count > has.get(device, 0) for device, count in share.devices.items()):
        return None
    if whole:
        return Allocation(node=node.name, cores=node.cores, memory=node.memory, devices=dict(has))
    return replace(share, node=node.name)
