"""Runs on the login host, for as long as the SSH connection lasts: many calls of OpenStack's APIs for one round trip.

The broker sends this text and runs it with the login host's Python (3.8 or newer, with openstacksdk); nothing of it is
installed there. The cloud's credentials are read there, from clouds.yaml or the environment, and never leave the host.

A question is a line of JSON on stdin, ``{"id", "calls": [{"service", "method", "path", "version", "json", "list"}]}``;
the calls of a question are made at the same time. An answer is a line on stdout: ``{"id", "answers": [{"status",
"body"} or {"fault", "text"}]}``, in the order of the calls. ``list`` names the list in the body whose further pages are
wanted too. Of the services ``hypervisors`` is ours: what placement says of all providers; ``reach`` looks whether TCP
ports answer, ``who`` tells the project.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

_PAGES = 200
"""Pages of one list, at most."""

_VERSIONED = {"compute": "compute", "placement": "placement", "block-storage": "volume"}
"""The services whose microversion is asked for, and what they call themselves then."""


class Cloud:
    """The cloud, logged in to once; a token that has expired is renewed by keystoneauth."""

    def __init__(self, name: str | None, seconds: float) -> None:
        self.name = name
        self.seconds = seconds
        self.lock = threading.Lock()
        self.session: Any = None
        self.config: Any = None
        self.pool = ThreadPoolExecutor(12)
        self.inventories: dict[str, dict[str, Any]] = {}

    def connected(self) -> Any:
        """Return the session, made at the first call."""
        with self.lock:
            if self.session is None:
                from openstack.config import OpenStackConfig  # type: ignore[import-not-found]

                self.config = OpenStackConfig().get_one(cloud=self.name, app_name="ebhpc")
                self.session = self.config.get_session()
                self.session.timeout = self.seconds
        return self.session

    def call(self, call: dict[str, Any]) -> dict[str, Any]:
        """Make one call; what goes wrong is told, not raised."""
        try:
            service = call["service"]
            if service == "hypervisors":
                return {"status": 200, "body": self.hypervisors()}
            if service == "reach":
                return {"status": 200, "body": reach(call["json"])}
            if service == "who":
                session = self.connected()
                return {"status": 200, "body": {"project": session.get_project_id(), "user": session.get_user_id()}}
            answer = self.request(call)
            key = call.get("list")
            if key and answer["status"] == 200:
                self.more_pages(call, answer["body"], key)
            return answer
        except Exception as error:  # noqa: BLE001  # whatever it is, whoever asked is told
            return {"fault": type(error).__name__, "text": " ".join(str(error).split())[:1000]}

    def request(self, call: dict[str, Any]) -> dict[str, Any]:
        """Make one request of a service; one that is refused for its token, which carried out nothing, is made again.

        keystoneauth renews a token that is no longer good for the first of several threads that find that out; the
        others are told 401.
        """
        answer = self.request_once(call)
        return self.request_once(call) if answer["status"] == 401 else answer

    def request_once(self, call: dict[str, Any]) -> dict[str, Any]:
        """Make one request of a service."""
        service = call["service"]
        session = self.connected()
        headers = {"Accept": "application/json"}
        if call.get("version") and service in _VERSIONED:
            headers["OpenStack-API-Version"] = f"{_VERSIONED[service]} {call['version']}"
        answer = session.request(
            call["path"],
            call.get("method", "GET"),
            json=call.get("json"),
            headers=headers,
            endpoint_filter={
                "service_type": service,
                "interface": self.config.get_interface(service),
                "region_name": self.config.get_region_name(service),
                **({"version": "2"} if service in ("network", "image") else {}),
            },
            raise_exc=False,
            connect_retries=0,
        )
        try:
            body = answer.json() if answer.content else None
        except ValueError:
            body = {"text": answer.text[:1000]}
        return {"status": answer.status_code, "body": body}

    def more_pages(self, call: dict[str, Any], body: dict[str, Any], key: str) -> None:
        """Add the further pages of a list to the first one."""
        page = body
        for _ in range(_PAGES):
            following = [one["href"] for one in page.get(key + "_links") or () if one.get("rel") == "next"]
            if not following or not page[key]:
                return
            marker = page[key][-1]["id"]
            path = call["path"] + ("&" if "?" in call["path"] else "?") + "marker=" + marker
            answer = self.request({**call, "path": path})
            if answer["status"] != 200:
                raise RuntimeError(f"a further page was answered {answer['status']}")
            page = answer["body"]
            body[key] += page[key]

    def hypervisors(self) -> dict[str, Any]:
        """Return what each provider of cores has of what, and what of that is used, by few calls of placement.

        Candidates for one core tell of all that have one left, with what belongs to them; the others, which are full,
        are asked for singly.
        """
        listed, candidates = self.pool.map(
            self.request,
            [
                {"service": "placement", "path": "/resource_providers", "version": "1.29"},
                {"service": "placement", "path": "/allocation_candidates?resources=VCPU:1", "version": "1.29"},
            ],
        )
        for answer in (listed, candidates):
            if answer["status"] != 200:
                return answer
        providers = {one["uuid"]: one for one in listed["body"]["resource_providers"]}
        known = candidates["body"]["provider_summaries"]
        found = {number: one["resources"] for number, one in known.items()}
        rest = [number for number in providers if number not in found]
        # Python 3.8 knows no strict zip
        told = dict(zip(rest, self.pool.map(self.resources, rest)))  # noqa: B905
        found.update({number: resources for number, resources in told.items() if resources is not None})
        return {
            "status": 200,
            "providers": [
                {"uuid": number, "name": one["name"], "root": one["root_provider_uuid"], "resources": found[number]}
                for number, one in providers.items()
                if number in found
            ],
        }

    def resources(self, number: str) -> dict[str, Any] | None:
        """Return what one provider has, and what of that is used."""
        path = "/resource_providers/" + number
        inventory = self.request({"service": "placement", "path": path + "/inventories", "version": "1.29"})
        usage = self.request({"service": "placement", "path": path + "/usages", "version": "1.29"})
        if inventory["status"] != 200 or usage["status"] != 200:
            return None
        return {
            kind: {
                "capacity": int((one["total"] - one["reserved"]) * one["allocation_ratio"]),
                "used": usage["body"]["usages"].get(kind, 0),
            }
            for kind, one in inventory["body"]["inventories"].items()
        }


def reach(wanted: list[list[Any]]) -> list[bool]:
    """Say which of these hosts and ports answer a TCP connection from here."""

    def answers(place: list[Any]) -> bool:
        try:
            socket.create_connection((place[0], place[1]), timeout=2).close()
        except OSError:
            return False
        return True

    with ThreadPoolExecutor(16) as threads:
        return list(threads.map(answers, wanted))


def main() -> None:
    """Answer questions until there are no more."""
    hello = json.loads(sys.stdin.readline())
    cloud = Cloud(hello["cloud"], hello["seconds"])
    lock = threading.Lock()

    def say(told: dict[str, Any]) -> None:
        with lock:
            sys.stdout.write(json.dumps(told) + "\n")
            sys.stdout.flush()

    try:
        import openstack  # type: ignore[import-not-found]

        say({"id": 0, "sdk": openstack.version.__version__, "python": f"{sys.version_info[0]}.{sys.version_info[1]}"})
    except ImportError as error:
        say({"id": 0, "fault": "ImportError", "text": str(error)})
        return
    calls, questions = ThreadPoolExecutor(16), ThreadPoolExecutor(16)

    def answer(question: dict[str, Any]) -> None:
        say({"id": question["id"], "answers": list(calls.map(cloud.call, question["calls"]))})

    for line in sys.stdin:
        questions.submit(answer, json.loads(line))
    # The connection has ended: what still goes on is of no use to anybody
    import os

    os._exit(0)


if __name__ == "__main__":
    main()
