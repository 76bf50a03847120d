"""Answers to documents of the model. What a broker says beyond or beside the standard does not hide the rest.

An element that cannot be read (a level or an option that nobody knows, a time that is none) is left out, and
what stands around it is kept. Elements of unknown kinds are kept as they came. Only a session's phase has to
be right.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

import msgspec

from ebhpc.client.errors import BadAnswer
from ebhpc.client.http import Answer
from ebhpc.model import ExecutionRequest, OfferSet, Output, SimpleSession, Wire, kinds
from ebhpc.model.registry import Decoded, Kinds

_MOST_REPAIRS = 100
_D = TypeVar("_D", bound=Wire)


@cache
def known_kinds() -> Kinds:
    """Return the kinds that the client knows: the standard's and ebhpc's own."""
    return Kinds()


def as_json(document: object) -> str:
    """Return a document, or a part of one, as JSON on one line."""
    return known_kinds().to_json(document).decode()


def sendable(request: object) -> object:
    """Return a request as what can be sent: a model's document as plain data, plain data as it is.

    Raises:
        TypeError: it is neither an ExecutionRequest nor a mapping.
    """
    if isinstance(request, ExecutionRequest):
        return known_kinds().to_builtins(request)
    if isinstance(request, Mapping):
        return request
    raise TypeError(f"a request is an ExecutionRequest or a mapping, not {type(request).__name__}")


def offerset_of(answer: Answer) -> OfferSet:
    """Read an offer set; its offers of kinds that nobody knows are read as scheduled sessions.

    Raises:
        BadAnswer: it is none.
    """
    raw = _mapping(answer, "an offer set")
    if not raw.keys() & {"result", "offers"}:
        raise BadAnswer(f"{answer.url} sent a document without result and offers: no offer set", status=answer.status)
    offers = raw.get("offers")
    raw = {
        **raw,
        "kind": kinds.OFFERSET,
        "offers": [_as_known_session(offer) for offer in offers] if isinstance(offers, list) else None,
    }
    return _tolerant(raw, known_kinds().offerset, answer, OfferSet)


def session_of(answer: Answer) -> SimpleSession:
    """Read a session; one of a kind that nobody knows is read as a scheduled session.

    Raises:
        BadAnswer: it is none, or is in a phase that the standard does not have.
    """
    raw = _mapping(answer, "a session")
    return read_session(raw, answer)


def read_session(raw: dict[str, Any], answer: Answer) -> SimpleSession:
    """Read one session from ``raw``, which is ``answer`` or a part of it.

    Raises:
        BadAnswer: as :func:`session_of`.
    """
    if raw.get("phase") is None:
        raise BadAnswer(f"{answer.url} sent a document without a phase: no session", status=answer.status)
    return _tolerant(_as_known_session(raw), known_kinds().session, answer, SimpleSession, keep=("/phase",))


def page_of(answer: Answer) -> tuple[list[SimpleSession], str | None]:
    """Read a page of sessions: they, and the link to the next page or None.

    Raises:
        BadAnswer: it is none.
    """
    raw = _mapping(answer, "a page of sessions")
    items, following = raw.get("sessions"), raw.get("next")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise BadAnswer(f"{answer.url} sent no list of sessions", status=answer.status)
    return [read_session(item, answer) for item in items], following if isinstance(following, str) else None


def outputs_of(answer: Answer) -> list[Output]:
    """Read the list of a session's outputs.

    Raises:
        BadAnswer: it is none.
    """
    raw = _mapping(answer, "a list of outputs")
    try:
        return msgspec.convert(raw.get("outputs"), list[Output])
    except msgspec.ValidationError as error:
        raise BadAnswer(f"{answer.url} sent no list of outputs: {error}", status=answer.status) from error


def platforms_of(answer: Answer) -> list[dict[str, Any]]:
    """Read the list of platforms.

    Raises:
        BadAnswer: it is none.
    """
    items = _mapping(answer, "a list of platforms").get("platforms")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise BadAnswer(f"{answer.url} sent no list of platforms", status=answer.status)
    return items


def _mapping(answer: Answer, what: str) -> dict[str, Any]:
    if not isinstance(answer.data, dict):
        raise BadAnswer(f"{answer.url} sent no document: expected {what}", status=answer.status)
    return answer.data


def _as_known_session(raw: Any) -> Any:
    if not isinstance(raw, dict) or raw.get("kind") in (kinds.SIMPLE_SESSION, kinds.SCHEDULED_SESSION):
        return raw
    return {**raw, "kind": kinds.SCHEDULED_SESSION}


def _tolerant(
    raw: dict[str, Any],
    decode: Any,
    answer: Answer,
    type_: type[_D],
    keep: tuple[str, ...] = (),
) -> _D:
    """Decode, leaving out what cannot be read, but for what stands at one of ``keep``."""
    for _ in range(_MOST_REPAIRS):
        decoded: Decoded[Any] = decode(raw)
        if isinstance(decoded.document, type_):
            return decoded.document
        paths = {(problem.values or {}).get("path", "") for problem in decoded.problems}
        places = {_unreadable(raw, path) for path in paths}
        if not paths or () in places or paths & set(keep):
            break
        raw = copy.deepcopy(raw)
        # List items from the last to the first, so that the places of the others stay what they are.
        for place in sorted(places, key=_rank, reverse=True):
            _leave_out(raw, place)
    reasons = "; ".join(str(problem) for problem in decoded.problems)
    raise BadAnswer(
        f"{answer.url} sent what the standard does not allow: {reasons}",
        status=answer.status,
        messages=decoded.problems,
    )


_Place = tuple[str | int, ...]


def _unreadable(raw: Any, path: str) -> _Place:
    """Return the place that a JSON pointer names; where something is missing there, that of what lacks it."""
    place: list[str | int] = []
    here = raw
    for step in path.split("/")[1:]:
        text = step.replace("~1", "/").replace("~0", "~")
        key: Any = int(text) if isinstance(here, list) and text.isdecimal() else text
        try:
            here = here[key]
        except (LookupError, TypeError):
            break
        place.append(key)
    return tuple(place)


def _rank(place: _Place) -> list[tuple[int, str]]:
    return [(key, "") if isinstance(key, int) else (-1, key) for key in place]


def _leave_out(raw: Any, place: _Place) -> None:
    here = raw
    for key in place[:-1]:
        here = here[key]
    del here[place[-1]]
