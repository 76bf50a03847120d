"""Jobs without containers: what the runner does on a node, really run here."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from ebhpc import batch
from ebhpc.batch.script import carried_script, runner_text
from ebhpc.model import JupyterNotebook, Metadata, Session, SimpleData, SimpleStorage, SimpleVolume, SourceRule, Sources
from ebhpc.plugins import SessionFailed
from ebhpc.staging.fetching import FetchFailed
from tests.batch.conftest import Site, run_script, said
from tests.batch.test_access import ShellCommand, command
from tests.local.conftest import notebook
from tests.local.webserver import WebServer, cut_off, status

ACCOUNT = batch.unix_account(None)


def until_output(site: Site, session: Session, text: bytes) -> None:
    """Wait until the job has said something."""
    limit = time.monotonic() + 30
    directory = batch.session_directory(site.root, session.uuid)
    while not (directory.output / "stdout").exists() or text not in site.output(session):
        assert time.monotonic() < limit
        time.sleep(0.02)


@pytest.mark.parametrize("staging", ["broker", "job"])
def test_a_notebook_is_executed_and_kept_with_its_page(site: Site, web: WebServer, staging: str) -> None:
    url = web.put("/a%20b.ipynb", notebook("import os; print(open('data/t.csv').read(), os.environ['EBHPC_CORES'])"))
    session = site.session(
        JupyterNotebook(location=url),
        data=(SimpleData(meta=Metadata(name="t"), location=web.put("/t.csv", b"1;2")),),
        volumes=(SimpleVolume(path="data", mode="READONLY", resource="t"),),
    )
    settings = site.settings(staging=staging)
    seen = site.run(session, settings)
    assert seen.state == "SUCCEEDED", (said(seen), site.output(session, "stderr"))
    names = {one.name for one in batch.outputs(session, settings)}
    assert {"results/a%20b.ipynb", "results/a%20b.html"} <= names
    executed = json.loads(site.output(session, "results/a%20b.ipynb"))
    assert executed["cells"][0]["outputs"][0]["text"] == ["1;2 1\n"]


def test_a_cell_that_fails_is_told(site: Site, web: WebServer) -> None:
    session = site.session(JupyterNotebook(location=web.put("/n.ipynb", notebook("1", "1 / 0"))))
    seen = site.run(session, site.settings())
    assert (seen.state, seen.exit_code) == ("FAILED", 1)
    assert said(seen) == "Cell 2 of the notebook failed: ZeroDivisionError: division by zero"
    assert b"ZeroDivisionError" in site.output(session, "results/n.ipynb")


def test_what_is_no_notebook_is_refused_before_it_is_submitted(site: Site, web: WebServer) -> None:
    session = site.session(JupyterNotebook(location=web.put("/n.ipynb", b"{}")))
    with pytest.raises(SessionFailed, match="is no Jupyter notebook"):
        batch.prepare(session, site.settings(), ACCOUNT)


def data_session(site: Site, url: str) -> Session:
    """Return a session that shows its only data element."""
    return site.session(ShellCommand(), data=(SimpleData(meta=Metadata(name="in"), location=url),))


SHOW = command('cat "$EBHPC_RESOURCE_IN"')


@pytest.mark.parametrize("staging", ["broker", "job"])
def test_data_is_checked_by_its_checksum(site: Site, web: WebServer, staging: str) -> None:
    settings = site.settings(staging=staging)
    url = web.put("/x", b"content")
    good = data_session(site, f"{url}#sha256={hashlib.sha256(b'content').hexdigest()}")
    assert site.run(good, settings, command=SHOW).state == "SUCCEEDED"
    assert site.output(good) == b"content"
    bad = data_session(site, f"{url}#sha256={'0' * 64}")
    if staging == "broker":
        with pytest.raises(SessionFailed, match="its sha256 is"):
            batch.prepare(bad, settings, ACCOUNT, command=SHOW)
    else:
        seen = site.run(bad, settings, command=SHOW)
        assert seen.state == "FAILED"
        assert "its sha256 is" in said(seen)
        assert seen.messages[0].kind == "urn:invalid-value"


def test_data_that_the_job_cannot_fetch_ends_it_with_a_reason(site: Site, web: WebServer) -> None:
    settings = site.settings(staging="job", max_download_gib=2.0**-20)
    for url, kind, why in (
        (web.url("/none"), "urn:resource-not-found", "404"),
        (web.put("/large", b"x" * 2000), "urn:resource-limit", "more than 1024 bytes"),
        (web.put("/ftp", status(302, Location="ftp://127.0.0.1/x")), "urn:resource-not-found", ""),
        (web.put("/file", status(302, Location="file:///etc/passwd")), "urn:resource-not-found", ""),
    ):
        session = data_session(site, url)
        seen = site.run(session, settings, command=SHOW)
        assert (seen.state, seen.messages[0].kind) == ("FAILED", kind), said(seen)
        assert why in said(seen)


@pytest.mark.parametrize("staging", ["broker", "job"])
def test_a_redirect_that_a_rule_of_the_site_does_not_allow_is_not_followed(
    site: Site, web: WebServer, staging: str
) -> None:
    web.put("/elsewhere", b"secret")
    url = web.put("/public/a", status(302, Location="/elsewhere"))
    sources = Sources(data=(SourceRule(rule="only public", allow=(web.url("/public/"),)),))
    session = replace(data_session(site, url), sources=sources)
    settings = site.settings(staging=staging)
    if staging == "broker":
        with pytest.raises(SessionFailed) as raised:
            site.run(session, settings, command=SHOW)
        (told,) = raised.value.messages
    else:
        seen = site.run(session, settings, command=SHOW)
        assert seen.state == "FAILED"
        told = seen.messages[0]
    assert told.kind == "urn:policy-refused"
    assert "the site's rule 'only public' does not allow where it redirects to" in str(told)
    assert "/elsewhere" not in web.asked


def test_a_transfer_that_is_cut_off_is_tried_again(site: Site, web: WebServer) -> None:
    url = web.put("/x", cut_off(b"half", 100))
    session = data_session(site, url)
    with pytest.raises(FetchFailed):
        batch.prepare(session, site.settings(), ACCOUNT, command=SHOW)
    web.put("/x", b"whole")
    assert site.run(session, site.settings(), command=SHOW).state == "SUCCEEDED"
    assert site.output(session) == b"whole"


def test_a_job_begins_once(site: Site) -> None:
    settings = site.settings()
    session = site.session(ShellCommand())
    seen = site.run(session, settings, command=command("echo ran >> $EBHPC_RESULTS/runs"))
    assert seen.state == "SUCCEEDED"
    again = site.start(session, settings)
    text, _ = again.communicate(timeout=60)
    assert again.returncode == 75
    assert b"begun before" in text
    assert site.output(session, "results/runs") == b"ran\n"
    # The report of the first run stands
    assert site.seen(session, settings, again).state == "SUCCEEDED"


def test_a_job_that_may_restart_runs_again(site: Site) -> None:
    settings = site.settings(restart=True)
    session = site.session(ShellCommand())
    site.run(session, settings, command=command("echo ran >> $EBHPC_RESULTS/runs"))
    assert site.seen(session, settings, site.start(session, settings)).state == "SUCCEEDED"
    assert site.output(session, "results/runs") == b"ran\nran\n"


def test_a_job_that_was_cancelled_before_does_not_begin(site: Site) -> None:
    settings = site.settings()
    session = site.session(ShellCommand())
    batch.prepare(session, settings, ACCOUNT, command=command("touch $EBHPC_RESULTS/ran"))
    batch.mark_cancelled(batch.session_directory(settings.root, session.uuid))
    job = site.start(session, settings)
    seen = site.seen(session, settings, job)
    assert (job.returncode, said(seen)) == (76, "The job was cancelled before it began.")
    assert batch.outputs(session, settings) == []
    with pytest.raises(SessionFailed):
        batch.prepare(session, settings, ACCOUNT)


def test_a_job_past_its_time_is_ended_with_all_its_children(site: Site) -> None:
    session = site.session(ShellCommand())
    script = "trap '' TERM; sleep 1000 & echo $!; wait; sleep 1000"
    began = time.monotonic()
    seen = site.run(session, site.settings(grace=0.5), command=command(script), seconds=1)
    assert seen.state == "FAILED"
    assert said(seen) == "The job was ended because the session's time is over."
    assert time.monotonic() - began < 30
    child = int(site.output(session))
    assert not Path(f"/proc/{child}/status").exists() or "State:\tZ" in Path(f"/proc/{child}/status").read_text()


def test_a_firm_session_ends_at_its_end_though_it_began_late(site: Site) -> None:
    session = site.session(ShellCommand(), duration=1, firm=True)
    seen = site.run(session, site.settings(), command=command("sleep 1000"), seconds=600)
    assert said(seen) == "The job was ended because the session's time is over."


def test_sigterm_reaches_the_job_and_its_last_words_are_kept(site: Site) -> None:
    settings = site.settings()
    session = site.session(ShellCommand())
    script = "trap 'echo last; exit 7' TERM; echo ready; while :; do sleep 0.05; done"
    batch.prepare(session, settings, ACCOUNT, command=command(script))
    job = site.start(session, settings)
    until_output(site, session, b"ready")
    job.send_signal(signal.SIGTERM)
    seen = site.seen(session, settings, job)
    assert (seen.state, said(seen)) == ("FAILED", "The batch system ended the job.")
    assert site.output(session) == b"ready\nlast\n"


def test_sigterm_while_data_is_fetched_ends_the_job(site: Site, web: WebServer) -> None:
    def slow(request: object) -> None:
        time.sleep(5)

    settings = site.settings(staging="job", connect_timeout=60.0)
    session = data_session(site, web.put("/slow", slow))
    batch.prepare(session, settings, ACCOUNT, command=SHOW)
    job = site.start(session, settings)
    directory = batch.session_directory(settings.root, session.uuid)
    while batch.read_report(directory) is None or not web.asked.get("/slow"):
        time.sleep(0.02)
    job.send_signal(signal.SIGTERM)
    assert said(site.seen(session, settings, job)) == "The batch system ended the job."


def test_output_beyond_its_limit_is_dropped_and_told(site: Site) -> None:
    settings = site.settings(output_gib=100 * 2.0**-20)
    session = site.session(ShellCommand())
    seen = site.run(session, settings, command=command("head -c 50000 /dev/zero; echo end >&2"))
    assert seen.state == "SUCCEEDED"
    assert len(site.output(session)) == 10240
    assert said(seen) == "stdout was longer than is kept; the rest is lost."


def test_results_beyond_their_limit_fail_the_job(site: Site) -> None:
    settings = site.settings(output_gib=2.0**-10)
    session = site.session(ShellCommand())
    seen = site.run(session, settings, command=command("head -c 3000000 /dev/urandom > $EBHPC_RESULTS/big"))
    assert seen.state == "FAILED"
    assert "its output and results took more than 1.0 MiB" in said(seen)


def test_what_a_job_has_shut_is_removed_all_the_same(site: Site) -> None:
    settings = site.settings()
    session = site.session(ShellCommand())
    site.run(session, settings, command=command("mkdir -p a/b; touch a/b/c; chmod 0 a/b; chmod 500 a"))
    batch.cleanup(session, settings)
    batch.forget(session, settings)
    assert not batch.session_directory(settings.root, session.uuid).path.exists()


def test_a_program_that_is_not_there_is_told(site: Site) -> None:
    session = site.session(ShellCommand())
    seen = site.run(session, site.settings(), command=["/no/such/program"])
    assert "The job could not be started: /no/such/program: No such file" in said(seen)


def test_the_setup_lines_of_the_site_come_first(site: Site) -> None:
    settings = site.settings(setup="module_loaded=yes\nexport module_loaded\n")
    session = site.session(ShellCommand())
    assert site.run(session, settings, command=command("echo $module_loaded")).state == "SUCCEEDED"
    assert site.output(session) == b"yes\n"


@pytest.mark.parametrize("place", ["literal", "variable"])
def test_a_script_that_carries_all_needs_no_shared_files(site: Site, web: WebServer, place: str) -> None:
    url = web.put("/it's%20$HOME.ipynb", notebook("open('out/x', 'w').write('x')"))
    session = site.session(
        JupyterNotebook(location=url.replace("%20", " ")),
        storage=(SimpleStorage(meta=Metadata(name="$(id)")),),
        volumes=(SimpleVolume(path="out", mode="READWRITE", resource="$(id)"),),
    )
    scratch = site.root.parent / "with space"
    scratch.mkdir()
    target = str(site.root.parent / "node") if place == "literal" else "$SCRATCH_PLACE/node"
    text = carried_script(session, site.settings(), target)
    assert len(text) < 48_000  # what clouds take as user data, encoded once more
    job = run_script(text, env={**os.environ, "SCRATCH_PLACE": str(scratch)})
    words, _ = job.communicate(timeout=60)
    assert job.returncode == 0, words
    made = batch.SessionDirectory(site.root.parent / "node" if place == "literal" else scratch / "node")
    report = batch.read_report(made)
    assert report is not None
    assert report.state == "SUCCEEDED"
    assert (made.storage / "0" / "x").read_text() == "x"
    assert (made.results / "it's $HOME.ipynb").exists()
    assert made.path.stat().st_mode & 0o077 == 0


def test_a_place_that_is_no_path_is_not_taken(site: Site) -> None:
    session = site.session(JupyterNotebook(location="http://localhost/n.ipynb"))
    for place in ("relative", "$(id)", "$A/../b c", "/a b", "${A}", ""):
        with pytest.raises(ValueError, match="expected an absolute path"):
            carried_script(session, site.settings(), place)


OTHER_PYTHONS = sorted(
    path
    for version in ("3.8", "3.9", "3.10", "3.12", "3.13")
    for folder in ("/usr/bin", *Path.home().glob(f".pyenv/versions/{version}.*/bin"))
    if (path := Path(folder) / f"python{version}").exists()
)


def test_the_runner_is_written_for_old_pythons(site: Site) -> None:
    ast.parse(runner_text(), feature_version=(3, 8))


@pytest.mark.parametrize("python", OTHER_PYTHONS or [Path(sys.executable)], ids=str)
def test_the_runner_runs_under_the_pythons_that_are_there(site: Site, web: WebServer, python: Path) -> None:
    settings = site.settings(staging="job", python=str(python))
    session = data_session(site, web.put("/x", b"content"))
    assert site.run(session, settings, command=SHOW).state == "SUCCEEDED"
    assert site.output(session) == b"content"


def test_the_scripts_are_sound_shell(site: Site, tmp_path: Path) -> None:
    session = site.session(JupyterNotebook(location="http://localhost/it's.ipynb"))
    settings = site.settings(python="/opt/with 'quote'/python3", setup="true")
    directory = batch.session_directory(settings.root, session.uuid)
    for text in (batch.job_script(settings, directory), carried_script(session, settings, "$A/b")):
        file = tmp_path / "script"
        file.write_text(text)
        assert subprocess.run(["sh", "-n", str(file)], capture_output=True, check=False).stderr == b""
        checker = shutil.which("shellcheck")
        if checker is not None:
            done = subprocess.run([checker, "-s", "sh", str(file)], capture_output=True, check=False)
            assert done.stdout == b"", done.stdout.decode()
