"""What asking a cloud costs: ``python -m bench.openstack [--sessions N] [--rounds N]``.

On the lab's cloud, in one run: one API call through the kept connection; a look at the whole cloud; following many
sessions; an offer. Beside them the naive ways: one ``openstack`` command for each question over SSH, the same command
kept running, and each API call through a forwarded channel of its own. Wall time, the medians of several rounds: most
of it is waiting, so that other work on the machine counts in all alike.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from ebhpc.batch.ssh import SshConnection
from ebhpc.model import Allocation, Demand, Identity, JupyterNotebook, Phase, Session, Shape, SimpleCompute, kinds
from ebhpc.planning import Timeline, flavored, windows
from ebhpc_openstack import ebhpc_platform
from ebhpc_openstack.asking import Answer, Call
from ebhpc_openstack.platform import OpenStackPlatform
from tests.broker import RunningBroker
from tests.lab.openstack import Cloud, openstack_cloud
from tests.lab.openstack.layout import Host

_QUESTIONS = ("server list", "flavor list", "quota show --compute", "hypervisor list", "network list")


def settings_on(cloud: Cloud, folder: Path) -> dict[str, Any]:
    """Return the settings of a platform on the lab's cloud."""
    ssh = cloud.ssh
    return {
        "ssh": {
            "host": ssh.host,
            "port": ssh.port,
            "user": ssh.user,
            "key_file": str(ssh.key_file),
            "known_hosts": str(ssh.known_hosts),
        },
        "jobs": {"root": str(folder / "sessions"), "access": "own", "staging": "job"},
        "cloud": "planner",
        "image": "debian",
        "look": "0s",
        "answer_within": "60s",
        "capacity": "own",
    }


def platform_on(cloud: Cloud, folder: Path) -> OpenStackPlatform:
    """Build a platform on the lab's cloud."""
    built = ebhpc_platform("openstack", "cloud", settings_on(cloud, folder), folder)
    assert isinstance(built, OpenStackPlatform)
    return built


def timed(rounds: int, act: Callable[[], Any]) -> float:
    """Return the median of the seconds that something takes."""
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        act()
        found.append(time.perf_counter() - began)
    return statistics.median(found)


def in_turn(rounds: int, *acts: Callable[[], Any]) -> list[float]:
    """Return the medians of the seconds that things take which are done in turn, so that what else goes on hits all."""
    found: list[list[float]] = [[] for _ in acts]
    for _ in range(rounds):
        for times, act in zip(found, acts, strict=True):
            times.append(timed(1, act))
    return [statistics.median(times) for times in found]


class Counted:
    """Counts questions on their way to the login host."""

    def __init__(self, platform: OpenStackPlatform) -> None:
        self._host = platform.host
        self.questions = self.calls = 0

    def ask(self, calls: Any, *, seconds: float | None = None) -> list[Answer]:
        """Pass a question on."""
        self.questions += 1
        self.calls += len(calls)
        return self._host.ask(calls, seconds=seconds)

    def close(self) -> None:
        """End what was started."""
        self._host.close()


def command(connection: SshConnection, words: str) -> None:
    """Ask one question by a command of its own, as anybody would."""
    channel = connection.run(["openstack", "--os-cloud", "planner", *words.split(), "-f", "json"], seconds=120)
    text = b""
    while part := channel.recv(1 << 16):
        text += part
    assert channel.recv_exit_status() == 0, words
    json.loads(text)


class Kept:
    """The ``openstack`` command kept running: questions on its stdin, JSON on its stdout."""

    def __init__(self, connection: SshConnection) -> None:
        self._channel = connection.run(["openstack", "--os-cloud", "planner"], seconds=120)
        self._channel.settimeout(120)
        self.ask("server list")

    def ask(self, words: str) -> Any:
        """Ask one question; its answer is whole when it can be read."""
        self._channel.sendall(f"{words} -f json\n".encode())
        text = ""
        while True:
            text += self._channel.recv(1 << 16).decode()
            at = min((place for place in (text.find("["), text.find("{")) if place >= 0), default=-1)
            if at >= 0:
                try:
                    return json.JSONDecoder().raw_decode(text[at:])[0]
                except ValueError:
                    continue


