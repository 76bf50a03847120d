"""Whoever prepares or cleans up may be killed at any instant; doing it again makes all well, and a job runs once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ebhpc import batch
from ebhpc.model import Metadata, SimpleData, SimpleStorage, SimpleVolume
from tests.batch.conftest import Site
from tests.batch.test_access import ShellCommand, command
from tests.local.webserver import WebServer

POINTS = {
    "prepare": (
        "batch.prepare.before",
        "fetch.download.before",
        "fetch.rename.before",
        "fetch.rename.after",
        "batch.door.before",
        "batch.prepare.after",
    ),
    "cleanup": ("batch.cleanup.before", "batch.cleanup.after"),
    "forget": ("batch.forget.before", "batch.forget.after"),
}

IN_A_PROCESS = """
import pickle, sys
from ebhpc import batch
what, session, settings, words = pickle.load(sys.stdin.buffer)
if what == "prepare":
    batch.prepare(session, settings, batch.unix_account(None), command=words)
else:
    getattr(batch, what)(session, settings)
"""

SCRIPT = command('cat "$EBHPC_RESOURCE_T"; echo run >> "$EBHPC_RESOURCE_S/runs"')


@pytest.mark.parametrize(("what", "point"), [(what, point) for what, points in POINTS.items() for point in points])
def test_a_process_killed_anywhere_is_made_good(
    site: Site, web: WebServer, tmp_path: Path, what: str, point: str
) -> None:
    import pickle

    settings = site.settings()
    session = site.session(
        ShellCommand(),
        storage=(SimpleStorage(meta=Metadata(name="s")),),
        data=(SimpleData(meta=Metadata(name="t"), location=web.put("/t", b"data")),),
        volumes=(SimpleVolume(path="s", mode="READWRITE", resource="s"),),
    )
    account = batch.unix_account(None)
    directory = batch.session_directory(settings.root, session.uuid)

    def killed(at: str) -> None:
        (tmp_path / "armed").write_text(f"{at} 1")
        done = subprocess.run(
            [sys.executable, "-c", IN_A_PROCESS],
            input=pickle.dumps((what, session, settings, SCRIPT)),
            env={**os.environ, "EBHPC_FAULTS": str(tmp_path)},
            check=False,
        )
        assert done.returncode == -9, f"{at} was not reached"

    for step in POINTS:
        if step == what:
            killed(point)
        if step == "prepare":
            batch.prepare(session, settings, account, command=SCRIPT)
            assert site.seen(session, settings, site.start(session, settings)).state == "SUCCEEDED"
        elif step == "cleanup":
            batch.cleanup(session, settings)
            assert site.output(session) == b"data"
            assert site.output(session, "storage/s/runs") == b"run\n"
            assert not directory.work.exists()
        else:
            batch.forget(session, settings)
            assert not directory.path.exists()


def test_a_late_prepare_of_a_session_that_was_cleaned_up_leaves_nothing(site: Site) -> None:
    from ebhpc.plugins import SessionFailed

    settings = site.settings()
    session = site.session(ShellCommand())
    batch.prepare(session, settings, batch.unix_account(None), command=["true"])
    batch.cleanup(session, settings)
    directory = batch.session_directory(settings.root, session.uuid)
    before = sorted(path.name for path in directory.path.iterdir())
    with pytest.raises(SessionFailed):
        batch.prepare(session, settings, batch.unix_account(None), command=["true"])
    assert sorted(path.name for path in directory.path.iterdir()) == before
