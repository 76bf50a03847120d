"""The commands for operators: run a broker, look whether all is well, keep its database and accounts."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click
import msgspec

from ebhpc.cli.assembly import SchemaError, Site, load_site_plugins, open_site, open_store
from ebhpc.cli.logs import set_up_logging
from ebhpc.config import Config, SettingsError, load_config

log = logging.getLogger("ebhpc.cli")

_PATH = click.Path(path_type=Path)


def _configured(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a command with the options that say where the configuration is."""

    @click.option(
        "--config",
        "config_file",
        type=_PATH,
        envvar="EBHPC_CONFIG",
        help="The file of settings; without it, the embedded default.  [env: EBHPC_CONFIG]",
    )
    @click.option(
        "--plugins-dir",
        type=_PATH,
        envvar="EBHPC_PLUGINS_DIR",
        help="Load the plugins in this directory too.  [env: EBHPC_PLUGINS_DIR]",
    )
    @click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="Set one setting by its dotted key, as api.bind=127.0.0.1:9000. May be given several times.",
    )
    @wraps(command)
    def run(config_file: Path | None, plugins_dir: Path | None, overrides: tuple[str, ...], **others: Any) -> Any:
        config = load_config(config_file, overrides=_overrides(overrides))
        set_up_logging(config.logging.level, config.logging.format)
        return command(config=config, plugins_dir=plugins_dir, **others)

    return run


def _overrides(given: tuple[str, ...]) -> dict[str, object]:
    values: dict[str, object] = {}
    for item in given:
        key, equals, text = item.partition("=")
        if not equals:
            raise SettingsError(f"--set {item}: expected KEY=VALUE")
        values[key] = msgspec.yaml.decode(text) if text else ""
    return values


def _site(config: Config, plugins_dir: Path | None) -> Site:
    try:
        return open_site(config, plugins_dir)
    except SchemaError as error:
        raise click.ClickException(str(error)) from error


@click.command()
@_configured
@click.pass_context
def serve(context: click.Context, config: Config, plugins_dir: Path | None) -> None:
    """Run the API and a driver together, for one machine.

    Upgrades the database, makes the administrator when there is no account yet (the password is shown once), starts
    one process for each part and starts a part again that ends by itself. SIGTERM or Ctrl-C ends all in order.
    """
    from ebhpc.cli.serving import serve_all

    _make_ready(config)
    sys.exit(serve_all(config, _same_options(context)))


@click.command()
@_configured
def api(config: Config, plugins_dir: Path | None) -> None:
    """Run the API alone; drivers run beside it, here or on other machines with the same database."""
    from ebhpc.api import create_app
    from ebhpc.api.server import run_api

    load_site_plugins(plugins_dir)  # what is wrong is told once, before there are workers

    def make_app() -> Any:
        site = _site(config, plugins_dir)
        return create_app(
            store=site.store,
            platforms=site.platforms,
            kinds=site.kinds,
            config=config,
            policies=site.policies,
        )

    _refuse_old_schema(config)
    sys.exit(run_api(make_app, config))


@click.command()
@click.option("--name", help="The driver's name, of which each must have its own.  [default: the host's name]")
@_configured
def drive(config: Config, plugins_dir: Path | None, name: str | None) -> None:
    """Run a driver: it takes accepted sessions through their phases.

    Several drivers, on one or several machines, share the work. A driver that is started again under its name takes
    over at once what it had.
    """
    from ebhpc.driver import Driver, DriverRunning, NameTaken

    site = _site(config, plugins_dir)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        driver = Driver(
            site.store,
            site.platforms,
            site.kinds,
            config.driver,
            name=name or socket.gethostname(),
            keep_offers=config.offers.keep,
        )
        driver.run(stop)
    except (DriverRunning, NameTaken) as error:
        raise click.ClickException(str(error)) from error
    finally:
        site.close()


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Write the findings as JSON.")
@_configured
def check(config: Config, plugins_dir: Path | None, as_json: bool) -> None:
    """Check the configuration, the database, the drivers and every platform.

    Exit code 0: nothing is wrong; 1: there is an ERROR among the findings; 2: the configuration cannot be read.
    """
    from ebhpc.cli.checking import check_all, show

    findings = check_all(config, plugins_dir)
    show(findings, as_json=as_json)
    sys.exit(1 if any(finding.level == "ERROR" for finding in findings) else 0)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Write the list as JSON.")
