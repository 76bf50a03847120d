"""Who asks: HTTP Basic, argon2, and how accounts are made."""

from __future__ import annotations

import base64
import threading
import time

import pytest

from ebhpc.api.accounts import HASHER, AccountError, Accounts, add_account, ensure_admin, is_username
from ebhpc.api.problems import Problem
from ebhpc.store import count_identities, find_identity, set_password
from tests.api.conftest import NOW, PASSWORD, notebook


def basic(username: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "Basic",
        "Basic !!!",
        "Basic " + base64.b64encode(b"ada").decode(),
        "Basic " + base64.b64encode(b"\xff\xfe:x").decode(),
        "Bearer abc",
        "Digest username=ada",
        basic("ada", "wrong"),
        basic("nobody", PASSWORD),
        basic("", ""),
        basic("ada\0", PASSWORD),
        basic("a" * 5000, PASSWORD),
        basic("ada", "p" * 5000),
        "\u00e9",
    ],
)
def test_whoever_is_not_known_gets_401_with_a_challenge(site, authorization):
    headers = {"Authorization": authorization} if authorization else {}
    answer = site.post("/requests", notebook(), user=None, headers=headers)
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == 'Basic realm="ebhpc", charset="UTF-8"'
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.kinds() == ["urn:policy-refused"]


def test_the_scheme_is_read_in_any_case_and_passwords_may_have_colons(site):
    add_account(site.store, "carol", "pass:word:1", now=NOW)
    mark = basic("carol", "pass:word:1").replace("Basic", "bAsIc")
    assert site.get("/sessions", user=None, headers={"Authorization": mark}).status == 200


def test_a_changed_password_counts_within_seconds(site):
    now = [0.0]
    accounts = Accounts(site.store, monotonic=lambda: now[0])
    old = basic("ada", PASSWORD)
    assert accounts.identify(old).uuid == site.owners["ada"]
    set_password(site.store, site.owners["ada"], HASHER.hash("another password"))
    now[0] = 5.1
    with pytest.raises(Problem):
        accounts.identify(old)
    assert accounts.identify(basic("ada", "another password")).username == "ada"


def test_credentials_that_were_right_are_not_hashed_again_while_the_account_is_the_same(site, monkeypatch):
    now = [0.0]
    accounts = Accounts(site.store, monotonic=lambda: now[0])
    accounts.identify(basic("ada", PASSWORD))
    monkeypatch.setattr(accounts, "_verify", lambda *_: pytest.fail("hashed again"))
    for moment in (1.0, 6.0, 600.0):
        now[0] = moment
        assert accounts.identify(basic("ada", PASSWORD)).username == "ada"


def test_a_wrong_password_is_not_hashed_again_at_once(site, monkeypatch):
    accounts = Accounts(site.store)
    with pytest.raises(Problem):
        accounts.identify(basic("ada", "wrong"))
    monkeypatch.setattr(accounts, "_verify", lambda *_: pytest.fail("hashed again"))
    with pytest.raises(Problem) as raised:
        accounts.identify(basic("ada", "wrong"))
    assert raised.value.status_code == 401


def test_only_a_few_hashes_are_computed_at_a_time_and_others_are_told_to_wait(site, monkeypatch):
    accounts = Accounts(site.store, hashes=1, patience=0.05)
    begun, go_on = threading.Event(), threading.Event()
    verify = accounts._verify

    def slow(*arguments):
        begun.set()
        go_on.wait(10)
        return verify(*arguments)

    monkeypatch.setattr(accounts, "_verify", slow)
    first = threading.Thread(target=accounts.identify, args=(basic("ada", PASSWORD),))
    first.start()
    begun.wait(10)
    with pytest.raises(Problem) as raised:
        accounts.identify(basic("bob", PASSWORD))
    go_on.set()
    first.join()
    assert raised.value.status_code == 429
    assert raised.value.headers["Retry-After"] == "1"
    assert accounts.identify(basic("ada", PASSWORD)).username == "ada"


