"""`ebhpc reserve`: nodes for oneself, booked in one line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from ebhpc.cli import facts, screen, times
from ebhpc.cli.asking import answer_of, ask
from ebhpc.cli.choices import Choices, choices_of, connect, for_all_commands
from ebhpc.cli.exits import Exit
from ebhpc.cli.moments import moment_of
from ebhpc.cli.picking import Pick
from ebhpc.cli.request_file import RequestFile
from ebhpc.cli.running import pick_offer
from ebhpc.client import Broker, as_json
from ebhpc.model import FINAL, MessageKind, Phase, SimpleMetric, SimpleSession, kinds
from ebhpc.model.times import duration_text, instant_text

_GPUS = re.compile(r"(\d+)(?::(\S+))?")
_PATIENCE = timedelta(minutes=2)
"""So long a reservation is waited for; it is made all the same when that is over."""


class _Gpus(click.ParamType[tuple[int, str | None]]):
    """A number of GPUs, and a model: ``2``, ``1:a100``."""

    name = "gpus"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, str | None]:
        found = _GPUS.fullmatch(str(value))
        if found is None or not int(found[1]):
            raise click.BadParameter(f"{value!r} is no number of GPUs such as 2, or 1:a100.", ctx, param)
        return int(found[1]), found[2]


@click.command(short_help="Book nodes for yourself: windows and what they cost, pick one.")
@click.option("--nodes", type=click.IntRange(1), default=1, show_default=True, help="How many nodes.")
@click.option("--cores", type=click.IntRange(1), help="Cores on each node.")
@click.option("--memory", type=click.IntRange(1), help="Memory on each node, GiB.")
@click.option("--gpus", type=_Gpus(), metavar="N[:MODEL]", help="GPUs on each node, of any model or one.")
@click.option("--whole", is_flag=True, help="Whole nodes, whatever they have.")
@click.option("--hours", type=click.FloatRange(0, min_open=True), required=True, help="For how long.")
@click.option(
    "--between",
    nargs=2,
    default=("now", "in 7 days"),
    metavar="FROM TO",
    help="When it may start: 'tomorrow 08:00' 'friday 18:00'.  [default: in the next 7 days]",
)
@click.option("--platform", help="Only on this platform.")
@click.option("--partition", help="Only in this partition.")
@click.option("--name", help="What to call it.")
@click.option("--users", multiple=True, metavar="USER", help="Others who may use it; may be given again.")
@click.option("--accounts", multiple=True, metavar="ACCOUNT", help="Accounts that may use it; may be given again.")
@click.option("--idle-release", type=click.FloatRange(0, min_open=True), metavar="HOURS", help="Give it back unused.")
@click.option("--replaces", metavar="SESSION", help="Your reserved time that this one is to replace.")
@click.option(
    "--pick",
    type=Pick("cheapest", "earliest", "longest", "largest"),
    help="Which window to take; N counts from 1. Without it you are asked, where there is a terminal.",
)
@for_all_commands
@click.pass_context
def reserve(context: click.Context, /, pick: str | int | None, platform: str | None, **wishes: Any) -> None:
    """Book nodes for yourself.

    Shows windows that the broker keeps for you until they expire, each with its cost and with what it costs the others:
    node-hours that stay idle, and how much longer waiting jobs wait. Pick one, and get the line to submit with.
    """
    choices = choices_of(context)
    now = datetime.now(UTC)
    request = RequestFile(name="the request", data=request_of(wishes, now), lines={})
    broker = connect(context)
    offerset = ask(broker, request)
    found = answer_of(offerset, request, choices)
    if platform is not None:
        found = _only_on(broker, found, platform)
    chosen = pick_window(found, pick) if pick is not None else None
    if choices.json and chosen is None:
        screen.result(as_json(offerset))
        return
    if not choices.json:
        write_windows(found, datetime.now(UTC))
    if chosen is None and screen.can_ask():
        number: int = click.prompt("Which one? 0 for none", type=click.IntRange(0, len(found)), default=1, err=True)
        if not number:
            for offer in found:
                broker.reject(facts.uuid_of(offer))
            raise click.exceptions.Exit(Exit.NO)
        chosen = found[number - 1]
    if chosen is None:
        if not choices.quiet:
            screen.tell("Take one with 'ebhpc accept NUMBER'.")
        return
    _take(broker, chosen, choices)


def request_of(wishes: dict[str, Any], now: datetime) -> dict[str, Any]:
    """Return the request for reserved time that the options describe.

    Raises:
        click.UsageError: a time is not understood, or the interval is empty.
    """
    first, last = (moment_of(text, now) for text in wishes["between"])
    if last < first:
        raise click.UsageError(
            f"--between: {times.words_of_moment(last, now)} is before {times.words_of_moment(first, now)}."
        )
    executable: dict[str, Any] = {"kind": kinds.RESERVED_TIME}
    if wishes["name"]:
        executable["meta"] = {"name": wishes["name"]}
    for key in ("users", "accounts"):
        if wishes[key]:
            executable[key] = list(wishes[key])
    if wishes["idle_release"]:
        executable["idle_release"] = duration_text(max(round(wishes["idle_release"] * 3600), 1))
    if wishes["replaces"]:
        executable["replaces"] = wishes["replaces"]
    compute: dict[str, Any] = {"kind": kinds.CLUSTER_COMPUTE, "nodes": {"min": wishes["nodes"], "max": wishes["nodes"]}}
    for key in ("cores", "memory"):
        if wishes[key]:
            compute[key] = {"min": wishes[key]}
    if wishes["gpus"]:
        count, model = wishes["gpus"]
        compute["gpus"] = {"min": count, **({"model": model} if model else {})}
    if wishes["whole"]:
        compute["exclusive"] = True
    if wishes["partition"]:
        compute["partition"] = wishes["partition"]
    start = f"{instant_text(int(first.timestamp()))}/{instant_text(int(last.timestamp()))}"
    duration = duration_text(max(round(wishes["hours"] * 3600), 1))
    return {
        "executable": executable,
        "compute": compute,
        "schedule": {"requested": {"duration": duration, "start": start}},
    }


def pick_window(found: Sequence[SimpleSession], pick: str | int) -> SimpleSession:
    """Return the window that is meant; the broker's first is the cheapest, to its owner and to the others.

    Raises:
        click.UsageError: there is no window of that number.
    """
    return found[0] if pick == "cheapest" else pick_offer(found, pick)


def write_windows(found: Sequence[SimpleSession], now: datetime) -> None:
    """Write the table of windows to stdout."""
    screen.table(
        (
            "",
            f"start ({times.zone_name(now)})",
            "duration",
            "cost",
            "node-hours",
            "leaves idle",
            "delays others",
            "approval",
            "expires",
        ),
        [_row(number, offer, now) for number, offer in enumerate(found, 1)],
        right=(0,),
    )


def _row(number: int, offer: SimpleSession, now: datetime) -> list[str]:
    start, duration = facts.start_of(offer), facts.duration_of(offer)
    return [
        str(number),
        times.words_of_interval(*start, now) if start else "",
        times.words_of_duration(duration) if duration is not None else "",
        facts.words_of_range_of(offer.costs, kinds.MONETARY),
        facts.words_of_range_of(offer.costs, kinds.FIRM_NODE_HOURS),
        _with_unit(facts.words_of_range_of(offer.metrics, kinds.IDLE_NODE_HOURS), " node-hours"),
        _delays(offer),
        "needed" if _needs_approval(offer) else "",
        times.words_of_distance(offer.expires, now) if offer.expires else "",
    ]


def _with_unit(words: str, unit: str) -> str:
    return words + unit if words else ""


def _delays(offer: SimpleSession) -> str:
    """Say how much longer others wait: ``3 h, one of them 2 h``."""
    hours = {
        item.type: item.max
        for item in offer.metrics or ()
        if isinstance(item, SimpleMetric) and item.type in (kinds.QUEUE_DELAY_SUM, kinds.QUEUE_DELAY_WORST)
    }
    total, worst = hours.get(kinds.QUEUE_DELAY_SUM), hours.get(kinds.QUEUE_DELAY_WORST)
    if total is None:
        return ""
    if not total:
        return "no"
    words = times.words_of_duration(timedelta(hours=total))
    return words if worst is None else f"{words}, one {times.words_of_duration(timedelta(hours=worst))}"


def _needs_approval(session: SimpleSession) -> bool:
    return any(item.kind == MessageKind.APPROVAL and item.level == "INFO" for item in facts.messages_of(session))


def _only_on(broker: Broker, found: Sequence[SimpleSession], platform: str) -> list[SimpleSession]:
    """Keep the windows of one platform; give the others back.

    Raises:
        click.exceptions.Exit: there is none.
    """
    there = {facts.uuid_of(one) for one in broker.sessions(phases=[Phase.OFFERED], platform=platform)}
    kept = [offer for offer in found if facts.uuid_of(offer) in there]
    for offer in found:
        if facts.uuid_of(offer) not in there:
            broker.reject(facts.uuid_of(offer))
    if not kept:
        screen.tell(f"NO: the platform {platform} has no window for this; others do.")
        raise click.exceptions.Exit(Exit.NO)
    return kept


def _take(broker: Broker, chosen: SimpleSession, choices: Choices) -> None:
    """Accept a window, wait until its reservation stands, and write the lines to use it with.

    Raises:
        click.exceptions.Exit: it came to nothing.
    """
    uuid = facts.uuid_of(chosen)
    session = broker.accept(uuid)
    approval = _needs_approval(session)
    if not approval:
        session = _waited_for(broker, uuid, choices)
    if choices.json:
        screen.result(as_json(session))
        return
    if session.phase in FINAL:
        screen.tell(f"The reservation came to nothing: the session is {session.phase}.")
        for item in facts.messages_of(session):
            screen.tell(screen.clean(item))
        raise click.exceptions.Exit(Exit.FAILED)
    start, duration = facts.start_of(session), facts.duration_of(session)
    words = times.words_of_interval(*start, datetime.now(UTC)) if start else ""
    if not choices.quiet:
        lasting = f" for {times.words_of_duration(duration)}" if duration is not None else ""
        screen.tell(f"Booked: {words}{lasting}.")
        if approval:
            screen.tell("An operator has to approve it first; look with 'ebhpc show'.")
        screen.tell(f"Give it back with 'ebhpc cancel {screen.clean(uuid)}'.")
    screen.result(screen.clean(uuid))
    for command in commands_of(session):
        screen.result(screen.clean(command))


def _waited_for(broker: Broker, uuid: str, choices: Choices) -> SimpleSession:
    """Wait until the reservation stands, and its connector says how to use it, or until the session has ended."""
    begun = datetime.now(UTC)
    session = broker.session(uuid)
    for change in broker.wait(uuid, until=Phase.COMPLETED, longest_poll=2.0):
        session = change.session
        if not choices.quiet and not choices.json:
            for item in change.messages:
                screen.tell(screen.clean(item))
        if commands_of(session) or datetime.now(UTC) - begun > _PATIENCE:
            break
    return session


def commands_of(session: SimpleSession) -> list[str]:
    """Return the lines that a session's connectors say to type."""
    return [command for connector in session.connectors or () for command in connector.commands or ()]
