"""Names of container images.

Source of the form: the reference grammar of the OCI distribution project (registry/path:tag@digest).
"""

from __future__ import annotations

import re

from msgspec import Struct

_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?:(?P<registry>localhost(?::\d+)?|[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9-]+|:\d+)"
    rf"|\[[0-9a-fA-F:]+\](?::\d+)?)/)?"
    rf"(?P<path>{_PART}(?:/{_PART})*)(?::(?P<tag>[\w][\w.-]{{0,127}}))?(?:@(?P<digest>[^@\s]+))?"
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


class Reference(Struct, frozen=True, kw_only=True):
    """The name of an image: its registry, the path there; its tag says nothing once there is a digest."""

    registry: str
    path: str

    def by_digest(self, digest: str) -> str:
        """Return the name of the image with that digest."""
        return f"{self.registry}/{self.path}@{digest}"


def read_reference(location: str) -> Reference | None:
    """Read an image location; None if it is none. Without a registry, Docker's is meant, as Docker does."""
    if len(location) > 512:
        return None
    match = _REFERENCE.fullmatch(location.removeprefix("docker://"))
    if match is None:
        return None
    registry, path = match["registry"], match["path"]
    if registry in (None, "docker.io", "index.docker.io"):
        registry = "docker.io"
        path = path if "/" in path else f"library/{path}"
    return Reference(registry=registry, path=path)


def is_digest(text: str) -> bool:
    """Whether ``text`` is a digest that container engines verify."""
    return _DIGEST.fullmatch(text) is not None
