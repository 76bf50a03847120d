"""A running cloud of the lab, and what a test does with it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.lab.daemons import Daemon, T, listens, until
from tests.lab.namespace import Namespace
from tests.lab.openstack.layout import SERVICE, Host, Ports
from tests.lab.openstack.roots import configure

_READY_SECONDS = 480.0


@dataclass(frozen=True)
class Ssh:
    """The way in by SSH, as the service account; the files are the host's."""

    host: str
    port: int
    user: str
    key_file: Path
    known_hosts: Path


@dataclass
class Cloud:
    """One cloud: three fake hypervisors, a project with quotas, and a login host."""

    namespace: Namespace
    ports: Ports
    hosts: tuple[Host, ...]

    @property
    def root(self) -> Path:
        """Return the root's files as the host sees them."""
        return self.namespace.root

    @property
    def ssh(self) -> Ssh:
        """Return the way in by SSH."""
        folder = self.namespace.place / "ssh"
        return Ssh("127.0.0.1", self.ports.ssh, SERVICE, folder / "id", folder / "known_hosts")

    def run(
        self,
        words: Sequence[str],
        user: str = "root",
        timeout: float = 60.0,
        check: bool = True,
        data: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside as ``user`` and return what it said; it must succeed if ``check`` is set."""
        return self.namespace.run(words, user, timeout, check, data, environment)

    def ask(self, service: str, path: str, method: str = "GET", body: Any = None, status: int | None = None) -> Any:
        """Ask a service as the administrator, and return its answer; ``status``: what is expected, 2xx by default."""
        port = getattr(self.ports, service)
        headers = {"X-Auth-Token": self._token, "OpenStack-API-Version": "compute 2.61, volume 3.70"}
        answer = httpx.request(method, f"http://127.0.0.1:{port}{path}", headers=headers, json=body, timeout=60)
        good = answer.is_success if status is None else answer.status_code == status
        assert good, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    @cached_property
    def _token(self) -> str:
        """Return the administrator's token."""
        return self.token()

    def token(self, port: int | None = None) -> str:
        """Return a token of the administrator's, given out just now by the identity service, or the one on a port."""
        return str(self._logged_in(port or self.ports.keystone).headers["X-Subject-Token"])

    def knows(self, token: str) -> bool:
        """Whether keystone takes a token."""
        url = f"http://127.0.0.1:{self.ports.keystone}/v3/auth/projects"
        answer = httpx.get(url, headers={"X-Auth-Token": token}, timeout=60)
        assert answer.status_code in (200, 401), answer.text
        return answer.status_code == 200

    def _logged_in(self, port: int) -> httpx.Response:
        domain = {"id": "default"}
        user = {"name": "admin", "password": "lab", "domain": domain}
        scope = {"project": {"name": "admin", "domain": domain}}
        identity = {"methods": ["password"], "password": {"user": user}}
        url = f"http://127.0.0.1:{port}/v3/auth/tokens"
        answer = httpx.post(url, json={"auth": {"identity": identity, "scope": scope}}, timeout=60)
        return answer.raise_for_status()

    @cached_property
    def project(self) -> str:
        """Return the number of the broker's project."""
        found = self.ask("keystone", "/v3/projects?name=ebhpc")["projects"]
        return str(found[0]["id"])

    @cached_property
    def admin_project(self) -> str:
        """Return the number of the administrator's project."""
        found = self.ask("keystone", "/v3/projects?name=admin")["projects"]
        return str(found[0]["id"])

    def servers(self, deleted: bool = False) -> list[dict[str, Any]]:
        """Return all servers; ``deleted``: those that are gone instead."""
        path = f"/v2.1/servers/detail?all_tenants=1&deleted={deleted}"
        found: list[dict[str, Any]] = self.ask("nova", path)["servers"]
        return found

    def quota(self, **limits: int) -> None:
        """Set limits of the broker's project: instances, cores, ram (-1: none)."""
        self.ask("nova", f"/v2.1/os-quota-sets/{self.project}", "PUT", {"quota_set": {**limits, "force": True}})

    def start_block_storage(self) -> None:
        """Start Cinder, unless it runs, and wait until a volume could be made."""
        if listens(self.ports.cinder):
            return
        self.namespace.start(["/recipe/block-storage.sh"], "root", "/var/log/lab/block-storage.log")
        answers = ["python3", "/recipe/answers.py", f"{self.ports.cinder}/"]
        until(lambda: self.run(answers, check=False).returncode == 0, _READY_SECONDS, "Cinder answers")
        # The scheduler knows of the one backend when that has told it
        pools = f"/v3/{self.admin_project}/scheduler-stats/get_pools"
        until(
            lambda: self.ask("cinder", pools)["pools"], _READY_SECONDS, "Cinder has somewhere to make volumes", step=0.5
        )

    def stop_block_storage(self) -> None:
        """Have no Cinder."""
        for program in ("block-storage.sh", "cinder-scheduler", "cinder-volume", "cinder-api", "cinder-wsgi"):
            self._kill(program)
        until(lambda: not listens(self.ports.cinder), 60, "Cinder is gone")

    def volumes(self) -> list[dict[str, Any]]:
        """Return all volumes; none where Cinder does not run."""
        if not listens(self.ports.cinder):
            return []
        path = f"/v3/{self.admin_project}/volumes/detail?all_tenants=1"
        found: list[dict[str, Any]] = self.ask("cinder", path)["volumes"]
        return found

    def volume_quota(self, **limits: int) -> None:
        """Set limits of the broker's project: volumes, gigabytes (-1: none)."""
        path = f"/v3/{self.admin_project}/os-quota-sets/{self.project}"
        self.ask("cinder", path, "PUT", {"quota_set": limits})

    def enable(self, host: str, enabled: bool) -> None:
        """Let a hypervisor take servers, or not."""
        for service in self.ask("nova", f"/v2.1/os-services?binary=nova-compute&host={host}")["services"]:
            state = {"status": "enabled" if enabled else "disabled"}
            self.ask("nova", f"/v2.1/os-services/{service['id']}", "PUT", state)

    def until(self, question: Callable[[], T], timeout: float = 30.0, what: str = "it is so") -> T:
        """Ask until the answer is true, and return it; AssertionError after ``timeout`` seconds."""
        return until(question, timeout, what, step=0.2)

    def logs(self) -> dict[str, str]:
        """Return the services' logs by name."""
        folder = self.root / "var/log/lab"
        return {path.name: path.read_text(errors="replace") for path in sorted(folder.glob("*")) if path.is_file()}

    # --- daemons

    def _daemon(
        self, name: str, programs: tuple[str, ...], words: tuple[str, ...], ready: Callable[[], object]
    ) -> Daemon:
        return Daemon(self.namespace, name, programs, lambda: None, ready, words)

    @property
    def sshd(self) -> Daemon:
        """Return the login host's sshd."""
        launch = ["/usr/sbin/sshd", "-D", "-e", "-f", "/lab/sshd_config"]
        return Daemon(
            self.namespace,
            "sshd",
            ("sshd",),
            lambda: self.namespace.start(launch, "root", "/var/log/lab/sshd.log"),
            lambda: listens(self.ports.ssh),
            ("-D",),
        )

    def sessions(self) -> list[psutil.Process]:
        """Return the processes of the service account on the login host, the SSH sessions' own among them."""
        found = []
        for process in self.namespace.processes():
            with contextlib.suppress(psutil.Error):
                words = process.cmdline()
                if (
                    process.username() == SERVICE
                    or process.uids().real == self._service_uid
                    or (words and words[0].startswith("sshd") and f"{SERVICE}" in words[0])
                ):
                    found.append(process)
        return found

    def cut(self) -> None:
        """Kill the service account's processes on the login host, and with them its SSH sessions."""
        for process in self.sessions():
            # One's end ends others
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    @property
    def _service_uid(self) -> int:
        return int(self.run(["id", "-u", SERVICE]).stdout)

    @contextlib.contextmanager
    def held(self, program: str) -> Iterator[None]:
        """Hold (SIGSTOP) all processes that have ``program`` in their command line: they neither answer nor end."""
        held = [process for process in self.namespace.processes() if program in " ".join(_words(process))]
        assert held, f"no process has {program} in its command line"
        for process in held:
            process.suspend()
        try:
            yield
        finally:
            for process in held:
                with contextlib.suppress(psutil.Error):
                    process.resume()

    @contextlib.contextmanager
    def without_nova_api(self) -> Iterator[None]:
        """Have nobody listen on nova-api's port for a while."""
        for process in self.namespace.processes():
            with contextlib.suppress(psutil.Error):
                if _words(process)[:1] and "nova-api" in " ".join(_words(process)):
                    process.kill()
        until(lambda: not listens(self.ports.nova), 20, "nova-api is gone")
        try:
            yield
        finally:
            script = f". /recipe/lib.sh; service nova-api {self.ports.nova} /usr/bin/nova-api-wsgi 2"
            self.namespace.start(["/bin/bash", "-c", f"{script}; wait"], "root", "/var/log/lab/nova-api-again.log")
            until(
                lambda: self.run(["python3", "/recipe/answers.py", f"{self.ports.nova}/"], check=False).returncode == 0,
                60,
                "nova-api answers",
            )

    @contextlib.contextmanager
    def login_host_without_forwarding(self) -> Iterator[Ssh]:
        """Have a login host whose sshd forwards nothing."""
        words = ["-o", "AllowTcpForwarding=no", "-p", str(self.ports.shut)]
        launch = ["/usr/sbin/sshd", "-D", "-e", "-f", "/lab/sshd_config", *words]
        self.namespace.start(launch, "root", "/var/log/lab/sshd-shut.log")
        until(lambda: _greets(self.ports.shut), 60, "the login host answers")
        try:
            yield self._login_on(self.ports.shut)
        finally:
            self._kill("AllowTcpForwarding=no")

    @contextlib.contextmanager
    def network(self, *ports: int) -> Iterator[Ssh]:
        """Give guests that begin meanwhile a network of their own; yield a login host that alone is on it, too.

        Guests reach these ports of our loopback on theirs, and nothing else.
        """
        marks = self.root / "run/network"
        login = self.ports.login
        script = ["/recipe/login-network.sh", str(login)]
        self.namespace.start(script, "root", "/var/log/lab/login-network.log")
        until(lambda: _greets(login), 60, "the login host answers")
        marks.write_text(" ".join(str(port) for port in ports))
        try:
            yield self._login_on(login)
        finally:
            marks.unlink()
            self._kill("sshd_network_config")
            self._kill(f"/recipe/relay.py /proc/1/ns/net /run/netns/login {login}")

    def _login_on(self, port: int) -> Ssh:
        """Return the way in by another port, with the same host key."""
        known = self.namespace.place / f"ssh/known_hosts_{port}"
        known.write_text(self.ssh.known_hosts.read_text().replace(f":{self.ports.ssh} ", f":{port} "))
        return replace(self.ssh, port=port, known_hosts=known)

    def _kill(self, words: str) -> None:
        """Kill the processes that have ``words`` in their command line."""
        for process in self.namespace.processes():
            with contextlib.suppress(psutil.Error):
                if words in " ".join(_words(process)):
                    process.kill()

    @contextlib.contextmanager
    def brief_tokens(self, seconds: int) -> Iterator[str]:
        """Have an identity service beside the other one, whose tokens live so long.

        Yield the name of a cloud in the account's clouds.yaml that logs in there.
        """
        usual = (self.root / "etc/keystone/keystone.conf").read_text()
        brief = usual.replace("expiration = 86400", f"expiration = {seconds}")
        assert brief != usual
        self._write("/etc/keystone/brief/keystone.conf", brief)
        clouds = self.root / f"home/{SERVICE}/.config/openstack/clouds.yaml"
        before = clouds.read_text()
        told = json.loads(before)
        planner = told["clouds"]["planner"]
        address = f"http://127.0.0.1:{self.ports.brief}/v3"
        told["clouds"]["brief"] = {**planner, "auth": {**planner["auth"], "auth_url": address}}
        script = f". /recipe/lib.sh; service keystone-brief {self.ports.brief} /usr/bin/keystone-wsgi-public 1; wait"
        directory = {"OS_KEYSTONE_CONFIG_DIR": "/etc/keystone/brief"}
        self.namespace.start(["/bin/bash", "-c", script], "root", "/var/log/lab/brief.log", directory)
        try:
            until(
                lambda: (
                    self.run(["python3", "/recipe/answers.py", f"{self.ports.brief}/v3"], check=False).returncode == 0
                ),
                90,
                "the second identity service answers",
            )
            clouds.write_text(json.dumps(told))
            yield "brief"
        finally:
            clouds.write_text(before)
            self._kill("keystone-brief")

    # --- the whole

    def start(self) -> None:
        """Start all services on a fresh root, and wait until a launch would go through."""
        configure(self.namespace, self.ports)
        hosts = "".join(f"{one.name} {one.cores} {one.memory} {one.disk} {one.gpus}\n" for one in self.hosts)
        self._write("/lab/hosts", hosts)
        self._write("/lab/sshd_config", _sshd(self.ports.ssh))
        # Container runtimes want one
        self._write("/etc/resolv.conf", "")
        folder = str(self.namespace.place / "ssh")
        log = "/run/start.log"
        script = f"/recipe/start.sh {folder} {self.ports.ssh} && echo started || echo failed; wait"
        self.namespace.start(["/bin/bash", "-c", script], "root", log)
        said = self.root / log.lstrip("/")
        until(lambda: said.exists() and _ended(said.read_text()), _READY_SECONDS, "the cloud is ready", step=0.2)
        text = said.read_text()
        if not text.rstrip().endswith("started"):
            raise AssertionError(f"the cloud did not start: {text}")
        self.sshd.start()

    def clean(self, timeout: float = 60.0) -> None:
        """Make everything as it was: no server, volume or floating IP, hypervisors enabled, quotas as they were."""
        if not self.sshd.running:
            self.sshd.start()
        for server in self.servers():
            self.ask("nova", f"/v2.1/servers/{server['id']}", "DELETE")
        until(lambda: not self.servers(), timeout, "no server is left")
        if listens(self.ports.cinder):
            self._clean_volumes(timeout)
        for address in self.ask("neutron", "/v2.0/floatingips")["floatingips"]:
            self.ask("neutron", f"/v2.0/floatingips/{address['id']}", "DELETE")
        self.ask("nova", f"/v2.1/os-quota-sets/{self.project}", "DELETE")
        for service in self.ask("nova", "/v2.1/os-services?binary=nova-compute")["services"]:
            if service["status"] != "enabled":
                self.ask("nova", f"/v2.1/os-services/{service['id']}", "PUT", {"status": "enabled"})

    def _clean_volumes(self, timeout: float) -> None:
        def none_left() -> bool:
            left = self.volumes()
            for volume in left:
                if volume["status"] in ("available", "error"):
                    self.ask("cinder", f"/v3/{self.admin_project}/volumes/{volume['id']}?force=True", "DELETE")
            return not left

        until(none_left, timeout, "no volume is left", step=0.5)
        self.ask("cinder", f"/v3/{self.admin_project}/os-quota-sets/{self.project}", "DELETE")

    def _write(self, path: str, text: str) -> None:
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        new = place.with_name(f"{place.name}.{os.getpid()}")
        new.write_text(text, encoding="utf-8")
        new.rename(place)


def _greets(port: int) -> bool:
    """Whether an SSH server says what it is."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as asked:
            return asked.recv(4) == b"SSH-"
    except OSError:
        return False


def _ended(text: str) -> bool:
    return text.rstrip().endswith(("started", "failed"))


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _sshd(port: int) -> str:
    return (
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey /etc/ssh/lab/host_key\nPidFile none\nUsePAM no\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nMaxSessions 50\nAcceptEnv none\n"
        "AllowUsers ebhpc\nSubsystem sftp internal-sftp\nMaxStartups 50\n"
        "TrustedUserCAKeys /etc/ssh/lab/user_ca.pub\n"
    )
