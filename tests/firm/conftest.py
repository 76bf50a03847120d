"""A broker with rules for firm time; a driver whose clock the test turns."""

from __future__ import annotations

from tests.api.conftest import make_site, site
from tests.driver.conftest import world

__all__ = ["make_site", "site", "world"]
