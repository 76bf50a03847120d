"""What ``make demo`` shows: a broker for this machine, a notebook, a container and an hour for oneself."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import yaml

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
RESULTS = ROOT / "build" / "demo"
EBHPC = [sys.executable, "-m", "ebhpc"]
NOT_TAKEN = ("OFFERED", "REJECTED", "EXPIRED", "COMPLETED")
PUBLIC_IMAGE = "docker.io/library/busybox:stable"


class Readable(yaml.SafeDumper):
    """Writes texts of several lines as such."""


Readable.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


def say(text: str) -> None:
    """Print a heading."""
    print(f"\n\033[1m== {text}\033[0m" if sys.stdout.isatty() else f"\n== {text}", flush=True)


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def files_served(folder: Path) -> Iterator[str]:
    """Serve a folder over HTTP on loopback; gives its URL."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


@contextlib.contextmanager
def broker(folder: Path, runtime: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Run ``ebhpc serve``; gives the environment by which the command line finds it and signs in."""
    port = free_port()
    config = folder / "ebhpc.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "state": str(folder / "state"),
                "api": {"bind": f"127.0.0.1:{port}"},
                "logging": {"level": "warning"},
                "platforms": [
                    {
                        "name": "local",
                        "kind": "local",
                        "lead": "1s",
                        "refresh": "2s",
                        "settings": {"runtime": runtime, "private_networks": ["127.0.0.0/8"]},
                    }
                ],
            }
        )
    )
    log = folder / "log"
    command = [*EBHPC, "serve", "--config", str(config)]
    print("$ ebhpc serve")
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_ready(url, process, log)
        text = log.read_text()
        print(text.strip())
        found = re.search(r"the administrator (\S+) with the password (\S+)", text)
        assert found is not None, text
        yield {**os.environ, "EBHPC_URL": url, "EBHPC_USER": found[1], "EBHPC_PASSWORD": found[2]}
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def wait_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the broker answers and knows its platform."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"the broker ended:\n{log.read_text()}")
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/health/ready", trust_env=False).status_code == 200:
                return
        time.sleep(0.1)
    raise SystemExit(f"the broker was not ready in a minute:\n{log.read_text()}")


def ebhpc(environment: dict[str, str], *words: str) -> None:
    """Run the command line and show both what is typed and what it says."""
    print(f"\n$ ebhpc {shlex.join(words)}", flush=True)
    subprocess.run([*EBHPC, *words], env=environment, check=True)


def asked(environment: dict[str, str], *words: str) -> Any:
    """What the command line answers, as data."""
    done = subprocess.run([*EBHPC, "--json", *words], env=environment, check=True, capture_output=True)
    return json.loads(done.stdout)


def show_notebook(environment: dict[str, str], folder: Path, files: str) -> None:
    """A notebook: offers, and the whole way by ``ebhpc run``."""
    say("A notebook: when can it run here?")
    request = yaml.safe_load((EXAMPLES / "hello-notebook.yaml").read_text())
    request["executable"]["location"] = f"{files}/hello.ipynb"
    file = folder / "hello-notebook.yaml"
    file.write_text(yaml.dump(request, Dumper=Readable, sort_keys=False))
    print(file.read_text(), end="")
    ebhpc(environment, "offers", str(file))
    say("Take the earliest offer, follow it to its end, fetch the results")
    ebhpc(environment, "run", str(file), "--pick", "earliest", "--output", str(RESULTS / "notebook"))


def show_container(environment: dict[str, str], folder: Path, location: str, digest: str) -> None:
    """A container that serves a page for a while: asked for, accepted, reached, ended, its result fetched."""
    say("A container: when can it run here?")
    request = yaml.safe_load((EXAMPLES / "hello-container.yaml").read_text())
    request["executable"]["image"] |= {"locations": [location], "digest": digest}
    file = folder / "hello-container.yaml"
    file.write_text(yaml.dump(request, Dumper=Readable, sort_keys=False))
    print(file.read_text(), end="")
    ebhpc(environment, "offers", str(file))
    say("Take the first offer, and look at the page that it serves while it runs")
    ebhpc(environment, "accept", "1")
    uuid = next(one["meta"]["uuid"] for one in asked(environment, "sessions") if one["phase"] not in NOT_TAKEN)
    deadline = time.monotonic() + 120
    while (session := asked(environment, "show", uuid))["phase"] != "RUNNING":
        if time.monotonic() > deadline or session["phase"] in ("FAILED", "CANCELLED"):
            raise SystemExit(f"the container does not run: {json.dumps(session, indent=2)}")
        time.sleep(0.3)
    connector = session["connectors"][0]["location"]
    print(f"\n$ curl {connector}")
    print(httpx.get(connector, trust_env=False, timeout=30).text.strip())
    ebhpc(environment, "watch", uuid)
    ebhpc(environment, "output", uuid)
    ebhpc(environment, "output", uuid, "stdout")


def show_reserved_time(environment: dict[str, str]) -> None:
    """An hour for oneself: booked in one line, used by the line that it names, given back."""
    say("An hour for yourself: book it in one line")
    words = ["reserve", "--cores", "1", "--hours", "1", "--name", "my hour", "--pick", "earliest"]
    print(f"\n$ ebhpc {shlex.join(words)}", flush=True)
    done = subprocess.run([*EBHPC, *words], env=environment, check=True, stdout=subprocess.PIPE, text=True)
    print(done.stdout.strip())
    uuid = next(line for line in done.stdout.splitlines() if re.fullmatch(r"[0-9a-f-]{36}", line))
    line = next(line for line in done.stdout.splitlines() if line.endswith("-- COMMAND"))
    say("Use it by the line that it names; then give the rest back")
    line = line.replace("COMMAND", shlex.join(["sh", "-c", "echo I have $EBHPC_CORES core; sleep 2"]))
    print(f"\n$ {line}", flush=True)
    subprocess.run(shlex.split(line), check=True)
    deadline = time.monotonic() + 30
    while not any(job.get("ended") for job in asked(environment, "show", uuid)["executable"].get("jobs", ())):
        if time.monotonic() > deadline:
            raise SystemExit("the command that ran in the reserved time is not told")
        time.sleep(0.2)
    ebhpc(environment, "release", uuid)
    session = asked(environment, "show", uuid)
    for job in session["executable"]["jobs"]:
        print(f"{job['name']} of {job['user']} ran on {job['cores']} core from {job['started']} to {job['ended']}")
    for metric in session["metrics"]:
        if "core-hours" in metric["type"]:
            print(f"{metric['type'].rpartition('/')[2]}: {metric['min']:.4f}")


def show_page(environment: dict[str, str]) -> None:
    """Where a browser shows the same; at a terminal the broker stays for as long as somebody looks."""
    uuid = next(one["meta"]["uuid"] for one in asked(environment, "sessions") if one["phase"] == "COMPLETED")
    say("The same on the page, in any browser on this machine")
    print(f"   {environment['EBHPC_URL']}/ui/sessions/{uuid}")
    print(f"   sign in as {environment['EBHPC_USER']} with the password {environment['EBHPC_PASSWORD']}", flush=True)
    if sys.stdin.isatty() and sys.stdout.isatty():
        with contextlib.suppress(EOFError, KeyboardInterrupt):
            input("   Press Enter to go on; the broker ends then. ")


def main() -> None:
    """Show all of it."""
    shutil.rmtree(RESULTS, ignore_errors=True)
    RESULTS.mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ebhpc-demo-")))
        files = stack.enter_context(files_served(EXAMPLES))
        runtime, image, reason = container_engine(stack)
        say("A broker for this machine: the API, a driver, SQLite, this host as its platform")
        environment = stack.enter_context(broker(folder, runtime))
        show_notebook(environment, folder, files)
        if image is None:
            say(f"No container is shown: {reason}")
        else:
            show_container(environment, folder, *image)
        show_reserved_time(environment)
        say("What is there now")
        ebhpc(environment, "sessions")
        show_page(environment)
    say("What the notebook found")
    for cell in json.loads((RESULTS / "notebook/results/hello.ipynb").read_text())["cells"]:
        for output in cell.get("outputs", ()):
            print("".join(output.get("text", ())), end="")
    say("Done. The notebook as it was executed, and as a page to look at:")
    for path in sorted(RESULTS.rglob("*")):
        if path.is_file():
            print(f"   {path.relative_to(ROOT)}")


def container_engine(stack: contextlib.ExitStack) -> tuple[dict[str, Any], tuple[str, str] | None, str]:
    """A container engine and an image with its digest, or why there is none.

    Where all parts of the tests' lab are here, it is its podman with its own storage and registry, so that nothing
    needs the network; else the engine of this host and a small image from the public registry.
    """
    from tests.lab import containers

    if not containers.missing():
        registry = stack.enter_context(containers.registry())
        engine = stack.enter_context(containers.podman(registry.registries))
        return engine.runtime, (registry.location, registry.digest), ""
    program = shutil.which("podman") or shutil.which("docker")
    if program is None:
        return {}, None, "there is neither podman nor docker on this machine"
    print(f"$ {Path(program).name} pull {PUBLIC_IMAGE}", flush=True)
    pulled = subprocess.run([program, "pull", "--quiet", PUBLIC_IMAGE], capture_output=True, text=True, check=False)
    if pulled.returncode:
        return {}, None, f"{PUBLIC_IMAGE} cannot be pulled here: {pulled.stderr.strip().splitlines()[-1]}"
    look = [program, "image", "inspect", "--format", "{{index .RepoDigests 0}}", PUBLIC_IMAGE]
    digest = subprocess.run(look, capture_output=True, text=True, check=True).stdout.strip().partition("@")[2]
    return {"program": program}, (PUBLIC_IMAGE, digest), ""


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
