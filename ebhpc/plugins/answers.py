"""What a hook may answer: each answer is checked against the hook's contract before the core sees it."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

import msgspec

from ebhpc.model import (
    PROMISES,
    Allocation,
    CostItem,
    Finding,
    Message,
    MetricItem,
    Observation,
    Output,
    Policy,
    Prepared,
    Promise,
    Quote,
    Request,
    Window,
)
from ebhpc.planning import Snapshot, SnapshotUnreadableError, decode_snapshot, encode_snapshot

T = TypeVar("T", bound=msgspec.Struct)
Arguments = Mapping[str, Any]

MOST_ITEMS = 100_000
"""An iterable answer that is longer is taken for one without end."""

MOST_LETTERS = 255
"""The longest native identifier."""


class NonsenseError(Exception):
    """An answer that the hook's contract does not allow."""


def check_answer(hook: str, answer: object, arguments: Arguments, platform: str) -> Any:
    """Return the answer of ``hook``, its iterables consumed: sequences as tuples.

    Raises:
        NonsenseError: the contract does not allow it; says why.
    """
    check = _CHECKS.get(hook)
    return answer if check is None else check(answer, arguments, platform)


def _struct(wanted: type[T], value: object) -> T:
    """Return a copy of a Struct, the type of each of its fields checked: its constructor checks none."""
    if not isinstance(value, wanted):
        raise NonsenseError(f"expected {_article(wanted)}, got {_shown(value)}")
    try:
        return msgspec.convert(msgspec.to_builtins(value), wanted)
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        raise NonsenseError(f"{_article(wanted)} with a wrong field: {error}") from None


def _structs(wanted: type[T], value: object) -> tuple[T, ...]:
    if value is None or isinstance(value, (str, bytes, Mapping, msgspec.Struct)):
        raise NonsenseError(f"expected an iterable of {wanted.__name__}, got {_shown(value)}")
    if not isinstance(value, Iterable):
        raise NonsenseError(f"expected an iterable of {wanted.__name__}, got {_shown(value)}")
    items = tuple(_struct(wanted, item) for item in islice(value, MOST_ITEMS + 1))
    if len(items) > MOST_ITEMS:
        raise NonsenseError(f"more than {MOST_ITEMS} of {wanted.__name__}")
    return items


def _article(wanted: type) -> str:
    return f"{'an' if wanted.__name__[0] in 'AEIOU' else 'a'} {wanted.__name__}"


def _shown(value: object) -> str:
    text = f"{type(value).__name__} {value!r}" if value is not None else "None"
    return text if len(text) <= 120 else text[:117] + "…"


def _nothing(answer: object, arguments: Arguments, platform: str) -> None:
    if answer is not None:
        raise NonsenseError(f"expected None, got {_shown(answer)}")


def _promises(answer: object, arguments: Arguments, platform: str) -> tuple[Promise, ...]:
    if isinstance(answer, (str, bytes)) or not isinstance(answer, Iterable):
        raise NonsenseError(f"expected a sequence of promises, got {_shown(answer)}")
    promises = tuple(islice(answer, len(PROMISES) + 1))
    if not promises or len(set(promises)) < len(promises) or not set(promises) <= set(PROMISES):
        raise NonsenseError(f"expected some of {', '.join(PROMISES)}, each once, got {_shown(answer)}")
    return promises


def _findings(answer: object, arguments: Arguments, platform: str) -> tuple[Finding, ...]:
    return _structs(Finding, answer)


def _refusals(answer: object, arguments: Arguments, platform: str) -> tuple[Message, ...]:
    return _structs(Message, answer)


def _policy(answer: object, arguments: Arguments, platform: str) -> Policy | None:
    if answer is None:
        return None
    policy = _struct(Policy, answer)
    limits = policy.limits
    for name in ("cores", "memory", "duration", "horizon"):
        value = getattr(limits, name)
        if value is not None and value < 0:
            raise NonsenseError(f"the limit {name} is negative: {value}")
    if any(count < 0 for count in limits.devices.values()):
        raise NonsenseError(f"a limit of devices is negative: {limits.devices}")
    return policy