def test_an_unknown_user_takes_as_long_as_a_wrong_password(site):
    accounts = Accounts(site.store)

    def fastest(username):
        seconds = []
        for number in range(6):
            begun = time.thread_time()
            with pytest.raises(Problem):
                accounts.identify(basic(username, f"wrong {number}"))
            seconds.append(time.thread_time() - begun)
        return min(seconds)

    fastest("somebody")  # makes the hash of nobody
    known, unknown = fastest("ada"), fastest("nobody")
    assert 0.5 < known / unknown < 2.0


def test_what_is_remembered_is_bounded(site):
    accounts = Accounts(site.store, most=3)
    for number in range(6):
        with pytest.raises(Problem):
            accounts.identify(basic("ada", f"wrong {number}"))
    assert len(accounts._seen) == 3


def test_the_first_start_makes_an_administrator_whose_password_is_told_once(make_site, ready_database_url):
    from ebhpc.store import Store

    store = Store(ready_database_url)
    password = ensure_admin(store, "admin", NOW)
    assert password is not None
    assert Accounts(store).identify(basic("admin", password)).admin
    assert ensure_admin(store, "admin", NOW) is None
    assert count_identities(store) == 1
    assert password not in find_identity(store, "admin").password
    store.close()


@pytest.mark.parametrize(
    ("username", "password"),
    [
        ("", PASSWORD),
        ("a:b", PASSWORD),
        (" a", PASSWORD),
        ("a\nb", PASSWORD),
        ("x" * 65, PASSWORD),
        ("ada2", "short"),
        ("ada2", "x" * 257),
        ("ada2", "\0" * 9),
    ],
)
def test_an_account_that_cannot_be_used_is_not_made(site, username, password):
    with pytest.raises(AccountError) as raised:
        add_account(site.store, username, password, now=NOW)
    assert password not in str(raised.value) or len(password) < 2


def test_usernames_may_be_of_any_script():
    assert all(map(is_username, ["ada", "Ada Lovelace", "ada@example.org", "Ærøskøbing", "名前"]))
    assert not any(map(is_username, ["", "a:b", "a\tb", " a", "a ", "a\0"]))


# --- /admin/identities ---------------------------------------------------------------------------------------------


def test_an_administrator_makes_an_account_that_can_be_used(site):
    answer = site.post("/admin/identities", {"username": "dora", "password": PASSWORD}, user="root")
    assert answer.status == 201
    assert answer.json["username"] == "dora"
    assert site.offers(user="dora")["result"] == "YES"
    again = site.post("/admin/identities", {"username": "dora", "password": "another password"}, user="root")
    assert again.status == 409
    assert again.json == answer.json
    assert site.get("/sessions", user="dora").status == 200


@pytest.mark.parametrize(
    ("document", "paths"),
    [
        ({}, ["/username", "/password"]),
        ({"username": "dora"}, ["/password"]),
        ({"password": PASSWORD}, ["/username"]),
        ({"username": 3, "password": ["x"]}, ["/username", "/password"]),
        ({"username": "a:b", "password": "short"}, ["/username", "/password"]),
        ({"username": None, "password": PASSWORD}, ["/username"]),
        (["dora", PASSWORD], [""]),
    ],
)
def test_an_account_without_what_it_needs_is_400_with_every_place(site, document, paths):
    answer = site.post("/admin/identities", document, user="root")
    assert answer.status == 400
    assert [item["values"]["path"] for item in answer.json["messages"]] == paths
    assert PASSWORD not in answer.content.decode()


def test_only_administrators_make_accounts(site):
    document = {"username": "dora", "password": PASSWORD}
    assert site.post("/admin/identities", document).status == 403
    assert site.post("/admin/identities", document, user=None).status == 401
    assert find_identity(site.store, "dora") is None
