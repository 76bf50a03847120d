"""The audit trail: who did what, when, from where, on what, and what came of it."""

from __future__ import annotations

import json
import threading

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from ebhpc.api.auditing import MOST_WAITING, Auditing
from ebhpc.cli.auditing import instant_of
from ebhpc.cli.commands import ebhpc
from ebhpc.config import Api, Audit
from ebhpc.driver.retention import forget_audit
from ebhpc.store import AuditEntry, AuditQuestion, Store, delete_old_audit, read_audit, write_audit
from tests.api.conftest import NOW, PASSWORD, Site, make_site, notebook, site

__all__ = ["make_site", "site"]


def trail(site: Site, **wanted: str) -> list[AuditEntry]:
    site.broker.audit.flush()
    return [entry for _, entry in read_audit(site.store, AuditQuestion(**wanted))]


def test_what_users_decide_is_in_the_trail_with_who_and_when(site: Site) -> None:
    offers = [offer["meta"]["uuid"] for offer in site.offers()["offers"]]
    site.move(offers[0], "REJECTED")
    site.move(offers[1], "ACCEPTED")
    site.move(offers[1], "ACCEPTED")  # it was already: nothing was done
    site.move(offers[1], "CANCELLED", user="root")
    found = [(one.action, one.object, one.username, one.result) for one in trail(site) if one.kind == "session"]
    assert found == [
        ("reject", offers[0], "ada", "done"),
        ("accept", offers[1], "ada", "done"),
        ("cancel", offers[1], "root", "done"),
    ]
    assert {entry.time for entry in trail(site)} == {NOW}
    assert {entry.actor for entry in trail(site, username="ada")} == {site.owners["ada"]}


def test_what_is_accepted_at_once_is_in_the_trail_by_its_uuid(site: Site) -> None:
    answer = site.post("/direct", notebook())
    (entry,) = trail(site, action="accept")
    assert entry.object == answer.json["meta"]["uuid"]


