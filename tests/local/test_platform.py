"""The life of a session on the local platform: every step may be repeated, cut off, and come too late."""

from __future__ import annotations

import json
import os
import pwd
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from ebhpc.local import processes
from ebhpc.local.platform import LocalPlatform
from ebhpc.model import JupyterNotebook, Metadata, Range, Session, SimpleData, SimpleStorage, SimpleVolume
from ebhpc.plugins import SessionFailed
from ebhpc.staging.files import Busy, read_json
from tests.labs import require
from tests.local.conftest import Workshop, changed, notebook, said
from tests.local.webserver import WebServer, status

COUNTING = "open('../count', 'a').write('run\\n')"


def counting(web: WebServer, *cells: str) -> JupyterNotebook:
    """Return a notebook that notes each of its runs in the session's directory."""
    return JupyterNotebook(location=web.put("/count.ipynb", notebook(COUNTING, *cells)))


def runs(workshop: Workshop, session: Session) -> str:
    """Return what the notebooks of :func:`counting` have noted."""
    file = workshop.directory(session).path / "count"
    return file.read_text() if file.exists() else ""


def started(workshop: Workshop, platform: LocalPlatform, session: Session) -> None:
    """Prepare and submit, and wait until the notebook has begun."""
    platform.ebhpc_prepare(session=session)
    platform.ebhpc_submit(session=session)
    until = time.monotonic() + 30
    while not runs(workshop, session):
        assert time.monotonic() < until, workshop.log(session)
        time.sleep(0.05)


def test_every_step_may_be_repeated(workshop: Workshop, web: WebServer) -> None:
    platform = workshop.platform()
    session = workshop.session(platform, counting(web))
    for _ in range(2):
        assert platform.ebhpc_hold(session=session) is None
    for _ in range(2):
        platform.ebhpc_prepare(session=session)
    natives = {platform.ebhpc_submit(session=session) for _ in range(3)}
    workshop.until(platform, session)
    natives.add(platform.ebhpc_submit(session=session))
    assert len(natives) == 1
    for _ in range(2):
        platform.ebhpc_cancel(session=session)
        platform.ebhpc_cleanup(session=session)
        platform.ebhpc_release(session=session)
    assert workshop.until(platform, session).state == "SUCCEEDED"
    assert runs(workshop, session) == "run\n"
    for _ in range(2):
        platform.ebhpc_forget(session=session)
    assert list(platform.ebhpc_outputs(session=session)) == []


def test_many_drivers_that_submit_at_once_run_it_once(workshop: Workshop, web: WebServer) -> None:
    platform = workshop.platform()
    session = workshop.session(platform, counting(web))
    platform.ebhpc_prepare(session=session)
    with ThreadPoolExecutor(8) as pool:
        natives = set(pool.map(lambda _: workshop.platform().ebhpc_submit(session=session), range(8)))
    assert len(natives) == 1
    workshop.until(platform, session)
    assert runs(workshop, session) == "run\n"


def test_the_uuid_is_compared_as_a_uuid(workshop: Workshop, web: WebServer) -> None:
    platform = workshop.platform()
    session = workshop.session(platform, counting(web))
    platform.ebhpc_prepare(session=session)
    platform.ebhpc_submit(session=changed(session, uuid=session.uuid.upper()))
    platform.ebhpc_submit(session=session)
    workshop.until(platform, session)
    assert runs(workshop, session) == "run\n"


@pytest.mark.parametrize("name", ["", "..", "../../etc", "x/y", "0" * 36, "{b7f0d1b8-2b0e-4b57-8a43-2f6e0f0d5d11}"])
def test_what_is_no_uuid_never_becomes_a_path(workshop: Workshop, web: WebServer, name: str) -> None:
    platform = workshop.platform()
    odd = changed(workshop.session(platform, counting(web)), uuid=name)
    for hook in ("prepare", "submit", "cancel", "cleanup", "outputs", "forget"):
        with pytest.raises(ValueError, match="is no UUID"):
            getattr(platform, f"ebhpc_{hook}")(session=odd)


