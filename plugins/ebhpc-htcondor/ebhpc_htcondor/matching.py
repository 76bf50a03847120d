"""Which slots a waiting job can use: its Requirements, evaluated against each kind of slot."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import classad2  # type: ignore[import-untyped]

from ebhpc_htcondor.records import Group

_REFERENCE = re.compile(r"\b(?:TARGET\.)?([A-Za-z_][A-Za-z0-9_]*)\b(?!\s*\()")
_LOOSE = re.compile(r"(?<![\w.])([A-Za-z_][A-Za-z0-9_]*)\b(?!\s*\(|\.)")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_WORDS = frozenset({"true", "false", "undefined", "error", "is", "isnt", "my", "target", "parent"})

_AS_IF_EMPTY = {"Cpus": "TotalSlotCpus", "Memory": "TotalSlotMemory", "Disk": "TotalSlotDisk", "GPUs": "TotalSlotGPUs"}
"""What a slot has now, and what it has when it is empty: a job that waits may use it then."""

MOST = 200_000
"""The most evaluations at one look; kinds of jobs beyond that are taken to fit everywhere."""


def references(expression: str) -> frozenset[str]:
    """Return the names that an expression may take from a slot: all names in it, since one may stand without TARGET."""
    names = {name for name in _REFERENCE.findall(_STRING.sub('""', expression)) if name.lower() not in _WORDS}
    return frozenset(names) | {total for now, total in _AS_IF_EMPTY.items() if now in names}


Key = tuple[str, int]


def usable(
    jobs: Sequence[Key | None],
    kinds: Mapping[Key, classad2.ClassAd],
    slots: Sequence[tuple[str, classad2.ClassAd]],
) -> tuple[list[str], tuple[Group, ...]]:
    """Return for each job the group of slots that it can use, ``""`` for all, and the groups.

    ``jobs`` has the kind of each job (None: it does not wait), ``kinds`` a job of each, ``slots`` names and ads with
    all that the kinds' Requirements refer to.
    """
    alike: dict[frozenset[str], Classes] = {}
    names: dict[tuple[str, ...], str] = {}
    found: dict[Key, str] = {}
    spent = 0
    for kind, example in kinds.items():
        refs = references(str(example.lookup("Requirements")))
        if refs not in alike:
            alike[refs] = _classes(slots, sorted(refs))
        spent += len(alike[refs])
        if spent > MOST:
            break
        asks, loose = _copy(example)
        # A slot matches a job when it meets the job's Requirements; its own are not in the copy
        matched = tuple(name for slot, members in alike[refs] if _meets(slot, asks, loose) for name in members)
        if len(matched) < len(slots):
            found[kind] = names.setdefault(tuple(sorted(matched)), f"requirements-{len(names) + 1}")
    groups = tuple(Group(name=name, slots=members) for members, name in names.items())
    return [found.get(kind, "") if kind is not None else "" for kind in jobs], groups


Classes = list[tuple[classad2.ClassAd, list[str]]]
"""Kinds of slots: one of each, as if it were empty, and the names of all."""


def _classes(slots: Sequence[tuple[str, classad2.ClassAd]], refs: Sequence[str]) -> Classes:
    """Return the kinds of slots that some attributes tell apart."""
    found: dict[tuple[object, ...], Classes] = {}
    for name, ad in slots:
        has = _as_if_empty(ad, refs)
        key = tuple(has.items())
        if key not in found:
            found[key] = [(classad2.ClassAd(has), [])]
        found[key][0][1].append(name)
    return [one for group in found.values() for one in group]


def _copy(job: classad2.ClassAd) -> tuple[classad2.ClassAd, list[str]]:
    """Return a job, and the names in its Requirements that are nobody's: those that it has not, without TARGET."""
    text = _STRING.sub('""', str(job.lookup("Requirements")))
    names = {name for name in _LOOSE.findall(text) if name.lower() not in _WORDS}
    return classad2.ClassAd(str(job)), [name for name in names if name not in job]


def _meets(slot: classad2.ClassAd, asks: classad2.ClassAd, loose: Sequence[str]) -> bool:
    # The negotiator looks for names without TARGET in the job first and then in the slot; classad2 only in the job
    for name in loose:
        value = slot.get(name)
        asks[name] = classad2.Value.Undefined if value is None else value
    return bool(slot.matches(asks))


def _as_if_empty(ad: classad2.ClassAd, refs: Sequence[str]) -> dict[str, Any]:
    has: dict[str, Any] = {}
    for name in refs:
        value = ad.get(_AS_IF_EMPTY.get(name, name))
        if value is None:
            value = ad.get(name)
        if isinstance(value, classad2.ExprTree):
            value = ad.eval(name)
        if isinstance(value, str | int | float | bool):
            has[name] = value
    return has


def has(slot: classad2.ClassAd, expression: classad2.ExprTree) -> bool:
    """Whether an expression, with or without TARGET, is true of a slot."""
    try:
        return expression.eval(_NOBODY, slot) is True
    except Exception:  # noqa: BLE001  # the bindings raise many kinds; all say that it is not true
        return False


_NOBODY = classad2.ClassAd()
