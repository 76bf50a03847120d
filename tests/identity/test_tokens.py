"""Tokens that no broker may believe, and what becomes of the claims of those that it does."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from joserfc.jwk import ECKey, OctKey, RSAKey

from ebhpc.api.issuers import FIRST_WAIT, LONGEST_WAIT, IssuerSilent, OpenIssuer
from ebhpc.api.tokens import TokenRefused, read_access_token
from ebhpc.cli.checking_identity import check_identity
from ebhpc.config import Config, Issuer, SettingsError, read_settings
from tests.identity.issuer import AUDIENCE, OwnIssuer
from tests.local.webserver import WebServer, endless, status

NOW = 1_900_000_000.0


@pytest.fixture
def web() -> Iterator[WebServer]:
    server = WebServer()
    yield server
    server.close()


@pytest.fixture
def own(web: WebServer) -> OwnIssuer:
    return OwnIssuer(web)


def read(own: OwnIssuer, token: str, issuer: OpenIssuer | None = None, now: float = NOW) -> Any:
    return read_access_token(token, {own.url: issuer or own.issuer()}, now)


def test_a_good_token_is_believed_and_names_are_qualified_by_the_issuer(own: OwnIssuer) -> None:
    claims = own.claims(NOW, groups=["b", "a"], entitlements="urn:x:y#z", realm_access={"roles": ["r"]})
    issuer = own.issuer(group_claims=["groups", "entitlements", "realm_access.roles"])
    believed = read(own, own.sign(claims), issuer)
    assert (believed.user.issuer, believed.user.subject) == (own.url, "1815")
    assert believed.user.username == "own:ada"
    assert believed.user.groups == ("own:a", "own:b", "own:r", "own:urn:x:y#z")
    assert read(own, own.sign(own.claims(NOW), key=own.ec, alg="ES256", kid="two")).user.subject == "1815"


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({"iss": "https://evil.example.org/"}, "issuer that is not known"),
        ({"iss": None}, "issuer that is not known"),
        ({"iss": ["a"]}, "issuer that is not known"),
        ({"aud": "https://other.example.org"}, "claim aud"),
        ({"aud": None}, "claim aud"),
        ({"aud": []}, "claim aud"),
        ({"aud": AUDIENCE + "/"}, "claim aud"),
        ({"aud": {"x": AUDIENCE}}, "claim aud"),
        ({"exp": int(NOW) - 61}, "expired"),
        ({"exp": None}, "claim exp"),
        ({"exp": "never"}, "claim exp"),
        ({"exp": int(NOW) + 10**9}, "for too long"),
        ({"nbf": int(NOW) + 61}, "claim nbf"),
        ({"iat": int(NOW) + 61}, "claim iat"),
        ({"sub": None}, "claim sub"),
        ({"sub": ""}, "claim sub"),
        ({"sub": 7}, "claim sub"),
        ({"sub": "x" * 256}, "claim sub"),
        ({"sub": "a\u0000b"}, "claim sub"),
    ],
)
def test_claims_that_do_not_hold_are_refused(own: OwnIssuer, claims: dict[str, Any], words: str) -> None:
    with pytest.raises(TokenRefused, match=words) as raised:
        read(own, own.sign(own.claims(NOW, **claims)))
    assert own.rsa.as_dict()["n"] not in str(raised.value)


@pytest.mark.parametrize("late", [{"exp": int(NOW) - 59}, {"nbf": int(NOW) + 59}, {"iat": int(NOW) + 59}])
def test_clocks_may_differ_by_the_skew(own: OwnIssuer, late: dict[str, Any]) -> None:
    assert read(own, own.sign(own.claims(NOW, **late))).user.subject == "1815"


def unsigned(own: OwnIssuer, **header: Any) -> str:
    parts = [{"typ": "JWT", **header}, own.claims(NOW)]
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + "."


def test_no_signature_is_no_token(own: OwnIssuer) -> None:
    for algorithm in ("none", "None", "nOnE", "", None, 7, ["RS256"]):
        with pytest.raises(TokenRefused, match="signed in a way"):
            read(own, unsigned(own, alg=algorithm))


def test_the_published_key_is_no_shared_secret(own: OwnIssuer) -> None:
    token = own.sign_with_public_key(own.claims(NOW))
    with pytest.raises(TokenRefused, match="signed in a way"):
        read(own, token)


def test_a_secret_that_is_published_is_no_key(own: OwnIssuer) -> None:
    secret = OctKey.generate_key(256, {"kid": "three"})
    own.publish(own.rsa, secret)
    with pytest.raises(TokenRefused):
        read(own, own.sign(own.claims(NOW), key=secret, alg="HS256", kid="three"))


def test_a_key_that_the_token_brings_along_is_not_looked_at(own: OwnIssuer, web: WebServer) -> None:
    mine = RSAKey.generate_key(2048, {"kid": "one"})
    web.put("/mine", json.dumps({"keys": [mine.as_dict(private=False)]}).encode())
    headers: list[dict[str, Any]] = [{"jwk": mine.as_dict(private=False)}, {"jku": web.url("/mine")}, {}]
    for header in headers:
        with pytest.raises(TokenRefused, match="signature"):
            read(own, own.sign(own.claims(NOW), key=mine, **header))
    assert web.asked.get("/mine", 0) == 0


@pytest.mark.parametrize("kid", ["three", "", "../../etc/passwd", "one\u0000", 1, {"a": 1}, "' OR 1=1 --"])
def test_a_key_that_is_not_published_is_none(own: OwnIssuer, kid: Any) -> None:
    token = own.sign(own.claims(NOW), kid="one")
    header, rest = token.split(".", 1)
    plain = {**json.loads(base64.urlsafe_b64decode(header + "==")), "kid": kid}
    forged = base64.urlsafe_b64encode(json.dumps(plain).encode()).decode().rstrip("=")
    with pytest.raises(TokenRefused):
        read(own, f"{forged}.{rest}")


def test_an_algorithm_of_another_key_is_refused(own: OwnIssuer) -> None:
    with pytest.raises(TokenRefused):
        read(own, own.sign(own.claims(NOW), key=own.ec, alg="ES256", kid="one"))
    with pytest.raises(TokenRefused, match="signed in a way"):
        read(own, own.sign(own.claims(NOW)), own.issuer(algorithms=["ES256"]))


def test_what_is_critical_and_not_understood_is_refused(own: OwnIssuer) -> None:
    token = own.sign(own.claims(NOW))
    header, rest = token.split(".", 1)
    plain = {**json.loads(base64.urlsafe_b64decode(header + "==")), "crit": ["exp"], "exp": 1}
    forged = base64.urlsafe_b64encode(json.dumps(plain).encode()).decode().rstrip("=")
    with pytest.raises(TokenRefused):
        read(own, f"{forged}.{rest}")


@pytest.mark.parametrize("kind", ["logout+jwt", "dpop+jwt", "secevent+jwt"])
def test_tokens_of_another_type_are_refused(own: OwnIssuer, kind: str) -> None:
    with pytest.raises(TokenRefused, match="another type"):
        read(own, own.sign(own.claims(NOW), typ=kind))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a.b",
        "a.b.c",
        "a.b.c.d.e",
        "..",
        "{}.{}.{}",
        "\u00e9.\u00e9.\u00e9",
        "W10.W10.W10",
        "x" * 20_000 + ".b.c",
        base64.urlsafe_b64encode(b"[" * 50_00).decode() + ".e30.e30",
    ],
)
def test_what_is_no_token_is_refused(own: OwnIssuer, text: str) -> None:
    with pytest.raises(TokenRefused, match="no signed token"):
        read(own, text)


def test_scopes_that_are_needed_must_be_there(own: OwnIssuer) -> None:
    issuer = own.issuer(required_scopes=["compute"])
    assert read(own, own.sign(own.claims(NOW, scope="openid compute")), issuer).user.subject == "1815"
    assert read(own, own.sign(own.claims(NOW, scp=["compute"])), issuer).user.subject == "1815"
    for scope in (None, "", "computer", ["compute"]):
        with pytest.raises(TokenRefused, match="lacks the scope compute") as raised:
            read(own, own.sign(own.claims(NOW, scope=scope if not isinstance(scope, list) else None)), issuer)
        assert raised.value.error == "insufficient_scope"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Ada Lovelace", "own:Ada Lovelace"),
        ("root", "own:root"),
        ("admin\u0000", "own:1815"),
        ("\u202eada", "own:1815"),
        ("x" * 65, "own:1815"),
        ("  ", "own:1815"),
        (["ada"], "own:1815"),
        ("ａｄａ", "own:ada"),
    ],
)
def test_names_that_deceive_are_not_shown(own: OwnIssuer, name: Any, shown: str) -> None:
    assert read(own, own.sign(own.claims(NOW, preferred_username=name))).user.username == shown


def test_groups_that_are_no_names_do_not_count(own: OwnIssuer) -> None:
    groups = ["good", "", "a\nb", "x" * 300, 7, None, ["nested"], {"a": 1}]
    assert read(own, own.sign(own.claims(NOW, groups=groups))).user.groups == ("own:good",)


# --- keys ------------------------------------------------------------------------------------------------------------


def test_made_up_keys_make_the_issuer_asked_ever_more_rarely(own: OwnIssuer, web: WebServer) -> None:
    now = [0.0]
    issuer = own.issuer(monotonic=lambda: now[0])
    read(own, own.sign(own.claims(NOW)), issuer)
    for second in range(0, 2000, 20):
        now[0] = float(second)
        with pytest.raises(TokenRefused):
            read(own, own.sign(own.claims(NOW), kid=f"made-up-{second}"), issuer)
    assert web.asked["/keys"] <= 2 + 2000 / LONGEST_WAIT + 7
    # A token whose key we have is not kept waiting by all that
    assert read(own, own.sign(own.claims(NOW)), issuer).user.subject == "1815"


def test_without_a_kid_there_must_be_no_doubt_which_key_it_is(own: OwnIssuer) -> None:
    assert read(own, own.sign(own.claims(NOW), kid=None)).user.subject == "1815"
    own.publish(own.rsa, RSAKey.generate_key(2048, {"kid": "other"}))
    with pytest.raises(TokenRefused):
        read(own, own.sign(own.claims(NOW), kid=None))


def test_weak_keys_and_those_for_other_uses_are_left_out(own: OwnIssuer) -> None:
    weak = RSAKey.generate_key(1024, {"kid": "weak"})
    secret = RSAKey.generate_key(2048, {"kid": "enc", "use": "enc"})
    own.publish(own.rsa, weak, secret)
    issuer = own.issuer()
    assert read(own, own.sign(own.claims(NOW)), issuer).user.subject == "1815"
    assert set(issuer._keys) == {"one"}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys": 3}',
        b'{"keys": []}',
        b'{"keys": [{"kty": "RSA"}, 3, null]}',
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_keys_that_cannot_be_read_are_no_keys(own: OwnIssuer, raw: bytes) -> None:
    own.publish(raw=raw)
    with pytest.raises(IssuerSilent):
        read(own, own.sign(own.claims(NOW)))


def test_an_issuer_that_sends_without_end_is_given_up(own: OwnIssuer, web: WebServer) -> None:
    web.put("/keys", endless(b" " * 65_536))
    begun = time.monotonic()
    with pytest.raises(IssuerSilent):
        read(own, own.sign(own.claims(NOW)))
    assert time.monotonic() - begun < 10


def test_a_discovery_document_of_another_issuer_is_refused(own: OwnIssuer) -> None:
    own.discover(issuer="https://evil.example.org/")
    with pytest.raises(IssuerSilent, match="no keys"):
        read(own, own.sign(own.claims(NOW)))


def test_keys_are_not_fetched_through_a_redirect(own: OwnIssuer, web: WebServer) -> None:
    web.put("/keys", status(302, Location=web.url("/elsewhere")))
    with pytest.raises(IssuerSilent):
        read(own, own.sign(own.claims(NOW)))
    assert web.asked.get("/elsewhere", 0) == 0


def test_plain_http_is_refused_but_for_tests(own: OwnIssuer) -> None:
    with pytest.raises(SettingsError, match="https"):
        read_settings(Issuer, {"name": "own", "url": own.url, "audiences": [AUDIENCE]})
    secure = OpenIssuer(read_settings(Issuer, {"name": "own", "url": "https://x.example", "audiences": [AUDIENCE]}))
    with pytest.raises(IssuerSilent, match="not https"):
        secure.ask("GET", own.web.url("/keys"))


def test_after_a_failure_the_issuer_is_asked_again_when_the_wait_is_over(own: OwnIssuer, web: WebServer) -> None:
    now = [0.0]
    issuer = own.issuer(monotonic=lambda: now[0])
    web.put("/keys", status(500))
    for _ in range(5):
        with pytest.raises(IssuerSilent):
            read(own, own.sign(own.claims(NOW)), issuer)
    assert web.asked["/keys"] == 1
    own.publish(own.rsa)
    now[0] += FIRST_WAIT
    assert read(own, own.sign(own.claims(NOW)), issuer).user.subject == "1815"


# --- userinfo --------------------------------------------------------------------------------------------------------


def test_claims_of_the_userinfo_endpoint_count_where_the_site_says_so(own: OwnIssuer, web: WebServer) -> None:
    seen: list[str | None] = []

    def userinfo(document: dict[str, Any]) -> Any:
        body = json.dumps(document).encode()

        def answer(request: BaseHTTPRequestHandler) -> None:
            seen.append(request.headers["Authorization"])
            request.send_response(200)
            request.send_header("Content-Length", str(len(body)))
            request.end_headers()
            request.wfile.write(body)

        return answer

    issuer = own.issuer(userinfo=True)
    token = own.sign(own.claims(NOW, preferred_username=None))
    web.put("/userinfo", userinfo({"sub": "1815", "preferred_username": "ada", "groups": ["g"], "aud": "x", "exp": 1}))
    believed = read(own, token, issuer)
    assert (believed.user.username, believed.user.groups) == ("own:ada", ("own:g",))
    assert believed.expires == NOW + 660
    assert seen == [f"Bearer {token}"]
    web.put("/userinfo", userinfo({"sub": "another", "groups": ["admins"]}))
    with pytest.raises(TokenRefused, match="somebody else's"):
        read(own, token, issuer)
    web.put("/userinfo", status(401))
    with pytest.raises(TokenRefused):
        read(own, token, issuer)
    web.put("/userinfo", status(500))
    with pytest.raises(IssuerSilent):
        read(own, token, issuer)


def test_a_p_256_key_signs_nothing_for_p_384(own: OwnIssuer) -> None:
    other = ECKey.generate_key("P-384", {"kid": "two"})
    with pytest.raises(TokenRefused):
        read(own, own.sign(own.claims(NOW), key=other, alg="ES384", kid="two"))


# --- ebhpc check -----------------------------------------------------------------------------------------------------


def test_a_check_says_whether_issuers_answer_and_rules_name_what_is_there(own: OwnIssuer, web: WebServer) -> None:
    issuer = {"name": "own", "url": own.url, "audiences": [AUDIENCE], "insecure": True}
    policy = {
        "access": [
            {"name": "a", "who": {"groups": ["own:x", "other:y", "staff"]}, "platforms": ["here", "there"]},
        ]
    }
    platforms = [{"name": "here", "kind": "local"}]
    config = read_settings(
        Config, {"issuers": [issuer], "policy": policy, "platforms": platforms, "api": {"bind": "0.0.0.0:80"}}
    )
    found = [(one.level, one.subject, one.text) for one in check_identity(config)]
    assert found == [
        ("INFO", "issuer own", "answers, with 2 keys"),
        ("WARN", "rates", "anybody who reaches the API may ask as often as they like"),
        ("WARN", "rule a", "it names the platform there, which is not there"),
        ("WARN", "rule a", "it names the issuer other (of other:y), which is not there"),
        ("WARN", "rule a", "it names the group staff, which is not there"),
    ]
    web.put("/keys", status(500))
    assert check_identity(config)[0].level == "ERROR"
