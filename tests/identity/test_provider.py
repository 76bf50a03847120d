"""A real provider's tokens at a real broker: signed in as browsers do, verified as the broker does."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from msgspec.structs import replace

from ebhpc.api import sign_in
from ebhpc.api.accounts import Accounts
from ebhpc.api.issuers import FIRST_WAIT, OpenIssuer
from ebhpc.api.problems import Problem
from ebhpc.client import Broker
from ebhpc.config import Issuer, read_settings
from ebhpc.model import kinds
from ebhpc.store import Store, upgrade
from tests.broker import RunningBroker, local_platform, running_broker
from tests.lab.identity_provider import ADA, AUDIENCE, BACK, Provider

pytestmark = pytest.mark.lab

REQUEST = {
    "executable": {"kind": kinds.JUPYTER_NOTEBOOK, "location": "https://example.org/a.ipynb"},
    "schedule": {"requested": {"duration": "PT1H"}},
}


@pytest.fixture(scope="module")
def broker(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    """A broker that knows the provider; one platform is for a group of its people."""
    settings = {
        "issuers": [provider.settings()],
        "platforms": [local_platform()],
        "policy": {"access": [{"name": "astronomers", "who": {"groups": ["lab:/hpc/astro"]}}]},
    }
    with running_broker(tmp_path_factory.mktemp("broker"), settings) as made:
        yield made


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(f"sqlite:///{tmp_path / 'ebhpc.sqlite3'}")
    upgrade(made)
    yield made
    made.close()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}", "Accept": "application/json"}


def issuer_of(provider: Provider, **more: object) -> Issuer:
    return read_settings(Issuer, provider.settings(**more))


# --- over HTTP ------------------------------------------------------------------------------------------------------


def test_a_token_lets_its_owner_in_under_a_name_that_no_local_account_can_have(
    provider: Provider, broker: RunningBroker
) -> None:
    token = provider.token("ada-1815")
    answer = httpx.post(f"{broker.url}/requests", json=REQUEST, headers=bearer(token), trust_env=False)
    assert answer.status_code == 303, answer.text
    assert answer.headers["X-VO-Authenticated"] == "lab:ada"
    assert answer.json()["result"] == "YES", answer.text
    listed = httpx.get(f"{broker.url}/sessions", headers=bearer(token), trust_env=False)
    assert len(listed.json()["sessions"]) == len(answer.json()["offers"])


def test_groups_of_a_token_decide_what_its_owner_may_use(provider: Provider, broker: RunningBroker) -> None:
    answer = httpx.post(
        f"{broker.url}/requests", json=REQUEST, headers=bearer(provider.token("bob-1")), trust_env=False
    )
    document = answer.json()
    assert document["result"] == "NO"
    assert [item["message"] for item in document["meta"]["messages"]] == ["None of the site's rules lets you use here."]
    assert "astro" not in answer.text


def test_without_a_token_the_challenge_leads_to_the_real_provider(provider: Provider, broker: RunningBroker) -> None:
    answer = httpx.get(f"{broker.url}/sessions", trust_env=False)
    assert answer.status_code == 401
    challenge = answer.headers["WWW-Authenticate"]
    assert challenge.startswith('Bearer realm="ebhpc", ivoa_bearer discovery_url="')
    assert challenge.endswith('Basic realm="ebhpc", charset="UTF-8"')
    url = re.search(r'discovery_url="([^"]+)"', challenge)
    assert url is not None
    assert httpx.get(url[1], trust_env=False).json()["issuer"] == provider.issuer
    assert "X-VO-Authenticated" not in answer.headers


def test_a_token_that_was_changed_on_the_way_is_nobodys(provider: Provider, broker: RunningBroker) -> None:
    header, claims, signature = provider.token("bob-1").split(".")
    plain = json.loads(base64.urlsafe_b64decode(claims + "=="))
    plain["groups"] = ADA["groups"]
    forged = base64.urlsafe_b64encode(json.dumps(plain).encode()).decode().rstrip("=")
    answer = httpx.get(f"{broker.url}/sessions", headers=bearer(f"{header}.{forged}.{signature}"), trust_env=False)
    assert answer.status_code == 401
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
    assert answer.json()["detail"] == "the token's signature does not hold"


def test_a_token_for_another_service_is_refused(provider: Provider, broker: RunningBroker) -> None:
    token = provider.robot_token("https://other.example.org")
    answer = httpx.get(f"{broker.url}/sessions", headers=bearer(token), trust_env=False)
    assert answer.status_code == 401
    assert answer.json()["detail"] == "the token's claim aud is not one that is taken here"


def test_a_program_acts_by_a_token_of_its_own(provider: Provider, broker: RunningBroker) -> None:
    answer = httpx.get(f"{broker.url}/sessions", headers=bearer(provider.robot_token()), trust_env=False)
    assert answer.status_code == 200
    assert answer.headers["X-VO-Authenticated"] == "lab:robot"


def test_the_clients_take_tokens(provider: Provider, broker: RunningBroker) -> None:
    token = provider.token("ada-1815")
    with Broker(broker.url, token=token) as client:
        assert [platform["name"] for platform in client.platforms()] == ["here"]
    said = subprocess.run(
        [sys.executable, "-m", "ebhpc", "sessions", "--url", broker.url],
        env={**{name: value for name, value in os.environ.items() if name != "EBHPC_USER"}, "EBHPC_TOKEN": token},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert said.returncode == 0, said.stderr


def test_the_audit_trail_tells_whose_token_was_refused_and_what_ada_accepted(
    provider: Provider, broker: RunningBroker
) -> None:
    token = provider.token("ada-1815")
    offered = httpx.post(f"{broker.url}/requests", json=REQUEST, headers=bearer(token), trust_env=False).json()
    uuid = offered["offers"][0]["meta"]["uuid"]
    accepted = {"kind": kinds.ENUM_UPDATE, "path": "phase", "value": "ACCEPTED"}
    httpx.post(f"{broker.url}/sessions/{uuid}", json=accepted, headers=bearer(token), trust_env=False)
    httpx.get(f"{broker.url}/sessions", headers=bearer("no.to.ken"), trust_env=False)
    deadline = time.monotonic() + 10
    while True:
        entries = [json.loads(line) for line in broker.command("audit", "--json").stdout.splitlines()]
        refused = [entry for entry in entries if entry["action"] == "sign-in"]
        if refused or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    assert refused[-1]["result"] == "refused"
    assert refused[-1]["address"] == "127.0.0.1"
    (entry,) = [entry for entry in entries if entry["object"] == uuid]
    assert (entry["action"], entry["username"], entry["result"]) == ("accept", "lab:ada", "done")


def test_who_is_barred_can_do_nothing_though_the_token_is_good(provider: Provider, broker: RunningBroker) -> None:
    token = provider.robot_token()
    assert httpx.get(f"{broker.url}/sessions", headers=bearer(token), trust_env=False).status_code == 200
    broker.command("account", "bar", "lab:robot")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:  # workers remember for five seconds
        answer = httpx.get(f"{broker.url}/sessions", headers=bearer(token), trust_env=False)
        if answer.status_code == 401:
            break
        time.sleep(0.3)
    assert answer.status_code == 401
    broker.command("account", "unbar", "lab:robot")


# --- keys and the code flow, in this process --------------------------------------------------------------------------


def test_new_keys_are_found_and_the_old_ones_go_on_while_the_provider_is_down(provider: Provider, store: Store) -> None:
    now = [0.0]
    issuer = OpenIssuer(issuer_of(provider), monotonic=lambda: now[0])
    accounts = Accounts(store, issuers=[issuer], monotonic=lambda: now[0])
    before = provider.token("ada-1815")
    ada = accounts.of_token(before)
    assert ada.groups == (
        "lab:/hpc",
        "lab:/hpc/astro",
        "lab:urn:geant:example.org:group:telescope#aai.example.org",
    )
    old = provider.keys
    provider.stop()
    now[0] += 4000  # the keys are old by now, and nobody answers
    assert accounts.of_token(before).uuid == ada.uuid
    provider.new_keys()
    provider.start()
    after = provider.token("ada-1815")
    with pytest.raises(Problem) as raised:  # asked a moment ago: not again yet
        accounts.of_token(after)
    assert raised.value.status_code == 401
    now[0] += 4 * FIRST_WAIT
    assert accounts.of_token(after).uuid == ada.uuid
    now[0] += 4000
    with pytest.raises(Problem) as raised:
        accounts.of_token(before)
    assert str(raised.value.description) == "the token is signed with a key that its issuer does not publish"
    assert provider.keys != old


def test_a_provider_that_never_answered_is_503_not_401(provider: Provider, store: Store) -> None:
    token = provider.token("ada-1815")
    gone = replace(issuer_of(provider), timeout=0.2)
    issuer = OpenIssuer(gone)
    provider.stop()
    with pytest.raises(Problem) as raised:
        Accounts(store, issuers=[issuer]).of_token(token)
    provider.start()
    assert raised.value.status_code == 503
    assert raised.value.headers == {"Retry-After": "5"}


def test_a_browser_signs_in_by_code_and_pkce(provider: Provider, store: Store) -> None:
    accounts = Accounts(store, issuers=[OpenIssuer(issuer_of(provider))])
    begun = sign_in.begin(accounts.issuers["lab"], BACK)
    back = provider.browse(begun.url, "ada-1815")

    def finish(begun: sign_in.SignIn = begun, **more: str) -> sign_in.SignedIn:
        query = {**back, **more}
        return sign_in.finish(
            accounts, "lab", begun, BACK, state=query["state"], code=query["code"], iss=query["iss"], now=time.time()
        )

    for wrong in ({"state": "another"}, {"iss": "https://elsewhere.example.org"}, {"code": ""}):
        with pytest.raises(Problem) as raised:
            finish(**wrong)
        assert raised.value.status_code == 401
    signed = finish()
    assert signed.identity.username == "lab:ada"
    assert "lab:/hpc/astro" in signed.identity.groups
    assert accounts.recall(signed.identity.uuid) == signed.identity
    with pytest.raises(Problem):  # a code is good for once
        finish()
    # The same person by a token of theirs
    assert accounts.of_token(provider.token("ada-1815")).uuid == signed.identity.uuid


def test_a_code_that_somebody_else_began_is_of_no_use(provider: Provider, store: Store) -> None:
    accounts = Accounts(store, issuers=[OpenIssuer(issuer_of(provider))])
    mine = sign_in.begin(accounts.issuers["lab"], BACK)
    theirs = sign_in.begin(accounts.issuers["lab"], BACK)
    back = provider.browse(theirs.url, "bob-1")
    stolen = replace(mine, state=theirs.state)  # without the verifier that only their browser's session has
    with pytest.raises(Problem) as raised:
        sign_in.finish(
            accounts, "lab", stolen, BACK, state=back["state"], code=back["code"], iss=back["iss"], now=time.time()
        )
    assert raised.value.status_code == 401


def test_claims_may_come_from_the_userinfo_endpoint(provider: Provider, store: Store) -> None:
    accounts = Accounts(store, issuers=[OpenIssuer(issuer_of(provider, userinfo=True))])
    with pytest.raises(Problem) as raised:  # this provider answers only tokens that are not for others
        accounts.of_token(provider.token("ada-1815"))
    assert raised.value.status_code in (401, 503)
    assert AUDIENCE not in str(raised.value.description)
