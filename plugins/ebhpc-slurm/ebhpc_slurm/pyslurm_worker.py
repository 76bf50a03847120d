"""Speaks to Slurm through pyslurm, for a process that must not: libslurm ends its process when it dislikes something.

Runs on the cluster's own Python, handed over as source text: nothing but pyslurm and the standard library is imported.
It reads requests from stdin and writes answers to stdout, each a JSON document behind its length (4 bytes, big endian).
A request is ``[name, arguments]``; an answer ``{"ok": …}``, or ``{"error": words}``.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import struct
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

pyslurm: Any = None
"""The module, once ``main`` has imported it."""

known: dict[str, Any] = {}
"""What was asked for last, and when."""

NOTHING = (None, "UNLIMITED")


def nodes() -> list[dict[str, Any]]:
    """All nodes, in the fields of ``records.Node``."""
    return [
        {
            "name": node.name,
            "states": (node.state or "UNKNOWN").replace("*", "+NOT_RESPONDING").split("+"),
            "cpus": node.effective_cpus or node.total_cpus or 0,
            "memory": max((node.real_memory or 0) - (node.memory_reserved_for_system or 0), 0),
            "threads": node.threads_per_core or 1,
            "gres": gres(node.configured_gres),
            "features": list(node.active_features or ()),
            "reason": node.reason or "",
            "version": node.slurm_version or "",
        }
        for node in pyslurm.Nodes.load().values()
    ]


def gres(counts: Mapping[str, Any] | None) -> str:
    """Generic resources as slurm.conf has them; pyslurm tells kinds and models with their counts."""
    return ",".join("{}:{}".format(name, getattr(count, "count", count)) for name, count in (counts or {}).items())


def partitions() -> list[dict[str, Any]]:
    """All partitions, in the fields of ``records.Partition``."""
    found = []
    for one in pyslurm.Partitions.load().values():
        limit = one.max_time
        most = one.max_nodes
        found.append(
            {
                "name": one.name,
                "nodes": one.nodes or "",
                "state": one.state or "UP",
                "limit": None if limit in NOTHING else int(limit) * 60,
                "default": bool(one.is_default),
                "tier": one.priority_tier or 1,
                "most_nodes": None if most in NOTHING else int(most),
                "exclusive": str(one.oversubscribe).upper() == "EXCLUSIVE",
                "allowed_accounts": names(one.allowed_accounts),
                "denied_accounts": names(one.denied_accounts),
                "allowed_qos": names(one.allowed_qos),
                "denied_qos": names(one.denied_qos),
            }
        )
    return found


def names(given: str | Iterable[str] | None) -> list[str]:
    """The names of a list that may be absent, or say that everybody is meant."""
    found = given.split(",") if isinstance(given, str) else list(given or ())
    return [] if [name.upper() for name in found] == ["ALL"] else found


def reservations() -> list[dict[str, Any]]:
    """All reservations, in the fields of ``records.Reservation``."""
    found = []
    for one in pyslurm.Reservations.load().values():
        told = flags(one)
        found.append(
            {
                "name": one.name,
                "start": one.start_time or 0,
                "end": one.end_time or 253402300799,
                "nodes": one.nodes or "",
                "cores": {node: core_count(ids) for node, ids in (one.cpu_ids_by_node or {}).items()},
                "tres": ",".join("{}={}".format(*item) for item in (one.tres or {}).items()),
                "flags": [*told, str(getattr(one.reoccurrence, "name", one.reoccurrence))],
                "users": list(one.users or ()),
                "partition": one.partition or "",
                "licences": ",".join(one.licenses or ()),
            }
        )
    return found


def flags(one: Any) -> list[str]:
    """A reservation's flags, as far as pyslurm has names for them; where it has not, whether it is maintenance."""
    try:
        given = one.flags
    except ValueError as error:  # a flag of a newer Slurm; its text ends with all of them as one number
        number = re.search(r"invalid value (\d+)", str(error))
        return ["MAINT"] if number and int(number[1]) & 1 else []
    told = [flag.name for flag in pyslurm.ReservationFlags if flag in given and flag.name]
    return ["MAINT" if word == "MAINTENANCE" else word for word in told]


