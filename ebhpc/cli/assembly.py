"""A broker's parts, put together from its configuration."""

from __future__ import annotations

import logging
from pathlib import Path

from msgspec import Struct

import ebhpc.local
from ebhpc import __version__, tracing
from ebhpc.config import Config
from ebhpc.model.registry import Kinds
from ebhpc.plugins import (
    Platforms,
    PluginManager,
    Policies,
    added_kinds,
    build_platforms,
    load_plugins,
)
from ebhpc.store import Store, compare_schema, current_revision, ensure_platforms, newest_revision

log = logging.getLogger("ebhpc.cli")


class SchemaError(Exception):
    """The database is not at the revision that this version needs."""


class Site(Struct, kw_only=True):
    """What one process of a broker works with."""

    config: Config
    store: Store
    plugins: PluginManager
    platforms: Platforms
    kinds: Kinds
    policies: Policies

    def close(self) -> None:
        """Give back threads and connections."""
        self.platforms.close()
        self.store.close()


def load_site_plugins(plugins_dir: Path | None) -> PluginManager:
    """Load the built-in, the installed and the directory's plugins."""
    return load_plugins(plugins_dir, builtin=(ebhpc.local,))


def open_store(config: Config) -> Store:
    """Open the database without looking at its schema."""
    assert config.database.url is not None
    return Store(str(config.database.url), pool=config.api.threads)


def check_schema(store: Store) -> None:
    """Let a database pass that this version can work with; one of a newer version with a warning.

    Raises:
        SchemaError: it must be upgraded first.
    """
    present, needed = current_revision(store), newest_revision()
    match compare_schema(present):
        case "older":
            raise SchemaError(
                f"the database is at revision {present or 'none'}, this version of ebhpc needs {needed}:"
                " run 'ebhpc db upgrade'"
            )
        case "newer":
            log.warning(
                "the database is at revision %s, of a newer version of ebhpc than this: update this one soon", present
            )


def start_tracing(config: Config, part: str, instance: str) -> None:
    """Send spans from now on, where the settings say where to; ``part`` is ``api`` or ``driver``.

    Starts a thread: call it after a fork.

    Raises:
        NotInstalledError: what makes spans is not installed.
    """
    if config.tracing.endpoint is not None:
        tracing.start(
            config.tracing.endpoint,
            share=config.tracing.share,
            service=f"ebhpc-{part}",
            version=__version__,
            instance=instance,
        )


def open_site(config: Config, plugins_dir: Path | None) -> Site:
    """Open the database, load the plugins, build the platforms. Starts threads: call it after a fork.

    Raises:
        SettingsError: a platform cannot be built from its settings.
        SchemaError: the database must be upgraded first.
    """
    store = open_store(config)
    try:
        check_schema(store)
    except SchemaError:
        store.close()
        raise
    plugins = load_site_plugins(plugins_dir)
    platforms = build_platforms(plugins, config)
    ensure_platforms(store, platforms)
    return Site(
        config=config,
        store=store,
        plugins=plugins,
        platforms=platforms,
        kinds=Kinds(added_kinds(plugins)),
        policies=Policies(plugins),
    )
