"""The commands for operators: run a broker, look whether all is well, keep its database and accounts."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click
import msgspec

from ebhpc import tracing
from ebhpc.cli.assembly import SchemaError, Site, check_schema, load_site_plugins, open_site, open_store, start_tracing
from ebhpc.cli.logs import set_up_logging
from ebhpc.cli.screen import clean
from ebhpc.cli.served import end_with_serve
from ebhpc.config import Config, SettingsError, load_config
from ebhpc.local.linux import few_heaps
from ebhpc.systemd import ServiceManager

log = logging.getLogger("ebhpc.cli")

_PATH = click.Path(path_type=Path)

_REREAD = "ebhpc.reread"
"""In a command's context: a function that reads the settings again."""


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
        def reread() -> Config:
            return load_config(config_file, overrides=_overrides(overrides))

        config = reread()
        set_up_logging(config.logging.level, config.logging.format)
        click.get_current_context().meta[_REREAD] = reread
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


def _check_tracing(config: Config) -> None:
    """Refuse to start where spans are asked for and cannot be made."""
    if config.tracing.endpoint is not None:
        try:
            tracing.check_installed()
        except tracing.NotInstalledError as error:
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
    """Run the API alone; drivers run beside it, here or on other machines with the same database.

    SIGHUP replaces the workers by others with the settings as they are then.
    """
    from ebhpc.api import create_app
    from ebhpc.api.rates import Counters
    from ebhpc.api.server import run_api

    end_with_serve()
    load_site_plugins(plugins_dir)  # what is wrong is told once, before there are workers
    _check_tracing(config)
    counters = Counters()

    def maker(config: Config) -> Callable[[], Any]:
        def make_app() -> Any:
            # Not before the workers share a directory for their measures: it imports what decides on that
            from ebhpc.tracing import traced
            from ebhpc.ui import with_page

            start_tracing(config, "api", f"{socket.gethostname()}-{os.getpid()}")
            site = _site(config, plugins_dir)
            parts: list[Any] = []
            app = create_app(
                store=site.store,
                platforms=site.platforms,
                kinds=site.kinds,
                config=config,
                policies=site.policies,
                made=parts.append,
                counters=counters,
            )
            return traced(with_page(app, parts[0]) if config.page.enabled else app)

        return make_app

    read = click.get_current_context().meta[_REREAD]

    def reread() -> tuple[Callable[[], Any], Config]:
        config = read()
        set_up_logging(config.logging.level, config.logging.format)
        return maker(config), config

    _refuse_old_schema(config)
    sys.exit(run_api(maker(config), config, reread=reread))


@click.command()
@click.option("--name", help="The driver's name, of which each must have its own.  [default: the host's name]")
@_configured
def drive(config: Config, plugins_dir: Path | None, name: str | None) -> None:
    """Run a driver: it takes accepted sessions through their phases.

    Several drivers, on one or several machines, share the work. A driver that is started again under its name takes
    over at once what it had. SIGHUP makes it begin anew with its settings as they are then.
    """
    from ebhpc.cli.driving import run_driver
    from ebhpc.driver import DriverRunning, NameTaken

    manager = ServiceManager.of_process()
    context = click.get_current_context()
    name = name or socket.gethostname()
    end_with_serve()
    few_heaps()
    _check_tracing(config)
    start_tracing(config, "driver", name)
    try:
        run_driver(
            _site(config, plugins_dir),
            name=name,
            reread=context.meta[_REREAD],
            options=_same_options(context),
            manager=manager,
        )
    except (DriverRunning, NameTaken) as error:
        raise click.ClickException(str(error)) from error


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
    """Make, upgrade, back up or restore the database."""


@db.command("upgrade")
@_configured
def db_upgrade(config: Config, plugins_dir: Path | None) -> None:
    """Bring the database to the revision that this version of ebhpc needs; makes it if there is none."""
    from ebhpc.store import current_revision, upgrade

    store = open_store(config)
    before = current_revision(store)
    upgrade(store)
    click.echo(f"database: {before or 'empty'} -> {current_revision(store)}")
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


@db.command("backup")
@click.argument("file", type=_PATH)
@_configured
def db_backup(config: Config, plugins_dir: Path | None, file: Path) -> None:
    """Write a copy of the database to FILE while everything runs; FILE must not be there yet.

    SQLite: a database of its own. PostgreSQL: an archive that pg_dump makes, which has to be installed.
    """
    from ebhpc.cli.backup import BackupError, back_up

    try:
        click.echo(f"database: {back_up(config, file)} bytes in {file}")
    except BackupError as error:
        raise click.ClickException(str(error)) from error


