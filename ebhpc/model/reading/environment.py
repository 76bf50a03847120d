"""Environment variables in a request."""

from __future__ import annotations

import re

from ebhpc.model.reading.findings import Findings
from ebhpc.model.structure import pointer

_VARIABLE = re.compile(r"[^=\x00-\x20\x7f]+")


def check_environment(environment: dict[str, str], findings: Findings) -> None:
    """Report names that no variable can have, and values that are too long."""
    path = "/executable/environment"
    if not findings.few(environment, path):
        return
    for name, value in environment.items():
        if len(name) > findings.limits.text or not _VARIABLE.fullmatch(name):
            findings.invalid(path, name, "names without =, spaces and control characters, not empty")
        else:
            findings.text(value, pointer(path, name))