def forwarded(connection: SshConnection, cloud: Cloud, token: str) -> None:
    """Make one API call through a forwarded channel."""
    channel = connection.reach("127.0.0.1", cloud.ports.nova, seconds=60)
    client = http.client.HTTPConnection("nova")
    client.sock = channel  # type: ignore[assignment]  # it has what http.client uses of a socket
    client.request("GET", "/v2.1/limits", headers={"X-Auth-Token": token, "Host": f"127.0.0.1:{cloud.ports.nova}"})
    answer = client.getresponse()
    assert answer.status == 200, answer.read()
    json.loads(answer.read())
    client.close()


def session(number: int) -> Session:
    """Return a session that has a server."""
    now = int(time.time())
    return Session(
        uuid=f"{number:08x}-0000-7000-8000-000000000000",
        name=None,
        owner=Identity(uuid="o", username="ada"),
        platform="cloud",
        phase=Phase.AVAILABLE,
        executable=JupyterNotebook(location="http://127.0.0.1:9/n.ipynb"),
        compute=SimpleCompute(),
        allocations=(Allocation(node="", cores=1, memory=1024, devices={"scratch": 10}),),
        start=now,
        latest=now + 600,
        end=now + 7200,
        duration=3600,
        firm=False,
        native=f"ebhpc-{number}",
    )


def fill(platform: OpenStackPlatform, count: int) -> list[Session]:
    """Make servers whose guests do nothing, and return their sessions."""
    sessions = [session(number) for number in range(1, count + 1)]
    for start in range(0, count, 10):
        bodies = []
        for one in sessions[start : start + 10]:
            body = platform.launches.body(one)
            body["metadata"]["lab_idle"] = "yes"
            body["networks"] = "none"
            bodies.append(body)
        made = platform.cloud.create(bodies)
        assert all(one.fault is None for one in made), made
        while any(server.status == "BUILD" for server in platform.cloud.servers()):
            time.sleep(1)
    return sessions


def begun(platform: OpenStackPlatform, sessions: list[Session]) -> None:
    """Note of each session that its job has begun, as its console would have said."""
    from ebhpc.batch import session_directory
    from ebhpc_openstack import results

    for one in sessions:
        results.begun(session_directory(platform.settings.jobs.root, one.uuid), time.time(), "server", {})


def offer(platform: OpenStackPlatform, timeline: Timeline) -> int:
    """Find windows for a request on what is known: what an offer takes."""
    now = int(time.time())
    wanted = Demand(least=Shape(cores=1, memory=1024), duration=3600, earliest=now, latest=now + 7200)
    asked = flavored(wanted, timeline.snapshot.flavors or ())
    assert asked is not None
    return len(windows(replace(asked, duration=3600), timeline, now=now))


def requests(cloud: Cloud, folder: Path, rounds: int, call: Callable[[], Any]) -> tuple[float, float]:
    """Measure a broker's answer to a request, as its client sees it, and API calls in turn with it."""
    place = folder / "broker"
    place.mkdir()
    platform = {
        "name": "cloud",
        "kind": "openstack",
        "lead": "1s",
        "refresh": "5s",
        "settings": settings_on(cloud, place),
    }
    broker = RunningBroker(place, {"platforms": [platform], "api": {"workers": 1}})
    wanted = {
        "executable": {"kind": kinds.JUPYTER_NOTEBOOK, "location": "http://127.0.0.1:9/note.ipynb"},
        "compute": {"kind": kinds.SIMPLE_COMPUTE, "cores": {"min": 1}, "memory": {"min": 1}},
    }
    try:
        broker.make_ready()
        broker.start("api")
        broker.start("drive")
        broker.wait_ready()
        with broker.client() as client:
            end = time.monotonic() + 60
            while client.offers(wanted).result != "YES":
                assert time.monotonic() < end, broker.logs()
                time.sleep(0.5)

            def ask() -> None:
                offers = client.offers(wanted)
                assert offers.result == "YES", offers
                asked.extend(str(one.meta.uuid) for one in offers.offers or ())

            asked: list[str] = []
            took: list[list[float]] = [[], []]
            for _ in range(rounds):
                took[0].append(timed(1, ask))
                took[1].append(timed(1, call))
                # Else what is offered would fill the cloud
                while asked:
                    client.reject(asked.pop())
            return statistics.median(took[0]), statistics.median(took[1])
    finally:
        broker.stop()


