"""How much a compute element asks for, in plain numbers; the ranges that say so."""

from __future__ import annotations

from msgspec import Struct, field

from ebhpc.model.elements import Compute, Range
from ebhpc.model.reading.findings import LARGEST, Findings


class Quantities(Struct, frozen=True, kw_only=True):
    """Nodes, and on each of them cores, memory (GiB) and devices by type; ``most_…`` None or absent: no upper bound."""

    nodes: int = 1
    cores: int = 1
    most_cores: int | None = 1
    memory: int = 1
    most_memory: int | None = 1
    devices: dict[str, int] = field(default_factory=dict)
    most_devices: dict[str, int] = field(default_factory=dict)
    features: tuple[str, ...] = ()
    licences: dict[str, int] = field(default_factory=dict)
    exclusive: bool = False
    partition: str | None = None


def at_least_one(compute: Compute, name: str, findings: Findings) -> tuple[int, int | None, Range]:
    """Return a property's least, its most (None: no upper bound) and the range filled in; one where it says nothing."""
    wanted = getattr(compute, name, None)
    if not isinstance(wanted, Range) or (wanted.min is None and wanted.max is None):
        return 1, 1, Range(min=1, max=1)
    read = read_range(wanted, f"/compute/{name}", findings)
    least = read.min or 1
    return least, read.max, Range(min=least, max=read.max)


def read_range(wanted: Range, path: str, findings: Findings) -> Range:
    """Return a range of counts or GiB; a maximum beyond LARGEST is lowered to it: no platform has more."""
    least, most = wanted.min, wanted.max
    for end, value in (("min", least), ("max", most)):
        if value is not None and value < 1:
            findings.invalid(f"{path}/{end}", value, "1 or more")
    if least is not None and least > LARGEST:
        findings.invalid(f"{path}/min", least, f"at most {LARGEST}")
    elif least is not None and most is not None and least > most >= 1:
        findings.invalid(f"{path}/min", least, f"at most {most}, which {path}/max says")
    return Range(min=least, max=None if most is None else min(most, LARGEST))
