"""The database: one engine, and the one place where transactions are opened."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url

from ebhpc import tracing
from ebhpc.faults import point

_CACHE = 8192
"""KiB of pages that a connection to SQLite keeps; its own choice, 2000, reads some pages again and again."""


_LONGEST_LOG = 20_000
"""Pages in SQLite's write-ahead log after which a writer carries them over by itself. It waits for the disk then, and
all others for it: a driver's ``checkpoint`` comes before that."""


_LIVELINESS = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
    "options": "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
    " -c tcp_user_timeout=20000 -c idle_in_transaction_session_timeout=60000",
}
"""How PostgreSQL and we find out, within half a minute, that the other's machine is gone: ours, so that a request is
answered; the server's, so that the locks of a machine that was cut off are not kept for hours. What the URL says of any
of them goes before."""


class Store:
    """An open database.

    SQLite (WAL) or PostgreSQL (psycopg 3), by SQLAlchemy URL. Safe for threads; not to be carried over a fork.
    """

    def __init__(self, url: str, *, pool: int = 8) -> None:
        parsed = make_url(url)
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        self.sqlite = parsed.get_backend_name() == "sqlite"
        self._turn: _Turn | None = None
        options: dict[str, Any] = {"pool_size": pool, "max_overflow": pool}
        if self.sqlite:
            if not parsed.database or parsed.database == ":memory:":
                raise ValueError("an in-memory SQLite database cannot be shared by the broker's processes")
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
            self._turn = _Turn(Path(parsed.database + ".turn"))
            options["connect_args"] = {"timeout": 60, "check_same_thread": False}
        else:
            options["pool_pre_ping"] = True
            options["connect_args"] = {name: value for name, value in _LIVELINESS.items() if name not in parsed.query}
        self.engine: Engine = create_engine(parsed, **options)
        if self.sqlite:
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        self._durable = self.engine.execution_options(ebhpc_write="FULL")
        self._quick = self.engine.execution_options(ebhpc_write="NORMAL")

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that changes nothing."""
        with self.engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self, name: str, subject: str = "", *, durable: bool = True) -> Iterator[Connection]:
        """A transaction that is committed at the end of the block, and undone by an exception.

        On SQLite it takes the write lock at its beginning, so what it reads stays true until its end. A commit that is
        not ``durable`` survives the end of any process, but on SQLite not a power cut just after it, unless a durable
        one has followed: right for what nobody was promised yet, or what is made anew in seconds.
        ``name`` and ``subject`` name the fault points around the commit.
        """
        engine = self._durable if durable else self._quick
        with tracing.span(f"transaction {name}"), self._turn or nullcontext(), engine.begin() as connection:
            yield connection
            point(f"store.{name}.before-commit", subject)
        point(f"store.{name}.after-commit", subject)

    @contextmanager
    def turn(self, meanwhile: Callable[[], bool] | None = None) -> Iterator[None]:
        """Let no other thread or process begin to write on SQLite until the block ends; elsewhere do nothing.

        What is written in the block by this thread needs no further waiting. Everybody else waits: it must be short.
        ``meanwhile`` is called while others have their turn, again as long as it returns True: that it had work to do.
        """
        turn = self._turn
        if turn is None:
            yield
            return
        entered = turn.enter_at_once()
        while not entered and meanwhile is not None and meanwhile():
            entered = turn.enter_at_once()
        with ExitStack() as stack:
            if entered:
                stack.push(turn)  # left at the end, but not entered once more
            else:
                stack.enter_context(turn)
            yield

    def checkpoint(self) -> None:
        """Carry what was written over to SQLite's file itself, while others read and write; elsewhere do nothing."""
        if not self.sqlite:
            return
        connection = self.engine.raw_connection()
        try:
            connection.cursor().execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        finally:
            connection.close()

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


class _Turn:
    """Writers of one SQLite file take turns.

    SQLite alone makes a writer that finds the lock taken sleep and look again, ever longer: under load some wait for
    seconds. A file lock wakes the next one at once. It orders writers only; that transactions are isolated remains
    SQLite's own work. A thread whose turn it is may take another one within it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = threading.RLock()
        self._depth = 0
        self._file: int | None = None

    def __enter__(self) -> None:
        self._thread.acquire()
        self._lock(fcntl.LOCK_EX)

    def enter_at_once(self) -> bool:
        """Enter, if nobody else has the turn."""
        if not self._thread.acquire(blocking=False):
            return False
        try:
            self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _lock(self, how: int) -> None:
        """Lock the file, this thread's turn it is; give that back where it cannot be."""
        self._depth += 1
        if self._depth > 1:
            return
        try:
            if self._file is None:
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._file, how)
        except BaseException:
            self._depth -= 1
            self._thread.release()
            raise

    def __exit__(self, *_: object) -> None:
        assert self._file is not None
        self._depth -= 1
        try:
            if not self._depth:
                fcntl.flock(self._file, fcntl.LOCK_UN)
        finally:
            self._thread.release()


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # SQLAlchemy's begin event opens the transactions, not the driver
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "foreign_keys=ON",
        "busy_timeout=60000",
        f"cache_size=-{_CACHE}",
        f"wal_autocheckpoint={_LONGEST_LOG}",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    synchronous = connection.get_execution_options().get("ebhpc_write")
    if synchronous is None:
        connection.exec_driver_sql("BEGIN")
        return
    if connection.info.get("synchronous") != synchronous:
        connection.exec_driver_sql(f"PRAGMA synchronous={synchronous}")
        connection.info["synchronous"] = synchronous
    connection.exec_driver_sql("BEGIN IMMEDIATE")
