"""The database's schema: brought up to date by Alembic migrations."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from ebhpc.store.engine import Store

_MIGRATIONS = Path(__file__).with_name("migrations")
_UPGRADE_LOCK = 0x65626870  # any number that nobody else uses on this database


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    return config


@cache
def newest_revision() -> str:
    """The revision that this version of ebhpc needs."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head


@cache
def _known() -> frozenset[str]:
    """The revisions that this version knows."""
    return frozenset(script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions())


def current_revision(store: Store) -> str | None:
    """The revision that the database has; None: it is empty."""
    with store.read() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def compare_schema(present: str | None) -> Literal["older", "same", "newer"]:
    """Compare a database's revision with the one that this version needs.

    One that this version does not know was made by a newer version. It can be worked with all the same: a migration
    takes nothing away that the version before it uses, so that old and new processes run side by side for a while.
    """
    if present == newest_revision():
        return "same"
    return "older" if present is None or present in _known() else "newer"


def upgrade(store: Store) -> None:
    """Bring the database to the newest revision; processes that do so at the same time take turns.

    A database that a newer version has made stays as it is.
    """
    if compare_schema(current_revision(store)) == "newer":
        return
    config = _config()
    with store.write("upgrade") as connection:
        if not store.sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK})
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
