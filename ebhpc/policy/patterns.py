"""How rules name images and kinds; how they name URLs stands in ``ebhpc.staging.sources``."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase


def image_matches(pattern: str, name: str) -> bool:
    """Whether an image's name, as ``quay.io/astro/tools``, is one that is meant."""
    return fnmatchcase(name, pattern)


def kind_matches(pattern: str, kind: str) -> bool:
    """Whether a kind ends with the words of a pattern, as ``docker-container``."""
    plain = kind.removesuffix(".yaml")
    return pattern == "*" or re.search(rf"(?:^|/){re.escape(pattern.removesuffix('.yaml'))}$", plain) is not None
