"""One broker, as a Python object: ask, accept, follow, fetch."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, quote, urlsplit

from msgspec import Struct

from ebhpc.client.errors import BadAnswer, BrokerError, NoAnswer, NotFound, Unreachable, Unsupported
from ebhpc.client.http import Answer, Connection, Query
from ebhpc.client.reading import offerset_of, outputs_of, page_of, platforms_of, sendable, session_of
from ebhpc.model import FINAL, LIVE, Message, OfferSet, Output, Phase, SimpleSession, kinds

_FIRST_POLL = 0.5
_GROWTH = 1.5
_ORDER = (
    Phase.INITIAL,
    Phase.OFFERED,
    Phase.ACCEPTED,
    Phase.WAITING,
    Phase.PREPARING,
    Phase.AVAILABLE,
    Phase.RUNNING,
    Phase.RELEASING,
)


class Change(Struct, frozen=True, kw_only=True):
    """What is new about a session: the phase, if ``previous`` differs (None: first look), and ``messages``."""

    session: SimpleSession
    previous: Phase | None
    messages: tuple[Message, ...] = ()


class Broker:
    """A broker of the IVOA Execution Broker standard, by its URL.

    Only the standard's endpoints are needed; what uses one of ebhpc's own says so. Give ``username`` and
    ``password``, or a bearer ``token``, or neither. ``timeout`` is in seconds, for each wait for the network.
    ``ca`` names a file of certificates to trust instead of the usual ones. Used as a context manager it
    closes its connections at the end.

    Calls that change nothing are repeated after a connection fault. Those that do are sent once; where no
    answer came, accepting, rejecting and cancelling look at the session to see whether it happened.

    Every method raises a subclass of :class:`BrokerError`; the constructor raises ValueError for a wrong URL.
    """

    def __init__(
        self,
        url: str,
        username: str | None = None,
        password: str | None = None,
        token: str | None = None,
        timeout: float = 30.0,
        *,
        ca: Path | str | None = None,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection = Connection(
            url, username=username, password=password, token=token, timeout=timeout, ca=ca, sleep=sleep
        )
        self._sleep = sleep
        self._monotonic = monotonic

    @property
    def url(self) -> str:
        """The broker's URL, without a slash at its end."""
        return self._connection.url

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    # --- the standard's endpoints ---------------------------------------------------------------------------

    def offers(self, request: object) -> OfferSet:
        """Ask for offers: ``request`` is an ExecutionRequest, or the same as plain data.

        An offer set whose ``result`` is NO is an answer and no error; its messages say why.

        Raises:
            Refused: the request is malformed; the messages say where.
            NoAnswer: the broker may have made offers; they expire by themselves.
        """
        answer = self._connection.post("/requests", sendable(request))
        if answer.data is None:
            answer = self._connection.get(self._connection.same_origin(answer))
        return offerset_of(answer)

    def direct(self, request: object) -> SimpleSession:
        """Take the first offer for a request without asking; return the accepted session.

        Raises:
            Refused: it cannot run here; the messages say why.
            NoAnswer: there may be a session now.
        """
        answer = self._connection.post("/direct", sendable(request))
        if answer.data is None:
            answer = self._connection.get(self._connection.same_origin(answer))
        return session_of(answer)

    def offerset(self, uuid: str) -> OfferSet:
        """Return an offer set as it is now."""
        return offerset_of(self._connection.get(f"/offersets/{_segment(uuid)}"))

    def session(self, uuid: str) -> SimpleSession:
        """Return a session (an offer is one in phase OFFERED) as it is now."""
        return session_of(self._connection.get(f"/sessions/{_segment(uuid)}"))

    def accept(self, uuid: str) -> SimpleSession:
        """Accept an offer; its siblings are rejected.

        Raises:
            Conflict: it has expired, or was rejected.
        """
        return self._move(uuid, Phase.ACCEPTED)

    def reject(self, uuid: str) -> SimpleSession:
        """Give an offer back.

        Raises:
            Conflict: it is no offer any more.
        """
        return self._move(uuid, Phase.REJECTED)

    def cancel(self, uuid: str) -> SimpleSession:
        """Cancel an accepted session; what runs is ended.

        Raises:
            Conflict: it was not accepted, or has ended.
        """
        return self._move(uuid, Phase.CANCELLED)

    def wait(
        self,
        uuid: str,
        until: Phase | str | None = None,
        *,
        longest_poll: float = 10.0,
        patience: float = 300.0,
    ) -> Iterator[Change]:
        """Yield the session as it is, then each change, until it has reached ``until``, or a final phase.

        Reached means that phase or a later one. Polls twice a second after a change, then ever more slowly,
        down to once in ``longest_poll`` seconds. A broker that does not answer is waited for, for
        ``patience`` seconds.

        Raises:
            Unreachable: no answer for longer than ``patience`` seconds.
        """
        goal = Phase(until) if until is not None else None
        seen: SimpleSession | None = None
        pause, answered = _FIRST_POLL, self._monotonic()
        while True:
            try:
                session = self.session(uuid)
            except Unreachable:
                if self._monotonic() - answered >= patience:
                    raise
            else:
                answered = self._monotonic()
                change = _difference(seen, session)
                if change is not None:
                    yield change
                    pause = _FIRST_POLL
                seen = session
                if has_reached(session.phase, goal):
                    return
            self._sleep(pause)
            pause = min(pause * _GROWTH, longest_poll)

    # --- endpoints of ebhpc ---------------------------------------------------------------------------------

    def sessions(
        self,
        *,
        phases: Iterable[Phase | str] = (),
        platform: str | None = None,
        everybody: bool = False,
        page_size: int = 100,
    ) -> Iterator[SimpleSession]:
        """Yield the caller's own sessions, newest first, fetching page after page of up to 200.

        Only those in one of ``phases`` and on ``platform``, where given. An administrator may ask for everybody's.

        Raises:
            Unsupported: the broker does not list sessions.
        """
        query: Query | None = [
            ("limit", str(page_size)),
            *(("phase", str(Phase(phase))) for phase in phases),
            *([("platform", platform)] if platform is not None else []),
            *([("everybody", "true")] if everybody else []),
        ]
        while query is not None:
            answer = self._extra("/sessions", "list sessions", query)
            sessions, following = page_of(answer)
            yield from sessions
            # Of the link only the query: the broker may know itself by another name than we know it by.
            query = parse_qsl(urlsplit(following).query) if following else None

    def outputs(self, uuid: str) -> list[Output]:
        """List a session's stdout, stderr and result files.

        Raises:
            Unsupported: the broker does not serve outputs.
        """
        try:
            return outputs_of(self._connection.get(f"/sessions/{_segment(uuid)}/output"))
        except NotFound as error:
            self.session(uuid)
            raise Unsupported(f"the broker at {self.url} does not serve outputs", status=error.status) from error

    def read_output(self, uuid: str, name: str) -> Iterator[bytes]:
        """Yield the bytes of one of a session's outputs, as they come."""
        with self._connection.stream(_output_path(uuid, name)) as response:
            yield from response.iter_bytes()

    def download(self, uuid: str, name: str, to: Path, *, progress: Callable[[int], None] = lambda size: None) -> Path:
        """Write one of a session's outputs to the file ``to``, which is there whole or not at all.

        Where ``to`` is a directory, the file is made below it under its own name. ``progress`` gets the bytes
        so far.

        Raises:
            ValueError: the name would leave the directory.
        """
        target = to / safe_name(name) if to.is_dir() else to
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            with part.open("wb") as file:
                for piece in self.read_output(uuid, name):
                    file.write(piece)
                    progress(file.tell())
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        return target

    def platforms(self) -> list[dict[str, Any]]:
        """Describe the broker's platforms.

        Raises:
            Unsupported: the broker does not say.
        """
        return platforms_of(self._extra("/platforms", "describe its platforms"))

    def timeline(self, name: str, duration: str | None = None) -> dict[str, Any]:
        """Return what is free when on a platform, for ``duration`` (ISO 8601) from now or as the broker likes.

        Raises:
            NotFound: there is no such platform, or the broker does not say.
        """
        query = None if duration is None else [("duration", duration)]
        answer = self._connection.get(f"/platforms/{_segment(name)}/timeline", query)
        if not isinstance(answer.data, dict):
            raise BadAnswer(f"{answer.url} sent no timeline", status=answer.status)
        return answer.data

    def picture(self, name: str, duration: str | None = None) -> dict[str, Any]:
        """Return a platform's calendar: what takes which nodes from when to when, for ``duration`` (ISO 8601).

        Raises:
            Unsupported: there is no such platform, or the broker does not say.
        """
        query: Query | None = None if duration is None else [("duration", duration)]
        answer = self._extra(f"/platforms/{_segment(name)}/picture", f"draw a calendar of {name}", query)
        if not isinstance(answer.data, dict):
            raise BadAnswer(f"{answer.url} sent no calendar", status=answer.status)
        return answer.data

    def approvals(self) -> list[dict[str, Any]]:
        """Return the sessions that wait for an operator's approval; for administrators.

        Raises:
            Unsupported: the broker knows nothing of approvals.
        """
        answer = self._extra("/admin/approvals", "list what waits for approval")
        waiting = answer.data.get("approvals") if isinstance(answer.data, dict) else None
        if not isinstance(waiting, list) or not all(isinstance(item, dict) for item in waiting):
            raise BadAnswer(f"{answer.url} sent no list of what waits for approval", status=answer.status)
        return waiting

    def decide(self, uuid: str, *, approve: bool, reason: str | None = None) -> SimpleSession:
        """Approve a session that waits for it, or refuse it, which ends it; for administrators.

        Raises:
            Conflict: it does not wait for approval.
        """
        decision = {"decision": "approve" if approve else "refuse", **({"reason": reason} if reason else {})}
        return session_of(self._connection.post(f"/admin/approvals/{_segment(uuid)}", decision))

    # --- how ------------------------------------------------------------------------------------------------

    def _move(self, uuid: str, phase: Phase) -> SimpleSession:
        update = {"kind": kinds.ENUM_UPDATE, "path": "phase", "value": str(phase)}
        try:
            return session_of(self._connection.post(f"/sessions/{_segment(uuid)}", update))
        except NoAnswer:
            session = self.session(uuid)
            if has_happened(session.phase, phase):
                return session
            raise

    def _extra(self, path: str, what: str, query: Query | None = None) -> Answer:
        try:
            return self._connection.get(path, query)
        except BrokerError as error:
            if error.status in (404, 405, 501):
                raise Unsupported(
                    f"the broker at {self.url} does not {what}: that is not part of the standard",
                    status=error.status,
                ) from error
            raise


