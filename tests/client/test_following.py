"""Accepting, following and fetching with another broker, and what the client makes of faults on the way."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ebhpc.client import Broker, Conflict, NoAnswer, NotFound, Unreachable
from ebhpc.client.broker import has_reached, safe_name
from ebhpc.model import Phase
from tests.client.conftest import Naps
from tests.client.other_broker import SESSION, Call, OtherBroker, Reply, session_document

WHERE = f"/sessions/{SESSION}"


def phases(*names: str) -> list[Reply]:
    return [Reply(document=session_document(phase=name)) for name in names]


@pytest.mark.parametrize(("verb", "phase"), [("accept", "ACCEPTED"), ("reject", "REJECTED"), ("cancel", "CANCELLED")])
def test_an_update_names_the_phase_that_is_wanted(verb: str, phase: str, other: OtherBroker, client: Broker) -> None:
    other.answer(f"POST {WHERE}", *phases(phase))
    assert getattr(client, verb)(SESSION).phase == phase
    assert other.calls[0].document() == {"kind": "uri:enum-value-update", "path": "phase", "value": phase}


def test_an_offer_that_has_expired_is_a_conflict(other: OtherBroker, client: Broker) -> None:
    other.answer(f"POST {WHERE}", Reply(status=409, document={"detail": "the offer has expired"}))
    with pytest.raises(Conflict, match="has expired"):
        client.accept(SESSION)


def test_a_call_that_changes_something_is_sent_once(other: OtherBroker, client: Broker) -> None:
    other.answer("POST /requests", Reply(drop=True))
    with pytest.raises(NoAnswer, match="may have been carried out"):
        client.offers({})
    assert other.paths() == ["POST /requests"]


def test_an_accept_without_an_answer_that_happened_is_found_to_have_happened(
    other: OtherBroker, client: Broker
) -> None:
    other.answer(f"POST {WHERE}", Reply(drop=True))
    other.answer(f"GET {WHERE}", *phases("WAITING"))
    assert client.accept(SESSION).phase is Phase.WAITING
    assert other.paths() == [f"POST {WHERE}", f"GET {WHERE}"]


def test_an_accept_without_an_answer_that_has_not_happened_stays_unknown(other: OtherBroker, client: Broker) -> None:
    other.answer(f"POST {WHERE}", Reply(drop=True))
    other.answer(f"GET {WHERE}", *phases("OFFERED"))
    with pytest.raises(NoAnswer):
        client.accept(SESSION)


def test_a_busy_broker_is_not_sent_a_change_again(other: OtherBroker, client: Broker) -> None:
    other.answer(f"POST {WHERE}", Reply(status=503, document={"title": "restarting"}))
    with pytest.raises(Unreachable, match="restarting"):
        client.accept(SESSION)
    assert len(other.calls) == 1


def test_reading_is_repeated_after_a_dropped_connection(other: OtherBroker, client: Broker, naps: Naps) -> None:
    other.answer(f"GET {WHERE}", Reply(drop=True), Reply(drop=True), *phases("RUNNING"))
    assert client.session(SESSION).phase is Phase.RUNNING
    assert len(other.calls) == 3
    assert naps.taken == sorted(naps.taken)


def test_reading_is_repeated_as_late_as_a_busy_broker_asks(other: OtherBroker, client: Broker, naps: Naps) -> None:
    other.answer(f"GET {WHERE}", Reply(status=503, headers={"Retry-After": "7"}), *phases("RUNNING"))
    assert client.session(SESSION).phase is Phase.RUNNING
    assert naps.taken == [7.0]


def test_a_body_that_breaks_off_is_read_again(other: OtherBroker, client: Broker) -> None:
    other.answer(
        f"GET {WHERE}",
        Reply(text="{", headers={"Content-Type": "application/json", "Content-Length": "9", "Connection": "close"}),
        *phases("RUNNING"),
    )
    # The server keeps the connection open, so that the client waits for the rest; ending it is the fault.
    first = other.answers[f"GET {WHERE}"][0]
    assert isinstance(first, Reply)
    assert client.session(SESSION).phase is Phase.RUNNING
    assert len(other.calls) == 2


def test_waiting_yields_each_change_and_ends_with_the_session(other: OtherBroker, client: Broker, naps: Naps) -> None:
    pulling = {"level": "INFO", "message": "pulling the image", "time": "2030-01-31T12:00:00Z"}
    other.answer(
        f"GET {WHERE}",
        *phases("WAITING", "WAITING", "WAITING"),
        Reply(document=session_document(phase="PREPARING", messages=[pulling])),
        Reply(document=session_document(phase="RUNNING", messages=[pulling])),
        Reply(document=session_document(phase="COMPLETED", messages=[pulling, {"message": "exit code 0"}])),
    )
    changes = list(client.wait(SESSION))
    assert [(change.previous, change.session.phase) for change in changes] == [
        (None, "WAITING"),
        ("WAITING", "PREPARING"),
        ("PREPARING", "RUNNING"),
        ("RUNNING", "COMPLETED"),
    ]
    assert [[str(item) for item in change.messages] for change in changes] == [
        [],
        ["pulling the image"],
        [],
        ["exit code 0"],
    ]
    assert naps.taken == [0.5, 0.75, 1.125, 0.5, 0.5]


def test_waiting_polls_ever_more_slowly_down_to_a_limit(other: OtherBroker, client: Broker, naps: Naps) -> None:
    other.answer(f"GET {WHERE}", *phases(*["WAITING"] * 20, "COMPLETED"))
    list(client.wait(SESSION, longest_poll=4.0))
    assert naps.taken == sorted(naps.taken)
    assert naps.taken[-1] == 4.0


def test_waiting_for_a_phase_ends_when_it_was_passed(other: OtherBroker, client: Broker) -> None:
    other.answer(f"GET {WHERE}", *phases("WAITING", "RELEASING", "COMPLETED"))
    assert [change.session.phase for change in client.wait(SESSION, "RUNNING")] == ["WAITING", "RELEASING"]


def test_waiting_for_a_phase_ends_too_when_it_is_never_reached(other: OtherBroker, client: Broker) -> None:
    other.answer(f"GET {WHERE}", *phases("WAITING", "CANCELLED"))
    assert [change.session.phase for change in client.wait(SESSION, Phase.RUNNING)] == [
        "WAITING",
        "CANCELLED",
    ]


@pytest.mark.parametrize("phase", list(Phase))
def test_every_phase_reaches_itself_and_no_later_one(phase: Phase) -> None:
    assert has_reached(phase, phase)
    assert has_reached(phase, Phase.INITIAL)
    assert has_reached(phase, Phase.COMPLETED) == (
        phase in {Phase.COMPLETED, Phase.FAILED, Phase.CANCELLED, Phase.REJECTED, Phase.EXPIRED}
    )


def test_waiting_outlives_a_broker_that_is_away_for_a_while(other: OtherBroker, client: Broker, naps: Naps) -> None:
    other.answer(f"GET {WHERE}", *phases("RUNNING"), *[Reply(drop=True)] * 9, *phases("COMPLETED"))
    assert [change.session.phase for change in client.wait(SESSION)] == ["RUNNING", "COMPLETED"]


def test_waiting_ends_when_the_broker_stays_away(other: OtherBroker, client: Broker, naps: Naps) -> None:
    other.answer(f"GET {WHERE}", *phases("RUNNING"), Reply(drop=True))
    with pytest.raises(Unreachable):
        list(client.wait(SESSION, patience=60.0))
    assert 60.0 <= naps.now < 100.0


def test_sessions_are_listed_page_after_page(other: OtherBroker, client: Broker) -> None:
    first = {"sessions": [session_document(phase="RUNNING")], "next": "/sessions?limit=1&after=x"}
    second = {"sessions": [session_document(phase="COMPLETED")]}
    other.answer("GET /sessions?limit=1", Reply(document=first))
    other.answer("GET /sessions?limit=1&after=x", Reply(document=second))
    assert [session.phase for session in client.sessions(page_size=1)] == ["RUNNING", "COMPLETED"]


def test_a_next_page_is_asked_of_the_broker_itself_whatever_host_its_link_names(
    other: OtherBroker, client: Broker
) -> None:
    with OtherBroker() as foreign:
        page = {"sessions": [], "next": f"{foreign.url}/sessions?limit=100&after=x"}
        other.answer("GET /sessions?limit=100", Reply(document=page))
        other.answer(
            "GET /sessions?limit=100&after=x", Reply(document={"sessions": [session_document(phase="RUNNING")]})
        )
        assert [session.phase for session in client.sessions()] == ["RUNNING"]
        assert foreign.calls == []


def test_a_listing_is_narrowed_by_the_broker(other: OtherBroker, client: Broker) -> None:
    query = "limit=5&phase=RUNNING&phase=WAITING&platform=a+b&everybody=true"
    other.answer(f"GET /sessions?{query}", Reply(document={"sessions": []}))
    wanted = client.sessions(phases=["RUNNING", Phase.WAITING], platform="a b", everybody=True, page_size=5)
    assert list(wanted) == []


def test_a_result_is_written_whole_below_a_directory(other: OtherBroker, client: Broker, tmp_path: Path) -> None:
    content = bytes(range(256)) * 4000
    other.answer(f"GET {WHERE}/output/plots/a%20b.png", Reply(text=content))
    sizes: list[int] = []
    written = client.download(SESSION, "plots/a b.png", tmp_path, progress=sizes.append)
    assert written == tmp_path / "plots" / "a b.png"
    assert written.read_bytes() == content
    assert sizes[-1] == len(content)


def test_a_result_that_breaks_off_leaves_no_file(other: OtherBroker, client: Broker, tmp_path: Path) -> None:
    other.answer(
        f"GET {WHERE}/output/data",
        Reply(text=b"half", headers={"Content-Length": "8", "Connection": "close"}),
    )
    with pytest.raises(Unreachable):
        client.download(SESSION, "data", tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


def test_a_result_that_is_not_there_leaves_what_was_there_before(
    other: OtherBroker, client: Broker, tmp_path: Path
) -> None:
    (tmp_path / "data").write_text("old")
    with pytest.raises(NotFound):
        client.download(SESSION, "data", tmp_path)
    assert (tmp_path / "data").read_text() == "old"


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "", "a\0b"])
def test_a_result_cannot_leave_the_directory(name: str) -> None:
    with pytest.raises(ValueError, match="not written"):
        safe_name(name)


def test_a_result_is_fetched_without_the_credentials_leaving_the_broker(
    other: OtherBroker, client: Broker, tmp_path: Path
) -> None:
    with OtherBroker() as foreign:
        other.answer(f"GET {WHERE}/output/data", Reply(status=302, headers={"Location": foreign.url + "/data"}))
        with pytest.raises(Exception, match="not followed"):
            client.download(SESSION, "data", tmp_path)
        assert foreign.calls == []


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of its own authority for 127.0.0.1, with its key in the same file."""
    from shutil import which

    from tests.labs import require

    require(which("openssl"), "openssl is not there to make a certificate")
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    key, crt = file.with_name("key.pem"), file.with_name("crt.pem")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", crt),
        ],
        check=True,
        capture_output=True,
    )
    file.write_bytes(key.read_bytes() + crt.read_bytes())
    return file


