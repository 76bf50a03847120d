"""Which broker, as whom: options, environment, the user's file, and what is never sent where."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.client.other_broker import SESSION, OtherBroker, Reply, session_document


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def settings(home: Path, text: str) -> Path:
    path = home / "config" / "ebhpc" / "client.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture(autouse=True)
def session(other: OtherBroker) -> None:
    other.answer(f"GET /sessions/{SESSION}", Reply(document=session_document()))


def sent(other: OtherBroker) -> str | None:
    return other.calls[-1].headers.get("Authorization")


def test_without_a_name_nothing_is_sent(command: Command, other: OtherBroker) -> None:
    assert command("show", SESSION).exit_code == 0
    assert sent(other) is None


def test_name_and_password_come_from_the_environment(command: Command, other: OtherBroker) -> None:
    command("show", SESSION, EBHPC_USER="ada", EBHPC_PASSWORD="pass wörd")
    assert sent(other) == basic("ada", "pass wörd")


def test_the_first_line_of_a_file_is_the_password(command: Command, other: OtherBroker, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret\nand more\n")
    command("--user", "ada", "show", SESSION, "--password-file", str(tmp_path / "secret"), EBHPC_PASSWORD="no")
    assert sent(other) == basic("ada", "s3cret")


def test_options_count_before_and_after_the_name_of_the_command(command: Command, other: OtherBroker) -> None:
    with OtherBroker() as second:
        second.answer(f"GET /sessions/{SESSION}", Reply(document=session_document()))
        command("--url", second.url, "show", SESSION)
        command("show", SESSION, "--url", second.url + "/")
        command("--url", other.url, "show", SESSION, "--url", second.url)
        assert len(second.calls) == 3
    assert other.calls == []


def test_a_bearer_token_comes_from_the_environment_or_a_file(
    command: Command, other: OtherBroker, tmp_path: Path
) -> None:
    command("show", SESSION, EBHPC_TOKEN="abc")
    assert sent(other) == "Bearer abc"
    (tmp_path / "token").write_text("def\n")
    command("show", SESSION, "--token-file", str(tmp_path / "token"), EBHPC_TOKEN="abc")
    assert sent(other) == "Bearer def"


def test_the_users_file_names_the_broker_and_the_account(command: Command, other: OtherBroker, home: Path) -> None:
    file = settings(home, f"url: {other.url}\nusername: ada\npassword_file: secret\n")
    (file.parent / "secret").write_text("s3cret\n")
    assert command("show", SESSION, EBHPC_URL="").exit_code == 0
    assert sent(other) == basic("ada", "s3cret")


def test_the_account_of_the_users_file_is_sent_to_no_other_broker(
    command: Command, other: OtherBroker, home: Path
) -> None:
    file = settings(home, "url: https://broker.example.org\nusername: ada\npassword_file: secret\n")
    (file.parent / "secret").write_text("s3cret\n")
    assert command("show", SESSION).exit_code == 0
    assert sent(other) is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("url: http://h\nusrname: ada\n", ":2: usrname: unknown setting; did you mean username?"),
        ("url: [1]\n", ":1: url:"),
        ("- a\n", "expected a mapping"),
        ("url: ftp://h\n", "is no URL of a broker"),
        ("url: http://ada:pw@h\n", "holds no user name or password"),
        ("a: [\n", "is no YAML"),
    ],
)
def test_a_wrong_setting_is_told_with_its_line(text: str, why: str, command: Command, home: Path) -> None:
    settings(home, text)
    result = command("show", SESSION, EBHPC_URL="")
    assert result.exit_code == 2
    assert why in result.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "why"),
    [
        (["--user", "ada"], {}, "No password for ada, and no terminal to ask on"),
        (["--user", "a:b"], {"EBHPC_PASSWORD": "x"}, "has a colon"),
        ([], {"EBHPC_PASSWORD": "x"}, "a password but no user name"),
        (["--user", "ada", "--password-file", "/nothing"], {}, "/nothing cannot be read"),
        (["--user", "ada", "--password-file", os.devnull], {}, "its first line is empty"),
        (["--token-file", os.devnull], {}, "its first line is empty"),
        ([], {"EBHPC_TOKEN": "a\nb"}, "The bearer token"),
        (["--ca", "/nothing"], {}, "no such file of certificates"),
        (["--ca", "/etc/hostname"], {}, "no certificates"),
        (["--url", "localhost:80"], {}, "no URL"),
    ],
)
def test_a_wrong_choice_is_a_usage_error_and_nothing_is_sent(
    arguments: list[str], environment: dict[str, str], why: str, command: Command, other: OtherBroker
) -> None:
    result = command(*arguments, "show", SESSION, **environment)
    assert result.exit_code == 2, result.output
    assert why in result.stderr
    assert other.calls == []


def test_no_option_takes_a_password_or_a_token(command: Command) -> None:
    for name in ("--password", "--token"):
        assert f"{name} " not in command("--help").stdout
        assert command("show", SESSION, name, "x").exit_code == 2


def test_a_password_that_is_refused_is_not_shown(command: Command, other: OtherBroker) -> None:
    other.answer(f"GET /sessions/{SESSION}", Reply(status=401, document={"detail": "wrong name or password"}))
    result = command("show", SESSION, EBHPC_USER="ada", EBHPC_PASSWORD="s3cret")
    assert result.exit_code == 7
    assert "s3cret" not in result.output
    assert "--user" in result.stderr


def test_credentials_over_a_network_without_encryption_are_warned_of(command: Command) -> None:
    result = command("show", SESSION, EBHPC_URL="http://broker.invalid", EBHPC_USER="ada", EBHPC_PASSWORD="s3cret")
    assert result.exit_code == 6
    assert "http://broker.invalid is not encrypted" in result.stderr