def _check_share(share: Allocation) -> None:
    if share.cores < 0 or share.memory < 0 or any(count < 0 for count in share.devices.values()):
        raise NonsenseError(f"a negative quantity on node {share.node}")


def _check_something(share: Allocation) -> None:
    if not (share.cores or share.memory or any(share.devices.values())):
        raise NonsenseError(f"an allocation of nothing on node {share.node}")


def _windows(answer: object, arguments: Arguments, platform: str) -> tuple[Window, ...]:
    if not isinstance(answer, Sequence):
        raise NonsenseError(f"expected a sequence of Window, got {_shown(answer)}")
    windows = _structs(Window, answer)
    request: Request = arguments["request"]
    demand = request.demand
    if len(windows) > arguments["limit"]:
        raise NonsenseError(f"{len(windows)} windows where {arguments['limit']} were asked for")
    for window in windows:
        if window.duration < demand.duration:
            raise NonsenseError(f"a window of {window.duration} s where {demand.duration} s were asked for")
        if not max(arguments["now"], demand.earliest) <= window.start <= window.latest <= demand.latest:
            raise NonsenseError(
                f"a window that starts in [{window.start}, {window.latest}], outside of"
                f" [{demand.earliest}, {demand.latest}], or before now"
            )
        if window.end < window.latest + window.duration:
            raise NonsenseError(f"a window that ends at {window.end}, before its latest start plus its duration")
        if not window.allocations:
            raise NonsenseError("a window without allocations")
        for share in window.allocations:
            _check_share(share)
            _check_something(share)
        if window.confidence is not None and not 0 <= window.confidence <= 1:
            raise NonsenseError(f"a window with confidence {window.confidence}; expected 0 to 1")
    return windows


def _quote(answer: object, arguments: Arguments, platform: str) -> Quote:
    if not isinstance(answer, Quote):
        raise NonsenseError(f"expected a Quote, got {_shown(answer)}")
    for items, wanted in ((answer.costs, CostItem), (answer.metrics, MetricItem)):
        if not isinstance(items, tuple):
            raise NonsenseError(f"expected a tuple of {wanted.__name__}, got {_shown(items)}")
        for item in items:
            checked = _struct(wanted, item) if type(item) is wanted else item
            if not isinstance(checked, wanted):
                raise NonsenseError(f"expected {_article(wanted)}, got {_shown(item)}")
            try:
                msgspec.convert(msgspec.to_builtins(item), type(item))
            except (TypeError, ValueError, msgspec.MsgspecError) as error:
                raise NonsenseError(f"{_article(type(item))} with a wrong field: {error}") from None
            if not item.type:
                raise NonsenseError(f"{_article(type(item))} without a type")
            low, high = getattr(item, "min", None), getattr(item, "max", None)
            for bound in (low, high):
                if isinstance(bound, float) and not math.isfinite(bound):
                    raise NonsenseError(f"{item.type} of {bound}")
            if low is not None and high is not None and low > high:
                raise NonsenseError(f"{item.type} from {low} to {high}")
    return answer


