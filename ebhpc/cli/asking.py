"""`ebhpc offers`, `accept`, `reject`: from a question to a session."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import click

from ebhpc.cli import facts, screen, times
from ebhpc.cli.choices import Choices, choices_of, connect, for_all_commands
from ebhpc.cli.exits import Exit
from ebhpc.cli.last_offers import NAMES_OF_SESSIONS, LastOffers, remember, state_file, which
from ebhpc.cli.report import about_file, tell_messages
from ebhpc.cli.request_file import RequestFile, read_request_file
from ebhpc.client import Broker, as_json
from ebhpc.model import FINAL, OfferSet, SimpleSession


@click.command(short_help="Ask when and how the request in FILE can run.")
@click.argument("file")
@for_all_commands
@click.pass_context
def offers(context: click.Context, file: str) -> None:
    """Ask when and how the request in FILE can run.

    FILE is JSON or YAML; '-' is stdin. The broker holds its offers for you until they expire.
    """
    request = read_request_file(file)
    about_file(context, request)
    broker = connect(context)
    offerset = ask(broker, request)
    if choices_of(context).json:
        screen.result(as_json(offerset))
    found = answer_of(offerset, request, choices_of(context))
    if not choices_of(context).json:
        write_offers(found, datetime.now(UTC))
        if not choices_of(context).quiet:
            screen.tell("Take one with 'ebhpc accept NUMBER'.")


@click.command(
    short_help="Accept an offer: it becomes a session, its siblings are given back.", epilog=NAMES_OF_SESSIONS
)
@click.argument("offer")
@for_all_commands
@click.pass_context
def accept(context: click.Context, offer: str) -> None:
    """Accept OFFER: it becomes a session, its siblings are given back."""
    broker = connect(context)
    session = broker.accept(which(offer, broker.url, state_file()))
    write_moved(context, session, "Follow it with 'ebhpc watch {uuid}'.")


@click.command(short_help="Give an offer back before it expires.", epilog=NAMES_OF_SESSIONS)
@click.argument("offer")
@for_all_commands
@click.pass_context
def reject(context: click.Context, offer: str) -> None:
    """Give OFFER back before it expires."""
    broker = connect(context)
    session = broker.reject(which(offer, broker.url, state_file()))
    write_moved(context, session, "")


def ask(broker: Broker, request: RequestFile) -> OfferSet:
    """Ask for offers and remember them for the commands that follow."""
    offerset = broker.offers(request.data)
    last = LastOffers(
        broker=broker.url,
        offerset=offerset.meta.uuid if offerset.meta else None,
        offers=[facts.uuid_of(offer) for offer in offers_in(offerset)],
    )
    if last.offers:
        try:
            remember(last, state_file())
        except OSError as error:
            screen.tell(f"Warning: the offers are not remembered for 'ebhpc accept': {error}")
    return offerset


def offers_in(offerset: OfferSet) -> list[SimpleSession]:
    """Return the offers of a set that are sessions of a kind we know."""
    return [offer for offer in offerset.offers or () if isinstance(offer, SimpleSession)]


def answer_of(offerset: OfferSet, request: RequestFile, choices: Choices) -> list[SimpleSession]:
    """Return the offers of a YES and tell its warnings; tell the reasons of a NO and end the command."""
    found = offers_in(offerset)
    messages = facts.messages_of(offerset)
    if offerset.result == "NO" or not found:
        if not choices.json:
            screen.tell("NO: the broker has no offer for this request.")
            tell_messages(messages, request)
        raise click.exceptions.Exit(Exit.NO)
    if not choices.json and not choices.quiet:
        tell_messages(messages, request)
    return found


def write_offers(found: Sequence[SimpleSession], now: datetime) -> None:
    """Write the table of offers to stdout."""
    screen.table(
        (
            "",
            "offer",
            f"start ({times.zone_name(now)})",
            "duration",
            "cores",
            "memory",
            "costs",
            "expires",
        ),
        [_offer_row(number, offer, now) for number, offer in enumerate(found, 1)],
        right=(0, 4, 5),
    )


def write_moved(context: click.Context, session: SimpleSession, advice: str) -> None:
    """Write what became of a session to stdout, and what to do next to stderr."""
    if choices_of(context).json:
        screen.result(as_json(session))
        return
    uuid = facts.uuid_of(session)
    screen.result(f"{screen.clean(uuid)} {session.phase or ''}".rstrip())
    if advice and session.phase not in FINAL and not choices_of(context).quiet:
        screen.tell(advice.format(uuid=screen.clean(uuid)))


def _offer_row(number: int, offer: SimpleSession, now: datetime) -> list[str]:
    start, duration = facts.start_of(offer), facts.duration_of(offer)
    cores, memory = facts.cores_of(offer), facts.memory_of(offer)
    return [
        str(number),
        facts.uuid_of(offer)[-8:],
        times.words_of_interval(*start, now) if start else "",
        times.words_of_duration(duration) if duration is not None else "",
        "" if cores is None else str(cores),
        "" if memory is None else f"{memory} GiB",
        facts.words_of_items(offer.costs),
        times.words_of_distance(offer.expires, now) if offer.expires else "",
    ]
