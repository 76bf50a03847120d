"""Databases for tests: a SQLite file, and a database of a real PostgreSQL server that the tests start.

- ``database_url``: an empty database, once of each engine;
- ``ready_database_url``: one with the newest schema, once of each engine;
- ``postgresql_server``: the server, for tests that want several databases.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from tests.labs import require

_UNPRIVILEGED = ("postgres", "nobody")
_START_SECONDS = 30.0
_PR_SET_PDEATHSIG = 1

_SETTINGS = {
    # Nothing here has to survive a power cut.
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "shared_buffers": "32MB",
    "max_connections": "200",
    "autovacuum": "off",
    # No port: several of these servers live side by side.
    "listen_addresses": "",
}


def _binaries() -> Path | None:
    """The directory of the server's programs: of the newest version where there are several."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    installed = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = max(installed, key=lambda path: float(path.parts[-3]), default=None)
    return newest.parent if newest else None


def _account() -> str | None:
    """Whom the server runs as: it refuses to run as root. None: as whoever runs the tests."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in _UNPRIVILEGED if name in names), None)


def _end_with_the_tests() -> None:
    """Have the kernel end this process when its parent is killed, which then cannot do so itself (prctl(2))."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)


class PostgresqlServer:
    """A PostgreSQL server of this test run alone, reached by a Unix socket in its own directory."""

    def __init__(self, binaries: Path, folder: Path, account: str | None) -> None:
        self._folder = folder
        self._binaries = binaries
        self._numbers = count(1)
        self._as: dict[str, object] = {"cwd": folder}
        if account is not None:
            entry = pwd.getpwnam(account)
            os.chown(folder, entry.pw_uid, entry.pw_gid)
            self._as |= {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Make the cluster, start the server, wait until it answers."""
        data = self._folder / "data"
        subprocess.run(
            [
                self._binaries / "initdb",
                *("-D", data, "-U", "ebhpc", "--auth=trust", "-E", "UTF8", "--locale=C", "-N"),
            ],
            check=True,
            capture_output=True,
            **self._as,  # type: ignore[call-overload]
        )
        settings = [word for name, value in _SETTINGS.items() for word in ("-c", f"{name}={value}")]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", "-D", data, "-k", self._folder, *settings],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_end_with_the_tests,
                **self._as,  # type: ignore[call-overload]
            )
        deadline = time.monotonic() + _START_SECONDS
        ready = [self._binaries / "pg_isready", "-q", "-h", self._folder, "-d", "postgres", "-U", "ebhpc"]
        while subprocess.run(ready, check=False).returncode != 0:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start:\n{self._log.read_text()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End the server and everything it stored."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)  # fast shutdown: open connections are cut
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.send_signal(signal.SIGQUIT)
                self._process.wait(20)
        shutil.rmtree(self._folder, ignore_errors=True)

    def url(self, name: str) -> str:
        """The URL of one of its databases."""
        return f"postgresql://ebhpc@/{name}?host={self._folder}"

    def execute(self, statement: str) -> None:
        """Run a statement that no transaction may contain."""
        engine = create_engine(
            self.url("postgres").replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT"
        )
        try:
            with engine.connect() as connection:
                connection.execute(text(statement))
        finally:
            engine.dispose()

    def create(self, template: str = "template0") -> str:
        """Make a database, a copy of ``template``; return its name."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def drop(self, name: str) -> None:
        """Delete a database and cut whoever is still connected to it."""
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgresqlServer]:
    """A running PostgreSQL server."""
    pytest.importorskip("psycopg", reason="needs psycopg: the extra 'postgresql'")
    binaries = _binaries()
    require(binaries, "needs a PostgreSQL server: the package postgresql")
    assert binaries is not None
    account = _account()
    require(account or os.geteuid() != 0, "needs an unprivileged account to run PostgreSQL with")
    # Not below pytest's own directory, which only its owner may enter; and a socket's path must be short.
    server = PostgresqlServer(binaries, Path(tempfile.mkdtemp(prefix="ebhpc-pg-")), account)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def postgresql_template(postgresql_server: PostgresqlServer) -> str:
    """The name of a database with the newest schema, to copy."""
    name = postgresql_server.create()
    _upgrade(postgresql_server.url(name))
    return name


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the newest schema, to copy."""
    path = tmp_path_factory.mktemp("sqlite") / "template.sqlite3"
    _upgrade(f"sqlite:///{path}")
    return path


def _upgrade(url: str) -> None:
    from ebhpc.store import Store, upgrade

    store = Store(url)
    upgrade(store)
    store.close()


_ENGINES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)]


@pytest.fixture(params=_ENGINES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database: SQLite, then PostgreSQL."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'ebhpc.sqlite3'}"
        return
    server: PostgresqlServer = request.getfixturevalue("postgresql_server")
    name = server.create()
    yield server.url(name)
    server.drop(name)


@pytest.fixture(params=_ENGINES)
def ready_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database with the newest schema and no rows: SQLite, then PostgreSQL."""
    if request.param == "sqlite":
        path = tmp_path / "ebhpc.sqlite3"
        shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
        return
    server: PostgresqlServer = request.getfixturevalue("postgresql_server")
    name = server.create(request.getfixturevalue("postgresql_template"))
    yield server.url(name)
    server.drop(name)