def _snapshot_copied(answer: object) -> Snapshot:
    """Return a copy of a snapshot, the types of its fields checked; in portions, for it may be large."""
    if not isinstance(answer, Snapshot):
        raise NonsenseError(f"expected a Snapshot, got {_shown(answer)}")
    try:
        return decode_snapshot(encode_snapshot(answer))
    except (SnapshotUnreadableError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise NonsenseError(f"a Snapshot with a wrong field: {error}") from None


def _snapshot(answer: object, arguments: Arguments, platform: str) -> Snapshot:
    snapshot = _snapshot_copied(answer)
    if snapshot.platform != platform:
        raise NonsenseError(f"a snapshot of the platform {snapshot.platform!r}, expected {platform!r}")
    if snapshot.taken < 0:
        raise NonsenseError(f"a snapshot taken at {snapshot.taken}")
    names = set()
    for node in snapshot.nodes:
        if node.name in names:
            raise NonsenseError(f"two nodes named {node.name}")
        names.add(node.name)
        if not node.name or node.cores <= 0 or node.memory <= 0:
            raise NonsenseError(f"node {node.name!r} with {node.cores} cores and {node.memory} MiB")
        if any(count <= 0 for count in node.devices.values()):
            raise NonsenseError(f"node {node.name} with devices {node.devices}")
    for job in snapshot.running:
        for share in job.allocations:
            _check_share(share)
    for reservation in snapshot.reservations:
        if reservation.end < reservation.start:
            raise NonsenseError(f"reservation {reservation.name} ends before it starts")
    return snapshot


def _native(answer: object, arguments: Arguments, platform: str) -> str:
    if not isinstance(answer, str):
        raise NonsenseError(f"expected a native identifier, a string, got {_shown(answer)}")
    if not answer or len(answer) > MOST_LETTERS or not answer.isprintable():
        raise NonsenseError(f"expected 1 to {MOST_LETTERS} printable letters, got {_shown(answer)}")
    return str(answer)


def _held(answer: object, arguments: Arguments, platform: str) -> str | None:
    return None if answer is None else _native(answer, arguments, platform)


def _prepared(answer: object, arguments: Arguments, platform: str) -> Prepared | None:
    return None if answer is None else _struct(Prepared, answer)


def _observations(answer: object, arguments: Arguments, platform: str) -> tuple[Observation, ...]:
    observations = _structs(Observation, answer)
    asked = {session.uuid for session in arguments["sessions"]}
    seen = set()
    for observation in observations:
        if observation.uuid not in asked:
            raise NonsenseError(f"an observation of {observation.uuid}, which was not asked for")
        if observation.uuid in seen:
            raise NonsenseError(f"two observations of {observation.uuid}")
        seen.add(observation.uuid)
        for moment in (observation.started, observation.ended):
            if moment is not None and not (math.isfinite(moment) and moment >= 0):
                raise NonsenseError(f"an observation of {observation.uuid} with the time {moment}")
    return observations


_MEDIA_TYPE = re.compile(r"[\w.+!#$&^-]+/[\w.+!#$&^-]+(\s*;.*)?", re.ASCII)


def _outputs(answer: object, arguments: Arguments, platform: str) -> tuple[Output, ...]:
    outputs = _structs(Output, answer)
    names = set()
    for output in outputs:
        steps = output.name.split("/")
        if any(step in ("", ".", "..") for step in steps) or "\0" in output.name:
            raise NonsenseError(f"an output named {output.name!r}; expected a relative path without . and ..")
        if output.name in names:
            raise NonsenseError(f"two outputs named {output.name!r}")
        names.add(output.name)
        if output.size < 0:
            raise NonsenseError(f"the output {output.name!r} of {output.size} bytes")
        if not _MEDIA_TYPE.fullmatch(output.media_type):
            raise NonsenseError(f"the output {output.name!r} of media type {output.media_type!r}")
    return outputs


def _opened(answer: object, arguments: Arguments, platform: str) -> Any:
    if answer is not None and (isinstance(answer, io.TextIOBase) or not callable(getattr(answer, "read", None))):
        raise NonsenseError(f"expected a file open for reading bytes, or None, got {_shown(answer)}")
    return answer


_CHECKS: dict[str, Callable[[object, Arguments, str], Any]] = {
    "ebhpc_promises": _promises,
    "ebhpc_check": _findings,
    "ebhpc_refuses": _refusals,
    "ebhpc_policy": _policy,
    "ebhpc_windows": _windows,
    "ebhpc_costs": _quote,
    "ebhpc_snapshot": _snapshot,
    "ebhpc_hold": _held,
    "ebhpc_release": _nothing,
    "ebhpc_prepare": _prepared,
    "ebhpc_submit": _native,
    "ebhpc_observe": _observations,
    "ebhpc_reconcile": _nothing,
    "ebhpc_cancel": _nothing,
    "ebhpc_cleanup": _nothing,
    "ebhpc_outputs": _outputs,
    "ebhpc_open_output": _opened,
    "ebhpc_forget": _nothing,
}