def core_count(ids: str | None) -> int:
    """How many cores ``0-3,7`` are."""
    count = 0
    for part in (ids or "").split(","):
        first, dash, last = part.partition("-")
        count += int(last) - int(first) + 1 if dash else bool(first)
    return count


def licences() -> dict[str, int]:
    """How many licences there are by name."""
    return {name: one["total"] for name, one in pyslurm.licenses().get().items() if one["total"]}


def loaded(age: float) -> Any:
    """All jobs, as they were at most ``age`` seconds ago."""
    if "jobs" not in known or time.monotonic() - known["jobs"][0] > age:
        asked = time.monotonic()
        known["jobs"] = (asked, pyslurm.Jobs.load())
    return known["jobs"][1]


def jobs(prefix: str = "", age: float = 0.0) -> list[dict[str, Any]]:
    """Jobs, in the fields of ``records.Job``; ``prefix``: only those whose name, comment or reservation begins so."""
    found = []
    users: dict[int, str] = {}
    for job in loaded(age).values():
        name, comment = words(job, "name"), words(job, "comment")
        inside = job.reservation or ""
        if prefix and not any(each.startswith(prefix) for each in (name, comment, inside)):
            continue
        uid = job.user_id
        if uid not in users:
            users[uid] = job.user_name or str(uid)
        state = job.state
        limit = job.time_limit
        task = job.array_task_id
        waits = job.array_tasks_waiting
        most = job.array_tasks_parallel
        pending = state == "PENDING"
        found.append(
            {
                "id": job.id,
                "array": job.array_id or 0 if task is not None or waits else 0,
                "task": "{}{}".format(waits, f"%{most}" if most else "")
                if waits
                else str(task if task is not None else ""),
                "name": name,
                "comment": comment,
                "user": users[uid],
                "account": job.account or "",
                "partition": job.partition or "",
                "state": state,
                "reason": job.state_reason or "",
                "submitted": job.submit_time or 0,
                "eligible": job.eligible_time or None,
                "started": job.start_time or None,
                "ends": job.end_time or None,
                "limit": None if limit in NOTHING else int(limit) * 60,
                "nodes": job.num_nodes or 1,
                "cpus": job.cpus or 1,
                "tres": tres(job, pending),
                "hosts": job.allocated_nodes or "",
                "priority": job.priority or 0,
                "features": "&".join(job.constraints or ()),
                "reservation": job.reservation or "",
                "licences": ",".join(job.licenses or ()),
                "required": job.required_nodes or "",
                "excluded": job.excluded_nodes or "",
                "exclusive": str(job.resource_sharing).upper() == "NO",
                "exit": f"{job.exit_code or 0}:{job.exit_code_signal or 0}",
            }
        )
    return found


def words(job: Any, attribute: str) -> str:
    """What a user has written; bytes that are no text tell nothing."""
    try:
        return getattr(job, attribute) or ""
    except UnicodeDecodeError:
        return ""


def tres(job: Any, pending: bool) -> str:
    """A job's trackable resources: those it asks for while it waits, those it has otherwise."""
    given = (job.requested_tres if pending else job.allocated_tres) or job.requested_tres
    if not given:
        return ""
    found = []
    for name, count in (("cpu", getattr(given, "cpu", None)), ("mem", getattr(given, "mem", None))):
        if count:
            found.append("{}={}".format(name, getattr(count, "count", count)))
    for name, one in (given.gres or {}).items():
        found.append("gres/{}={}".format(name, getattr(one, "count", one)))
    return ",".join(found)


def reserve(wish: Mapping[str, Any]) -> None:
    """Make the reservation of a ``records.Reserve``."""
    count = len(wish["nodes"])
    new = pyslurm.Reservation(
        name=wish["name"],
        start_time=wish["start"],
        end_time=wish["end"],
        nodes=",".join(wish["nodes"]),
    )
    if wish["accounts"]:
        new.accounts = list(wish["accounts"])
    if wish["others"] or not wish["accounts"]:
        new.users = [wish["user"], *wish["others"]]
    if wish["partition"]:
        new.partition = wish["partition"]
    if not wish["whole"]:
        wanted = {"cpu": wish["cpus"] * count}
        for name, each in split(wish["devices"]).items():
            wanted["gres/" + name] = each * count
        new.tres = wanted
    if wish["licences"]:
        new.licenses = ["{}:{}".format(*item) for item in sorted(wish["licences"].items())]
    new.create()