@_configured
def plugins(config: Config, plugins_dir: Path | None, as_json: bool) -> None:
    """List the plugins that are loaded, the hooks that each implements, and the platforms that each built."""
    from ebhpc.cli.checking import list_plugins

    sys.exit(list_plugins(config, plugins_dir, as_json=as_json))


@click.group()
def db() -> None:
    """Make or upgrade the database."""


@db.command("upgrade")
@_configured
def db_upgrade(config: Config, plugins_dir: Path | None) -> None:
    """Bring the database to the revision that this version of ebhpc needs; makes it if there is none."""
    from ebhpc.store import current_revision, newest_revision, upgrade

    store = open_store(config)
    before = current_revision(store)
    upgrade(store)
    click.echo(f"database: {before or 'empty'} -> {newest_revision()}")
    store.close()


@db.command("revision")
@_configured
def db_revision(config: Config, plugins_dir: Path | None) -> None:
    """Say which revision the database has. Exit code 1: it is not the one that this version needs."""
    from ebhpc.store import current_revision, newest_revision

    store = open_store(config)
    present, needed = current_revision(store), newest_revision()
    click.echo(f"database: {present or 'empty'}, needed: {needed}")
    store.close()
    sys.exit(0 if present == needed else 1)


@click.group()
def account() -> None:
    """Add and change local accounts."""


@account.command("add")
@click.argument("username")
@click.option("--admin", is_flag=True, help="An administrator: sees all sessions, adds accounts.")
@click.option("--password-file", type=_PATH, help="Read the password from a file's first line.")
@_configured
def account_add(
    config: Config, plugins_dir: Path | None, username: str, admin: bool, password_file: Path | None
) -> None:
    """Add an account. Without --password-file a password is made up and shown once."""
    from ebhpc.api.accounts import AccountError, add_account

    _refuse_old_schema(config)
    password = _password(password_file)
    store = open_store(config)
    try:
        added = add_account(store, username, password or _made_up(), admin=admin, now=time.time())
    except AccountError as error:
        raise click.ClickException(str(error)) from error
    finally:
        store.close()
    if not added:
        raise click.ClickException(f"there is an account {username} already")


def _password(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return file.read_text(encoding="utf-8").splitlines()[0]
    except (OSError, IndexError, UnicodeDecodeError) as error:
        raise click.ClickException(f"--password-file {file}: {error}") from error


def _made_up() -> str:
    password = secrets.token_urlsafe(15)
    click.echo(f"password: {password}")
    return password


def _make_ready(config: Config) -> None:
    """Upgrade the database and make the administrator, for ``serve``."""
    from ebhpc.api.accounts import ensure_admin
    from ebhpc.store import upgrade

    store = open_store(config)
    try:
        upgrade(store)
        password = ensure_admin(store, config.accounts.admin, now=time.time())
    finally:
        store.close()
    if password is not None:
        click.echo(
            f"ebhpc: made the administrator {config.accounts.admin} with the password {password}\n"
            "ebhpc: it is shown this once; keep it",
            err=True,
        )


def _refuse_old_schema(config: Config) -> None:
    from ebhpc.store import current_revision, newest_revision

    store = open_store(config)
    present, needed = current_revision(store), newest_revision()
    store.close()
    if present != needed:
        raise click.ClickException(
            f"the database is at revision {present or 'none'}, this version of ebhpc needs {needed}:"
            " run 'ebhpc db upgrade'"
        )


def _same_options(context: click.Context) -> list[str]:
    """The options of this command that its parts need as well."""
    options: list[str] = []
    if context.params.get("config_file") is not None:
        options += ["--config", os.fspath(context.params["config_file"])]
    if context.params.get("plugins_dir") is not None:
        options += ["--plugins-dir", os.fspath(context.params["plugins_dir"])]
    for item in context.params.get("overrides", ()):
        options += ["--set", item]
    return options
