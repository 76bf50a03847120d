"""Runs one session's job on the node that the batch system gave it, and writes down how it went.

    python3 runner.py DIRECTORY

Copied beside the session's files, or carried inside the batch script: it needs Python 3.8 and the standard library, and
nothing of ebhpc. What to do stands in DIRECTORY/job.json (``ebhpc.batch.job`` says what is in it); there a NUL
in a word stands for DIRECTORY, because no word of a user's can have one. It makes in DIRECTORY:

    report/begun         made once, by the runner that has the job
    report/running.json  where the job runs, and how its ports are reached
    report/status.json   how it ended
    output/stdout, output/stderr, output/results/

Exit code: the job's (128 + n where signal n ended it); 70 the runner failed; 75 the job was begun before; 76 it was
cancelled before it began.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import posixpath
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, Iterator  # noqa: UP035  # Python 3.8 knows no other that can be subscripted

BROKEN, BEGUN_BEFORE, CANCELLED = 70, 75, 76

_FAILED, _LIMIT, _TIME = "urn:execution-failed", "urn:resource-limit", "urn:time-limit"
_LONGEST = 2000
"""Characters of what a program said that are told."""

_CHUNK = 1 << 16
_LOOK = 0.2
"""Seconds between two looks at the job."""

_PATIENCE = 5.0
"""Seconds for what the job has left in the background to close its output."""


class Hopeless(Exception):
    """The job cannot be run; ``words`` tell its owner why."""

    def __init__(self, kind: str, template: str, **values: object) -> None:
        self.words = words(kind, "ERROR", template, **values)
        super().__init__(template)


class Stopped(BaseException):
    """SIGTERM came."""


def words(kind: str, level: str, template: str, **values: object) -> dict[str, Any]:
    """Make a message as plain data."""
    texts = {name: str(value) for name, value in values.items()}
    return {"kind": kind, "level": level, "template": template, "values": texts}


class Runner:
    """One run of one job, in its session's directory."""

    def __init__(self, directory: str) -> None:
        self.directory = os.path.abspath(directory)
        with open(self.path("job.json"), encoding="utf-8") as file:
            self.job: dict[str, Any] = json.load(file)
        os.umask(int(self.job["umask"]))
        self.node = os.environ.get(self.job["node_variable"] or "") or socket.gethostname()
        self.started = time.time()
        self.messages: list[dict[str, Any]] = []
        self.ports: list[dict[str, Any]] = []
        self.image = ""
        self.arguments: list[str] = []
        self.stopping = False
        self.interruptible = False

    def path(self, *parts: str) -> str:
        """Return a path in the session's directory."""
        return os.path.join(self.directory, *parts)

    def filled(self, word: str) -> str:
        """Return a word with the directory put in where NUL stands for it."""
        return self.image if word == "\0\0" else word.replace("\0", self.directory)

    def command(self, argv: list[str]) -> list[str]:
        """Return an argument vector as it is to be called; the node's PATH leads to the program, not the job's."""
        found = [shutil.which(argv[0]) or argv[0]]
        for word in argv[1:]:
            found += self.arguments if word == "\0\0\0" else [self.filled(word)]
        return found

    # --- the whole way -------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Run the job; return the exit code."""
        if os.path.exists(self.path("cancel")):
            cancelled = words("urn:progress", "INFO", "The job was cancelled before it began.")
            self.end("FAILED", None, [cancelled])
            return CANCELLED
        if not self.claim():
            sys.stderr.write("this job was begun before, and may not be begun a second time\n")
            return BEGUN_BEFORE
        signal.signal(signal.SIGTERM, self.stop)
        code = None
        try:
            self.tell_running()
            self.interruptible = True
            self.make_ready()
            self.check_ports()
            self.interruptible = False
            code = self.execute()
        except Hopeless as error:
            self.end("FAILED", None, [error.words])
            return 1
        except Stopped:
            self.end("FAILED", None, [self.why_stopped()])
            return 128 + signal.SIGTERM
        except Exception as error:  # noqa: BLE001  # whatever it is, the job's owner shall hear of it
            text = f"{type(error).__name__}: {error}"
            sys.stderr.write(f"the runner failed: {text}\n")
            self.end("FAILED", None, [words(_FAILED, "ERROR", "The job's runner failed: {text}", text=text)])
            return BROKEN
        finally:
            self.interruptible = False
            self.after()
        return code

    def stop(self, *_: object) -> None:
        """Answer SIGTERM: the job is ended by whoever watches it; before it began, whatever goes on is left."""
        self.stopping = True
        if self.interruptible:
            self.interruptible = False
            raise Stopped

    def claim(self) -> bool:
        """Take the job; False if somebody has it, or had it."""
        begun = self.path("report", "begun")
        if self.job["restart"]:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(begun)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path("report", "status.json"))
        try:
            descriptor = os.open(begun, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return False
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump({"node": self.node, "pid": os.getpid(), "time": self.started}, file)
        return True

    def make_ready(self) -> None:
        """Fetch what is to be fetched here, and do what comes before the job."""
        for folder in self.job["folders"]:
            os.makedirs(self.path(folder), exist_ok=True)
        for wanted in self.job["fetch"]:
            if wanted.get("brought"):
                take(wanted, self.path("..", wanted["brought"]), self.path(wanted["file"]))
            else:
                fetch(wanted, self.path(wanted["file"]), self.job["transfer"])
        for name, content in self.job["files"].items():
            with open(os.open(self.path(name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", newline="") as file:
                file.write(content)
        for target, source in self.job["links"]:
            link(self.path(target), self.path(source))
        for folder in self.job["read_only"]:
            shut(self.path(folder))
        for step in self.job["steps"]:
            self.step(step)
        if self.job["bundle"] is not None:
            self.arguments = make_bundle(self.job["bundle"], self.path, self.filled)

    def step(self, step: dict[str, Any]) -> None:
        """Do one step: any one of its ways must succeed."""
        said = []
        for at, argv in enumerate(step["ways"]):
            try:
                done = subprocess.run(
                    self.command(argv),
                    env=self.environment(step["environment"]),
                    input=step["stdin"].encode("utf-8"),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    timeout=self.job["transfer"]["total"],
                    check=False,
                )
            except subprocess.TimeoutExpired:
                said.append("it took too long")
                continue
            except OSError as error:
                said.append(f"{argv[0]}: {error.strerror}")
                continue
            if done.returncode == 0:
                self.image = step["images"][at] if step["images"] else self.image
                return
            said.append(done.stdout.decode("utf-8", "replace").strip()[-_LONGEST:] or f"exit code {done.returncode}")
        raise Hopeless(step["kind"], step["template"], why="; ".join(said), **step["values"])

    def environment(self, more: dict[str, str]) -> dict[str, str]:
        """Return the node's environment, as the batch system and the site made it, with ours in it."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("APPTAINERENV_", "SINGULARITYENV_", "EBHPC_"))
        }
        if self.job.get("home") and "HOME" not in kept:
            kept["HOME"] = os.path.expanduser("~")
        for name, value in more.items():
            kept[name] = self.filled(value)
        for name in self.job["paths"]:
            if name in more and name in os.environ:
                kept[name] = f"{kept[name]}:{os.environ[name]}" if kept[name] else os.environ[name]
        return kept

    def execute(self) -> int:
        """Run the job itself to its end, or to the end of its time; write the status; return the exit code."""
        until = time.time() + self.job["seconds"]
        if self.job["end"] is not None:
            until = min(until, self.job["end"])
        reason = None
        with Output(self.path("output"), self.job["output"]) as output:
            try:
                process = subprocess.Popen(
                    self.command(self.job["argv"]),
                    cwd=self.path(self.job["directory"]),
                    env=self.environment(self.job["environment"]),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                )
            except OSError as error:
                text = f"{self.job['argv'][0]}: {error.strerror}"
                raise Hopeless(_FAILED, "The job could not be started: {text}", text=text) from None
            output.take(process)
            try:
                self.tell_running()
                reason = self.watch(process, until)
            finally:
                code = self.finish(process)
            output.wait()
        return self.conclude(code, reason, output.cut)

    def watch(self, process: subprocess.Popen[bytes], until: float) -> dict[str, Any] | None:
        """Wait for the job's end; return why it has to be ended, or None."""
        measured = time.monotonic()
        waiting = self.job["ports"] is not None
        while process.poll() is None:
            now = time.time()
            if self.stopping:
                return self.why_stopped()
            if now >= until:
                if self.job["service"]:
                    return words(_TIME, "INFO", "The session's time is over; its service was ended.")
                return words(_TIME, "ERROR", "The job was ended because the session's time is over.")
            if time.monotonic() > measured + self.job["measure"]:
                too_much = self.too_much()
                if too_much is not None:
                    return too_much
                measured = time.monotonic()
            if waiting and self.look_at_ports():
                waiting = False
                self.tell_running()
            time.sleep(max(0.0, min(_LOOK, until - now)))
        return None

    def finish(self, process: subprocess.Popen[bytes]) -> int:
        """Make sure that the job and all of its group have ended: TERM, patience, KILL."""
        if process.poll() is None:
            signal_group(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(self.job["grace"])
        signal_group(process.pid, signal.SIGKILL)
        return process.wait()

    def conclude(self, code: int, reason: dict[str, Any] | None, cut: list[str]) -> int:
        """Write how it ended; return the runner's exit code."""
        told = [words(_LIMIT, "WARN", "{what} was longer than is kept; the rest is lost.", what=name) for name in cut]
        too_much = self.too_much() if reason is None else None
        if reason is not None or too_much is not None:
            words_of = reason or too_much or {}
            good = words_of["level"] == "INFO" and self.job["service"]
            self.end("SUCCEEDED" if good else "FAILED", None if reason else code, [words_of, *told])
            if good:
                return 0
        elif code == 0:
            self.end("SUCCEEDED", 0, told)
        else:
            self.end("FAILED", code if code >= 0 else 128 - code, [self.failure(code), *told])
        return code if code >= 0 else 128 - code

    def failure(self, code: int) -> dict[str, Any]:
        """Return words on a job that ended by itself and failed."""
        found = self.outcome()
        if found is not None:
            template = {
                "cell": "Cell {cell} of the notebook failed: {error}: {text}",
                "died": "The notebook's kernel died while it ran cell {cell}.",
                "no-kernel": "The notebook's kernel is not installed: {text}",
            }.get(str(found.get("what")), "The notebook's kernel could not be started: {text}")
            values = {name: str(found.get(name, ""))[:_LONGEST] for name in ("cell", "error", "text")}
            return words(_FAILED, "ERROR", template, **values)
        if code < 0:
            with contextlib.suppress(ValueError):
                name = signal.Signals(-code).name
                return words(_FAILED, "ERROR", "The job was ended by signal {signal}.", signal=name)
        return words(_FAILED, "ERROR", "The job ended with exit code {code}.", code=code)

    def outcome(self) -> dict[str, Any] | None:
        """Return what the notebook's runner has left about its failure; None if there is nothing."""
        if self.job["outcome"] is None:
            return None
        try:
            with open(self.path(self.job["outcome"]), encoding="utf-8") as file:
                found = json.load(file)
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def why_stopped(self) -> dict[str, Any]:
        """Return words on why SIGTERM came."""
        if os.path.exists(self.path("cancel")):
            return words("urn:progress", "INFO", "The job was ended on request.")
        if self.job["end"] is not None and time.time() >= self.job["end"] - 60:
            return words(_TIME, "ERROR", "The job was ended because the session's time is over.")
        return words(_FAILED, "ERROR", "The batch system ended the job.")

    def after(self) -> None:
        """Take away what the job left on the node, and open its files to the broker."""
        for argv in self.job["after"]:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(
                    self.command(argv),
                    env=self.environment({}),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    timeout=60,
                    check=False,
                )
        if self.job["hand_over"]:
            for folder in ("output", "storage", "work", "stage", "report"):
                open_up(self.path(folder))

    def too_much(self) -> dict[str, Any] | None:
        """Return words where the job has written more than it may."""
        for place in self.job["meters"]:
            taken = size(self.path(place["folder"]))
            if taken > place["bytes"]:
                mebibytes = round(place["bytes"] / 2**20, 1)
                template = "The job was ended because {what} took more than {mebibytes} MiB of disk."
                return words(_LIMIT, "ERROR", template, what=place["what"], mebibytes=mebibytes)
        return None

    # --- ports ---------------------------------------------------------------------------------------------------

    def check_ports(self) -> None:
        """See that the job's ports are free, where they will be the node's own."""
        ports = self.job["ports"]
        if ports is None or ports["look"] is not None:
            return
        for wanted in ports["wanted"]:
            if answers(wanted["port"]):
                template = "Port {port} is taken on {node} by somebody else."
                raise Hopeless(_FAILED, template, port=wanted["port"], node=self.node)

    def look_at_ports(self) -> bool:
        """Find out how the ports are reached; True when each of TCP answers."""
        ports = self.job["ports"]
        outer = {wanted["port"]: wanted["port"] for wanted in ports["wanted"]}
        if ports["look"] is not None:
            outer = self.published(ports["look"])
        self.ports = [
            {**wanted, "outer": outer[wanted["port"]]} for wanted in ports["wanted"] if wanted["port"] in outer
        ]
        if len(self.ports) < len(ports["wanted"]):
            return False
        return all(port["protocol"] == "UDP" or answers(port["outer"]) for port in self.ports)

    def published(self, look: list[str]) -> dict[int, int]:
        """Ask the container's engine which port of the node leads to which of the container."""
        try:
            done = subprocess.run(
                self.command(look),
                env=self.environment({}),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=20,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return {}
        found = re.findall(r"^(\d+)/(?:tcp|udp) -> .*:(\d+)$", done.stdout.decode("utf-8", "replace"), re.MULTILINE)
        return {int(inner): int(outer) for inner, outer in found}

    # --- reports -------------------------------------------------------------------------------------------------

    def tell_running(self) -> None:
        """Say where the job runs."""
        self.write("running.json", {"node": self.node, "started": self.started, "ports": self.ports})

    def end(self, state: str, code: int | None, messages: list[dict[str, Any]]) -> None:
        """Say how the job ended."""
        self.write(
            "status.json",
            {
                "state": state,
                "exit_code": code,
                "node": self.node,
                "started": self.started,
                "ended": time.time(),
                "messages": messages,
                "ports": self.ports,
            },
        )

    def write(self, name: str, value: dict[str, Any]) -> None:
        """Write a file of the report, whole or not at all."""
        part = self.path("report", f"{name}.{os.getpid()}.part")
        with open(part, "w", encoding="utf-8") as file:
            json.dump(value, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, self.path("report", name))


class Output:
    """The job's stdout and stderr, each copied to a file as far as there is room for it."""

    def __init__(self, folder: str, most: int) -> None:
        self.folder = folder
        self.most = most
        self.cut: list[str] = []
        self.threads: list[threading.Thread] = []

    def __enter__(self) -> Output:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()

    def take(self, process: subprocess.Popen[bytes]) -> None:
        """Begin to copy."""
        for name, stream in (("stdout", process.stdout), ("stderr", process.stderr)):
            thread = threading.Thread(target=self.copy, args=(name, stream), daemon=True)
            thread.start()
            self.threads.append(thread)

    def copy(self, name: str, stream: Any) -> None:
        """Copy one stream to its end; what is beyond the limit is read, and dropped."""
        left = self.most
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        with open(os.open(os.path.join(self.folder, name), flags, 0o666), "wb", buffering=0) as file:
            while True:
                chunk = os.read(stream.fileno(), _CHUNK)
                if not chunk:
                    return
                if left > 0:
                    file.write(chunk[:left])
                if len(chunk) > left and name not in self.cut:
                    self.cut.append(name)
                left = max(0, left - len(chunk))

    def wait(self) -> None:
        """Wait until all is copied, or what the job left in the background holds it open for too long."""
        until = time.monotonic() + _PATIENCE
        for thread in self.threads:
            thread.join(max(0.0, until - time.monotonic()))


# --- fetching ----------------------------------------------------------------------------------------------------


def take(wanted: dict[str, Any], source: str, target: str) -> None:
    """Take a file that the batch system has brought, and compare size and checksum.

    Raises:
        Hopeless: it is not what was asked for, or too large.
        OSError: it is not there.
    """
    if os.path.exists(target):
        return
    checksum = wanted["checksum"]
    taken, done = hashlib.new(checksum[0] if checksum is not None else "sha256"), 0
    with open(source, "rb") as file:
        while True:
            chunk = file.read(_CHUNK)
            if not chunk:
                break
            done += len(chunk)
            taken.update(chunk)
    compare(wanted, done, taken.hexdigest())
    shutil.move(source, target)


def compare(wanted: dict[str, Any], length: int, digits: str) -> None:
    """Compare a file's size, and its checksum where one is asked for.

    Raises:
        Hopeless: it is not what was asked for, or too large.
    """
    why, kind = "", "urn:invalid-value"
    if length > wanted["most"]:
        why, kind = f"it has more than {wanted['most']} bytes", "urn:resource-limit"
    elif wanted["size"] is not None and wanted["size"] != length:
        why = f"it has {length} bytes, not {wanted['size']}"
    elif wanted["checksum"] is not None and digits != wanted["checksum"][1]:
        why = f"its {wanted['checksum'][0]} is {digits}, not {wanted['checksum'][1]}"
    if why:
        raise Hopeless(kind, "{url} cannot be fetched: {why}", url=wanted["url"], why=why, path=wanted["path"])


def fetch(wanted: dict[str, Any], target: str, transfer: dict[str, Any]) -> None:
    """Fetch one file, whole and checked; what fails in passing is tried again.

    Raises:
        Hopeless: it cannot be had.
    """
    if os.path.exists(target):
        return
    why = ""
    for pause in (0, 2, 10):
        time.sleep(pause)
        try:
            download(wanted, target + ".part", transfer)
        except urllib.error.HTTPError as error:
            why = f"its server answers {error.code} {error.reason}"
            if error.code < 500 and error.code not in (408, 425, 429):
                break
        except (OSError, ValueError, http.client.HTTPException) as error:
            why = str(getattr(error, "reason", None) or error) or type(error).__name__
        else:
            os.replace(target + ".part", target)
            return
    template = "{url} cannot be fetched: {why}"
    raise Hopeless("urn:resource-not-found", template, url=wanted["url"], why=why, path=wanted["path"])


class Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect where the site's rules let it: from there as from the URL itself."""

    def __init__(self, wanted: dict[str, Any]) -> None:
        self.wanted = wanted

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """Return what is asked next.

        Raises:
            Hopeless: a rule of the site does not allow it.
        """
        for rule, allow, deny in self.wanted.get("sources", ()):
            if not url_allowed(newurl, allow, deny):
                why = f"the site's rule {rule!r} does not allow where it redirects to"
                raise Hopeless(
                    "urn:policy-refused",
                    "{url} cannot be fetched: {why}",
                    url=self.wanted["url"],
                    why=why,
                    path=self.wanted["path"],
                )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_PORTS = {"http": 80, "https": 443}


def url_allowed(url: str, allow: Any, deny: Any) -> bool:
    """Whether a URL matches one of ``allow`` (None: any may) and none of ``deny``: as ebhpc.staging.sources."""
    place = place_of(url)

    def named(patterns: Any) -> bool:
        return place is not None and bool(place[1] or place[2]) and any(place_matches(one, *place) for one in patterns)

    return not named(deny) and (allow is None or named(allow))


def place_of(url: str) -> tuple[str, str, str] | None:
    """Return a URL's scheme, host and path in one way of writing them; None: it is none."""
    try:
        parts = urllib.parse.urlsplit(url.strip())
        scheme, host, port = parts.scheme.lower(), (parts.hostname or "").rstrip(".").lower(), parts.port
    except ValueError:
        return None
    if not scheme:
        return None
    if port is not None and port != _PORTS.get(scheme):
        host = f"{host}:{port}"
    path = urllib.parse.unquote(parts.path).replace("\\", "/")
    plain = posixpath.normpath("/" + path.lstrip("/"))
    return scheme, host, plain + "/" if path.endswith("/") and plain != "/" else plain


def place_matches(pattern: str, scheme: str, host: str, path: str) -> bool:
    """Whether a URL begins as a pattern says; without scheme: http or https."""
    if pattern == "*":
        return True
    named, colon, rest = pattern.partition("://")
    if not colon:
        named, rest = "", pattern
    where, slash, top = rest.partition("/")
    if scheme != named.lower() if named else scheme not in _PORTS:
        return False
    where, top = where.rstrip(".").lower(), posixpath.normpath("/" + top)
    if where != "*" and not (host.endswith(where[1:]) if where.startswith("*.") else host == where):
        return False
    return not slash or top == "/" or path.rstrip("/") == top or path.startswith(top + "/")


def download(wanted: dict[str, Any], part: str, transfer: dict[str, Any]) -> None:
    """Fetch a URL to a file, and compare size and checksum.

    Raises:
        Hopeless: what is there is not what was asked for, or too large.
        OSError, ValueError, HTTPException: it failed in passing.
    """
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.HTTPDefaultErrorHandler,
    ):
        opener.add_handler(handler())
    opener.add_handler(Redirects(wanted))
    asked = urllib.request.Request(wanted["url"], headers={"Accept-Encoding": "identity"})
    checksum = wanted["checksum"]
    taken = hashlib.new(checksum[0]) if checksum is not None else None
    done, until = 0, time.monotonic() + transfer["total"]

    def refused(why: str, kind: str = "urn:invalid-value") -> Hopeless:
        return Hopeless(kind, "{url} cannot be fetched: {why}", url=wanted["url"], why=why, path=wanted["path"])

    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    with opener.open(asked, timeout=transfer["connect"]) as answer, open(os.open(part, flags, 0o666), "wb") as file:
        length = answer.headers.get("Content-Length", "")
        while True:
            chunk = answer.read(_CHUNK)
            if not chunk:
                break
            done += len(chunk)
            if done > wanted["most"]:
                raise refused(f"it has more than {wanted['most']} bytes", "urn:resource-limit")
            if time.monotonic() > until:
                raise OSError(f"it takes longer than {transfer['total']:.0f} s")
            if taken is not None:
                taken.update(chunk)
            file.write(chunk)
    if length.isdigit() and int(length) != done:
        raise OSError(f"it was cut off after {done} of {length} bytes")
    compare(wanted, done, taken.hexdigest() if taken is not None else "")


# --- container bundles -------------------------------------------------------------------------------------------


def make_bundle(wanted: dict[str, Any], path: Any, filled: Any) -> list[str]:
    """Put the job into the config.json of an unpacked OCI bundle (OCI runtime specification); return its command."""
    file = path(wanted["folder"], "config.json")
    with open(file, encoding="utf-8") as text:
        config = json.load(text)
    image = image_config(path(wanted["layout"]))
    process = config["process"]
    entrypoint, command = wanted["entrypoint"], wanted["command"]
    if entrypoint is None:
        entrypoint = image.get("Entrypoint") or []
        command = command or image.get("Cmd") or []
    process["args"] = [*entrypoint, *command]
    if not process["args"]:
        raise Hopeless(_FAILED, "The image has no command of its own, and the request names none.")
    process["terminal"] = False
    process["noNewPrivileges"] = True
    names = {entry.partition("=")[0]: entry for entry in process.get("env") or ()}
    names.update({name: f"{name}={value}" for name, value in wanted["environment"].items()})
    process["env"] = list(names.values())
    for source, target, read_only in wanted["mounts"]:
        options = ["rbind", "ro" if read_only else "rw", "nosuid", "nodev"]
        config["mounts"].append({"type": "bind", "source": filled(source), "destination": target, "options": options})
    linux = config.setdefault("linux", {})
    linux.pop("resources", None)
    if wanted["host_network"]:
        linux["namespaces"] = [one for one in linux.get("namespaces") or () if one["type"] != "network"]
    with open(file, "w", encoding="utf-8") as text:
        json.dump(config, text)
    return list(process["args"])


def image_config(layout: str) -> dict[str, Any]:
    """Return the configuration of the only image in an OCI layout (OCI image specification)."""

    def blob(digest: str) -> Any:
        algorithm, _, digits = digest.partition(":")
        with open(os.path.join(layout, "blobs", algorithm, digits), encoding="utf-8") as file:
            return json.load(file)

    with open(os.path.join(layout, "index.json"), encoding="utf-8") as file:
        index = json.load(file)
    manifest = blob(index["manifests"][0]["digest"])
    found = blob(manifest["config"]["digest"]).get("config") or {}
    return dict(found)


# --- files -------------------------------------------------------------------------------------------------------


def link(target: str, source: str) -> None:
    """Make a symbolic link, relative, so that it stays right wherever the directory is seen."""
    if os.path.lexists(target):
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    os.symlink(os.path.relpath(source, os.path.dirname(target)), target)


def shut(folder: str) -> None:
    """Take away the right to write from what is our own in a folder."""
    for top, _, files in os.walk(folder, topdown=False):
        for name in files:
            with contextlib.suppress(OSError):
                os.chmod(os.path.join(top, name), 0o440)
        with contextlib.suppress(OSError):
            os.chmod(top, 0o550)  # others get nothing  # nosec B103


def open_up(folder: str) -> None:
    """Open what is our own to whoever gets as far: the session's directory is the door, which lets in the broker."""
    for path in walked(folder):
        with contextlib.suppress(OSError):
            found = os.lstat(path)
            if found.st_uid == os.geteuid() and (found.st_mode & 0o170000) in (0o040000, 0o100000):
                executable = 0o111 if found.st_mode & 0o040100 else 0
                os.chmod(path, (found.st_mode & 0o777) | 0o666 | executable)


def walked(folder: str) -> Iterator[str]:
    """Yield a folder and all that is in it, each folder before it is looked into; links are not followed."""
    yield folder
    for top, folders, files in os.walk(folder):
        for name in folders + files:
            path = os.path.join(top, name)
            if not os.path.islink(path):
                yield path


def size(path: str) -> int:
    """Return the bytes that a directory tree takes on disk."""
    total = 0
    for top, folders, files in os.walk(path):
        for name in folders + files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(top, name)).st_blocks * 512
    return total


def answers(port: int) -> bool:
    """Whether something on this node answers at a TCP port."""
    for address in ("127.0.0.1", "::1"):
        with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=1):
            return True
    return False


def signal_group(group: int, number: int) -> None:
    """Send a signal to a process group, if it is there."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def main() -> int:
    """Run the job of the directory named on the command line."""
    directory = sys.argv[1]
    try:
        return Runner(directory).run()
    except Exception as error:  # noqa: BLE001  # the last frame: what is not said here is lost
        sys.stderr.write(f"the runner failed in {directory}: {type(error).__name__}: {error}\n")
        return BROKEN


if __name__ == "__main__":
    sys.exit(main())
