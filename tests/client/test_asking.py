"""Asking another broker of the standard: every way in which the schema lets it answer."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest

from ebhpc.client import (
    BadAnswer,
    Broker,
    Conflict,
    NoAnswer,
    NotAuthorised,
    NotFound,
    Refused,
    Unreachable,
    Unsupported,
)
from ebhpc.model import (
    ExecutionRequest,
    JupyterNotebook,
    Phase,
    SimpleCompute,
    SimpleSession,
    UnknownElement,
)
from tests.client.conftest import Naps
from tests.client.other_broker import (
    BASE,
    OFFERSET,
    SECOND,
    SESSION,
    OtherBroker,
    Reply,
    offerset_document,
    session_document,
)

REQUEST = {"executable": {"kind": BASE + "executable/jupyter-notebook.yaml", "location": "https://example.org/a"}}


def only_offer(offers: list[object] | None) -> SimpleSession:
    assert offers is not None
    (offer,) = offers
    assert isinstance(offer, SimpleSession)
    return offer


def test_a_request_goes_as_json_with_the_credentials_and_asks_for_json(other: OtherBroker, client: Broker) -> None:
    other.answer("POST /requests", Reply(document=offerset_document(session_document())))
    client.offers(REQUEST)
    (call,) = other.calls
    assert call.document() == REQUEST
    assert call.headers["Content-Type"] == "application/json"
    assert call.headers["Accept"].startswith("application/json")
    assert call.headers["Authorization"] == "Basic " + base64.b64encode(b"ada:s3cret").decode()


def test_a_document_of_the_model_is_sent_as_the_standard_writes_it(other: OtherBroker, client: Broker) -> None:
    other.answer("POST /requests", Reply(document=offerset_document(session_document())))
    client.offers(ExecutionRequest(executable=JupyterNotebook(location="https://example.org/a")))
    assert other.calls[0].document() == REQUEST


def test_a_bearer_token_is_sent_instead_of_a_password(other: OtherBroker) -> None:
    other.answer(f"GET /sessions/{SESSION}", Reply(document=session_document()))
    with Broker(other.url, token="abc") as client:
        client.session(SESSION)
    assert other.calls[0].headers["Authorization"] == "Bearer abc"


@pytest.mark.parametrize("status", [200, 303])
def test_the_offer_set_in_the_body_is_taken_whatever_the_status(
    status: int, other: OtherBroker, client: Broker
) -> None:
    other.answer(
        "POST /requests",
        Reply(
            status=status,
            document=offerset_document(session_document()),
            headers={"Location": "http://elsewhere.invalid/offersets/1"},
        ),
    )
    answer = client.offers(REQUEST)
    assert answer.result == "YES"
    assert only_offer(answer.offers).phase is Phase.OFFERED
    assert other.paths() == ["POST /requests"]


@pytest.mark.parametrize(
    "location", ["{url}/offersets/{uuid}", "/offersets/{uuid}", "offersets/{uuid}", "//{host}/offersets/{uuid}"]
)
def test_a_redirect_without_body_is_followed_to_its_location(location: str, other: OtherBroker, client: Broker) -> None:
    where = location.format(url=other.url, host=other.url.partition("//")[2], uuid=OFFERSET)
    other.answer("POST /requests", Reply(status=303, headers={"Location": where}))
    other.answer(f"GET /offersets/{OFFERSET}", Reply(document=offerset_document(session_document())))
    assert client.offers(REQUEST).result == "YES"
    assert other.calls[1].headers["Authorization"].startswith("Basic ")


def test_a_redirect_to_another_host_is_not_followed(other: OtherBroker, client: Broker) -> None:
    with OtherBroker() as foreign:
        other.answer("POST /requests", Reply(status=303, headers={"Location": f"{foreign.url}/offersets/1"}))
        with pytest.raises(BadAnswer, match="points to another host"):
            client.offers(REQUEST)
        assert foreign.calls == []


def test_a_later_redirect_to_another_host_is_not_followed_either(other: OtherBroker, client: Broker) -> None:
    with OtherBroker() as foreign:
        other.answer(f"GET /sessions/{SESSION}", Reply(status=307, headers={"Location": f"{foreign.url}/sessions/1"}))
        with pytest.raises(BadAnswer, match="points to another host"):
            client.session(SESSION)
        assert foreign.calls == []


def test_redirects_in_a_circle_end(other: OtherBroker, client: Broker) -> None:
    other.answer(f"GET /sessions/{SESSION}", Reply(status=302, headers={"Location": f"/sessions/{SESSION}"}))
    with pytest.raises(BadAnswer, match="redirects more than"):
        client.session(SESSION)


def test_a_redirect_with_neither_body_nor_location_is_an_error(other: OtherBroker, client: Broker) -> None:
    other.answer("POST /requests", Reply(status=303))
    with pytest.raises(BadAnswer, match="neither a document nor a Location"):
        client.offers(REQUEST)


def test_a_broker_that_has_moved_is_not_sent_the_request_again(other: OtherBroker, client: Broker) -> None:
    other.answer("POST /requests", Reply(status=308, headers={"Location": "https://new.example.org/requests"}))
    with pytest.raises(BadAnswer, match=r"moved to https://new\.example\.org/requests"):
        client.offers(REQUEST)
    assert len(other.calls) == 1


def test_no_is_an_answer_and_its_messages_say_why(other: OtherBroker, client: Broker) -> None:
    document = offerset_document(result="NO")
    document["meta"]["messages"] = [
        {"level": "ERROR", "message": "too many cores", "values": {"path": "/compute/cores/min"}}
    ]
    other.answer("POST /requests", Reply(status=303, document=document))
    answer = client.offers(REQUEST)
    assert answer.result == "NO"
    assert answer.meta is not None
    assert [str(item) for item in answer.meta.messages or ()] == ["too many cores"]


def test_the_kinds_of_an_older_schema_are_read(other: OtherBroker, client: Broker) -> None:
    other.answer(f"GET /sessions/{SESSION}", Reply(document=session_document(cores=7)))
    session = client.session(SESSION)
    assert isinstance(session.compute, SimpleCompute)
    assert session.compute.cores is not None
    assert session.compute.cores.min == 7


def test_elements_of_unknown_kinds_are_kept_as_they_came(other: OtherBroker, client: Broker) -> None:
    strange = {"kind": "https://example.org/kinds/quantum", "qubits": 5}
    other.answer(f"GET /sessions/{SESSION}", Reply(document=session_document(executable=strange)))
    executable = client.session(SESSION).executable
    assert isinstance(executable, UnknownElement)
    assert executable.raw == strange


def test_a_session_of_an_unknown_kind_is_read_as_a_session(other: OtherBroker, client: Broker) -> None:
    document = {**session_document(phase="RUNNING"), "kind": "https://example.org/kinds/session/new"}
    other.answer(f"GET /sessions/{SESSION}", Reply(document=document))
    assert client.session(SESSION).phase is Phase.RUNNING


def test_what_cannot_be_read_does_not_hide_the_rest(other: OtherBroker, client: Broker) -> None:
    document = session_document(
        messages=[
            {"level": "TRACE", "message": "first"},
            {"level": "INFO", "message": "second", "time": "yesterday"},
            {"message": "third", "values": {"n": 3}},
        ],
        connectors=[{"status": "SOON", "location": "http://127.0.0.1:1/"}],
        expires="soon",
    )
    document["meta"]["options"] = [{"kind": "uri:new-option", "path": "x"}, {"kind": "uri:enum-value-option"}]
    other.answer(f"GET /sessions/{SESSION}", Reply(document=document))
    session = client.session(SESSION)
    assert session.meta is not None
    assert [str(item) for item in session.meta.messages or ()] == ["first", "second", "third"]
    assert session.connectors is not None
    assert session.connectors[0].location == "http://127.0.0.1:1/"
    assert session.phase is Phase.OFFERED


def test_null_is_taken_for_absent(other: OtherBroker, client: Broker) -> None:
    document = {**session_document(), "connectors": None, "storage": None, "costs": None}
    other.answer(f"GET /sessions/{SESSION}", Reply(document=document))
    assert client.session(SESSION).connectors is None


@pytest.mark.parametrize("document", [{"phase": "DANCING"}, {"phase": None}, {"phase": 7}, [], "text", {}])
def test_a_session_without_a_phase_of_the_standard_is_refused(
    document: object, other: OtherBroker, client: Broker
) -> None:
    if isinstance(document, dict) and document:
        document = {**session_document(), **document}
    other.answer(f"GET /sessions/{SESSION}", Reply(document=document))
    with pytest.raises(BadAnswer):
        client.session(SESSION)


def test_yaml_is_read_where_a_broker_sends_nothing_else(other: OtherBroker, client: Broker) -> None:
    other.answer(
        "POST /requests",
        Reply(text="result: NO\nmeta:\n  uuid: abc\n", headers={"Content-Type": "application/yaml"}),
    )
    assert client.offers(REQUEST).result == "NO"


def test_what_is_no_broker_is_told_apart(other: OtherBroker, client: Broker) -> None:
    other.answer("POST /requests", Reply(text="<html>hello</html>", headers={"Content-Type": "text/html"}))
    with pytest.raises(BadAnswer, match="Is it a broker"):
        client.offers(REQUEST)


def test_a_document_that_never_ends_is_not_read_to_its_end(
    other: OtherBroker, client: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ebhpc.client.http.MAX_DOCUMENT", 1024 * 1024)
    other.answer(
        f"GET /sessions/{SESSION}",
        Reply(text=b" " * (2 * 1024 * 1024), headers={"Content-Type": "application/json"}),
    )
    with pytest.raises(BadAnswer, match="more than 1 MiB"):
        client.session(SESSION)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, Refused),
        (401, NotAuthorised),
        (403, NotAuthorised),
        (404, NotFound),
        (409, Conflict),
        (413, Refused),
        (422, Refused),
        (500, BadAnswer),
    ],
)
def test_a_problem_document_becomes_an_error_with_its_messages(
    status: int, error: type[Exception], other: OtherBroker, client: Broker
) -> None:
    problem = {
        "title": "No",
        "detail": "the request is wrong",
        "messages": [{"kind": "urn:invalid-value", "message": "cores: 0", "values": {"path": "/compute/cores"}}],
    }
    other.answer(
        "POST /requests",
        Reply(status=status, document=problem, headers={"Content-Type": "application/problem+json"}),
    )
    with pytest.raises(error) as caught:
        client.offers(REQUEST)
    assert str(caught.value) == "the request is wrong\n  /compute/cores: cores: 0"
    assert caught.value.status == status  # type: ignore[attr-defined]


def test_an_error_without_a_document_is_named_by_its_status(other: OtherBroker, client: Broker) -> None:
    other.answer("POST /requests", Reply(status=418, text="tea"))
    with pytest.raises(Refused, match="answered 418"):
        client.offers(REQUEST)


def test_a_direct_request_that_cannot_run_says_why(other: OtherBroker, client: Broker) -> None:
    refused = session_document(phase="FAILED", messages=[{"message": "no such image"}])
    other.answer("POST /direct", Reply(status=400, document=refused))
    with pytest.raises(Refused, match="no such image"):
        client.direct(REQUEST)


def test_a_direct_request_gives_the_accepted_session(other: OtherBroker, client: Broker) -> None:
    other.answer("POST /direct", Reply(status=303, headers={"Location": f"/sessions/{SESSION}"}))
    other.answer(f"GET /sessions/{SESSION}", Reply(document=session_document(phase="ACCEPTED")))
    assert client.direct(REQUEST).phase is Phase.ACCEPTED


def test_an_offer_set_is_read_again(other: OtherBroker, client: Broker) -> None:
    other.answer(f"GET /offersets/{OFFERSET}", Reply(document=offerset_document(session_document(SECOND))))
    offer = only_offer(client.offerset(OFFERSET).offers)
    assert offer.meta is not None
    assert offer.meta.uuid == SECOND
    assert offer.meta.created == datetime(2026, 1, 31, 11, 0, 0, 123457, UTC)


def test_what_the_standard_does_not_have_is_named_where_it_is_missing(other: OtherBroker, client: Broker) -> None:
    other.answer(f"GET /sessions/{SESSION}", Reply(document=session_document()))
    with pytest.raises(Unsupported, match="not part of the standard"):
        client.platforms()
    with pytest.raises(Unsupported, match="list sessions"):
        list(client.sessions())
    with pytest.raises(Unsupported, match="does not serve outputs"):
        client.outputs(SESSION)


def test_the_outputs_of_a_session_that_is_not_there_are_not_found(other: OtherBroker, client: Broker) -> None:
    with pytest.raises(NotFound) as caught:
        client.outputs(SESSION)
    assert not isinstance(caught.value, Unsupported)


@pytest.mark.parametrize(
    "url",
    ["", "example.org", "ftp://example.org", "http://", "http://ada:pw@example.org", "http://h:99999", "http://h/?q"],
)
def test_a_wrong_url_is_told_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        Broker(url)


def test_a_path_below_the_host_is_kept(other: OtherBroker) -> None:
    other.answer(f"GET /broker/sessions/{SESSION}", Reply(document=session_document()))
    with Broker(other.url + "/broker/") as client:
        assert client.session(SESSION).phase is Phase.OFFERED


def test_a_name_cannot_change_the_path(other: OtherBroker, client: Broker) -> None:
    with pytest.raises(NotFound):
        client.session("../admin?x=1#y")
    assert other.paths() == ["GET /sessions/..%2Fadmin%3Fx%3D1%23y"]


def test_nobody_there_is_unreachable_and_was_tried_three_times(naps: Naps) -> None:
    with Broker("http://127.0.0.1:1", sleep=naps.sleep) as client:
        with pytest.raises(Unreachable, match=r"cannot reach the broker at http://127\.0\.0\.1:1") as caught:
            client.offers(REQUEST)
        assert not isinstance(caught.value, NoAnswer)
    assert len(naps.taken) == 2
