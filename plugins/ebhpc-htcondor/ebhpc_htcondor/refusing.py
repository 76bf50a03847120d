"""What of a request HTCondor cannot be told, beside what no batch system's jobs are able to."""

from __future__ import annotations

from collections.abc import Iterator

from ebhpc.batch import refusal
from ebhpc.model import SCRATCH, ClusterCompute, Message, MessageKind, Request, asked_at
from ebhpc_htcondor import carrying, universe
from ebhpc_htcondor.names import plain_word, resource_name
from ebhpc_htcondor.settings import HTCondorSettings
from ebhpc_htcondor.snapshot import POOL

_KIND = MessageKind.NOT_SUPPORTED


def refusals(request: Request, settings: HTCondorSettings) -> Iterator[Message]:
    """Yield why a request cannot become a job of HTCondor's."""
    demand = request.demand
    if demand.nodes != 1:
        yield refusal(
            _KIND,
            "/compute/nodes/min",
            "A job of this platform runs on one machine, not on {count}.",
            count=demand.nodes,
        )
    if isinstance(request.compute, ClusterCompute) and request.compute.exclusive:
        yield refusal(_KIND, "/compute/exclusive", "This platform shares its machines.")
    if demand.partition not in (None, POOL):
        yield refusal(_KIND, "/compute/partition", "This platform has no partition {name}.", name=demand.partition)
    for name in demand.features:
        if name not in settings.features and not plain_word(name):
            yield refusal(_KIND, "/compute/features", "This platform has no feature {name}.", name=name)
    for name, count in demand.licences.items():
        if count > settings.licences.get(name, 0) or not resource_name(name):
            yield refusal(
                _KIND, "/compute/licences", "This platform has not {count} of {name}.", count=count, name=name
            )
    if settings.files == "transfer":
        yield from carrying.refusals(request, settings)
    if settings.containers == "universe":
        yield from universe.refusals(request, settings)
    for kind in demand.least.devices:
        base, colon, model = kind.partition(":")
        known = plain_word(model) if base == "gpu" and colon else kind == SCRATCH or resource_name(kind)
        if not known:
            yield refusal(_KIND, asked_at(kind), "This platform has no device {kind}.", kind=kind)