def test_an_acceptance_and_its_entry_are_one(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    uuid = site.offers()["offers"][0]["meta"]["uuid"]

    def fails(*_: object) -> None:
        raise OSError("no more room")

    monkeypatch.setattr("ebhpc.store.offers.add_audit", fails)
    assert site.move(uuid, "ACCEPTED").status == 500
    monkeypatch.undo()
    assert site.get(f"/sessions/{uuid}").json["phase"] == "OFFERED"
    assert trail(site, action="accept") == []


def test_who_looks_at_what_is_not_theirs_is_in_the_trail(site: Site) -> None:
    uuid = site.offers()["offers"][0]["meta"]["uuid"]
    assert site.get(f"/sessions/{uuid}", user="bob").status == 403
    assert site.get(f"/sessions/{uuid}", user="root").status == 200
    assert site.get("/sessions?everybody=true", user="root").status == 200
    found = [(one.username, one.object, one.result) for one in trail(site, action="see")]
    assert found == [("bob", uuid, "refused"), ("root", uuid, "done"), ("root", "everybody's", "done")]


def test_accounts_that_are_made_and_pages_for_administrators_are_in_the_trail(site: Site) -> None:
    document = {"username": "dora", "password": PASSWORD}
    assert site.post("/admin/identities", document).status == 403
    assert site.post("/admin/identities", document, user="root").status == 201
    assert [(one.username, one.action, one.object) for one in trail(site)] == [
        ("ada", "administer", "/admin/identities"),
        ("root", "add", "dora"),
    ]
    assert PASSWORD not in str(trail(site))


def test_a_flood_of_the_same_is_one_entry_with_a_count(ready_database_url: str) -> None:
    store = Store(ready_database_url)
    audit = Auditing(store, Audit(), Api(), clock=lambda: 5.0, pause=60)
    for _ in range(500):
        audit.note(None, "sign-in", result="refused", username="ada")
    for number in range(MOST_WAITING + 10):
        audit.note(None, "sign-in", result="refused", username=str(number))
    audit.flush()
    found = [entry for _, entry in read_audit(store, AuditQuestion(most=10_000))]
    assert (found[0].username, found[0].count) == ("ada", 500)
    assert (found[-1].action, found[-1].count) == ("flood", 11)
    assert len(found) == MOST_WAITING + 1
    store.close()


def test_what_others_chose_is_cut_and_kept_as_text(ready_database_url: str) -> None:
    store = Store(ready_database_url)
    write_audit(store, [AuditEntry(time=1.0, action="sign-in", username="\0\ud800" + "x" * 1000, detail="y" * 5000)])
    ((_, entry),) = read_audit(store, AuditQuestion())
    assert entry.username == "\ufffd?" + "x" * 253
    assert len(entry.detail) == 2000
    store.close()


def test_entries_are_found_by_all_that_they_tell(ready_database_url: str) -> None:
    store = Store(ready_database_url)
    one = AuditEntry(time=10.0, action="accept", username="ada", address="192.0.2.1", object="s1")
    write_audit(
        store, [one, replace(one, time=20.0, username="bob", object="s2", result="refused"), replace(one, time=30.0)]
    )

    def found(**wanted: object) -> list[float]:
        return [entry.time for _, entry in read_audit(store, AuditQuestion(**wanted))]  # type: ignore[arg-type]

    assert found() == [10.0, 20.0, 30.0]
    assert found(username="ada") == [10.0, 30.0]
    assert found(object="s2") == found(result="refused") == [20.0]
    assert found(since=20.0) == [20.0, 30.0]
    assert found(until=20.0) == [10.0]
    assert found(most=1) == [30.0]
    assert found(address="192.0.2.2") == []
    store.close()


def test_old_entries_go_in_portions(ready_database_url: str) -> None:
    store = Store(ready_database_url)
    write_audit(store, [AuditEntry(time=float(second), action="x") for second in range(500)])
    assert delete_old_audit(store, before=450, most=100) == 100
    assert forget_audit(store, before=450)
    while forget_audit(store, before=450):
        pass
    assert min(entry.time for _, entry in read_audit(store, AuditQuestion(most=1000))) == 450.0
    store.close()


def test_many_threads_lose_no_entry(ready_database_url: str) -> None:
    store = Store(ready_database_url)
    audit = Auditing(store, Audit(), Api(), pause=0.01)

    def note(thread: int) -> None:
        for number in range(100):
            audit.note(None, "x", object=f"{thread}-{number}")

    threads = [threading.Thread(target=note, args=(thread,)) for thread in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    audit.flush()
    assert len({entry.object for _, entry in read_audit(store, AuditQuestion(most=10_000))}) == 800
    store.close()


def test_the_command_shows_the_trail_and_nothing_of_it_moves_the_terminal(site: Site, ready_database_url: str) -> None:
    write_audit(site.store, [AuditEntry(time=NOW, action="sign-in", username="\x1b[2Jeve[bold]", result="refused")])
    uuid = site.offers()["offers"][0]["meta"]["uuid"]
    site.move(uuid, "ACCEPTED")
    options = ["--set", f"database.url={ready_database_url}"]
    shown = CliRunner().invoke(ebhpc, ["audit", *options])
    assert shown.exit_code == 0, shown.output
    assert "\x1b[2J" not in shown.output
    lines = CliRunner().invoke(ebhpc, ["audit", "--json", "--user", "ada", *options]).output.splitlines()
    (entry,) = map(json.loads, lines)
    assert (entry["action"], entry["object"], entry["time"]) == ("accept", uuid, "2030-03-17T17:46:40+00:00")
    assert CliRunner().invoke(ebhpc, ["audit", "--since", "soon", *options]).exit_code == 2
    assert CliRunner().invoke(ebhpc, ["account", "bar", "nobody", *options]).exit_code == 1
    assert CliRunner().invoke(ebhpc, ["account", "bar", "bob", *options]).exit_code == 0
    assert site.get("/sessions", user="bob").status == 401
    assert CliRunner().invoke(ebhpc, ["account", "unbar", "bob", *options]).exit_code == 0
    listed = CliRunner().invoke(ebhpc, ["account", "list", *options]).output
    assert f"{site.owners['root']}\troot\tadmin" in listed
    found = [(one.action, one.object) for one in trail(site, object="bob")]
    assert found == [("bar", "bob"), ("unbar", "bob")]


@pytest.mark.parametrize(
    ("text", "instant"),
    [("1h", 6400.0), ("1d", -76400.0), ("1970-01-01T01:00", 3600.0), ("1970-01-01T01:00+01:00", 0.0)],
)
def test_times_are_ago_or_absolute(text: str, instant: float) -> None:
    assert instant_of(text, 10_000.0) == instant
