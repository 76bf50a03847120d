"""``ebhpc check`` and ``ebhpc plugins``."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table
from sqlalchemy.exc import SQLAlchemyError

from ebhpc.cli.assembly import SchemaError, load_site_plugins, open_site
from ebhpc.config import Config
from ebhpc.model import Finding
from ebhpc.plugins import Platform, PlatformUnavailable, added_kinds, build_platforms, describe_plugins
from ebhpc.store import Store, list_drivers

_COLOURS = {"ERROR": "bold red", "WARN": "yellow", "INFO": "green"}


def check_all(config: Config, plugins_dir: Path | None) -> list[Finding]:
    """Look at the database, the drivers and every platform.

    Raises:
        ebhpc.config.SettingsError: the configuration cannot be used.
    """
    try:
        site = open_site(config, plugins_dir)
    except SchemaError as error:
        return [Finding(level="ERROR", subject="database", text=str(error), advice="ebhpc db upgrade")]
    except SQLAlchemyError as error:
        return [
            Finding(
                level="ERROR",
                subject="database",
                text=f"cannot be opened: {error.__class__.__name__}: {str(error).splitlines()[0]}",
                advice="look at database.url and database.password_file",
            )
        ]
    try:
        findings = [Finding(level="INFO", subject="database", text="reached, at the revision needed")]
        findings += _drivers(config, site.store)
        findings += site.plugins.findings
        findings += site.platforms.findings
        for platform in site.platforms.values():
            if platform.fault is None:
                findings += _platform(platform)
    finally:
        site.close()
    return findings


def _drivers(config: Config, store: Store) -> list[Finding]:
    drivers = list_drivers(store)
    if not drivers:
        return [
            Finding(
                level="WARN",
                subject="driver",
                text="none is running: nothing is offered, accepted sessions wait",
                advice="ebhpc drive, or ebhpc serve",
            )
        ]
    now = time.time()
    return [
        Finding(
            level="INFO" if now - driver.heartbeat <= config.driver.lease else "WARN",
            subject=f"driver {driver.name}",
            text=f"pid {driver.pid} on {driver.host}, last sign of life {now - driver.heartbeat:.0f} s ago",
        )
        for driver in drivers
    ]


def _platform(platform: Platform) -> list[Finding]:
    if not platform.implements("ebhpc_check"):
        return [
            Finding(
                level="WARN",
                subject=platform.name,
                text="its plugin has no check (ebhpc_check); not looked at",
            )
        ]
    try:
        return list(platform.call("ebhpc_check"))
    except PlatformUnavailable as error:
        return [Finding(level="ERROR", subject=platform.name, text=str(error))]


def show(findings: Sequence[Finding], *, as_json: bool) -> None:
    """Write findings to standard output."""
    if as_json:
        sys.stdout.write(msgspec.json.encode(findings).decode() + "\n")
        return
    table = Table("", "what", "how it is", "what to do", box=None, pad_edge=False)
    for finding in findings:
        colour = _COLOURS.get(finding.level, "")
        table.add_row(
            f"[{colour}]{finding.level}[/]" if colour else finding.level,
            finding.subject,
            finding.text,
            finding.advice,
        )
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def list_plugins(config: Config, plugins_dir: Path | None, *, as_json: bool) -> int:
    """List the plugins to standard output; return the exit code: 1 where one was left out."""
    manager = load_site_plugins(plugins_dir)
    platforms = build_platforms(manager, config)
    kinds = added_kinds(manager)
    described = describe_plugins(manager)
    findings = [*manager.findings, *platforms.findings]
    platforms.close()
    if as_json:
        document = {
            "plugins": described,
            "kinds": [msgspec.inspect.type_info(kind).tag for kind in kinds],  # type: ignore[attr-defined]
            "findings": findings,
        }
        sys.stdout.write(msgspec.json.encode(document).decode() + "\n")
        return 1 if findings else 0
    for plugin in described:
        version = f" {plugin.version}" if plugin.version else ""
        click.echo(f"{plugin.name}{version} ({plugin.origin})")
        for hook in plugin.hooks:
            click.echo(f"    {hook}")
        if plugin.platforms:
            click.echo(f"    platforms: {', '.join(plugin.platforms)}")
    if findings:
        show(findings, as_json=False)
    return 1 if findings else 0
