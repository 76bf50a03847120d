"""What a test needs of the machine: skipped where it is missing, failed where CI says that it must be there."""

from __future__ import annotations

import os

import pytest


def require(condition: object, reason: str) -> None:
    """Skip the test with ``reason`` unless ``condition`` holds; with EBHPC_LAB=required fail it."""
    if condition:
        return
    if os.environ.get("EBHPC_LAB") == "required":
        pytest.fail(f"EBHPC_LAB=required, but {reason}")
    pytest.skip(reason)
