"""One browser and one real broker for all tests of the page."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from ebhpc.store import Store, expire_offers
from tests.broker import PASSWORD, QUICK, RunningBroker, local_platform
from tests.lab import containers
from tests.labs import require
from tests.local.webserver import WebServer
from tests.ui.browsing import User, browser, chromium

_THERE = "import os; os.chdir(os.environ['EBHPC_RESULTS'])"

NOTES = {
    "good.ipynb": [_THERE, "print('It works')", "open('table.txt', 'w').write('1 2 3')"],
    "slow.ipynb": ["import time; time.sleep(1800)"],
    # A job that wants to act as its reader: by its output, by files of every kind that a browser might run
    "evil.ipynb": [
        _THERE,
        "from IPython.display import HTML",
        "HTML('<script>top.pwned = 1</script><img src=x onerror=\"top.pwned = 1\"><b id=shown>seen</b>')",
        "bad = '<script>top.pwned = 1; alert(1)</script>'",
        "open('page.html', 'w').write('<h1>page</h1>' + bad + '<form action=/ui/sign-out method=post></form>')",
        "open('draw.svg', 'w').write('<svg xmlns=\"http://www.w3.org/2000/svg\" onload=\"alert(1)\"/>')",
        "open('<img src=x onerror=alert(1)>.txt', 'w').write(bad)",
        "print(bad)",
    ],
}


@pytest.fixture(scope="session")
def notebooks() -> Iterator[str]:
    """The address of a web server with notebooks."""
    server = WebServer()
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    for name, cells in NOTES.items():
        made = [
            {
                "cell_type": "code",
                "id": f"c{number}",
                "metadata": {},
                "source": source,
                "outputs": [],
                "execution_count": None,
            }
            for number, source in enumerate(cells)
        ]
        document = {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel}, "cells": made}
        server.put(f"/{name}", json.dumps(document).encode())
    yield server.url("")
    server.close()


VIEW = 0.6
"""Seconds after which every request sees what was given back: they are planned on what was read half a second ago."""


class Site(RunningBroker):
    """``ebhpc serve`` with the accounts admin, ada and bob."""

    def make_people(self) -> None:
        """Make ada's and bob's accounts."""
        for name in ("ada", "bob"):
            self.command("account", "add", name, "--password-file", str(self.folder / "password"))

    def shorten_offers(self, seconds: int) -> int:
        """Have all offers that are open expire so soon; return how many."""
        then = int(time.time()) + seconds
        store = Store(f"sqlite:///{self.state / 'ebhpc.sqlite3'}")
        with store.write("shorten", "") as tx:
            tx.exec_driver_sql("UPDATE bookings SET expires = ? WHERE expires IS NOT NULL AND freed IS NULL", (then,))
            changed = tx.exec_driver_sql("UPDATE sessions SET expires = ? WHERE phase = 'OFFERED'", (then,))
        store.close()
        return changed.rowcount

    def end_offers(self) -> None:
        """Have all offers that are open end, and wait until nobody is offered anything beside them."""
        if not self.shorten_offers(0):
            return
        store = Store(f"sqlite:///{self.state / 'ebhpc.sqlite3'}")
        expire_offers(store, "here", now=time.time())
        store.close()
        time.sleep(VIEW)

    def accepted(self, name: str, document: dict[str, Any]) -> str:
        """Have a user ask for something and take the first offer; return the session's UUID."""
        with self.as_user(name) as api:
            offers = api.post("/requests", json=document).json()
            assert offers.get("offers"), offers
            uuid = str(offers["offers"][0]["meta"]["uuid"])
            self.move(api, uuid, "ACCEPTED")
        return uuid

    @staticmethod
    def move(api: httpx.Client, uuid: str, phase: str) -> None:
        """Accept or cancel a session."""
        update = {"kind": "uri:enum-value-update", "path": "phase", "value": phase}
        answer = api.post(f"/sessions/{uuid}", json=update)
        assert answer.status_code == 200, answer.text

    def as_user(self, name: str) -> httpx.Client:
        """A client of the API."""
        return httpx.Client(
            base_url=self.url,
            auth=(name, PASSWORD),
            headers={"Accept": "application/json"},
            trust_env=False,
            timeout=120,
        )


@pytest.fixture(scope="session")
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A broker for this machine: API and driver under ``ebhpc serve``; with containers where the lab has some.

    Who books more than three hours of all of it needs an operator's word.
    """
    runtime = {} if containers.missing() else {"runtime": request.getfixturevalue("podman").runtime}
    platform = {
        **local_platform(scripts={"allowed": True}, **runtime),
        "firm": {"approval_above": 3, "approval_within": "1d"},
    }
    made = Site(tmp_path_factory.mktemp("site"), {**QUICK, "offers": {"lifetime": "10m"}, "platforms": [platform]})
    try:
        made.make_ready()
        made.make_people()
        made.start("serve")
        made.wait_ready(300)
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="session")
def chrome() -> Iterator[Any]:
    """A headless Chromium."""
    require(chromium() is not None, "this needs Chromium (Debian: apt-get install chromium)")
    with browser() as running:
        yield running


@pytest.fixture
def user(chrome: Any, site: Site) -> Iterator[Callable[..., User]]:
    """Make users who are signed in; at the end no page of theirs may have done what it must not."""
    made: list[User] = []

    def make(name: str | None = "ada", path: str = "/ui/", **options: Any) -> User:
        one = User(chrome, site.url, **options)
        made.append(one)
        if name is not None:
            one.sign_in(name, PASSWORD, path)
        return one

    yield make
    for one in made:
        print(one.told())  # pytest shows it where the test has failed
    faults = [fault for one in made for fault in one.faults]
    for one in made:
        one.close()
    assert not faults, faults
    site.end_offers()  # nobody else has to wait for what these were offered


@pytest.fixture(scope="session")
def request_of() -> Callable[..., dict[str, Any]]:
    """Make the document of a request for a notebook."""
    from ebhpc.model import kinds

    def make(location: str, name: str | None = None, **parts: Any) -> dict[str, Any]:
        executable: dict[str, Any] = {"kind": kinds.JUPYTER_NOTEBOOK, "location": location}
        if name is not None:
            executable["meta"] = {"name": name}
        return {"executable": executable, "schedule": {"requested": {"duration": "PT10M"}}, **parts}

    return make
