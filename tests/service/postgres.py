"""PostgreSQL servers that a test restarts, kills and promotes: on a port of loopback, or in a network namespace."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.databases import _account, _binaries
from tests.labs import require

_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "60",
    "wal_level": "replica",
    "max_wal_senders": "4",
    "hot_standby": "on",
}


class Server:
    """One PostgreSQL server; ``enter`` are words before each of its commands, as of another network namespace."""

    def __init__(
        self, port: int, *, address: str = "127.0.0.1", enter: Sequence[str] = (), settings: Mapping[str, str] = {}
    ) -> None:
        binaries = _binaries()
        require(binaries, "needs a PostgreSQL server: the package postgresql")
        assert binaries is not None
        account = _account()
        require(account or os.geteuid() != 0, "needs an unprivileged account to run PostgreSQL with")
        self.port = port
        self.address = address
        self._binaries = binaries
        self._enter = list(enter)
        self._settings = {**_SETTINGS, **settings}
        self._folder = Path(tempfile.mkdtemp(prefix="ebhpc-pgs-"))
        self._data = self._folder / "data"
        self._log = self._folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._as: list[str] = []
        if account is not None:
            entry = pwd.getpwnam(account)
            os.chown(self._folder, entry.pw_uid, entry.pw_gid)
            self._as = ["setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups"]

    def url(self, name: str = "ebhpc") -> str:
        """The URL of one of its databases."""
        return f"postgresql://ebhpc@{self.address}:{self.port}/{name}"

    def local_url(self, name: str = "ebhpc") -> str:
        """The URL of one of its databases by its Unix socket, for who is on the same host, whatever the network."""
        return f"postgresql://ebhpc@/{name}?host={self._folder}&port={self.port}"

    def make(self) -> None:
        """Make an empty cluster that trusts whoever reaches it."""
        words = ["initdb", "-D", str(self._data), "-U", "ebhpc", "--auth=trust", "-E", "UTF8", "--locale=C", "-N"]
        self._run(*words)
        with (self._data / "pg_hba.conf").open("a") as rules:
            rules.write("host all all 0.0.0.0/0 trust\nhost replication all 0.0.0.0/0 trust\n")

    def copy(self, primary: Server) -> None:
        """Make this a standby of another server, which has taken over all that the other has by now."""
        self._run(
            *("pg_basebackup", "-D", str(self._data), "-h", primary.address, "-p", str(primary.port), "-U", "ebhpc"),
            *("-X", "stream", "-R", "-c", "fast", "-d", "application_name=standby"),
        )

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = {**self._settings, "listen_addresses": self.address, "port": str(self.port)}
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        program = [*self._enter, *self._as, str(self._binaries / "postgres"), "-D", str(self._data)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*program, "-k", str(self._folder), *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                start_new_session=True,
            )
        deadline = time.monotonic() + 120
        ready = ["pg_isready", "-q", "-h", str(self._folder), "-p", str(self.port), "-d", "postgres", "-U", "ebhpc"]
        while subprocess.run([str(self._binaries / ready[0]), *ready[1:]], check=False).returncode != 0:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start:\n{self._log.read_text()}")
            time.sleep(0.02)

    def execute(self, statement: str, database: str = "postgres") -> str:
        """Run a statement outside of any transaction; return what it answers."""
        words = ["psql", "-h", str(self._folder), "-p", str(self.port), "-U", "ebhpc", "-d", database, "-At", "-q"]
        return self._run(*words, "-c", statement)

    def stop(self) -> None:
        """End it in order; open connections are cut."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it as a power cut does."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def promote(self) -> None:
        """Make a standby take writes from now on."""
        self.execute("SELECT pg_promote(true, 20)")

    def remove(self) -> None:
        """End it, and all that it stored."""
        self._end(signal.SIGINT)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _end(self, number: int) -> None:
        if self._process is None or self._process.poll() is not None:
            self._process = None
            return
        self._process.send_signal(number)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def _run(self, program: str, *words: str) -> str:
        done = subprocess.run(
            [*self._enter, *self._as, str(self._binaries / program), *words],
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{program}: {done.stderr}\n{self._log.read_text() if self._log.exists() else ''}")
        return done.stdout.strip()
