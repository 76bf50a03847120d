"""The small notations of Slurm's answers: host lists, durations, trackable resources, generic resources."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

MOST_HOSTS = 1_000_000
"""A host list that names more is taken for nonsense."""

_RANGE = re.compile(r"(\d+)(?:-(\d+))?")
_LIMIT = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)([KMGTP]?)")
_MEBI = {"K": 1 / 1024, "": 1.0, "M": 1.0, "G": 1024.0, "T": 1024.0**2, "P": 1024.0**3}
_COUNTS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4, "P": 1024**5}


def hosts(text: str) -> tuple[str, ...]:
    """Return the names of a host list: ``n[1-3,07],g1`` are n1, n2, n3, n07, g1.

    Raises:
        ValueError: brackets that do not fit, or more than a million names.
    """
    found: list[str] = []
    for part in _parts(text):
        found += _expanded(part, MOST_HOSTS - len(found))
    return tuple(found)


def _parts(text: str) -> Iterator[str]:
    """Split at the commas outside of brackets."""
    depth, begin = 0, 0
    for at, letter in enumerate(text):
        if letter == "[":
            depth += 1
        elif letter == "]":
            depth -= 1
        elif letter == "," and not depth:
            yield text[begin:at]
            begin = at + 1
        if depth not in (0, 1):
            raise ValueError(f"no host list: {text[:100]!r}")
    if depth:
        raise ValueError(f"no host list: {text[:100]!r}")
    if text[begin:]:
        yield text[begin:]


def _expanded(part: str, most: int) -> list[str]:
    before, bracket, rest = part.partition("[")
    if not bracket:
        names = [part]
    else:
        inside, _, after = rest.partition("]")
        ends = _expanded(after, most) if after else [""]
        names = [f"{before}{number}{end}" for number in _numbers(inside, most) for end in ends]
    if len(names) > most:
        raise ValueError(f"a host list of more than {MOST_HOSTS} names")
    return names


def _numbers(ranges: str, most: int) -> Iterator[str]:
    for one in ranges.split(","):
        match = _RANGE.fullmatch(one)
        if match is None:
            raise ValueError(f"no range of a host list: {one[:100]!r}")
        first, last = match[1], match[2] or match[1]
        if int(last) - int(first) >= most:
            raise ValueError(f"a host list of more than {MOST_HOSTS} names")
        for number in range(int(first), int(last) + 1):
            yield str(number).zfill(len(first))


def task_count(text: str) -> tuple[int, int | None]:
    """Return how many tasks an array's ``3-5,9%2`` names, and how many of them may run at once (None: all).

    Raises:
        ValueError: it is none.
    """
    tasks, percent, most = text.strip("[]").partition("%")
    count = 0
    for one in tasks.split(","):
        ends, _, step = one.partition(":")
        first, dash, last = ends.partition("-")
        count += (int(last) - int(first)) // int(step or 1) + 1 if dash else 1
    return count, int(most) if percent else None


def seconds(limit: str) -> int | None:
    """Return a time limit, ``2-00:00:00`` or ``10:00``, in seconds; None: unlimited, or not told.

    Raises:
        ValueError: it is none.
    """
    if limit in ("UNLIMITED", "INVALID", "NOT_SET", "Partition_Limit", "N/A", ""):
        return None
    match = _LIMIT.fullmatch(limit)
    if match is None:
        raise ValueError(f"no time limit: {limit[:100]!r}")
    days, first, second, third = match.groups()
    if days is not None:  # days-hours[:minutes[:seconds]]
        parts = (int(first), int(second or 0), int(third or 0))
    elif third is not None:
        parts = (int(first), int(second), int(third))
    else:  # minutes:seconds
        parts = (0, int(first), int(second or 0))
    return int(days or 0) * 86400 + parts[0] * 3600 + parts[1] * 60 + parts[2]


def instant(time: str) -> int | None:
    """Return a time of an answer that was asked for in POSIX seconds; None where Slurm knows none."""
    return int(time) if time.isdecimal() and int(time) else None


def resources(text: str) -> dict[str, int]:
    """Return trackable resources, ``cpu=4,mem=2000M,gres/gpu:a100=1``, by name; memory in MiB.

    What is no amount is left out.
    """
    found = {}
    for one in text.split(","):
        name, equals, amount = one.partition("=")
        match = _AMOUNT.fullmatch(amount)
        if not equals or match is None:
            continue
        if name == "mem":
            found[name] = int(float(match[1]) * _MEBI[match[2]])
        else:
            found[name] = int(float(match[1]) * _COUNTS[match[2]])
    return found


def devices(tres: Mapping[str, int]) -> dict[str, int]:
    """Return the generic resources among trackable ones: ``gpu`` counts all, ``gpu:a100`` those of that model."""
    found = {name.removeprefix("gres/"): count for name, count in tres.items() if name.startswith("gres/") and count}
    for name, count in list(found.items()):
        if ":" in name:  # a cluster may count only the models
            kind = name.partition(":")[0]
            same = sum(other for key, other in found.items() if key.startswith(f"{kind}:"))
            found[kind] = max(found.get(kind, 0), count, same)
    return found


def generic(gres: str) -> dict[str, int]:
    """Return a node's generic resources, ``gpu:a100:4(S:0-1),gpu:t4:2``, as devices by kind and by model."""
    found: dict[str, int] = {}
    for one in re.sub(r"\([^)]*\)", "", gres).split(","):
        words = [word for word in one.split(":") if word != "no_consume"]
        match = _AMOUNT.fullmatch(words[-1])
        if not words[0] or len(words) > 3:
            continue
        if match is None:  # a resource without a count is one
            kind, model, count = words[0], ":".join(words[1:]), 1
        else:
            kind, model = words[0], ":".join(words[1:-1])
            count = int(float(match[1]) * _COUNTS[match[2]])
        if not count or (match is not None and len(words) == 1):
            continue
        found[kind] = found.get(kind, 0) + count
        if model:
            found[f"{kind}:{model}"] = found.get(f"{kind}:{model}", 0) + count
    return found


