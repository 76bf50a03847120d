"""`/availability` and `/capabilities` are valid by the IVOA's schemas, and say what is so."""

from __future__ import annotations

from pathlib import Path

import pytest
import xmlschema

SCHEMAS = Path(__file__).with_name("vosi_schemas")
_VOSI = "ivo://ivoa.net/std/VOSI#"


@pytest.fixture(scope="module")
def availability() -> xmlschema.XMLSchema:
    return xmlschema.XMLSchema(SCHEMAS / "VOSIAvailability.xsd", allow="local")


@pytest.fixture(scope="module")
def capabilities() -> xmlschema.XMLSchema:
    located = {"http://www.ivoa.net/xml/VODataService/v1.1": str(SCHEMAS / "VODataService.xsd")}
    # Lax: libraries differ in whether one restriction in stc.xsd, which nothing here is of, is allowed
    return xmlschema.XMLSchema(SCHEMAS / "VOSICapabilities.xsd", locations=located, allow="local", validation="lax")


def test_the_availability_is_valid_and_tells_when_it_came_up(site, availability):
    site.publish("paper")
    answer = site.get("/availability", user=None)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/xml"
    said = availability.to_dict(answer.content.decode())
    assert said["avl:available"] is True
    assert said["avl:upSince"].endswith("Z")


def test_a_broker_that_no_driver_has_served_is_not_available_and_says_why(make_site, availability):
    site = make_site()
    with site.store.write("test") as tx:
        tx.exec_driver_sql("UPDATE platforms SET taken = NULL, looked = NULL, snapshot = NULL, version = 0")
    said = availability.to_dict(site.get("/availability", user=None).content.decode())
    assert said["avl:available"] is False
    assert "no driver has asked" in said["avl:note"][0]
    assert "avl:upSince" not in said


def test_the_capabilities_are_valid_and_lead_to_what_they_name(site, capabilities):
    answer = site.get("/capabilities", user=None)
    assert answer.headers["content-type"] == "application/xml"
    said = capabilities.to_dict(answer.content.decode())["capability"]
    urls = {one.get("@standardID"): one["interface"][0]["accessURL"][0]["$"] for one in said}
    assert set(urls) == {_VOSI + "capabilities", _VOSI + "availability", None}
    for name in ("capabilities", "availability"):
        assert site.get(f"/{urls[_VOSI + name].rpartition('/')[2]}", user=None).status == 200
    broker = next(one for one in said if "@standardID" not in one)
    assert broker["interface"][0]["accessURL"][0]["$"].endswith("/requests")
    assert broker["interface"][0]["securityMethod"] == {"@standardID": "ivo://ivoa.net/sso#BasicAA"}


def test_what_the_schemas_forbid_is_found(capabilities):
    with pytest.raises(xmlschema.XMLSchemaValidationError):
        capabilities.validate(
            '<a:capabilities xmlns:a="http://www.ivoa.net/xml/VOSICapabilities/v1.0"><nothing/></a:capabilities>'
        )