def test_a_certificate_is_verified_and_nothing_is_sent_without(certificate: Path, naps: Naps) -> None:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with OtherBroker(context) as other:
        other.answer(f"GET {WHERE}", *phases("RUNNING"))
        with (
            Broker(other.url, "ada", "s3cret", sleep=naps.sleep) as client,
            pytest.raises(Unreachable, match=r"--ca"),
        ):
            client.session(SESSION)
        assert other.calls == []
        with Broker(other.url, "ada", "s3cret", ca=certificate) as client:
            assert client.session(SESSION).phase is Phase.RUNNING


def test_a_broker_that_is_slow_is_given_up(other: OtherBroker) -> None:
    import threading

    go = threading.Event()

    def late(call: Call) -> Reply:
        go.wait(10)
        return Reply(document=session_document())

    other.answer(f"GET {WHERE}", late)
    with Broker(other.url, timeout=0.2) as client, pytest.raises(Unreachable, match=r"did not answer within 0\.2 s"):
        client.session(SESSION)
    go.set()


def test_a_proxy_of_the_environment_is_not_asked_for_a_broker_on_this_machine(
    other: OtherBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    other.answer(f"GET {WHERE}", *phases("RUNNING"))
    with Broker(other.url) as client:
        assert client.session(SESSION).phase is Phase.RUNNING
