"""The files of settings, the environment and the command line to one Config."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from ebhpc.config.documents import read_document
from ebhpc.config.problems import SettingsError, SettingsProblem, Source
from ebhpc.config.reading import read_settings
from ebhpc.config.settings import Config, PlatformConfig
from ebhpc.config.values import DatabaseUrl, Seconds

EMBEDDED_PLATFORM = PlatformConfig(
    name="local", kind="local", lead=Seconds(5), settings={"private_networks": ["127.0.0.0/8", "::1/128"]}
)
"""The platform there is when there is no file of settings: this host. Its users are on it themselves, so that its own
addresses are no secret to them."""


def load_config(
    path: Path | None = None,
    *,
    overrides: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Config:
    """Read ``path`` and the platforms beside it; None: the embedded default, for one machine.

    ``overrides`` are settings from the command line by dotted key, as ``{"api.bind": "127.0.0.1:9000"}``,
    in the form that they have in a file; they go before ``environ`` (EBHPC_DATABASE_URL, EBHPC_STATE; None:
    the process's own), and that before the files. Makes no directory and opens no database.

    Raises:
        SettingsError: with every problem in all of the files.
    """
    environment = os.environ if environ is None else environ
    problems: list[SettingsProblem] = []
    data: dict[str, Any] = {}
    source = Source(file="built-in settings")
    if path is not None:
        try:
            data, source = read_document(path)
        except SettingsError as error:
            problems += error.problems
    config = Config()
    try:
        config = read_settings(Config, data, "", base=None if path is None else path.parent)
    except SettingsError as error:
        problems += source.locate(error.problems)

    platforms = _platforms(config, path, source, problems)
    config = replace(config, platforms=platforms)
    for place, key, value in _overriding(environment, overrides or {}):
        try:
            config = _with(config, key, value)
        except SettingsError as error:
            problems += [replace(problem, file=place) for problem in error.problems]

    state = (config.state or _state_directory(environment)).absolute()
    try:
        url = _database_url(config, state)
    except ValueError as error:
        problems.append(source.problem(("database", "password_file"), str(error)))
    if problems:
        raise SettingsError(*problems)
    return replace(config, state=state, database=replace(config.database, url=url))


def _platforms(
    config: Config, path: Path | None, source: Source, problems: list[SettingsProblem]
) -> tuple[PlatformConfig, ...]:
    """Return all platforms with their sources; what is wrong goes to ``problems``."""
    if path is None:
        return (EMBEDDED_PLATFORM,)
    found = [replace(platform, source=source.below(("platforms", at))) for at, platform in enumerate(config.platforms)]
    folder = config.platforms_dir or path.parent / "platforms.d"
    if config.platforms_dir is not None and not folder.is_dir():
        problems.append(source.problem(("platforms_dir",), f"there is no directory {folder}"))
    for file in sorted(folder.glob("*.yaml")) + sorted(folder.glob("*.yml")):
        try:
            found.append(_platform(file))
        except SettingsError as error:
            problems += error.problems
    first: dict[str, Source] = {}
    for platform in found:
        where = platform.source or source
        other = first.setdefault(platform.name, where)
        if other is not where:
            place = f"{other.file}:{other.line(())}"
            problems.append(where.problem(("name",), f"there is a platform {platform.name} already: {place}"))
    return tuple(found)


def _platform(file: Path) -> PlatformConfig:
    """Read one file of ``platforms_dir``; a platform is named like its file."""
    data, source = read_document(file)
    if data.setdefault("name", file.stem) != file.stem:
        raise SettingsError(source.problem(("name",), f"expected {file.stem}, as the file is named"))
    try:
        return replace(read_settings(PlatformConfig, data, "", base=file.parent), source=source)
    except SettingsError as error:
        raise SettingsError(*source.locate(error.problems)) from None


def _overriding(environ: Mapping[str, str], overrides: Mapping[str, object]) -> list[tuple[str, str, object]]:
    """List the source, dotted key and value of each override, the strongest last."""
    variables = {"EBHPC_STATE": "state", "EBHPC_DATABASE_URL": "database.url"}
    return [
        *((f"environment {name}", key, environ[name]) for name, key in variables.items() if environ.get(name)),
        *(("command line", key, value) for key, value in overrides.items()),
    ]


def _with(config: Config, key: str, value: object) -> Config:
    """Return the configuration with one setting changed, checked as if it stood in a file."""
    section, _, name = key.rpartition(".")
    if not section:
        changed = read_settings(Config, {name: value}, "")
        return replace(config, **{name: getattr(changed, name)})
    changed = read_settings(Config, {section: {name: value}}, "")
    part = replace(getattr(config, section), **{name: getattr(getattr(changed, section), name)})
    return replace(config, **{section: part})


def _state_directory(environ: Mapping[str, str]) -> Path:
    if given := environ.get("STATE_DIRECTORY"):
        return Path(given.split(":")[0])  # systemd.exec(5): several are separated by colons
    if (given := environ.get("XDG_STATE_HOME")) and Path(given).is_absolute():
        return Path(given) / "ebhpc"
    home = environ.get("HOME")
    return (Path(home) if home else Path.home()) / ".local" / "state" / "ebhpc"


def _database_url(config: Config, state: Path) -> DatabaseUrl:
    database = config.database
    url = database.url or DatabaseUrl(f"sqlite:///{state / 'ebhpc.sqlite3'}")
    if database.password_file is None:
        return url
    try:
        text = database.password_file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot be read: {error}") from None
    password = text.partition("\n")[0].rstrip("\r")
    if not password:
        raise ValueError(f"{database.password_file} is empty")
    return url.with_password(password)
