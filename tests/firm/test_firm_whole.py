"""Firm time on a real broker with the local platform: booked in a line, approved by an operator, drawn."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ebhpc.cli.commands import ebhpc as command
from ebhpc.client import Broker, as_json
from ebhpc.model import Phase
from tests.broker import ADMIN, PASSWORD, RunningBroker, local_platform

RULES = {"longest": "6h", "zone": "Europe/Vienna", "approval_above": 0.5, "share": 0.75}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    """A broker whose one platform has 8 cores and rules: above half a node-hour an operator must approve."""
    folder = tmp_path_factory.mktemp("firm")
    running = RunningBroker(folder, {"platforms": [{**local_platform(), "firm": RULES}]})
    running.make_ready()
    for user in ("ada", "bob"):
        secret = folder / f"{user}.password"
        secret.write_text(PASSWORD + "\n")
        running.command("account", "add", user, "--password-file", str(secret))
    try:
        running.start("api")
        running.start("drive")
        running.wait_ready()
        yield running
    finally:
        running.stop()


def ebhpc(broker: RunningBroker, *arguments: str, user: str = "ada") -> Result:
    """Run a command for users, without a terminal."""
    environment = {name: None for name in os.environ if name.startswith("EBHPC_") and name != "EBHPC_LAB"}
    given = {
        "EBHPC_URL": broker.url,
        "EBHPC_USER": user,
        "EBHPC_PASSWORD": PASSWORD,
        "HOME": str(broker.folder),
        "XDG_STATE_HOME": str(broker.folder / f"{user}-state"),
    }
    return CliRunner(env={**environment, **given}).invoke(command, list(arguments), prog_name="ebhpc")


@pytest.fixture(autouse=True)
def in_vienna(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whoever asks sits in Vienna."""
    monkeypatch.setenv("TZ", "Europe/Vienna")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def reserve(broker: RunningBroker, *more: str, user: str = "ada") -> Result:
    done = ebhpc(broker, "reserve", *more, user=user)
    assert done.exit_code == 0, (done.stdout, done.stderr, broker.logs())
    return done


def session(broker: RunningBroker, uuid: str, user: str = "ada") -> dict[str, Any]:
    with Broker(broker.url, user, PASSWORD) as client:
        found: dict[str, Any] = json.loads(as_json(client.session(uuid)))
    return found


def until(broker: RunningBroker, uuid: str, *phases: Phase) -> dict[str, Any]:
    deadline = time.monotonic() + 30
    while (found := session(broker, uuid))["phase"] not in phases:
        assert time.monotonic() < deadline, (found, broker.logs())
        time.sleep(0.1)
    return found


def messages(document: dict[str, Any]) -> str:
    return "\n".join(item["message"] for item in document["meta"].get("messages", ()))


def test_an_hour_is_booked_in_one_line_and_the_line_to_use_it_with_comes_back(broker: RunningBroker) -> None:
    done = reserve(
        broker, "--cores", "2", "--hours", "1", "--between", "tomorrow 08:00", "tomorrow 18:00", "--pick", "1"
    )
    table, booked = done.stdout.split("\n\n") if "\n\n" in done.stdout else (done.stdout, done.stdout)
    heading, first, *_ = table.splitlines()
    assert re.search(r"start \(CES?T\) +duration +cost", heading)
    assert re.search(r"tomorrow \d\d:\d\d", first)
    assert "no" in first  # nobody waits, so nobody waits longer
    uuid = next(line for line in booked.splitlines() if re.fullmatch(r"[0-9a-f-]{36}", line))
    assert booked.splitlines()[-1] != uuid, "a line to use it with follows"
    assert session(broker, uuid)["phase"] == "AVAILABLE"
    # Ada sees it as hers, Bob as somebody's
    lines = ebhpc(broker, "calendar", "here", "--days", "2")
    assert lines.exit_code == 0, lines.stderr
    assert re.search(r"[▁▂▃▄▅▆▇█].* yours$", lines.stdout, re.MULTILINE)
    assert re.search(r"^\w+ \d\d \w+ .* free$", lines.stdout, re.MULTILINE)
    of_bob = ebhpc(broker, "calendar", "--days", "2", user="bob").stdout
    assert "yours" not in of_bob
    assert re.search(r"[▁▂▃▄▅▆▇█].* promised$", of_bob, re.MULTILINE)
    assert ebhpc(broker, "cancel", uuid).exit_code == 0


