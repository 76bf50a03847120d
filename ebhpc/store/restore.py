"""A stored session as plugins see it."""

from __future__ import annotations

import msgspec

from ebhpc.model import Identity, Session, SimpleSession
from ebhpc.model.registry import Kinds
from ebhpc.store.records import SessionRecord


class BrokenDocument(ValueError):
    """A stored session cannot be decoded: a plugin that it needs is not loaded, or the row was changed by hand."""


def as_session(record: SessionRecord, kinds: Kinds) -> Session:
    """Decode a session for its platform's hooks.

    Raises:
        BrokenDocument: an element cannot be decoded.
    """
    decoded = kinds.session(msgspec.json.decode(record.document))
    document = decoded.document
    if decoded.problems or not isinstance(document, SimpleSession):
        reasons = "; ".join(str(problem) for problem in decoded.problems)
        raise BrokenDocument(f"session {record.uuid}: {reasons or 'not a session'}")
    compute = document.compute
    meta = document.meta
    return Session(
        uuid=record.uuid,
        name=meta.name if meta else None,
        owner=Identity(uuid=record.owner, username=record.username),
        platform=record.platform,
        phase=record.phase,
        executable=document.executable,
        compute=compute,
        volumes=tuple(compute.volumes or ()) if compute is not None else (),
        storage=tuple(document.storage or ()),
        data=tuple(document.data or ()),
        allocations=record.allocations,
        start=record.start,
        latest=record.latest,
        end=record.finish,
        duration=record.duration,
        firm=record.firm,
        licences=record.wants.licences,
        features=record.wants.features,
        partition=record.wants.partition,
        exclusive=record.wants.exclusive,
        native=record.native,
        held=record.held,
        attempt=max(record.attempt, 1),
        started=None if record.started is None else int(record.started),
        extends=record.wants.extends,
        sources=record.wants.sources,
    )
