"""`ebhpc run`: from a request to its results in one go."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NoReturn

import click
import msgspec

from ebhpc.cli import facts, screen, times
from ebhpc.cli.asking import answer_of, ask
from ebhpc.cli.choices import Choices, choices_of, connect, for_all_commands
from ebhpc.cli.downloads import download_all
from ebhpc.cli.exits import Exit, exit_of_phase
from ebhpc.cli.picking import Pick
from ebhpc.cli.progress import follow, left_alone, term_is_interrupt
from ebhpc.cli.report import about_file
from ebhpc.cli.request_file import read_request_file
from ebhpc.client import Broker, Unsupported, as_json
from ebhpc.model import FINAL, Output, Phase, SimpleSession

_STDOUT = "stdout"
_STDERR = "stderr"
_FAR = datetime.max.replace(tzinfo=UTC)


@click.command(short_help="Ask, accept, watch and fetch: the whole way in one go.")
@click.argument("file")
@click.option(
    "--pick",
    type=Pick("earliest", "longest", "largest", "cheapest"),
    default="earliest",
    show_default=True,
    help="Which offer to accept; N counts from 1.",
)
@click.option(
    "--output",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Fetch everything that the session wrote into this directory, which is made.",
)
@click.option(
    "--cancel-on-interrupt",
    type=click.Choice(["ask", "yes", "no"]),
    default="ask",
    show_default=True,
    help="Whether Ctrl-C or SIGTERM cancels the session; where there is no terminal to ask on, it does not.",
)
@for_all_commands
@click.pass_context
def run(context: click.Context, file: str, pick: str | int, folder: Path | None, cancel_on_interrupt: str) -> None:
    """Ask for offers for the request in FILE, accept one, follow the session to its end, fetch what it wrote.

    Its standard output comes on stdout, its standard error on stderr; the exit code says how it ended. FILE
    is JSON or YAML; '-' is stdin. With --json one document comes on stdout: the session and its outputs.
    """
    choices = choices_of(context)
    request = read_request_file(file)
    about_file(context, request)
    broker = connect(context)
    found = answer_of(ask(broker, request), request, choices)
    chosen = pick_offer(found, pick)
    uuid = facts.uuid_of(chosen)
    try:
        if not choices.quiet and not choices.json:
            screen.tell(_choice_in_words(chosen, len(found), datetime.now(UTC)))
        with term_is_interrupt():
            broker.accept(uuid)
            last = follow(broker, uuid, choices)
    except KeyboardInterrupt:
        _interrupted(broker, uuid, cancel_on_interrupt)
    outputs, written = _fetch(broker, uuid, folder, choices)
    if choices.json:
        screen.result(_as_document(last, outputs, written))
    raise click.exceptions.Exit(exit_of_phase(last.phase))


def pick_offer(found: Sequence[SimpleSession], pick: str | int) -> SimpleSession:
    """Return the offer that is meant; of equal ones the earlier in the broker's order.

    Raises:
        click.UsageError: there is no offer of that number.
    """
    if isinstance(pick, int):
        if pick > len(found):
            raise click.UsageError(f"There is no offer {pick}: the broker made {len(found)}.")
        return found[pick - 1]
    if pick == "longest":
        return max(found, key=lambda offer: facts.duration_of(offer) or timedelta())
    if pick == "largest":
        return max(found, key=lambda offer: (facts.cores_of(offer) or 0, facts.memory_of(offer) or 0))
    if pick == "cheapest":
        return min(found, key=_by_price)
    return min(found, key=lambda offer: facts.start_of(offer) or (_FAR, _FAR))


def _by_price(offer: SimpleSession) -> tuple[bool, float, datetime]:
    price, start = facts.price_of(offer), facts.start_of(offer)
    return price is None, price or 0.0, start[0] if start else _FAR


def _choice_in_words(offer: SimpleSession, number: int, now: datetime) -> str:
    start, duration = facts.start_of(offer), facts.duration_of(offer)
    parts = [
        f"start {times.words_of_interval(*start, now)}" if start else "",
        f"for at most {times.words_of_duration(duration)}" if duration is not None else "",
        f"{cores} cores" if (cores := facts.cores_of(offer)) is not None else "",
        f"{memory} GiB" if (memory := facts.memory_of(offer)) is not None else "",
    ]
    return f"Accepting 1 of {number} offers: {', '.join(filter(None, parts))}"


def _interrupted(broker: Broker, uuid: str, cancel: str) -> NoReturn:
    """Cancel the session or leave it, as the user wants, and end."""
    if cancel == "ask":
        cancel = "yes" if screen.can_ask() and _wants_to_cancel() else "no"
    if cancel == "no":
        screen.tell(left_alone(uuid))
        raise click.exceptions.Exit(Exit.INTERRUPTED)
    session = broker.session(uuid)
    if session.phase is Phase.OFFERED:
        # Interrupted while accepting: the broker may not have heard of it yet.
        session = broker.reject(uuid)
    elif session.phase not in FINAL:
        session = broker.cancel(uuid)
    screen.tell(f"The session is {session.phase}.")
    raise click.exceptions.Exit(exit_of_phase(session.phase))


def _wants_to_cancel() -> bool:
    try:
        return click.confirm("Cancel the session?", default=True, err=True)
    except click.Abort:
        return False


def _fetch(broker: Broker, uuid: str, folder: Path | None, choices: Choices) -> tuple[list[Output], dict[str, Path]]:
    """Write the session's standard output and error to ours, and everything below ``folder``."""
    try:
        outputs = broker.outputs(uuid)
    except Unsupported as error:
        if folder is not None:
            raise
        if not choices.quiet and not choices.json:
            screen.tell(f"{error.summary}: look at the session's connectors and data.")
        return [], {}
    names = {item.name for item in outputs}
    if not choices.json:
        for name, stream in ((_STDERR, sys.stderr.buffer), (_STDOUT, sys.stdout.buffer)):
            if name in names:
                for piece in broker.read_output(uuid, name):
                    stream.write(piece)
                stream.flush()
    if folder is None:
        return outputs, {}
    written = download_all(broker, uuid, outputs, folder, choices)
    if not choices.quiet and not choices.json:
        for path in written.values():
            screen.tell(f"Fetched {screen.clean(path)}")
    return outputs, written


def _as_document(session: SimpleSession, outputs: Sequence[Output], written: dict[str, Path]) -> str:
    listed = [
        {"name": item.name, "size": item.size, "media_type": item.media_type}
        | ({"file": str(written[item.name])} if item.name in written else {})
        for item in outputs
    ]
    return f'{{"session":{as_json(session)},"outputs":{msgspec.json.encode(listed).decode()}}}'
