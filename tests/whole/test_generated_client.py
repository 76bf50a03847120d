"""A client that was generated from the standard's own schema works against ebhpc unchanged."""

from __future__ import annotations

import base64
import importlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.broker import ADMIN, PASSWORD, RunningBroker, running_broker
from tests.labs import require
from tests.whole.generated_client import PACKAGE, generate, missing
from tests.whole.runs import traced_notebook, traced_platform

SPEC = Path(os.environ.get("EBHPC_SPEC") or Path(__file__).parents[3] / "shared/spec/v1.0")


@pytest.fixture(scope="module")
def standard_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    if not (SPEC / "execution-broker.yaml").exists():
        pytest.skip("the standard's schema is not here; EBHPC_SPEC names its directory")
    trouble = missing()
    require(trouble is None, str(trouble))
    place = generate(SPEC, tmp_path_factory.mktemp("standard"))
    sys.path.insert(0, str(place))
    try:
        yield importlib.import_module(PACKAGE)
    finally:
        sys.path.remove(str(place))


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    folder = tmp_path_factory.mktemp("broker")
    with running_broker(folder, {"platforms": [traced_platform(folder / "runs")]}) as running:
        yield running


@pytest.fixture
def api(standard_client: ModuleType, broker: RunningBroker):
    client = standard_client.ApiClient(standard_client.Configuration(host=broker.url))
    credentials = base64.b64encode(f"{ADMIN}:{PASSWORD}".encode()).decode()
    client.set_default_header("Authorization", f"Basic {credentials}")
    return standard_client.DefaultApi(client)


def request(standard_client: ModuleType):
    return standard_client.ExecutionRequest.from_dict(traced_notebook())


def update(standard_client: ModuleType, phase: str):
    return standard_client.EnumValueUpdate(kind="uri:enum-value-update", path="phase", value=phase)


def follow(api, uuid: str, *phases: str):
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        session = api.session_select(uuid)
        if session.phase.value in phases:
            return session
        time.sleep(0.1)
    raise TimeoutError(f"{uuid} is {session.phase}")


def test_it_submits_accepts_and_follows_to_the_end(standard_client, api):
    offers = api.execution_request(request(standard_client))
    assert offers.result == "YES"
    offer = offers.offers[0]
    assert isinstance(offer, standard_client.ScheduledExecutionSession)
    assert isinstance(offer.executable, standard_client.JupyterNotebook)
    assert isinstance(offer.compute, standard_client.SimpleComputeResource)
    assert isinstance(offer.costs[0], standard_client.SimpleMinMaxFloatCost)
    assert [option.values for option in offer.meta.options] == [["ACCEPTED", "REJECTED"]]
    accepted = api.session_update(offer.meta.uuid, update(standard_client, "ACCEPTED"))
    assert accepted.phase.value == "ACCEPTED"
    ended = follow(api, offer.meta.uuid, "COMPLETED", "FAILED")
    assert ended.phase.value == "COMPLETED", ended.meta.messages
    again = api.offer_set_select(offers.meta.uuid)
    assert {one.phase.value for one in again.offers[1:]} <= {"REJECTED"}


def test_it_cancels(standard_client, api):
    offers = api.execution_request(request(standard_client))
    uuid = offers.offers[0].meta.uuid
    api.session_update(uuid, update(standard_client, "ACCEPTED"))
    cancelled = api.session_update(uuid, update(standard_client, "CANCELLED"))
    assert cancelled.phase.value == "CANCELLED"
    assert cancelled.meta.options in (None, [])


def test_it_executes_directly(standard_client, api):
    session = api.direct_execution(request(standard_client))
    assert session.phase.value in ("ACCEPTED", "WAITING", "PREPARING", "AVAILABLE", "RUNNING")
    api.session_update(session.meta.uuid, update(standard_client, "CANCELLED"))


def test_it_reads_the_reasons_of_a_no(standard_client, api):
    wanted = request(standard_client)
    wanted.compute.cores.min = wanted.compute.cores.max = 4000
    answer = api.execution_request(wanted)
    assert answer.result == "NO"
    assert [message.kind for message in answer.meta.messages] == ["urn:resource-limit"]
