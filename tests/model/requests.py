"""A request as plain data, with something of everything, for tests to break."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any
from uuid import UUID

from ebhpc.model import kinds
from ebhpc.model.documents import ExecutionRequest
from ebhpc.model.reading import Reading, read_request
from ebhpc.model.registry import Kinds

NOW = 1_900_000_000
"""2030-03-17T17:46:40Z"""

KINDS = Kinds()


def full_request() -> dict[str, Any]:
    """A container with data, scratch space, ports and constraints; it can run."""
    return {
        "executable": {
            "kind": kinds.DOCKER_CONTAINER,
            "meta": {"name": "fit", "description": "Fits a model."},
            "image": {
                "locations": ["ghcr.io/ivoa/oligia-webtop:ubuntu-2022.01.13"],
                "digest": "sha256:" + "a1" * 32,
            },
            "command": ["python", "/work/fit.py", "--input", "/data/in.fits"],
            "environment": {"THREADS": "4", "MODE": "fast"},
            "network": {"ports": [{"access": True, "internal": {"port": 8080}, "protocol": "http", "path": "/"}]},
        },
        "compute": {
            "kind": kinds.SIMPLE_COMPUTE,
            "meta": {"name": "box"},
            "cores": {"min": 2, "max": 8},
            "memory": {"min": 4, "max": 16},
            "volumes": [
                {"kind": kinds.SIMPLE_VOLUME, "path": "/data", "resource": "in"},
                {"kind": kinds.SIMPLE_VOLUME, "path": "/work", "resource": "scratch"},
            ],
        },
        "storage": [{"kind": kinds.SIMPLE_STORAGE, "meta": {"name": "scratch"}, "size": {"min": 10}}],
        "data": [
            {
                "kind": kinds.SIMPLE_DATA,
                "meta": {"name": "in"},
                "location": "https://example.org/in.fits",
            }
        ],
        "schedule": {"requested": {"duration": "PT4H", "start": "2030-03-18T00:00:00Z/P1D"}},
        "costs": [{"kind": kinds.SIMPLE_COST, "type": kinds.MONETARY, "max": 10.5}],
        "metrics": [{"kind": kinds.SIMPLE_METRIC, "type": kinds.COMPUTE_PERFORMANCE, "min": 0.5}],
    }


def uuids() -> Callable[[], str]:
    """A source of UUIDs that counts."""
    count = itertools.count(1)
    return lambda: str(UUID(int=next(count)))


def document(raw: object) -> ExecutionRequest:
    """The document of plain data that has no type errors."""
    decoded = KINDS.request(raw)
    assert decoded.document is not None, [str(problem) for problem in decoded.problems]
    return decoded.document


def reading(raw: object) -> Reading:
    """What becomes of a request without type errors."""
    return read_request(document(raw), now=NOW, new_uuid=uuids())


def found(raw: object) -> list[tuple[str | None, str]]:
    """The kind and path of each problem that reading finds."""
    return [(problem.kind, (problem.values or {})["path"]) for problem in reading(raw).problems]
