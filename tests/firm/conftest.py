"""A broker with rules for firm time; a driver whose clock the test turns.

Most of this is the same on both engines, so it is looked at on SQLite alone; what is not is in ``test_on_postgresql``.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.api.conftest import make_site, site
from tests.driver.conftest import world

__all__ = ["make_site", "site", "world"]


@pytest.fixture
def ready_database_url(sqlite_template: Path, tmp_path: Path) -> str:
    """A SQLite database with the newest schema."""
    path = tmp_path / "ready.sqlite3"
    shutil.copyfile(sqlite_template, path)
    return f"sqlite:///{path}"
