"""Our own OpenAPI document as a source of requests, and as the judge of the answers."""

from __future__ import annotations

import base64

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from ebhpc.api.openapi import OPERATIONS
from tests.api.conftest import PASSWORD

load_all_checks()

# What the schema does not allow is often understood all the same (an unknown property is a warning, an unknown kind a
# NO), and what it allows may be refused (a username that is taken).
EXCLUDED = [negative_data_rejection, positive_data_acceptance]

AUTHORIZATION = "Basic " + base64.b64encode(f"root:{PASSWORD}".encode()).decode()


@pytest.mark.parametrize("operation", [f"{item.method.upper()} {item.path}" for item in OPERATIONS])
def test_every_operation_answers_as_described(make_site, operation):
    site = make_site(api={"max_outstanding_offers": 10**6})
    schema = schemathesis.openapi.from_wsgi("/openapi.json", site.app)
    method, _, path = operation.partition(" ")

    @given(case=schema[path][method].as_strategy())
    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    def asked(case: schemathesis.Case) -> None:
        case.call_and_validate(headers={"Authorization": AUTHORIZATION}, excluded_checks=EXCLUDED)

    asked()