def split(devices: Mapping[str, int]) -> dict[str, int]:
    """Devices so that each is named once, as ``ebhpc_slurm.notation.split`` does."""
    found = {name: count for name, count in devices.items() if ":" in name and count}
    for name, count in devices.items():
        left = count - sum(other for key, other in found.items() if key.startswith(name + ":"))
        if ":" not in name and name != "scratch" and left > 0:
            found[name] = left
    return found


def delete_reservation(name: str) -> None:
    """Delete a reservation."""
    pyslurm.Reservation(name).delete()


def cancel(job: int) -> None:
    """End a job."""
    pyslurm.Job(job).cancel()


def submit(wish: Mapping[str, Any]) -> int:
    """Submit the job of a ``records.Submit`` as this process's own user; return its number."""
    given = {
        "name": wish["name"],
        "comment": wish["name"],
        "script": wish["script"],
        "working_directory": wish["directory"],
        "standard_in": "/dev/null",
        "standard_output": wish["output"].replace("%", "%%"),
        "standard_error": wish["errors"].replace("%", "%%"),
        # An empty one would be taken for all of this process's
        "environment": {"PATH": os.defpath},
        "time_limit": wish["minutes"],
        "nodes": wish["nodes"],
        "ntasks": wish["nodes"],
        "ntasks_per_node": 1,
        "cpus_per_task": wish["cpus"],
        "memory_per_node": 0 if wish["whole"] else wish["memory"],
        "is_requeueable": False,
        "partitions": wish["partition"],
        "account": wish["account"],
        "qos": wish["qos"],
        "reservations": wish["reservation"],
        "begin_time": wish["begin"],
        "required_nodes": ",".join(wish["hosts"]) or None,
        "constraints": "&".join(wish["features"]) or None,
        "licenses": ",".join("{}:{}".format(*item) for item in sorted(wish["licences"].items())) or None,
        "gres_per_node": split(wish["devices"]) or None,
        "resource_sharing": "no" if wish["whole"] else None,
    }
    wanted = {key: value for key, value in given.items() if value is not None}
    return int(pyslurm.JobSubmitDescription(**wanted).submit())


ASKED = {
    one.__name__: one
    for one in (
        nodes,
        partitions,
        reservations,
        licences,
        jobs,
        reserve,
        delete_reservation,
        cancel,
        submit,
    )
}


def answer(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Answer one request."""
    try:
        return {"ok": ASKED[name](**arguments)}
    except Exception as error:  # noqa: BLE001  # whatever pyslurm raises is told, and asked again
        return {
            "error": str(getattr(error, "msg", None) or error) or type(error).__name__,
            "kind": type(error).__name__,
        }


def exactly(stream: BinaryIO, size: int) -> bytes | None:
    """Read so many bytes; None at the end."""
    data = b""
    while len(data) < size:
        part = stream.read(size - len(data))
        if not part:
            return None
        data += part
    return data


def main() -> None:
    """Answer requests until stdin ends."""
    # libslurm and pyslurm may print: what goes to stdout must not come between the answers
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    source = sys.stdin.buffer
    global pyslurm
    first: dict[str, Any]
    try:
        pyslurm = importlib.import_module("pyslurm")
        first = {"ok": {"version": pyslurm.__version__, "python": sys.version.split()[0]}}
    except Exception as error:  # noqa: BLE001  # told to the one who asked
        first = {"error": f"pyslurm cannot be imported: {error}"}
    tell(out, first)
    while "ok" in first:
        size = exactly(source, 4)
        request = exactly(source, struct.unpack(">I", size)[0]) if size else None
        if request is None:
            return
        tell(out, answer(*json.loads(request)))


def tell(out: BinaryIO, what: Mapping[str, Any]) -> None:
    """Write one answer."""
    data = json.dumps(what, separators=(",", ":")).encode("utf-8", "replace")
    out.write(struct.pack(">I", len(data)) + data)
    out.flush()


if __name__ == "__main__":
    main()
