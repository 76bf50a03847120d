"""The lab: real parts that the tests run against, prepared once and cached outside of the checkout.

``python -m tests.lab`` prepares them and says what is missing; ``python -m tests.lab --remove`` takes them away. They
lie in ``EBHPC_LAB_CACHE``, by default ``~/.cache/ebhpc-lab``.
"""

from __future__ import annotations

import os
from pathlib import Path


def cache() -> Path:
    """Return the directory that the lab is cached in."""
    return Path(os.environ.get("EBHPC_LAB_CACHE") or Path.home() / ".cache" / "ebhpc-lab")
