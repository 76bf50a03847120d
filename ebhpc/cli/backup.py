"""Copies of the database: SQLite by its own online backup, PostgreSQL by pg_dump and pg_restore."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import time
from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from ebhpc.cli.assembly import open_store
from ebhpc.config import Config
from ebhpc.store import list_drivers

_PAGES = 1000
"""Pages of SQLite that are copied at a time; writers go on in between."""


class BackupError(Exception):
    """The database cannot be copied or replaced."""


def back_up(config: Config, file: Path) -> int:
    """Copy the database into a new file that its owner alone can read; return its size in bytes.

    Raises:
        BackupError: it cannot be read, or the file cannot be written.
    """
    url = make_url(str(config.database_url))
    part = file.with_name(f"{file.name}.part")
    if file.exists():
        raise BackupError(f"{file} is there already")
    try:
        part.touch(mode=0o600, exist_ok=False)
    except FileExistsError:
        raise BackupError(f"{part} is there: another backup runs, or one broke off; remove it") from None
    except OSError as error:
        raise BackupError(f"{part}: {error.strerror}") from error
    try:
        if url.get_backend_name() == "sqlite":
            _copy_sqlite(_sqlite_file(url), part)
        else:
            _call("pg_dump", url, "--format=custom", "--no-owner", f"--file={part}")
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.rename(file)
    except OSError as error:
        raise BackupError(f"{file}: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
    return file.stat().st_size


def restore(config: Config, file: Path) -> None:
    """Replace the database by a copy.

    Raises:
        BackupError: the file is no copy of such a database, a driver lives, or the database cannot be written.
    """
    url = make_url(str(config.database_url))
    if not file.is_file():
        raise BackupError(f"{file} is not there")
    if url.get_backend_name() == "sqlite":
        _check_sqlite(file)
        _check_nobody_lives(config)
        _restore_sqlite(file, _sqlite_file(url))
    else:
        if file.read_bytes()[:5] != b"PGDMP":
            raise BackupError(f"{file} is no archive of pg_dump")
        _check_nobody_lives(config)
        _call("pg_restore", url, "--clean", "--if-exists", "--no-owner", "--single-transaction", str(file))


def _check_nobody_lives(config: Config) -> None:
    """Refuse while a driver gives signs of life; a database that cannot be read has none."""
    with contextlib.suppress(SQLAlchemyError):
        store = open_store(config)
        try:
            alive = [one.name for one in list_drivers(store) if time.time() - one.heartbeat < config.driver.lease]
        finally:
            store.close()
        if alive:
            raise BackupError(f"these drivers run, or have just been killed: {', '.join(alive)}; stop them first")


def _sqlite_file(url: URL) -> Path:
    assert url.database is not None
    return Path(url.database)


def _copy_sqlite(source: Path, target: Path) -> None:
    if not source.is_file():
        raise BackupError(f"there is no database at {source}")
    try:
        # Read and write: a read-only connection cannot use the write-ahead log of a database that nobody has open
        with (
            contextlib.closing(sqlite3.connect(source, timeout=60)) as present,
            contextlib.closing(sqlite3.connect(target, timeout=60)) as copy,
        ):
            present.backup(copy, pages=_PAGES, sleep=0.01)
    except sqlite3.Error as error:
        raise BackupError(f"{source}: {error}") from error


def _check_sqlite(file: Path) -> None:
    try:
        with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as copy:
            found = copy.execute("PRAGMA quick_check").fetchone()[0]
            copy.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error as error:
        raise BackupError(f"{file} is no copy of a broker's database: {error}") from error
    if found != "ok":
        raise BackupError(f"{file} is damaged: {found}")


def _restore_sqlite(source: Path, target: Path) -> None:
    """Copy into the database there is: whoever has it open sees the copy, not a file that is no more."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with (
            contextlib.closing(sqlite3.connect(source, timeout=60)) as copy,
            contextlib.closing(sqlite3.connect(target, timeout=60)) as present,
        ):
            copy.backup(present)
            present.execute("PRAGMA journal_mode=WAL")
    except sqlite3.DatabaseError as error:
        raise BackupError(
            f"{target} cannot be replaced ({error}): if it is damaged, move it and what begins with its name away"
        ) from error


def _call(program: str, url: URL, *words: str) -> None:
    """Run a program of PostgreSQL; the password goes by the environment, where no list of processes shows it."""
    if shutil.which(program) is None:
        raise BackupError(f"{program} is not installed: the package postgresql-client")
    environment = dict(os.environ)
    if url.password is not None:
        environment["PGPASSWORD"] = str(url.password)
    plain = url.set(drivername="postgresql", password=None).render_as_string(hide_password=False)
    done = subprocess.run(
        [program, f"--dbname={plain}", "--no-password", *words],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BackupError(f"{program}: {done.stderr.strip()[-2000:]}")
