"""Platforms: what there is, within which limits one can ask, and how well promises were kept."""

from __future__ import annotations

import threading
from typing import Any

import falcon
import msgspec

from ebhpc.api.access import Access, Readable
from ebhpc.api.broker import Broker
from ebhpc.api.consulting import ASK_TIMEOUT
from ebhpc.api.platforms import platform_item
from ebhpc.api.promises import SPAN
from ebhpc.api.timelines import Known
from ebhpc.api.wire import answer
from ebhpc.model import Identity, kinds
from ebhpc.model.reading import read_request
from ebhpc.planning import NodeState
from ebhpc.planning.queue import accuracy_of_starts
from ebhpc.plugins import Platform, PlatformUnavailable
from ebhpc.store import promised_starts, read_forecasts

_MIB_PER_GIB = 1024
_LASTS = 60.0
"""Seconds for which a worker remembers what kinds of work a platform takes."""

_EXAMPLES: dict[str, dict[str, Any]] = {
    "notebook": {"kind": kinds.JUPYTER_NOTEBOOK, "location": "https://example.org/a.ipynb"},
    "container": {
        "kind": kinds.DOCKER_CONTAINER,
        "image": {
            "locations": ["example.org/image:tag"],
            "digest": "sha256:" + "0" * 64,
            "platform": {"architecture": "amd64", "os": "linux"},
        },
    },
    "script": {"kind": kinds.BATCH_SCRIPT, "script": "#!/bin/sh\ntrue\n"},
    "time": {"kind": kinds.RESERVED_TIME},
}
"""One executable of each kind that the form can ask for; a platform that refuses its kind cannot run such work."""


class Platforms(Readable):
    """``/ui/data/platforms``: for the form, the picture and the page of platforms."""

    access = Access.ACCOUNTS

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._work = _Work(broker)

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer each platform, its limits, and what kinds of work it takes."""
        broker = self._broker
        now = broker.clock()
        found = []
        for name, known in broker.timelines.current(now).items():
            platform = broker.platforms[name]
            facts = msgspec.to_builtins(platform_item(platform, known))
            facts["promises"] = list(platform.promises)
            facts["lead"] = int(platform.config.lead)
            facts["longest"] = int(platform.config.longest) if platform.config.longest is not None else None
            if isinstance(known, Known):
                facts |= _limits(known)
                facts["work"] = self._work.of(platform, req.context.identity, now)
            found.append(facts)
        answer(req, resp, {"now": now, "platforms": found})


def _limits(known: Known) -> dict[str, Any]:
    snapshot = known.timeline.snapshot
    up = [node for node in snapshot.nodes if node.state is NodeState.UP]
    devices: dict[str, int] = {}
    for node in up:
        for device, count in node.devices.items():
            devices[device] = max(devices.get(device, 0), count)
    return {
        "taken": snapshot.taken,
        "running": len(snapshot.running),
        "waiting": sum(job.tasks for job in snapshot.waiting),
        "up": len(up),
        "most_cores": max((node.cores for node in up), default=0),
        "most_memory": max((node.memory for node in up), default=0) // _MIB_PER_GIB,
        "most_devices": devices,
        "features": sorted({feature for node in up for feature in node.features})[:100],
        "partitions": [
            {
                "name": partition.name,
                "nodes": len(partition.nodes),
                "time_limit": partition.time_limit,
                "default": partition.default,
                "open": partition.open,
            }
            for partition in snapshot.partitions
        ],
    }


class _Work:
    """What kinds of work each platform takes: it is asked about an example of each, now and then."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._known: dict[str, tuple[float, list[str]]] = {}
        self._lock = threading.Lock()

    def of(self, platform: Platform, identity: Identity, now: float) -> list[str]:
        """Return the kinds, by the names that the form has for them."""
        with self._lock:
            known = self._known.get(platform.name)
            if known is not None and known[0] <= now < known[0] + _LASTS:
                return known[1]
        try:
            found = [name for name, example in _EXAMPLES.items() if self._takes(platform, example, now)]
        except PlatformUnavailable:
            return known[1] if known is not None else []
        with self._lock:
            self._known[platform.name] = (now, found)
        return found

    def _takes(self, platform: Platform, executable: dict[str, Any], now: float) -> bool:
        decoded = self._broker.kinds.request({"executable": executable})
        if decoded.document is None:
            return False
        reading = read_request(decoded.document, now=int(now), new_uuid=self._broker.new_uuid)
        if reading.request is None:
            return False
        (refusals,) = platform.call_each(
            [("ebhpc_refuses", {"request": reading.request})], timeout=min(platform.config.timeout, ASK_TIMEOUT)
        )
        return not any((one.values or {}).get("path") in ("/executable", "/executable/kind") for one in refusals)


class Promises(Readable):
    """``/ui/data/promises``: what was promised beside what happened."""

    access = Access.ACCOUNTS

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer the starts of sessions of the last 30 days, and how well each queue's were foreseen; nobody's name."""
        broker = self._broker
        now = broker.clock()
        with broker.store.read() as tx:
            promised = promised_starts(tx, since=now - SPAN)
            forecasts = read_forecasts(tx)
        answer(
            req,
            resp,
            {
                "now": now,
                "span": SPAN,
                "sessions": [
                    {
                        "platform": platform,
                        "firm": firm,
                        "figures": msgspec.to_builtins(accuracy_of_starts(starts)),
                        "starts": [[one.earliest, one.latest, one.expected, one.started] for one in starts],
                    }
                    for (platform, firm), starts in sorted(promised.items())
                ],
                "queues": [
                    {
                        "platform": name,
                        "taken": record.taken,
                        "seconds": record.seconds,
                        "figures": msgspec.to_builtins(record.accuracy),
                    }
                    for name, record in sorted(forecasts.items())
                ],
            },
        )
