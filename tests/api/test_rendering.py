"""A session as clients see it, phase by phase."""

from __future__ import annotations

import msgspec
import pytest

from ebhpc.api.rendering import phase_options, session_document, time_text
from ebhpc.model import EDGES, FINAL, LIVE, Allocation, LifecyclePhase, Phase, kinds
from ebhpc.store import SessionRecord
from tests import standard_schema

NOW = 1_900_000_000

DOCUMENT = {
    "kind": kinds.SCHEDULED_SESSION,
    "meta": {"name": "x"},
    "executable": {"kind": kinds.JUPYTER_NOTEBOOK, "location": "https://example.org/a.ipynb"},
    "compute": {"kind": kinds.SIMPLE_COMPUTE},
    "storage": [{"kind": kinds.SIMPLE_STORAGE}],
}


def record(phase: Phase, **more) -> SessionRecord:
    return SessionRecord(
        uuid="0b0e6ad0-0000-4000-8000-000000000000",
        offerset="0b0e6ad0-0000-4000-8000-000000000001",
        position=0,
        owner="o",
        username="ada",
        platform="p",
        phase=phase,
        created=NOW,
        modified=NOW,
        expires=NOW + 300 if phase is Phase.OFFERED else None,
        start=NOW,
        latest=NOW,
        finish=NOW + 60,
        duration=60,
        firm=True,
        allocations=(Allocation(node="n", cores=1, memory=1024),),
        document=msgspec.json.encode(DOCUMENT),
        **more,
    )


@pytest.mark.parametrize("phase", list(Phase))
def test_in_every_phase_a_session_is_what_the_standard_says(phase):
    document = msgspec.json.decode(msgspec.json.encode(session_document(record(phase), "http://b")))
    standard_schema.validate(document, "AbstractExecutionSession")
    assert document["phase"] == phase
    assert ("expires" in document) == (phase is Phase.OFFERED)
    for part in (document["executable"], document["compute"], *document["storage"]):
        assert part["phase"] in set(LifecyclePhase)


def test_options_are_edges_of_the_machine_and_none_at_the_end():
    for phase in Phase:
        assert set(phase_options(phase)) <= EDGES[phase]
    assert all(phase_options(phase) == () for phase in FINAL)
    assert all(phase_options(phase) == (Phase.CANCELLED,) for phase in LIVE)


def test_components_end_when_the_session_ends():
    for phase in FINAL:
        document = session_document(record(phase), "http://b")
        assert document["executable"]["phase"] in ("COMPLETED", "FAILED", "CANCELLED")


def test_a_session_that_failed_before_it_ran_shows_the_plan():
    moves = {Phase.PREPARING: NOW + 1.0, Phase.FAILED: NOW + 2.0}
    document = session_document(record(Phase.FAILED), "http://b", moves)
    assert document["schedule"] == {"preparing": {"start": "2030-03-17T17:46:41Z"}}


def test_times_are_rfc_3339_with_milliseconds():
    assert time_text(NOW + 0.0004) == "2030-03-17T17:46:40Z"
    assert time_text(NOW + 0.9996) == "2030-03-17T17:46:41Z"
    assert time_text(NOW + 0.25) == "2030-03-17T17:46:40.250000Z"
