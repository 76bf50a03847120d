"""A platform's calendar, to be drawn: what is in it, and who sees what of it."""

from __future__ import annotations

import gzip

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from ebhpc.api.picture import Pictures, SpanKind, Viewer, picture_document
from ebhpc.api.timelines import Known
from ebhpc.model import Allocation, Shape
from ebhpc.planning import (
    Booking,
    Node,
    Partition,
    PlannedJob,
    Reservation,
    RunningJob,
    Snapshot,
    Timeline,
    WaitingJob,
)
from tests.api.conftest import NOW

NODES = tuple(Node(name=f"n{number}", cores=8, memory=16 * 1024) for number in range(6))
EVERYTHING = Viewer(names=True, all_sessions=True)


def shares(*names, cores=4):
    return tuple(Allocation(node=name, cores=cores, memory=1024) for name in names)


def busy(**parts):
    job = RunningJob(id="17", allocations=shares("n0", "n1", "n3"), started=NOW - 60, ends=NOW + 3600, user="eve")
    shape = Shape(cores=8, memory=1024)
    given = {
        "running": (job,),
        "waiting": (WaitingJob(id="18", nodes=2, shape=shape, time_limit=600, user="bob", account="phys"),),
        "planned": (PlannedJob(id="18", start=NOW + 7200, end=NOW + 7800, shape=shape, nodes=("n4", "n5")),),
        "reservations": (
            Reservation(name="course", start=NOW + 100, end=NOW + 900, allocations=shares("n2", cores=8)),
            Reservation(name="repair", start=NOW, end=NOW + 9, allocations=shares("n5", cores=8), maintenance=True),
        ),
        **parts,
    }
    return Snapshot(
        platform="paper", taken=NOW, nodes=NODES, partitions=(Partition(name="all", nodes=("n0", "n1", "n4")),), **given
    )


def known(snapshot, *bookings):
    return Known(version=1, revision=0, timeline=Timeline.of(snapshot, bookings), looked=NOW)


def picture(snapshot, *bookings, viewer=EVERYTHING, start=NOW - 3600, end=NOW + 86_400):
    have = known(snapshot, *bookings)
    return picture_document(have, Pictures().spans("paper", have), viewer, start=start, end=end)


def told(document):
    """The spans as rows: kind, first node, nodes, start and end from now, cores, label, session."""
    spans, rows, place = document.spans, [], 0
    for at, first in enumerate(spans.first):
        place += first
        start = spans.start[at] - 3600
        rows.append(
            (
                SpanKind(spans.kind[at]).name,
                document.nodes[place],
                spans.count[at],
                start,
                start + spans.length[at],
                spans.cores[at],
                document.labels[spans.label[at]] if document.labels else "",
                document.sessions[spans.session[at]] if document.sessions else "",
            )
        )
    return sorted(rows)


def booking(session, node, *, expires=None, start=NOW + 60, id=1):
    return Booking(
        id=id, session=session, node=node, start=start, end=start + 600, cores=2, memory=512, expires=expires
    )


def test_everything_that_takes_nodes_is_there_once_and_neighbours_are_together():
    assert told(picture(busy())) == [
        ("MAINTENANCE", "n5", 1, 0, 9, 8, "repair", ""),
        ("RESERVATION", "n2", 1, 100, 900, 8, "course", ""),
        ("RUNNING", "n0", 2, -60, 3600, 4, "17 · eve", ""),
        ("RUNNING", "n3", 1, -60, 3600, 4, "17 · eve", ""),
        ("WAITING", "n4", 2, 7200, 7800, 8, "18 · bob · phys", ""),
    ]
    assert picture(busy()).partitions[0].runs == [[0, 2], [4, 1]]


def test_users_see_that_something_is_taken_and_not_whose_it_is():
    document = picture(busy(), viewer=Viewer())
    assert [row[:6] for row in told(document)] == [row[:6] for row in told(picture(busy()))]
    plain = msgspec.json.encode(document)
    assert not any(word in plain for word in (b"eve", b"bob", b"phys", b"17 ", b"course", b"repair"))


def test_of_the_brokers_sessions_a_user_sees_which_are_theirs():
    bookings = (booking("mine", "n0"), booking("theirs", "n1", id=2), booking("offered", "n2", id=3, expires=NOW + 300))
    document = picture(busy(running=()), *bookings, viewer=Viewer(sessions=frozenset({"mine", "offered"})))
    ours = [(kind, node, session) for kind, node, *_, session in told(document) if kind in ("PROMISE", "OFFER")]
    assert ours == [("OFFER", "n2", "offered"), ("PROMISE", "n0", "mine"), ("PROMISE", "n1", "")]
    assert b"theirs" not in msgspec.json.encode(document)


def test_a_job_of_the_brokers_own_is_told_by_its_booking_alone():
    job = RunningJob(id="9", allocations=shares("n0"), started=NOW, ends=NOW + 60, session="mine")
    kinds = [row[0] for row in told(picture(busy(running=(job,)), booking("mine", "n0")))]
    assert kinds.count("PROMISE") == 1
    assert "RUNNING" not in kinds


def test_what_lies_outside_of_the_picture_is_left_out_and_what_has_no_end_goes_to_its_edge():
    endless = RunningJob(id="1", allocations=shares("n0"), started=NOW - 10, ends=None)
    document = picture(busy(running=(endless,), reservations=(), planned=()), end=NOW + 600)
    assert [row[3:5] for row in told(document)] == [(-10, 601)]
    assert told(picture(busy(), start=NOW - 3600, end=NOW - 3000)) == []


@given(
    st.lists(
        st.tuples(
            st.sets(st.integers(0, 5), min_size=1), st.integers(-500, 500), st.integers(1, 4000), st.integers(1, 8)
        ),
        max_size=20,
    )
)
def test_no_core_second_is_lost_or_told_twice(jobs):
    running = tuple(
        RunningJob(
            id=str(number),
            allocations=shares(*(f"n{place}" for place in places), cores=cores),
            started=NOW + start,
            ends=NOW + max(start + length, 60),
        )
        for number, (places, start, length, cores) in enumerate(jobs)
    )
    document = picture(busy(running=running, reservations=(), planned=(), waiting=()))
    spans = document.spans
    shown = sum(map(lambda count, length, cores: count * length * cores, spans.count, spans.length, spans.cores))
    assert shown == sum(len(job.allocations) * job.allocations[0].cores * (job.ends - job.started) for job in running)


def test_the_answer_is_compressed_and_told_once(site):
    first = site.get("/platforms/paper/picture", headers={"Accept-Encoding": "gzip"})
    assert first.headers["content-encoding"] == "gzip"
    document = msgspec.json.decode(gzip.decompress(first.content))
    assert document["nodes"] == ["n1", "n2"]
    assert site.get("/platforms/paper/picture").json == document
    again = site.get("/platforms/paper/picture", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status, again.content) == (304, b"")
    offer = site.offers()["offers"][0]["meta"]["uuid"]
    changed = site.get("/platforms/paper/picture", headers={"If-None-Match": first.headers["etag"]})
    assert changed.status == 200
    assert offer in changed.json["sessions"]
    assert "sessions" not in site.get("/platforms/paper/picture", user="bob").json
    assert offer in site.get("/platforms/paper/picture", user="root").json["sessions"]
    assert site.get("/platforms/none/picture").status == 404
    assert site.get("/platforms/paper/picture", params={"duration": "P32D"}).status == 400