def test_without_a_terminal_nothing_is_taken_unasked(broker: RunningBroker) -> None:
    done = reserve(broker, "--cores", "1", "--hours", "0.5")
    assert "ebhpc accept NUMBER" in done.stderr
    offered = json.loads(ebhpc(broker, "sessions", "--phase", "OFFERED", "--json").stdout)
    for one in offered.get("sessions", offered) if isinstance(offered, dict) else offered:
        assert ebhpc(broker, "reject", one["meta"]["uuid"]).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--hours", "1", "--between", "banana", "friday"], "'banana' is no time that is understood"),
        (["--hours", "1", "--between", "5", "friday"], "'5' is no time"),
        (["--hours", "1", "--between", "in 3 days", "tomorrow"], "is before"),
        (["--hours", "1", "--gpus", "a100"], "is no number of GPUs"),
    ],
)
def test_what_cannot_be_understood_is_told_with_an_example(
    broker: RunningBroker, arguments: list[str], words: str
) -> None:
    done = ebhpc(broker, "reserve", *arguments)
    assert done.exit_code == 2
    assert words in done.stderr


def test_a_refusal_names_the_rule_in_words(broker: RunningBroker) -> None:
    done = ebhpc(broker, "reserve", "--hours", "7")
    assert done.exit_code == 3
    assert "lasts 6 hours at most" in done.stderr
    done = ebhpc(broker, "reserve", "--cores", "7", "--hours", "1")
    assert done.exit_code == 3
    assert "may be promised at once" in done.stderr


def book_large(broker: RunningBroker) -> str:
    done = reserve(broker, "--cores", "4", "--hours", "2", "--between", "tomorrow", "in 3 days", "--pick", "cheapest")
    assert "needed" in done.stdout
    assert "An operator has to approve it first" in done.stderr
    return next(line for line in done.stdout.splitlines() if re.fullmatch(r"[0-9a-f-]{36}", line))


def test_a_large_block_waits_for_an_operator_and_goes_on_when_approved(broker: RunningBroker) -> None:
    uuid = book_large(broker)
    assert "has to approve this" in messages(until(broker, uuid, Phase.WAITING))
    time.sleep(0.5)
    assert session(broker, uuid)["phase"] == "WAITING"
    waiting = ebhpc(broker, "approve", user=ADMIN)
    assert uuid in waiting.stdout
    assert " ada " in waiting.stdout
    assert ebhpc(broker, "approve", uuid).exit_code == 7, "ada is no operator"
    approved = ebhpc(broker, "approve", uuid[-12:], "--reason", "have fun", user=ADMIN)
    assert approved.exit_code == 0, approved.stderr
    document = until(broker, uuid, Phase.AVAILABLE)
    assert "an operator of here has approved it: have fun" in messages(document)
    assert uuid not in ebhpc(broker, "approve", user=ADMIN).stdout
    # Once more is no error, the contrary is
    assert ebhpc(broker, "approve", uuid, user=ADMIN).exit_code == 0
    contrary = ebhpc(broker, "approve", uuid, "--refuse", "too late", user=ADMIN)
    assert contrary.exit_code == 8
    assert "admin has approved it already" in contrary.stderr
    assert ebhpc(broker, "cancel", uuid).exit_code == 0


def test_a_refused_block_ends_and_its_time_is_free_again(broker: RunningBroker) -> None:
    uuid = book_large(broker)
    until(broker, uuid, Phase.WAITING)
    done = ebhpc(broker, "approve", uuid, "--refuse", "the power is tested", user=ADMIN)
    assert done.exit_code == 0, done.stderr
    document = until(broker, uuid, Phase.CANCELLED)
    assert "refused it; what was kept for it is given back: the power is tested" in messages(document)
    again = book_large(broker)
    assert ebhpc(broker, "approve", again, "--refuse", "over", user=ADMIN).exit_code == 0
