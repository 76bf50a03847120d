"""The documentation names every setting that there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from ebhpc import batch
from ebhpc.config import read_settings, setting_fields

PAGE = Path(__file__).parents[2] / "docs" / "plugin-authors" / "batch.md"


@pytest.mark.parametrize("block", [batch.JobSettings, batch.ContainerRuntime])
def test_every_setting_has_a_row(block: type) -> None:
    rows = PAGE.read_text(encoding="utf-8")
    missing = [name for name in block.__struct_fields__ if f"| `{name}` |" not in rows]
    assert missing == []
    assert setting_fields(block)


def test_every_public_name_is_used_or_told() -> None:
    page = PAGE.read_text(encoding="utf-8") + (batch.__doc__ or "")
    told = {name for name in batch.__all__ if name in page}
    assert {"prepare", "job_script", "carried_script", "observation", "probe_script", "abilities"} <= told


def test_settings_are_read_from_yaml_data() -> None:
    block = {
        "root": "/shared/ebhpc",
        "access": "group",
        "grace": "5s",
        "runtime": {
            "kind": "oci",
            "oci_command": ["srun", "--container={bundle}", "{command}"],
            "device_options": {"gpu": ["--nv"]},
        },
    }
    made = read_settings(batch.JobSettings, block)
    assert made.grace == 5.0
    assert made.margin == 35.0
    assert made.runtime.oci_command == ("srun", "--container={bundle}", "{command}")
    assert batch.ContainerRuntime().oci_command[0] == "runc"
