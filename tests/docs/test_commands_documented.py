"""docs/users keeps to the commands: each has a section, with its options; the exit codes and the requests are right."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from ebhpc import media
from ebhpc.cli.choices import ClientFile
from ebhpc.cli.commands import ebhpc
from ebhpc.cli.exits import MEANINGS
from ebhpc.client import __all__ as of_client
from ebhpc.model import UnknownElement
from ebhpc.model.registry import EXTENSIBLE, Kinds

PAGES = Path(__file__).parents[2] / "docs" / "users"
COMMANDS = (PAGES / "commands.md").read_text(encoding="utf-8")


def commands(group: click.Group = ebhpc, before: str = "ebhpc") -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, by its whole name."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, f"{before} {name} is listed and is not there"
        if isinstance(command, click.Group):
            yield from commands(command, f"{before} {name}")
        else:
            yield f"{before} {name}", command


def section(heading: str, page: str = COMMANDS) -> str:
    """The text below a heading, up to the next one."""
    found = re.search(rf"^#+ {heading}$(.*?)(?=^#+ |\Z)", page, re.MULTILINE | re.DOTALL)
    assert found, f"there is no section {heading}"
    return found[1]


ALL = dict(commands())


def test_every_command_is_looked_at() -> None:
    assert {"ebhpc run", "ebhpc serve", "ebhpc db upgrade"} <= ALL.keys()


def test_no_section_is_about_a_command_that_is_not_there() -> None:
    described = re.findall(r"^### `(ebhpc [a-z ]*[a-z])(?: [A-Z\[].*)?`$", COMMANDS, re.MULTILINE)
    assert sorted(described) == sorted(ALL)


@pytest.mark.parametrize("name", ALL)
def test_a_command_has_a_section_with_its_arguments_and_options(name: str) -> None:
    command = ALL[name]
    arguments = [
        f"[{it.make_metavar(click.Context(command)).strip('[]')}]" if not it.required else it.name.upper()
        for it in command.params
        if isinstance(it, click.Argument) and it.name
    ]
    text = section(re.escape("`" + " ".join([name, *arguments]) + "`"))
    assert len(text.split()) > 5
    shared = section("Options of all commands for users") + section("Commands for operators")
    for option in command.params:
        if isinstance(option, click.Option):
            for spelled in option.opts:
                assert f"`{spelled}" in text + shared, f"{name} {spelled}"


def test_an_option_that_one_command_has_stands_in_its_section() -> None:
    assert "`--pick" in section(re.escape("`ebhpc run FILE`"))
    assert "`--pick" not in section(re.escape("`ebhpc watch SESSION`"))


def test_the_exit_codes_are_those_of_the_command() -> None:
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", section("Exit codes"), re.MULTILINE)
    assert [(int(code), text) for code, text in rows] == [(int(code), text) for code, text in MEANINGS.items()]


def test_every_setting_of_the_users_file_is_named() -> None:
    text = section("The configuration file")
    for name in ClientFile.__struct_fields__:
        assert f"`{name}`" in text, name


def test_everything_of_the_client_is_in_its_page() -> None:
    page = (PAGES / "python.md").read_text(encoding="utf-8")
    for name in of_client:
        if name != "as_json":
            assert f"ebhpc.client.{name}\n" in page, name


def requests() -> list[str]:
    pages = [
        (PAGES / name).read_text(encoding="utf-8") for name in ("requests.md", "getting-started.md", "book-time.md")
    ]
    blocks = [block for page in pages for block in re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)]
    return [block for block in blocks if block.startswith("executable:")]


@pytest.mark.parametrize("text", requests())
def test_a_request_of_the_documentation_is_read_without_a_complaint(text: str) -> None:
    decoded = Kinds().request(media.decode(text.encode(), "application/yaml"))
    assert decoded.problems == ()
    assert decoded.warnings == ()
    document = decoded.document
    assert document is not None
    for element in (document.executable, document.compute, *(document.storage or ()), *(document.data or ())):
        assert not isinstance(element, UnknownElement)


def test_every_kind_that_a_request_may_have_has_an_example() -> None:
    text = "".join(requests())
    for base in EXTENSIBLE:
        for kind in Kinds().of(base):
            if "/abstract-" not in kind:
                assert kind in text, kind