def has_reached(phase: Phase | None, goal: Phase | None) -> bool:
    """Whether a session in ``phase`` has come to ``goal`` or past it; in a final phase it always has."""
    if phase in FINAL:
        return True
    if goal is None or goal in FINAL or phase is None:
        return False
    return _ORDER.index(phase) >= _ORDER.index(goal)


def has_happened(phase: Phase | None, wanted: Phase) -> bool:
    """Whether an update to ``wanted`` must have been carried out, for the session to be in ``phase``."""
    if wanted is Phase.ACCEPTED:
        return phase in LIVE or phase in (Phase.COMPLETED, Phase.FAILED)
    return phase is wanted


def safe_name(name: str) -> Path:
    """Return an output's name as a relative path that stays below the directory it is joined to.

    Raises:
        ValueError: it would not.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
        raise ValueError(f"the broker names an output {name!r}, which is no path below a directory: not written")
    return Path(path)


def _difference(seen: SimpleSession | None, session: SimpleSession) -> Change | None:
    messages = (session.meta.messages if session.meta else None) or []
    if seen is None:
        return Change(session=session, previous=None, messages=tuple(messages))
    known = (seen.meta.messages if seen.meta else None) or []
    fresh = tuple(item for item in messages if item not in known)
    if session.phase == seen.phase and not fresh and session.connectors == seen.connectors:
        return None
    return Change(session=session, previous=seen.phase, messages=fresh)


def _segment(text: str) -> str:
    return quote(text, safe="")


def _output_path(uuid: str, name: str) -> str:
    return f"/sessions/{_segment(uuid)}/output/{quote(name, safe='/')}"
