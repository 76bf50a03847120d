"""``ebhpc check`` and ``ebhpc plugins``."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table
from sqlalchemy.exc import SQLAlchemyError

from ebhpc.cli.assembly import SchemaError, load_site_plugins, open_site
from ebhpc.cli.checking_identity import check_identity
from ebhpc.config import Config
from ebhpc.model import Finding
from ebhpc.planning.queue import Accuracy, accuracy_of_starts
from ebhpc.plugins import Platform, PlatformUnavailable, added_kinds, build_platforms, describe_plugins
from ebhpc.store import ForecastRecord, Store, list_drivers, promised_starts, read_forecasts

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
        findings += check_identity(config)
        findings += site.plugins.findings
        findings += site.platforms.findings
        for platform in site.platforms.values():
            if platform.fault is None:
                findings += _platform(platform)
        findings += check_promises(site.store, site.platforms, time.time())
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


_SPAN = 30 * 86_400
_FEW = 50
"""With fewer starts than this nobody can say how good promises are."""

_LEAST_INSIDE = 0.7


def check_promises(store: Store, platforms: Mapping[str, Platform], now: float) -> list[Finding]:
    """Say how well starts were foreseen in each queue, and how well sessions' promises were kept of late."""
    with store.read() as tx:
        forecasts = read_forecasts(tx)
        promised = promised_starts(tx, since=now - _SPAN)
    findings = []
    for name, platform in platforms.items():
        record = forecasts.get(name)
        if record is not None:
            findings.append(_foreseen(name, record, now, stale=platform.config.stale))
        for firm, words in ((True, "firm starts of sessions"), (False, "expected starts of sessions")):
            starts = promised.get((name, firm))
            if starts:
                figures = accuracy_of_starts(starts)
                findings.append(_kept(name, words, figures, least=0.95 if firm else _LEAST_INSIDE))
    return findings


def _foreseen(name: str, record: ForecastRecord, now: float, *, stale: float) -> Finding:
    age = now - record.taken
    if age > max(stale, 10 * record.seconds):
        return Finding(
            level="WARN",
            subject=f"{name}: forecast of its queue",
            text=f"the newest is {age:.0f} s old",
            advice="look in the driver's log for why its queue is not forecast",
        )
    return _kept(name, "starts of the queue's jobs", record.accuracy, least=_LEAST_INSIDE)


def _kept(name: str, words: str, figures: Accuracy, *, least: float) -> Finding:
    if not figures.starts:
        return Finding(level="INFO", subject=f"{name}: {words}", text="none that had to wait was foreseen yet")
    text = (
        f"of the last {figures.starts}, {figures.inside:.0%} were inside their interval ({figures.early:.0%} before,"
        f" {figures.late:.0%} after); error {figures.mean_error:,.0f} s in the mean,"
        f" {figures.median_error:,.0f} s in the median"
    )
    if figures.planned_error is not None:
        text += f" (a plan on time limits: {figures.planned_error:,.0f} s in the mean)"
    few = figures.starts < _FEW
    bad = figures.inside < least and not few
    return Finding(
        level="WARN" if bad else "INFO",
        subject=f"{name}: {words}",
        text=text + ("; too few to judge" if few else ""),
        advice="fewer than promised: see the chapter on expected starts" if bad else "",
    )


CHECK_TIMEOUT = 60.0
"""Seconds that a platform has for its findings at least: it may try a job."""


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
        return list(platform.call("ebhpc_check", timeout=max(CHECK_TIMEOUT, platform.config.timeout)))
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
