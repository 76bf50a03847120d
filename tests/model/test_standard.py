"""Our Structs against the standard's schema: the same properties, and what we encode is valid."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import fields

from ebhpc.model import documents, elements, kinds, messages
from ebhpc.model.documents import ExecutionRequest, OfferSet, ScheduledSession, SimpleSession
from tests import standard_schema
from tests.model.strategies import KINDS, struct

BY_SCHEMA: dict[str, type[Any]] = {
    "ExecutionRequest": ExecutionRequest,
    "OfferSetResponse": OfferSet,
    "RequestedScheduleBlock": documents.RequestedSchedule,
    "RequestedScheduleItem": documents.RequestedItem,
    "SimpleSessionConnector": documents.Connector,
    "ComponentMetadata": elements.Metadata,
    "MessageItem": messages.Message,
    "LifecycleSchedule": elements.Schedule,
    "LifecycleStartDurationInstant": elements.InstantSchedule,
    "LifecycleStartDurationInterval": elements.IntervalSchedule,
    "ScheduledExecutionSchedule": elements.Schedule,
    "DockerImageSpec": elements.DockerImage,
    "DockerPlatformSpec": elements.DockerPlatform,
    "DockerNetworkSpec": elements.DockerNetwork,
    "DockerNetworkPort": elements.DockerPort,
    "DockerInternalPort": elements.DockerInternalPort,
    "DockerExternalPort": elements.DockerExternalPort,
    "SimpleComputeCores": elements.Range,
    "SimpleComputeMemory": elements.Range,
    "SimpleStorageSize": elements.Range,
    "IvoaDataResourceBlock": elements.IvoaBlock,
    "IvoaObsCoreItem": elements.ObsCore,
    "IvoaDataLinkItem": elements.DataLink,
    "RucioDataResourceBlock": elements.RucioBlock,
    "SkaoDataResourceBlock": elements.SkaoBlock,
    "SkaoChecksumItem": elements.SkaoChecksum,
    "SkaoReplicaItem": elements.SkaoReplica,
}

OURS = {"SimpleSessionConnector": {"reservation", "partition", "commands"}}
"""Properties that we add to the standard's; a client that knows only the standard need not read them."""


def names_of(type_: type[Any]) -> set[str]:
    config = type_.__struct_config__
    return {field.encode_name for field in fields(type_)} | ({config.tag_field} if config.tag_field else set())


STANDARD = [kind for kind in KINDS.types if not kind.startswith(kinds.OWN_BASE)]


def test_every_kind_of_the_standard_is_known_and_all_others_are_below_our_own_address() -> None:
    assert set(STANDARD) == set(standard_schema.kinds())


def test_each_kind_has_the_properties_of_its_schema_and_no_other() -> None:
    for kind, name in standard_schema.kinds().items():
        assert names_of(KINDS.types[kind]) == set(standard_schema.properties(name)), kind


@pytest.mark.parametrize("name", BY_SCHEMA)
def test_each_block_has_the_properties_of_its_schema_and_no_other(name: str) -> None:
    assert names_of(BY_SCHEMA[name]) - OURS.get(name, set()) == set(standard_schema.properties(name))


def test_required_properties_are_required_in_both() -> None:
    for kind, name in standard_schema.kinds().items():
        required = {field.encode_name for field in fields(KINDS.types[kind]) if field.required}
        wanted = [error.split("'")[1] for error in standard_schema.errors({"kind": kind}, name)]
        assert required == set(wanted), kind


@pytest.mark.parametrize("kind", STANDARD)
def test_whatever_we_encode_of_a_kind_is_valid(kind: str) -> None:
    name = standard_schema.kinds()[kind]

    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.booleans().flatmap(lambda full: struct(KINDS.types[kind], full=full)))
    def check(element: Any) -> None:
        standard_schema.validate(KINDS.to_builtins(element), name)

    check()


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(struct(OfferSet, full=True))
def test_whatever_offer_set_we_encode_is_valid(offerset: OfferSet) -> None:
    standard_schema.validate(KINDS.to_builtins(offerset), "OfferSetResponse")


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(struct(ScheduledSession, full=True) | struct(SimpleSession, full=True))
def test_whatever_session_we_encode_is_valid(session: SimpleSession) -> None:
    standard_schema.validate(KINDS.to_builtins(session), "AbstractExecutionSession")


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(struct(ExecutionRequest, full=True))
def test_whatever_request_we_encode_is_valid(request: ExecutionRequest) -> None:
    standard_schema.validate(KINDS.to_builtins(request), "ExecutionRequest")


def test_the_judge_sees_what_is_wrong() -> None:
    kind = elements.SimpleCompute.__struct_config__.tag
    wrong = {"compute": {"kind": kind, "cores": {"min": "2"}, "meta": {"uuid": "x"}}, "data": [{"kind": kind}]}
    found = {error.partition(":")[0] for error in standard_schema.errors(wrong, "ExecutionRequest")}
    assert found == {"$.compute.cores.min", "$.compute.meta.uuid", "$.data[0]"}
    with pytest.raises(AssertionError, match="not a valid ExecutionRequest"):
        standard_schema.validate(wrong, "ExecutionRequest")