def show(name: str, seconds: float, words: str = "") -> None:
    """Print a figure."""
    print(f"  {name:42}{seconds * 1000:>10.1f} ms   {words}", flush=True)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.openstack", description=__doc__)
    parser.add_argument("--sessions", type=int, default=200, help="servers that are followed (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=15, help="rounds of each measurement (default %(default)s)")
    given = parser.parse_args()
    hosts = tuple(Host(f"node{at}", cores=256, memory=1 << 20, disk=100_000) for at in (1, 2))
    with openstack_cloud(hosts) as cloud, tempfile.TemporaryDirectory(prefix="ebhpc-bench-") as folder:
        cloud.quota(instances=-1, cores=-1, ram=-1)
        platform = platform_on(cloud, Path(folder))
        connection = platform.host.connection
        platform.ebhpc_snapshot(int(time.time()))
        limits = Call(service="compute", path="/limits", version="2.61")
        empty = timed(given.rounds, lambda: platform.cloud.ask(limits))
        show("one API call, our program", empty)
        token = cloud._token
        show("one API call, a forwarded channel", timed(given.rounds, lambda: forwarded(connection, cloud, token)), "")
        show("one question, openstack command", timed(3, lambda: command(connection, "quota show --compute")), "")
        kept = Kept(connection)
        show("one question, openstack kept running", timed(5, lambda: kept.ask("quota show --compute")), "")
        look = timed(given.rounds, lambda: platform.cloud.look())
        show("the whole cloud, our program", look, "one round trip, 8 calls and more")
        naive = timed(1, lambda: [command(connection, words) for words in _QUESTIONS])
        show("the whole cloud, openstack commands", naive, f"{len(_QUESTIONS)} commands")
        timeline = Timeline.of(platform.ebhpc_snapshot(int(time.time())))
        found = timed(given.rounds, lambda: offer(platform, timeline))
        show("an offer, from what is known", found, f"{found / empty:.2f} of one API call; wanted: at most 1.2")
        post, bare = requests(cloud, Path(folder), given.rounds, lambda: platform.cloud.ask(limits))
        show("POST /requests, of a whole broker", post, f"{post / bare:.2f} of one API call in turn with it")
        sessions = fill(platform, given.sessions)
        begun(platform, sessions)
        counted = Counted(platform)
        platform.cloud._asker = counted
        platform.ebhpc_observe(sessions)
        said = f"{counted.questions} question of {counted.calls} call"
        # The plain listing before and after: what two of the same differ by is no cost of following
        listing, followed, again = in_turn(
            given.rounds, platform.cloud.servers, lambda: platform.ebhpc_observe(sessions), platform.cloud.servers
        )
        before = time.process_time()
        platform.ebhpc_observe(sessions)
        cpu = (time.process_time() - before) * 1000
        said += f"; {2 * followed / (listing + again):.2f} of one listing, {cpu:.0f} ms of CPU here"
        show(
            f"one listing of {given.sessions} servers", listing, f"the same after each following: {again * 1000:.1f} ms"
        )
        show(f"{given.sessions} sessions followed", followed, said)
        one = platform.cloud.servers()[0].id
        single = timed(2, lambda: command(connection, f"server show {one}"))
        show("one session, openstack server show", single, f"{given.sessions} of them: {single * given.sessions:.0f} s")
        platform.host.close()


if __name__ == "__main__":
    main()
