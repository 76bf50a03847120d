"""Following a session: a live line on a terminal, else a line for each change, JSON lines for programs."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from types import FrameType
from typing import TYPE_CHECKING

from ebhpc.cli import facts, screen, times
from ebhpc.cli.choices import Choices
from ebhpc.client import Broker, Change, as_json
from ebhpc.model import FINAL, Message, Phase, SimpleSession

if TYPE_CHECKING:
    from rich.console import RenderableType

_HISTORY = 5
"""How many of the messages that were there before are shown when following begins."""


def follow(
    broker: Broker, uuid: str, choices: Choices, *, until: Phase | None = None, json_lines: bool = False
) -> SimpleSession:
    """Show a session's changes until it has reached ``until`` or a final phase; return it as it is then.

    Raises:
        KeyboardInterrupt: the user, or SIGTERM, ended the following; the session goes on.
    """
    with ExitStack() as stack:
        stack.enter_context(term_is_interrupt())
        show: Callable[[Change], None]
        if json_lines:
            show = _write_json_line
        elif choices.quiet or choices.json:
            show = _show_nothing
        elif screen.on_terminal(err=True):
            show = stack.enter_context(_live_line())
        else:
            show = _write_lines
        session: SimpleSession | None = None
        for change in broker.wait(uuid, until):
            session = change.session
            show(change)
    assert session is not None, "wait() yields the session as it is first"
    return session


@contextmanager
def term_is_interrupt() -> Iterator[None]:
    """Let SIGTERM do meanwhile what Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def left_alone(uuid: str) -> str:
    """Say that a session goes on without us."""
    return f"The session is left alone. 'ebhpc watch {uuid}' follows it again, 'ebhpc cancel {uuid}' ends it."


def message_line(item: Message) -> str:
    """Return a message with its time in the user's zone, and its level where it is not INFO."""
    clock = f"{item.time.astimezone():%H:%M:%S} " if item.time else ""
    level = f"{item.level} " if item.level not in (None, "INFO") else ""
    return f"{clock}{level}{screen.clean(item)}"


def _show_nothing(change: Change) -> None:
    pass


def _write_json_line(change: Change) -> None:
    screen.result(as_json(change.session))


def _lines_of(change: Change) -> Iterator[str]:
    session = change.session
    if change.previous is None:
        name = facts.name_of(session)
        yield f"Session {screen.clean(facts.uuid_of(session))}" + (f", {screen.clean(name)}" if name else "")
    messages = change.messages if change.previous is not None else change.messages[-_HISTORY:]
    for item in messages:
        yield f"  {message_line(item)}"
    if session.phase != change.previous:
        yield f"{datetime.now().astimezone():%H:%M:%S} {session.phase}"
    for connector in session.connectors or ():
        if connector.status == "AVAILABLE" and connector.location:
            yield f"  connect to {screen.clean(connector.location)}"


def _write_lines(change: Change) -> None:
    for line in _lines_of(change):
        screen.tell(line)


def _live_line() -> AbstractContextManager[Callable[[Change], None]]:
    """Make the display for a terminal: messages scroll, one line at the bottom says where the session is."""
    from rich.console import Console
    from rich.live import Live
    from rich.progress_bar import ProgressBar
    from rich.spinner import Spinner
    from rich.table import Table
    from rich.text import Text

    console = Console(stderr=True)
    spinner = Spinner("dots")
    state: dict[str, tuple[SimpleSession, datetime]] = {}

    def line() -> RenderableType:
        if "now" not in state:
            return Text("")
        session, since = state["now"]
        now = datetime.now(UTC)
        words, part = standing(session, since, now)
        grid = Table.grid(padding=(0, 1))
        grid.add_row(
            spinner if session.phase not in FINAL else Text("•"),
            Text(str(session.phase), style="bold"),
            ProgressBar(total=1.0, completed=part or 0.0, width=30) if part is not None else Text(""),
            Text(words, style="dim"),
        )
        return grid

    @contextmanager
    def display() -> Iterator[Callable[[Change], None]]:
        with Live(get_renderable=line, console=console, refresh_per_second=4) as live:

            def show(change: Change) -> None:
                if change.session.phase != change.previous:
                    state["now"] = (change.session, _began(change))
                else:
                    state["now"] = (change.session, state["now"][1])
                for text in _lines_of(change):
                    live.console.print(Text(text))

            yield show

    return display()


def _began(change: Change) -> datetime:
    """When the session came into its phase: now, or, where that was before we looked, its last change.

    Our own broker tells of what runs when it really started.
    """
    now = datetime.now(UTC)
    start = facts.start_of(change.session)
    if change.session.phase is Phase.RUNNING and start is not None and start[0] == start[1] <= now:
        return start[0]
    modified = change.session.meta.modified if change.session.meta else None
    return modified if change.previous is None and modified else now


def standing(session: SimpleSession, since: datetime, now: datetime) -> tuple[str, float | None]:
    """Say how far a session is that came into its phase at ``since``, and the part done (0 to 1) if known."""
    match session.phase:
        case Phase.ACCEPTED | Phase.WAITING if (start := facts.start_of(session)) is not None and start[0] > now:
            return f"starts {times.words_of_distance(start[0], now)}", None
        case Phase.RUNNING if (duration := facts.duration_of(session)) is not None:
            elapsed = max(now - since, timedelta())
            return (
                f"{times.words_of_duration(elapsed)} of at most {times.words_of_duration(duration)}",
                min(elapsed / duration, 1.0),
            )
        case phase if phase in FINAL:
            return "", None
        case _:
            return f"for {times.words_of_duration(max(now - since, timedelta()))}", None
