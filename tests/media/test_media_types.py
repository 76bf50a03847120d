from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebhpc.media import (
    JSON,
    YAML,
    Malformed,
    NotAcceptable,
    UnsupportedMedia,
    decode,
    encode,
    negotiate,
    problem_type,
)
from ebhpc.model import OfferSet, UnknownElement

# --- what a client sends ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "APPLICATION/JSON ; Charset=UTF-8",
        'application/x+json; charset="utf-8"',
        "application/problem+json",
    ],
)
def test_json_is_read_as_json(content_type: str) -> None:
    assert decode(b'{"a": "\xc3\xa9"}', content_type) == {"a": "é"}
    with pytest.raises(Malformed, match="not JSON"):
        decode(b"a: b", content_type)


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "*/*",
        "application/yaml",
        "text/yaml",
        "application/x-yaml",
        "text/x-yaml",
        "application/x+yaml; charset=us-ascii",
    ],
)
def test_anything_else_that_is_named_and_nothing_is_yaml(content_type: str | None) -> None:
    assert decode(b"a: b", content_type) == {"a": "b"}
    assert decode(b'{"a": "b"}', content_type) == {"a": "b"}


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/xml",
        "application/x-www-form-urlencoded",
        "json",
        "application/",
        "a/b/c",
        ";",
        "application/json; charset",
        "application/json; charset=latin-1",
        "application/yaml; charset=utf-7",
        "multipart/form-data; boundary=x",
    ],
)
def test_other_media_types_and_charsets_are_unsupported(content_type: str) -> None:
    with pytest.raises(UnsupportedMedia, match="is not read here"):
        decode(b"{}", content_type)


@pytest.mark.parametrize("media_type", [JSON, YAML])
@pytest.mark.parametrize(
    ("body", "charset"),
    [
        (b'\xef\xbb\xbf{"a": "\xc3\xa9"}', ""),
        ('{"a": "é"}'.encode("utf-16"), ""),
        (b"\xfe\xff" + '{"a": "é"}'.encode("utf-16-be"), "; charset=utf-8"),
        ('{"a": "é"}'.encode("utf-16-le"), "; charset=utf-16le"),
        ('{"a": "é"}'.encode("utf-16-be"), "; charset=UTF-16"),
    ],
)
def test_utf_16_and_byte_order_marks_are_read(body: bytes, charset: str, media_type: str) -> None:
    assert decode(body, media_type + charset) == {"a": "é"}


@pytest.mark.parametrize("media_type", [JSON, YAML])
def test_bytes_that_are_no_text_are_refused_with_their_place(media_type: str) -> None:
    with pytest.raises(Malformed, match="line 2, column 3: not text in UTF-8"):
        decode(b'{"a":\n "\xff"}', media_type)
    with pytest.raises(Malformed):
        decode('{"a": 1}'.encode("utf-32"), media_type)
    with pytest.raises(Malformed, match="not text in UTF-16"):
        decode(b"\xff\xfe{", media_type)


@given(st.text(max_size=40))
def test_any_content_type_is_read_or_unsupported(content_type: str) -> None:
    said = ""
    try:
        assert decode(b"{}", content_type) == {}
    except UnsupportedMedia as error:
        said = str(error)
    assert said.isprintable()


# --- what a client accepts -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "answer"),
    [
        (None, YAML),
        ("", YAML),
        ("*/*", YAML),
        ("application/*", YAML),
        (JSON, JSON),
        (YAML, YAML),
        ("application/json, application/yaml", YAML),
        ("application/yaml, application/json", YAML),
        ("application/json;q=0.5, application/yaml;q=0.5", YAML),
        ("application/json;q=0.5, application/yaml;q=0.4", JSON),
        ("application/json;q=0.9, */*;q=0.8", JSON),
        ("application/json;q=0.8, */*;q=0.9", YAML),
        ("application/json, text/plain, */*", JSON),
        ("application/yaml;q=0, */*", JSON),
        ("application/json;q=0, */*", YAML),
        ("text/html, application/xhtml+xml, application/xml;q=0.9, */*;q=0.8", YAML),
        ("text/yaml", "text/yaml"),
        ("application/x-yaml", "application/x-yaml"),
        ("text/*", "text/yaml"),
        ("application/vnd.example+json", "application/vnd.example+json"),
        ("Application/JSON ; version=1 ; Q=0.3", JSON),
        ('application/json; title="a, b; c"', JSON),
        ("application/problem+json", JSON),
        ("application/problem+yaml, application/problem+json;q=0.5", YAML),
        ("application/problem+json, application/json", JSON),
        ("nonsense", YAML),
        ("nonsense, application/json", JSON),
        ("application/json;q=7, application/yaml;q=0.1", YAML),
    ],
)
def test_the_answer_has_the_form_that_the_client_prefers(accept: str | None, answer: str) -> None:
    assert negotiate(accept) == answer


@pytest.mark.parametrize(
    "accept", ["text/html", "application/xml, image/*", "application/json;q=0", "*/*;q=0", "application/*;q=0.0"]
)
def test_a_client_that_accepts_nothing_of_ours_is_told(accept: str) -> None:
    with pytest.raises(NotAcceptable, match="application/yaml or application/json"):
        negotiate(accept)


@given(st.text(max_size=60) | st.text('application/jsonyml*;q=01., "+', max_size=60))
def test_any_accept_header_has_an_answer_that_can_be_written(accept: str) -> None:
    said = ""
    try:
        chosen = negotiate(accept)
    except NotAcceptable as error:
        said = str(error)
    else:
        assert encode({}, chosen).strip() == b"{}"
        assert chosen.isascii()
        assert not set(chosen) & set("\r\n ;,")
    assert said.isprintable()


def test_problems_have_the_form_of_the_answer() -> None:
    assert [problem_type(media) for media in (JSON, YAML, "text/yaml", "application/x+json")] == [
        "application/problem+json",
        "application/problem+yaml",
        "application/problem+yaml",
        "application/problem+json",
    ]


# --- what we send ----------------------------------------------------------------------------------------


def test_documents_are_written_with_unknown_elements_as_they_came() -> None:
    raw = {"kind": "urn:x:y", "n": [1, None]}
    offers = OfferSet(result="NO", offers=[UnknownElement(kind="urn:x:y", raw=raw)])
    for media_type in (JSON, YAML, "application/problem+json"):
        assert decode(encode(offers, media_type), media_type) == {
            "kind": OfferSet.__struct_config__.tag,
            "result": "NO",
            "offers": [raw],
        }
    assert b"result: 'NO'" in encode(offers, YAML)


def test_other_media_types_are_not_written() -> None:
    with pytest.raises(ValueError, match="no body is written as text/html"):
        encode({}, "text/html")