@db.command("restore")
@click.argument("file", type=_PATH)
@click.option("--yes", is_flag=True, help="Do not ask whether the database may be replaced.")
@_configured
def db_restore(config: Config, plugins_dir: Path | None, file: Path, yes: bool) -> None:
    """Replace the database by the copy in FILE. The API and all drivers have to be stopped before.

    What was accepted after the copy was made is not known any more; its jobs are left to the batch system.
    """
    from ebhpc.cli.backup import BackupError, restore

    if not yes:
        click.confirm("Replace the database, and forget what happened since the copy was made?", abort=True, err=True)
    try:
        restore(config, file)
    except BackupError as error:
        raise click.ClickException(str(error)) from error
    click.echo("database: restored; run 'ebhpc db upgrade' if this version is newer than the copy")


@click.group()
def account() -> None:
    """Add and change accounts."""


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
    from ebhpc.cli.auditing import note_command

    _refuse_old_schema(config)
    password = _password(password_file)
    store = open_store(config)
    try:
        added = add_account(store, username, password or _made_up(), admin=admin, now=time.time())
        if added:
            note_command(store, "add", "account", username, "an administrator" if admin else "")
    except AccountError as error:
        raise click.ClickException(str(error)) from error
    finally:
        store.close()
    if not added:
        raise click.ClickException(f"there is an account {username} already")


@account.command("list")
@_configured
def account_list(config: Config, plugins_dir: Path | None) -> None:
    """List the accounts: those of this broker, and those of issuers' users who have been here."""
    from ebhpc.store import list_identities

    store = open_store(config)
    for record in list_identities(store):
        marks = [word for word, holds in (("admin", record.admin), ("barred", record.barred is not None)) if holds]
        click.echo("\t".join([record.uuid, clean(record.username), ",".join(marks) or "-"]))
    store.close()


@account.command("password")
@click.argument("username")
@click.option("--password-file", type=_PATH, help="Read the password from a file's first line.")
@_configured
def account_password(config: Config, plugins_dir: Path | None, username: str, password_file: Path | None) -> None:
    """Give a local account another password. Without --password-file one is made up and shown once."""
    from ebhpc.api.accounts import AccountError, change_password
    from ebhpc.cli.auditing import note_command

    _refuse_old_schema(config)
    password = _password(password_file)
    store = open_store(config)
    try:
        if not change_password(store, username, password or _made_up()):
            raise click.ClickException(f"there is no local account {username}")
        note_command(store, "change-password", "account", username)
    except AccountError as error:
        raise click.ClickException(str(error)) from error
    finally:
        store.close()


@account.command("bar")
@click.argument("username")
@_configured
def account_bar(config: Config, plugins_dir: Path | None, username: str) -> None:
    """Bar an account from everything, whatever password or token it has; workers notice within five seconds.

    Its sessions go on: end them by 'ebhpc cancel'.
    """
    _set_barred(config, username, since=time.time())


@account.command("unbar")
@click.argument("username")
@_configured
def account_unbar(config: Config, plugins_dir: Path | None, username: str) -> None:
    """Bar an account no longer."""
    _set_barred(config, username, since=None)


def _set_barred(config: Config, username: str, since: float | None) -> None:
    from ebhpc.cli.auditing import note_command
    from ebhpc.store import find_identity, set_barred

    _refuse_old_schema(config)
    store = open_store(config)
    try:
        record = find_identity(store, username)
        if record is None:
            raise click.ClickException(f"there is no account {username}; 'ebhpc account list' shows all")
        set_barred(store, record.uuid, since)
        note_command(store, "bar" if since is not None else "unbar", "account", username)
    finally:
        store.close()


@click.command()
@click.option("--since", metavar="TIME", help="Only what happened since then: 2h ago, or 2030-01-31T12:00.")
@click.option("--until", metavar="TIME", help="Only what happened before then.")
@click.option("--user", "username", help="Only of this username.")
@click.option("--address", help="Only from this address.")
@click.option("--action", help="Only this action, as accept, cancel or sign-in.")
@click.option("--object", "object_", help="Only on this object, as a session's UUID.")
@click.option("--result", type=click.Choice(["done", "refused", "failed"]), help="Only with this result.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="The newest so many.")
@click.option("--follow", is_flag=True, help="Go on with those that come, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Write a JSON object a line.")
@_configured
def audit(
    config: Config,
    plugins_dir: Path | None,
    since: str | None,
    until: str | None,
    username: str | None,
    address: str | None,
    action: str | None,
    object_: str | None,
    result: str | None,
    limit: int,
    follow: bool,
    as_json: bool,
) -> None:
    """Show the audit trail: who did what, when, from where, and what came of it; oldest first."""
    from ebhpc.cli.auditing import instant_of, show_audit
    from ebhpc.store import AuditQuestion

    _refuse_old_schema(config)
    now = time.time()
    try:
        question = AuditQuestion(
            since=None if since is None else instant_of(since, now),
            until=None if until is None else instant_of(until, now),
            object=object_,
            username=username,
            address=address,
            action=action,
            result=result,
            most=limit,
        )
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    show_audit(config, question, as_json=as_json, follow=follow)


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
    store = open_store(config)
    try:
        check_schema(store)
    except SchemaError as error:
        raise click.ClickException(str(error)) from error
    finally:
        store.close()


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
