"""A real OpenID Connect provider for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import identity_provider
from tests.lab.identity_provider import Provider
from tests.labs import require


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    """A provider with two people: ada-1815, who is in groups, and bob-1."""
    lacking = identity_provider.missing()
    require(not lacking, "; ".join(lacking))
    folder: Path = tmp_path_factory.mktemp("provider")
    with identity_provider.provider(folder) as made:
        yield made
