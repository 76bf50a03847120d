"""The plugins of these tests are those that they make: what else is installed in this environment is not seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from ebhpc.plugins import loading


@pytest.fixture(autouse=True)
def _nothing_else_is_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    everything = loading.entry_points

    def made_here(*, group: str) -> list[object]:
        found = everything(group=group)
        return [one for one in found if one.dist is not None and str(tmp_path) in str(one.dist.locate_file(""))]

    monkeypatch.setattr(loading, "entry_points", made_here)