def licences(text: str) -> dict[str, int]:
    """Return licences, ``matlab:4,ansys@server:1``, by name."""
    found: dict[str, int] = {}
    for one in re.split(r"[,;|]", text):
        if not one or one in ("N/A", "(null)"):
            continue
        name, colon, count = one.replace("=", ":").rpartition(":")
        if not colon:
            name, count = one, "1"
        if count.isdecimal() and int(count):
            found[name] = found.get(name, 0) + int(count)
    return found


def tres_text(*, cpus: int, devices: Mapping[str, int] | None = None, licences: Mapping[str, int] | None = None) -> str:
    """Return trackable resources as Slurm is asked for them; of devices the models first, the rest untyped."""
    words = [f"cpu={cpus}"] if cpus else []
    words += [f"gres/{name}={count}" for name, count in sorted(split(devices or {}).items())]
    words += [f"license/{name}={count}" for name, count in sorted((licences or {}).items()) if count]
    return ",".join(words)


def split(devices: Mapping[str, int]) -> dict[str, int]:
    """Return devices so that each is named once: ``{gpu: 3, gpu:a100: 2}`` are two a100 and one of any model."""
    devices = {name: count for name, count in devices.items() if name != "scratch"}  # no generic resource
    typed = {name: count for name, count in devices.items() if ":" in name and count}
    plain = {}
    for name, count in devices.items():
        if ":" not in name:
            left = count - sum(other for key, other in typed.items() if key.startswith(f"{name}:"))
            if left > 0:
                plain[name] = left
    return {**plain, **typed}


def joined(names: Iterable[str]) -> str:
    """Return names as a host list."""
    return ",".join(names)