def test_a_session_that_was_never_submitted_is_gone(workshop: Workshop, web: WebServer) -> None:
    platform = workshop.platform()
    session = workshop.session(platform, counting(web))
    (seen,) = platform.ebhpc_observe(sessions=[session])
    assert seen.state == "GONE"
    platform.ebhpc_prepare(session=session)
    (seen,) = platform.ebhpc_observe(sessions=[session])
    assert seen.state == "GONE"


def test_submitting_what_was_not_prepared_is_an_error(workshop: Workshop, web: WebServer) -> None:
    platform = workshop.platform()
    session = workshop.session(platform, counting(web))
    with pytest.raises(FileNotFoundError, match="was not prepared"):
        platform.ebhpc_submit(session=session)


@pytest.mark.parametrize("how", ["cancel", "cleanup"])
def test_a_session_that_was_ended_first_never_begins(workshop: Workshop, web: WebServer, how: str) -> None:
    platform = workshop.platform()
    session = workshop.session(platform, counting(web))
    platform.ebhpc_prepare(session=session)
    getattr(platform, f"ebhpc_{how}")(session=session)
    for late in (platform.ebhpc_submit, platform.ebhpc_prepare):
        with pytest.raises(SessionFailed, match="ended before its job began"):
            late(session=session)
    assert not workshop.directory(session).started.exists()


def test_several_sessions_are_observed_in_one_call(workshop: Workshop, web: WebServer) -> None:
    platform = workshop.platform()
    runs_on = workshop.session(platform, counting(web, "import time; time.sleep(600)"))
    gone = workshop.session(platform, counting(web))
    started(workshop, platform, runs_on)
    seen = {one.uuid: one for one in platform.ebhpc_observe(sessions=[gone, runs_on])}
    assert (seen[gone.uuid].state, seen[runs_on.uuid].state) == ("GONE", "RUNNING")
    assert seen[runs_on.uuid].node == platform.node
    assert seen[runs_on.uuid].started == pytest.approx(time.time(), abs=60)


def test_another_driver_takes_over(workshop: Workshop, web: WebServer) -> None:
    first = workshop.platform()
    session = workshop.session(first, counting(web, "import time; time.sleep(600)"))
    started(workshop, first, session)
    second = workshop.platform()
    assert workshop.until(second, session, "RUNNING").state == "RUNNING"
    second.ebhpc_cancel(session=session)
    assert said(workshop.until(second, session)) == "The job was ended on request."
    second.ebhpc_cleanup(session=session)


def test_cleaning_up_ends_what_still_runs(workshop: Workshop, web: WebServer) -> None:
    platform = workshop.platform()
    session = workshop.session(platform, counting(web, "import time; time.sleep(600)"))
    started(workshop, platform, session)
    platform.ebhpc_cleanup(session=session)
    assert processes.marked(session.uuid) == []
    assert workshop.until(platform, session).state == "FAILED"


def test_when_all_of_the_supervisor_is_killed_the_next_look_ends_the_job(workshop: Workshop, web: WebServer) -> None:
    platform = workshop.platform()
    escape = "import subprocess; subprocess.Popen(['sleep', '600'], start_new_session=True)"
    session = workshop.session(platform, counting(web, escape, "import time; time.sleep(600)"))
    started(workshop, platform, session)
    directory = workshop.directory(session)
    pids = [(read_json(directory.started) or {})["guard"], (read_json(directory.running) or {})["watch"]]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)  # so that neither sees the other end
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    seen = workshop.until(platform, session)
    assert seen.state == "FAILED"
    assert "supervisor" in said(seen)
    assert processes.marked(session.uuid) == []


def test_forgetting_what_runs_is_refused(workshop: Workshop, web: WebServer) -> None:
    platform = workshop.platform()
    session = workshop.session(platform, counting(web, "import time; time.sleep(600)"))
    started(workshop, platform, session)
    with pytest.raises(RuntimeError, match="still runs"):
        platform.ebhpc_forget(session=session)
    assert workshop.until(platform, session, "RUNNING").state == "RUNNING"


