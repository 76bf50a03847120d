"""The page on a large machine, in headless Chromium: sizes, drawing, previews, watchers.

``python -m bench.page`` prints the figures with their bounds; ``python -m bench.page serve FOLDER PORT`` is the broker
that it starts, with 1,000 nodes and 10,000 jobs on paper.
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import logging
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil

import ebhpc
from bench.serving import free_port, process, wait_for
from ebhpc.api import add_account, create_app, run_api
from ebhpc.config import Address, Api, Config, Duration, PlatformConfig
from ebhpc.model import Allocation, Observation, Request, Session, Shape, kinds
from ebhpc.model.registry import Kinds
from ebhpc.planning import (
    Node,
    Partition,
    PlannedJob,
    Reservation,
    RunningJob,
    Snapshot,
    WaitingJob,
    encode_snapshot,
)
from ebhpc.plugins import Platform, Policies, load_plugins
from ebhpc.store import Store, ensure_platforms, publish_snapshot, upgrade
from ebhpc.ui import with_page

NODES = 1000
JOBS = 10_000
PICTURE = "/ui/data/platforms/wide/picture?duration=P14D"

WATCHERS = 200
USER, PASSWORD = "ada", "a password for measuring"
DAY = 86_400


def snapshot(now: int, *, nodes: int = NODES, jobs: int = JOBS, seed: int = 1) -> Snapshot:
    """Make the state of a busy machine: two partitions, jobs of all sizes for two weeks, a maintenance, a course."""
    chance = random.Random(seed)
    gpus = nodes // 5
    names = [f"cpu{n:04d}" for n in range(nodes - gpus)] + [f"gpu{n:04d}" for n in range(gpus)]
    all_nodes = tuple(
        Node(name=name, cores=64, memory=256 * 1024, devices={"gpu": 4} if name.startswith("gpu") else {})
        for name in names
    )
    # When each quarter of each node is free
    free = [[now - chance.randrange(DAY) for _ in range(4)] for _ in names]
    running: list[RunningJob] = []
    waiting: list[WaitingJob] = []
    planned: list[PlannedJob] = []
    while len(running) + len(waiting) < jobs:
        wide = min(2 ** int(chance.expovariate(1.1)), 64)
        quarters = 4 if wide > 1 else chance.choice([1, 1, 2, 4])
        cores = quarters * 16 - (chance.choice([0, 0, 2, 8]) if wide == 1 else 0)
        limit = chance.choice([1800, 3600, 4 * 3600, 12 * 3600, DAY, 2 * DAY])

        def ready(first: int, wide: int = wide, quarters: int = quarters) -> int:
            return max(sorted(free[n])[quarters - 1] for n in range(first, first + wide))

        first = min((chance.randrange(0, nodes - wide) for _ in range(8)), key=ready)
        start = ready(first) + chance.randrange(1, 240)
        end = start + limit
        for n in range(first, first + wide):
            free[n] = [*sorted(free[n])[quarters:], *[end] * quarters]
        if end <= now:
            continue
        number, user = str(len(running) + len(waiting) + 4_000_000), f"user{chance.randrange(80)}"
        shape = Shape(cores=cores, memory=cores * 4096)
        span = names[first : first + wide]
        if start <= now:
            shares = tuple(Allocation(node=name, cores=cores, memory=cores * 4096) for name in span)
            running.append(RunningJob(id=number, allocations=shares, started=start, ends=end, user=user))
        else:
            waiting.append(WaitingJob(id=number, nodes=wide, shape=shape, time_limit=limit, user=user))
            planned.append(PlannedJob(id=number, start=start, end=end, shape=shape, nodes=tuple(span)))
    whole = [Allocation(node=name, cores=64, memory=256 * 1024) for name in names]
    return Snapshot(
        platform="wide",
        taken=now,
        nodes=all_nodes,
        partitions=(
            Partition(name="cpu", nodes=tuple(names[: nodes - gpus]), time_limit=2 * DAY, default=True),
            Partition(name="gpu", nodes=tuple(names[nodes - gpus :]), time_limit=DAY),
        ),
        running=tuple(running),
        waiting=tuple(waiting),
        planned=tuple(planned),
        reservations=(
            Reservation(
                name="cooling",
                start=now + 9 * DAY,
                end=now + 9 * DAY + 8 * 3600,
                allocations=tuple(whole),
                maintenance=True,
            ),
            Reservation(
                name="course",
                start=now + 2 * DAY,
                end=now + 2 * DAY + 6 * 3600,
                allocations=tuple(whole[: nodes // 20]),
            ),
        ),
    )


class Wide:
    """The platform: it has a state, and runs nothing."""

    @ebhpc.hookimpl
    def ebhpc_refuses(self, request: Request) -> Sequence[Any]:
        return ()

    @ebhpc.hookimpl
    def ebhpc_snapshot(self, now: int) -> Snapshot:
        return snapshot(now)

    @ebhpc.hookimpl
    def ebhpc_submit(self, session: Session) -> str:
        return session.uuid

    @ebhpc.hookimpl
    def ebhpc_observe(self, sessions: Sequence[Session]) -> Sequence[Observation]:
        return [Observation(uuid=session.uuid, state="PENDING") for session in sessions]

    @ebhpc.hookimpl
    def ebhpc_cancel(self, session: Session) -> None:
        """There is nothing to end."""

    @ebhpc.hookimpl
    def ebhpc_cleanup(self, session: Session) -> None:
        """There is nothing to clean."""


def serve(folder: Path, port: int, workers: int = 1) -> int:
    """Serve the API and the page until a signal comes; return the exit code."""
    url = f"sqlite:///{folder / 'ebhpc.sqlite3'}"
    now = int(time.time())
    store = Store(url)
    upgrade(store)
    ensure_platforms(store, ["wide"])
    add_account(store, USER, PASSWORD, now=now)
    publish_snapshot(store, "wide", encode_snapshot(snapshot(now, jobs=JOBS + 300)), taken=now, now=now)
    store.close()
    api = Api(bind=Address(f"127.0.0.1:{port}"), workers=workers, threads=8)
    config = Config(api=api)

    def make_app() -> Any:
        pm = load_plugins()
        wide = Wide()
        pm.register(wide, name="wide")
        pm.built["wide"] = "wide"
        settings = PlatformConfig(name="wide", kind="wide", stale=Duration(DAY))
        parts: list[Any] = []
        app = create_app(
            store=Store(url),
            platforms={"wide": Platform(pm, settings, wide)},
            kinds=Kinds(),
            config=config,
            policies=Policies(pm),
            made=parts.append,
        )
        return with_page(app, parts[0])

    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    return run_api(make_app, config)


def measure(folder: Path) -> list[tuple[str, float, str, float]]:
    """Start the broker and a browser; return what was measured, each with its bound."""
    from ebhpc.ui.assets import Assets
    from tests.ui.browsing import User, browser

    port = free_port()
    url = f"http://127.0.0.1:{port}"
    log = folder / "page.log"
    command = [sys.executable, "-m", "bench.page", "serve", str(folder), str(port)]
    figures: list[tuple[str, float, str, float]] = []
    with process(command, log) as running:
        wait_for(f"{url}/health/live", running, log, 200)
        with browser() as chrome:
            user = User(chrome, url)
            page = user.sign_in(USER, PASSWORD)
            page.wait_for_selector("canvas[aria-label^='Calendar of']", timeout=60_000)
            figures.append(("first page over the wire, kB", _first_page(user) / 1000, "<", 150))
            assets = Assets.of_package().files.values()
            figures.append(("all assets, compressed, kB", sum(len(one.compressed) for one in assets) / 1000, "<", 500))
            cookies = {one["name"]: one["value"] for one in user.context.cookies()}
            figures.append(("the picture's data, compressed, kB", _picture_size(url, cookies) / 1000, "<", 300))
            figures += _drawing(page)
            figures.append(("preview after the last key, p95, ms", _previews(page), "<", 150))
            user.close()
        figures.append((f"{WATCHERS} watchers, share of a core, %", _watchers(url, running.pid) * 100, "<", 5))
    return figures


def _first_page(user: Any) -> float:
    """Load the page in a tab of its own with an empty cache; return the bytes that came.

    A tab of its own: what another one is still fetching would be counted, too.
    """
    page = user.open()
    devtools = user.context.new_cdp_session(page)
    sizes: list[float] = []
    devtools.send("Network.enable")
    devtools.send("Network.clearBrowserCache")
    devtools.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    page.goto(f"{user.url}/ui/")
    page.wait_for_selector("canvas[aria-label^='Calendar of']", timeout=60_000)
    page.wait_for_selector("#verdict:not(:empty)")
    page.wait_for_load_state("networkidle")
    devtools.detach()
    page.close()
    return sum(sizes)


def _picture_size(url: str, cookies: dict[str, str]) -> int:
    with httpx.Client(cookies=cookies, trust_env=False) as client:
        answer = client.send(client.build_request("GET", f"{url}{PICTURE}"), stream=True)
        packed = b"".join(answer.iter_raw())
        answer.close()
    spans = len(json.loads(gzip.decompress(packed))["spans"]["first"])
    assert spans >= JOBS, f"only {spans} spans"
    return len(packed)


_MOVES = """async ([factor, dx]) => {
  const canvas = document.querySelector("canvas");
  const box = canvas.getBoundingClientRect();
  const at = {clientX: box.left + box.width / 2, clientY: box.top + box.height / 2, bubbles: true, cancelable: true};
  let frames = 0;
  const begun = performance.now();
  await new Promise((done) => {
    const step = () => {
      frames += 1;
      if (frames > 60) { done(); return; }
      canvas.dispatchEvent(new WheelEvent("wheel", {...at, ctrlKey: true, deltaY: frames % 2 ? factor : -factor}));
      canvas.dispatchEvent(new WheelEvent("wheel", {...at, shiftKey: true, deltaY: frames % 2 ? dx : -dx}));
      requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  });
  return 60000 / (performance.now() - begun);
}"""


def _drawing(page: Any) -> list[tuple[str, float, str, float]]:
    """From the data to the picture, and frames a second from afar and from near."""

    def worst(name: str) -> float:
        return float(page.evaluate(f"Math.max(...performance.getEntriesByName('{name}').map(one => one.duration))"))

    page.click("button[data-seconds='1209600']")
    page.wait_for_timeout(300)
    figures = [("picture decoded and drawn, ms", worst("calendar-decoded") + worst("calendar"), "<", 300.0)]
    figures.append(("frames a second from afar", page.evaluate(_MOVES, [30, 40]), ">=", 30.0))
    for _ in range(6):
        page.click("[aria-label='Zoom in']")
    figures.append(("frames a second from near", page.evaluate(_MOVES, [30, 40]), ">=", 30.0))
    return figures


def _previews(page: Any) -> float:
    """The 95th percentile, ms, from a key to the picture of where it would fit; the wait for more keys included."""
    page.evaluate("performance.clearMeasures('preview')")
    for number in range(40):
        page.fill("#f-cores", str(1 + number % 32))
        page.wait_for_timeout(350)
    times = sorted(page.evaluate("performance.getEntriesByName('preview').map(one => one.duration)"))
    assert len(times) >= 30, f"only {len(times)} previews"
    return float(times[int(len(times) * 0.95)])


class _Look(NamedTuple):
    """What a page looks at again and again: where, and how many seconds lie between two looks."""

    path: str
    pause: float


def _watchers(url: str, pid: int, seconds: float = 120.0) -> float:
    """Watch one session with many browsers that know it already; return the API's share of a core, by CPU time.

    Each looks at what a page of a session that has run for a minute looks at, as often as that does: the session, its
    files and the platform's calendar. As a browser does, each keeps its connection until the broker closes it, and says
    what it knows already.
    """
    with httpx.Client(base_url=url, auth=(USER, PASSWORD), trust_env=False, timeout=30) as api:
        api.headers["Accept"] = "application/json"
        request = {
            "executable": {"kind": kinds.JUPYTER_NOTEBOOK, "location": "https://example.org/a.ipynb"},
            "schedule": {"requested": {"duration": "PT1H"}},
        }
        offer = api.post("/requests", json=request).json()["offers"][0]["meta"]["uuid"]
        api.post(f"/sessions/{offer}", json={"kind": kinds.ENUM_UPDATE, "path": "phase", "value": "ACCEPTED"})
    session = f"/ui/data/sessions/{offer}"
    looks = (_Look(session, 15.0), _Look(f"{session}/files", 60.0), _Look(PICTURE, 30.0))
    with httpx.Client(base_url=url, trust_env=False) as one:
        page = one.get("/ui/sign-in").text
        token = page.partition('name="csrf" value="')[2].partition('"')[0]
        one.post("/ui/sign-in", data={"username": USER, "password": PASSWORD, "csrf": token})
        cookie = one.cookies["ebhpc"]
        tags = {look.path: one.get(look.path).headers.get("ETag") for look in looks}
    headers = {"Cookie": f"ebhpc={cookie}", "Accept": "application/json", "Accept-Encoding": "gzip"}
    arbiter = psutil.Process(pid)
    processes = [arbiter, *arbiter.children(recursive=True)]

    def used() -> float:
        return sum(sum(one.cpu_times()[:2]) for one in processes)

    answers: list[tuple[str, int]] = []
    address = url.removeprefix("http://")
    begun, before = time.monotonic(), used()

    def watch(number: int) -> None:
        known = dict(tags)
        moments = sorted(
            (number / WATCHERS * look.pause + turn * look.pause, look.path)
            for look in looks
            for turn in range(int(seconds / look.pause))
        )
        with contextlib.closing(http.client.HTTPConnection(address)) as connection:
            for moment, path in moments:
                time.sleep(max(0.0, begun + moment - time.monotonic()))
                tag = known[path]
                connection.request("GET", path, headers=headers | ({"If-None-Match": tag} if tag else {}))
                answer = connection.getresponse()
                answer.read()
                known[path] = answer.headers.get("ETag") or tag
                answers.append((path, answer.status))

    threads = [threading.Thread(target=watch, args=(number,)) for number in range(WATCHERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = time.monotonic() - begun
    told = Counter(answers)
    for look in looks:
        assert told[look.path, 304] + told[look.path, 200] == WATCHERS * int(seconds / look.pause), told
    return (used() - before) / taken


def show(figures: list[tuple[str, float, str, float]]) -> None:
    """Print what was measured."""
    print(f"the page: {NODES} nodes, {JOBS} jobs, 14 days, headless Chromium")
    for name, value, sign, bound in figures:
        met = value >= bound if sign == ">=" else value < bound
        print(f"  {name:40}{value:>9.2f}   wanted {sign} {bound:g}   {'met' if met else 'NOT MET'}")


def main() -> None:
    """Serve for the benchmark, or measure."""
    if sys.argv[1:2] == ["serve"]:
        sys.exit(serve(Path(sys.argv[2]), int(sys.argv[3])))
    (Path.cwd() / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ebhpc-bench-", dir=Path.cwd() / "build") as folder:
        show(measure(Path(folder)))


if __name__ == "__main__":
    main()