def test_output_can_be_read_while_the_job_runs(workshop: Workshop, web: WebServer) -> None:
    platform = workshop.platform()
    write = "import os; open(os.environ['EBHPC_RESULTS'] + '/now', 'w').write('so far')"
    session = workshop.session(platform, counting(web, write, "import time; time.sleep(600)"))
    started(workshop, platform, session)
    until = time.monotonic() + 10
    while "results/now" not in {one.name for one in platform.ebhpc_outputs(session=session)}:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert workshop.output(platform, session, "results/now") == "so far"


def test_only_one_prepares_at_a_time_and_cleaning_up_stops_it(workshop: Workshop, web: WebServer) -> None:
    going, go_on = threading.Event(), threading.Event()

    def slow(request: BaseHTTPRequestHandler) -> None:
        request.close_connection = True
        request.send_response(200)
        request.end_headers()
        try:
            while not go_on.wait(0.05):
                request.wfile.write(b"x" * 1000)
                going.set()
        except OSError:
            return

    platform = workshop.platform()
    session = workshop.session(
        platform, counting(web), data=(SimpleData(meta=Metadata(name="d"), location=web.put("/slow", slow)),)
    )
    failures: list[Exception] = []

    def prepare() -> None:
        try:
            platform.ebhpc_prepare(session=session)
        except Exception as error:  # noqa: BLE001  # looked at below
            failures.append(error)

    hung = threading.Thread(target=prepare)
    hung.start()
    try:
        assert going.wait(10)
        with pytest.raises(Busy):
            platform.ebhpc_prepare(session=session)
        platform.ebhpc_cleanup(session=session)
    finally:
        go_on.set()
        hung.join(10)
    assert "not wanted any more" in str(failures)
    assert not workshop.directory(session).storage.exists()


def test_data_that_is_not_there_fails_the_session(workshop: Workshop, web: WebServer) -> None:
    platform = workshop.platform()
    data = (SimpleData(location=web.put("/a", b"a")), SimpleData(location=web.url("/none")))
    session = workshop.session(platform, counting(web), data=data)
    with pytest.raises(SessionFailed) as failed:
        platform.ebhpc_prepare(session=session)
    (why,) = failed.value.messages
    assert (why.kind, (why.values or {})["path"]) == ("urn:resource-not-found", "/data/1")


def test_a_passing_fault_is_no_failure_of_the_session(workshop: Workshop, web: WebServer) -> None:
    platform = workshop.platform()
    session = workshop.session(platform, counting(web), data=(SimpleData(location=web.put("/d", status(503))),))
    with pytest.raises(Exception, match="503") as failed:
        platform.ebhpc_prepare(session=session)
    assert not isinstance(failed.value, SessionFailed)
    web.put("/d", b"now")
    prepared = platform.ebhpc_prepare(session=session)
    assert prepared is not None
    assert [str(one) for one in prepared.messages] == ["Data d is staged: 3 bytes."]


def test_data_that_its_storage_cannot_take_fails_the_session(workshop: Workshop, web: WebServer) -> None:
    platform = workshop.platform(storage_gib=0.001)
    large = web.put("/large", b"x" * 2**21)
    session = workshop.session(platform, counting(web), data=(SimpleData(location=large),))
    with pytest.raises(SessionFailed) as failed:
        platform.ebhpc_prepare(session=session)
    assert failed.value.messages[0].kind == "urn:resource-limit"


def test_data_of_one_name_does_not_collide(workshop: Workshop, web: WebServer) -> None:
    platform = workshop.platform()
    storage = (SimpleStorage(meta=Metadata(name="s"), data=["c"]),)
    data = tuple(
        SimpleData(meta=Metadata(name=name), location=web.put(f"/{name}/same.fits", name.encode()), storage=home)
        for name, home in (("a", "s"), ("b", "s"), ("c", None), ("d", None))
    )
    session = workshop.session(platform, counting(web), storage=storage, data=data)
    platform.ebhpc_prepare(session=session)
    place = workshop.directory(session).storage
    found = {str(file.relative_to(place)): file.read_text() for file in place.rglob("*") if file.is_file()}
    assert found == {"0/same.fits": "a", "0/1-same.fits": "b", "0/2-same.fits": "c", "1/same.fits": "d"}


def test_storage_that_was_written_to_is_a_result_and_what_was_staged_is_not(workshop: Workshop, web: WebServer) -> None:
    platform = workshop.platform()
    write = "import os; os.makedirs('out/deep'); open('out/deep/made', 'w').write('made')"
    session = workshop.session(
        platform,
        counting(web, write),
        storage=(SimpleStorage(meta=Metadata(name="out"), size=Range(max=1)), SimpleStorage(meta=Metadata(name="in"))),
        data=(SimpleData(location=web.put("/staged", b"staged"), storage="out"),),
        volumes=(SimpleVolume(path="out", mode="READWRITE", resource="out"), SimpleVolume(path="in", resource="in")),
    )
    assert workshop.run(platform, session).state == "SUCCEEDED"
    platform.ebhpc_cleanup(session=session)
    names = {one.name for one in platform.ebhpc_outputs(session=session)}
    assert {name for name in names if name.startswith("storage")} == {"storage/out/deep/made"}


def test_results_above_the_limit_are_dropped_and_told(workshop: Workshop, web: WebServer) -> None:
    platform = workshop.platform(output_gib=0.003)
    write = "open('out/large', 'wb').write(b'x' * 2**22)"
    session = workshop.session(
        platform,
        counting(web, write),
        storage=(SimpleStorage(meta=Metadata(name="out")),),
        volumes=(SimpleVolume(path="out", mode="READWRITE", resource="out"),),
    )
    seen = workshop.run(platform, session)
    assert seen.state == "SUCCEEDED"
    assert "The storage out is not kept" in said(seen)
    platform.ebhpc_cleanup(session=session)
    assert not any(one.name.startswith("storage") for one in platform.ebhpc_outputs(session=session))


def test_a_working_directory_made_to_resist_is_removed_and_nothing_beside_it(
    workshop: Workshop, web: WebServer, tmp_path: Path
) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("precious")
    resist = f"""
import os
os.symlink({str(tmp_path / "precious")!r}, 'link')
os.makedirs('locked/inner')
open('locked/inner/file', 'w').close()
os.chmod('locked/inner', 0)
os.chmod('locked', 0)
os.mkfifo('pipe')
path = '.'
for _ in range(300):
    path += '/' + 'd' * 10
    os.mkdir(path)
open(b'\\xff\\n', 'w').close()
"""
    platform = workshop.platform()
    session = workshop.session(platform, counting(web, resist))
    assert workshop.run(platform, session).state == "SUCCEEDED"
    platform.ebhpc_cleanup(session=session)
    assert (tmp_path / "precious" / "file").read_text() == "precious"


def test_jobs_of_another_user_get_only_their_own_directories(workshop: Workshop, web: WebServer) -> None:
    require(os.geteuid() == 0, "only root can run jobs as another user")
    nobody = pwd.getpwnam("nobody")
    platform = workshop.platform(user="nobody")
    session = workshop.session(
        platform,
        counting(web),
        storage=(SimpleStorage(meta=Metadata(name="s")),),
        data=(SimpleData(location=web.put("/d", b"d"), storage="s"),),
    )
    platform.ebhpc_prepare(session=session)
    directory = workshop.directory(session)
    own = [directory.work, directory.results, directory.storage / "0", directory.storage / "0" / "d"]
    assert {path.stat().st_uid for path in own} == {nobody.pw_uid}
    ours = [directory.path, directory.output, directory.storage, directory.stage]
    assert {path.stat().st_uid for path in ours} == {0}
    assert {oct(path.stat().st_mode & 0o777) for path in ours} == {"0o711"}


def test_nobody_else_can_look_into_a_session(workshop: Workshop, web: WebServer) -> None:
    platform = workshop.platform()
    session = workshop.session(platform, counting(web, "import time; time.sleep(600)"))
    started(workshop, platform, session)
    directory = workshop.directory(session)
    assert oct(directory.path.stat().st_mode & 0o777) == "0o700"
    assert oct(directory.job.stat().st_mode & 0o777) == "0o600"


DRIVER = """
import json, sys, time
from pathlib import Path
from ebhpc.local import ebhpc_platform
from ebhpc.local.places import session_directory
from ebhpc.model import Session, JupyterNotebook, SimpleData, SimpleCompute, Allocation, Identity

told = json.loads(sys.argv[1])
state = Path(told.pop("state"))
session = Session(
    executable=JupyterNotebook(location=told.pop("notebook")),
    data=(SimpleData(location=told.pop("data")),),
    compute=SimpleCompute(), name=None, owner=Identity(uuid="o", username="o"), platform="here", phase="AVAILABLE",
    allocations=(Allocation(node="n", cores=1, memory=1024),), start=0, latest=0, end=int(time.time()) + 600,
    duration=600, **told,
)
settings = {"grace": "2s", "private_networks": ["127.0.0.0/8"]}
platform = ebhpc_platform(kind="local", name="here", settings=settings, state=state)
directory = session_directory(state, session.uuid)
if not directory.closed.exists():
    if not directory.started.exists():
        platform.ebhpc_prepare(session=session)
    platform.ebhpc_submit(session=session)
    while list(platform.ebhpc_observe(sessions=[session]))[0].state == "RUNNING":
        time.sleep(0.05)
    platform.ebhpc_cancel(session=session)
platform.ebhpc_cleanup(session=session)
(seen,) = platform.ebhpc_observe(sessions=[session])
print(seen.state, [one.name for one in platform.ebhpc_outputs(session=session)])
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_driver_killed_at_any_point_leaves_a_session_that_the_next_one_ends(
    workshop: Workshop, web: WebServer, tmp_path: Path
) -> None:
    def drive(session: Session, faults: Path) -> subprocess.CompletedProcess[str]:
        assert isinstance(session.executable, JupyterNotebook)
        told = {
            "state": str(tmp_path / "state"),
            "uuid": session.uuid,
            "notebook": session.executable.location,
            "data": web.put("/data", b"data"),
        }
        return subprocess.run(
            [sys.executable, "-c", DRIVER, json.dumps(told)],
            env={**os.environ, "EBHPC_FAULTS": str(faults)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def check(session: Session, done: subprocess.CompletedProcess[str]) -> None:
        assert done.returncode == 0, done.stderr
        names = "'stdout', 'stderr', 'results/count.html', 'results/count.ipynb'"
        assert done.stdout == f"SUCCEEDED [{names}]\n"
        assert runs(workshop, session) == "run\n"
        left = {entry.name for entry in workshop.directory(session).path.iterdir()}
        assert not left & {"work", "stage", "storage", "job.json", "running.json"}

    platform = workshop.platform()
    faults = tmp_path / "faults"
    faults.mkdir()
    session = workshop.session(platform, counting(web))
    check(session, drive(session, faults))
    points = list(dict.fromkeys((line.split()[0]) for line in (faults / "seen").read_text().splitlines()))
    assert len(points) >= 11, points
    for point in points:
        session = workshop.session(platform, counting(web))
        (faults / "armed").write_text(f"{point} 1")
        killed = drive(session, faults)
        assert killed.returncode == -signal.SIGKILL, (point, killed.stderr)
        check(session, drive(session, faults))


def test_a_supervisor_that_cannot_begin_is_an_error_that_may_pass(
    workshop: Workshop, web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = workshop.platform()
    session = workshop.session(platform, counting(web))
    platform.ebhpc_prepare(session=session)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="did not begin"):
        platform.ebhpc_submit(session=session)
    monkeypatch.undo()
    platform.ebhpc_submit(session=session)
    assert workshop.until(platform, session).state == "SUCCEEDED"
    assert runs(workshop, session) == "run\n"
