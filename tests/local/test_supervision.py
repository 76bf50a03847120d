"""The supervisor by itself: real processes, kept to their limits, run once, and leaving nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ebhpc.local import cgroups, processes
from ebhpc.local.places import SessionDirectory, session_directory
from ebhpc.local.supervisor import Launch
from ebhpc.model import MessageKind
from ebhpc.staging.files import GIBI, MEBI, mark, read_json, write_json
from tests.labs import require


class Desk:
    """Supervisors, launched as the platform does, for jobs that a test writes down."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.made: list[SessionDirectory] = []

    def job(self, *argv: str, **more: Any) -> SessionDirectory:
        """Write a job that runs ``argv``."""
        directory = session_directory(self.place, str(uuid.uuid4()))
        directory.make()
        self.made.append(directory)
        write_json(
            directory.job,
            {
                "uuid": directory.uuid,
                "argv": list(argv),
                "environment": {"PATH": os.environ["PATH"], processes.MARK: directory.uuid},
                "directory": str(directory.work),
                "cores": 1,
                "core_choices": sorted(os.sched_getaffinity(0)),
                "memory": GIBI,
                "processes": 1000,
                "devices": {},
                "claims": str(self.place / "claims"),
                "end": time.time() + 600,
                "grace": 1.0,
                "service": False,
                "group": False,
                "watch_memory": True,
                "work": GIBI,
                "output": GIBI,
                "meters": [],
                "keep": [],
                "binds": [],
                "user": None,
                "container": None,
                "outcome": None,
                **more,
            },
        )
        return directory

    def launch(self, directory: SessionDirectory) -> subprocess.Popen[bytes]:
        """Start the supervisor of a job."""
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "ebhpc.local.supervisor", str(directory.path)],
            cwd="/",
            start_new_session=True,
            stderr=subprocess.DEVNULL,
        )

    def begin(self, directory: SessionDirectory) -> None:
        """Start the supervisor, and wait until the job runs."""
        assert self.launch(directory).wait(20) == Launch.STARTED
        self.wait(lambda: directory.running.exists())

    def run(self, directory: SessionDirectory) -> dict[str, Any]:
        """Start the supervisor, and return the status at the end."""
        assert self.launch(directory).wait(20) == Launch.STARTED
        return self.ended(directory)

    def ended(self, directory: SessionDirectory) -> dict[str, Any]:
        """Wait for the end; return the status."""
        self.wait(lambda: directory.status.exists() and not directory.lives())
        status = read_json(directory.status)
        assert status is not None
        return status

    def wait(self, happened: Any, patience: float = 30.0) -> None:
        """Wait until something has happened."""
        until = time.monotonic() + patience
        while not happened():
            assert time.monotonic() < until
            time.sleep(0.02)

    def running(self, directory: SessionDirectory) -> dict[str, Any]:
        """Return what the supervisor says of the running job."""
        found = read_json(directory.running)
        assert found is not None
        return found

    def finish(self) -> None:
        """End all jobs; none may leave a process."""
        for directory in self.made:
            mark(directory.cancel)
        for directory in self.made:
            self.wait(lambda directory=directory: not directory.lives())
            assert processes.marked(directory.uuid) == []
            assert cgroups.find(directory.name) is None


def kinds(status: dict[str, Any]) -> list[str]:
    """Return the kinds of a status's messages."""
    return [words["kind"] for words in status["messages"]]


def output(directory: SessionDirectory, name: str = "stdout") -> str:
    """Return what a job has written."""
    return (directory.output / name).read_text(encoding="utf-8")


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A desk that is cleared at the end."""
    made = Desk(tmp_path)
    yield made
    made.finish()


def test_a_job_runs_to_its_end_with_its_output(desk: Desk) -> None:
    job = desk.job("sh", "-c", "echo out; echo err >&2; pwd; exit 3")
    status = desk.run(job)
    assert (status["state"], status["exit_code"], status["reason"]) == ("FAILED", 3, "exit")
    assert output(job) == f"out\n{job.work}\n"
    assert output(job, "stderr") == "err\n"
    assert kinds(status) == [MessageKind.FAILED]


def test_a_job_that_cannot_start_says_why(desk: Desk) -> None:
    status = desk.run(desk.job("/no/such/program"))
    assert (status["state"], status["reason"]) == ("FAILED", "launch")
    assert "/no/such/program" in status["messages"][0]["values"]["text"]


def test_a_signal_is_named(desk: Desk) -> None:
    status = desk.run(desk.job("sh", "-c", "kill -SEGV $$"))
    assert status["exit_code"] == -signal.SIGSEGV
    assert status["messages"][0]["values"] == {"signal": "SIGSEGV"}


def test_many_launches_of_one_job_run_it_once(desk: Desk) -> None:
    job = desk.job("sh", "-c", "echo run >>../count; sleep 0.5")
    codes = [launch.wait(20) for launch in [desk.launch(job) for _ in range(6)]]
    assert sorted(codes) == [Launch.STARTED] + [Launch.TAKEN] * 5
    desk.ended(job)
    assert desk.launch(job).wait(20) == Launch.TAKEN
    assert (job.path / "count").read_text() == "run\n"


def test_a_job_that_was_cancelled_before_does_not_begin(desk: Desk) -> None:
    job = desk.job("sh", "-c", "echo run")
    mark(job.cancel)
    assert desk.launch(job).wait(20) == Launch.ENDED
    assert not job.started.exists()


def test_a_launcher_that_is_killed_takes_nothing_with_it(desk: Desk) -> None:
    job = desk.job("sh", "-c", "sleep 1; echo done")
    launcher = desk.launch(job)
    desk.wait(lambda: job.started.exists())
    launcher.kill()
    launcher.wait()
    assert desk.ended(job)["state"] == "SUCCEEDED"
    assert output(job) == "done\n"


def test_cancelling_ends_the_job_and_all_that_it_started(desk: Desk) -> None:
    # One in the background, one that has left the session, one whose parent is gone
    script = "sleep 600 & setsid sleep 601 & (setsid sh -c 'sleep 602 & sleep 603' &) ; sleep 604"
    job = desk.job("sh", "-c", script)
    desk.begin(job)
    desk.wait(lambda: len(processes.marked(job.uuid)) >= 6)
    mark(job.cancel)
    status = desk.ended(job)
    assert (status["state"], status["reason"], kinds(status)) == ("FAILED", "cancelled", [MessageKind.PROGRESS])
    assert processes.marked(job.uuid) == []


def test_a_job_that_ignores_sigterm_is_killed_after_its_grace(desk: Desk) -> None:
    job = desk.job("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done", grace=0.5)
    desk.begin(job)
    desk.wait(lambda: output(job) == "ready\n")
    mark(job.cancel)
    status = desk.ended(job)
    assert status["exit_code"] == -signal.SIGKILL
    assert status["reason"] == "cancelled"


def test_a_job_that_tidies_up_on_sigterm_may(desk: Desk) -> None:
    job = desk.job("sh", "-c", "trap 'echo tidy; exit 0' TERM; echo ready; while :; do sleep 0.05; done")
    desk.begin(job)
    desk.wait(lambda: output(job) == "ready\n")
    mark(job.cancel)
    assert desk.ended(job)["state"] == "FAILED"
    assert output(job) == "ready\ntidy\n"


def test_a_job_has_ended_by_the_end_of_its_session(desk: Desk) -> None:
    end = time.time() + 2
    job = desk.job("sleep", "600", end=end)
    status = desk.run(job)
    assert status["ended"] <= end + 0.5
    assert kinds(status) == [MessageKind.TIME_LIMIT]
    assert status["state"] == "FAILED"


def test_a_service_runs_until_its_session_ends_and_that_is_well(desk: Desk) -> None:
    status = desk.run(desk.job("sleep", "600", end=time.time() + 1, service=True))
    assert (status["state"], kinds(status)) == ("SUCCEEDED", [MessageKind.TIME_LIMIT])


def test_what_a_job_leaves_in_the_background_ends_with_it(desk: Desk) -> None:
    job = desk.job("sh", "-c", "(setsid sleep 600 &); echo done")
    status = desk.run(job)
    assert status["state"] == "SUCCEEDED"
    assert processes.marked(job.uuid) == []


def hog(mebibytes: int) -> tuple[str, ...]:
    """Return a command that takes memory, touches it, and waits."""
    return (
        sys.executable,
        "-c",
        f"import time; hoard = bytearray(b'x') * ({mebibytes} * 2**20); print('have', flush=True); time.sleep(600)",
    )


@pytest.mark.parametrize("by_group", [False, True])
def test_a_memory_hog_is_ended_and_told_why(desk: Desk, by_group: bool) -> None:
    if by_group:
        require(_memory_groups(), "there is no memory controller that this user may use")
    job = desk.job(*hog(400), memory=150 * MEBI, group=by_group)
    status = desk.run(job)
    assert (status["state"], status["reason"]) == ("FAILED", "memory")
    assert kinds(status) == [MessageKind.RESOURCE_LIMIT]
    assert status["messages"][0]["values"]["mebibytes"] == "150"
    assert desk.running(job)["memory_kept_by"] == ("group" if by_group else "watch")


def test_the_memory_of_all_processes_of_a_job_counts_together(desk: Desk) -> None:
    children = "import subprocess, sys; [subprocess.Popen(sys.argv[1:]) for _ in range(4)][-1].wait()"
    job = desk.job(sys.executable, "-c", children, *hog(60), memory=180 * MEBI)
    assert desk.run(job)["reason"] == "memory"


def test_memory_within_the_limit_is_left_alone_and_its_peak_is_told(desk: Desk) -> None:
    job = desk.job(*hog(100), memory=400 * MEBI, end=time.time() + 2.5)
    status = desk.run(job)
    assert status["reason"] == "time"
    assert 100 * MEBI < status["peak_memory"] < 200 * MEBI


def _memory_groups() -> bool:
    group = cgroups.make(f"ebhpc-test-{uuid.uuid4()}", cores=1, memory=64 * MEBI, processes=16)
    if group is None:
        return False
    counts = group.counts_memory
    assert group.remove()
    return counts


def test_storage_that_overflows_ends_the_job(desk: Desk) -> None:
    job = desk.job("sh", "-c", "dd if=/dev/zero of=big bs=1M count=64; sleep 600")
    edited = read_json(job.job)
    assert edited is not None
    meter = {"path": str(job.work), "bytes": 16 * MEBI, "what": "the storage scratch"}
    write_json(job.job, {**edited, "meters": [meter]})
    status = desk.run(job)
    assert status["reason"] == "disk"
    assert status["messages"][0]["values"] == {"what": "the storage scratch", "mebibytes": "16.0"}


def test_output_without_end_ends_the_job(desk: Desk) -> None:
    job = desk.job("sh", "-c", "while :; do echo yes yes yes yes; done")
    edited = read_json(job.job)
    assert edited is not None
    meter = {"path": str(job.output), "bytes": MEBI, "what": "its output and results"}
    write_json(job.job, {**edited, "meters": [meter]})
    status = desk.run(job)
    assert (status["state"], status["reason"]) == ("FAILED", "disk")


def test_each_job_has_cores_of_its_own_while_there_are_enough(desk: Desk) -> None:
    cores = sorted(os.sched_getaffinity(0))
    require(len(cores) >= 2, "this test needs two cores")
    show = "import os, time; print(sorted(os.sched_getaffinity(0)), flush=True); time.sleep(600)"
    jobs = [desk.job(sys.executable, "-c", show, core_choices=cores[:2]) for _ in range(3)]
    for job in jobs:
        desk.begin(job)
        desk.wait(lambda job=job: output(job).endswith("\n"))
    seen = [json.loads(output(job)) for job in jobs]
    assert sorted(seen[:2]) == [[cores[0]], [cores[1]]]
    assert len(seen[2]) == 1  # shared, because somebody has configured more than there is
    mark(jobs[0].cancel)
    desk.ended(jobs[0])
    again = desk.job(sys.executable, "-c", show, core_choices=cores[:2])
    desk.begin(again)
    desk.wait(lambda: output(again).endswith("\n"))
    assert json.loads(output(again)) == seen[0]


def test_devices_are_handed_out_once(desk: Desk) -> None:
    show = "echo $CUDA_VISIBLE_DEVICES; sleep 600"
    jobs = [desk.job("sh", "-c", show, devices={"gpu": {"count": 1, "have": 2}}) for _ in range(2)]
    for job in jobs:
        desk.begin(job)
        desk.wait(lambda job=job: output(job).endswith("\n"))
    assert sorted(map(output, jobs)) == ["0\n", "1\n"]


def _guard_and_watch(desk: Desk, job: SessionDirectory) -> dict[str, int]:
    started = read_json(job.started)
    assert started is not None
    return {"guard": started["guard"], "watch": desk.running(job)["watch"]}


@pytest.mark.parametrize("victim", ["guard", "watch"])
def test_killing_a_supervisor_ends_its_job_and_is_told(desk: Desk, victim: str) -> None:
    script = "(setsid sleep 600 &); echo up; sleep 601"
    job = desk.job("sh", "-c", script, group=True)
    desk.begin(job)
    desk.wait(lambda: output(job) == "up\n")
    os.kill(_guard_and_watch(desk, job)[victim], signal.SIGKILL)
    status = desk.ended(job)
    assert status["state"] == "FAILED"
    assert "supervisor" in status["messages"][0]["template"]
    assert processes.marked(job.uuid) == []


def test_a_supervisor_needs_little_memory(desk: Desk) -> None:
    job = desk.job("sleep", "600")
    desk.begin(job)
    sizes = [psutil.Process(pid).memory_full_info().uss / MEBI for pid in _guard_and_watch(desk, job).values()]
    assert sum(sizes) < 20, sizes


def test_a_supervisor_holds_nothing_of_its_launcher_open(desk: Desk, tmp_path: Path) -> None:
    job = desk.job("sleep", "600")
    with (tmp_path / "database").open("w") as database:
        os.set_inheritable(database.fileno(), False)
        desk.begin(job)
        for pid in _guard_and_watch(desk, job).values():
            names = [file.path for file in psutil.Process(pid).open_files()]
            assert not any("database" in name for name in names)
    payload = desk.running(job)["payload"]
    held = [file.path for file in psutil.Process(payload).open_files()]
    assert sorted(Path(name).name for name in held) == ["stderr", "stdout"]


def test_a_job_cannot_have_its_output_written_elsewhere(desk: Desk, tmp_path: Path) -> None:
    job = desk.job("echo", "hello")
    (job.output / "stdout").symlink_to(tmp_path / "elsewhere")
    status = desk.run(job)
    assert status["reason"] == "launch"
    assert not (tmp_path / "elsewhere").exists()


def test_the_words_of_a_supervisor_are_of_kinds_that_the_model_knows() -> None:
    from ebhpc.local import ends

    known = set(MessageKind)
    assert {ends.FAILED, ends.LIMIT, ends.TIME, ends.PROGRESS} <= known


def test_a_supervisor_imports_little() -> None:
    look = "import sys, ebhpc.local.supervisor; print(' '.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout.split()
    assert not {"msgspec", "httpx", "sqlalchemy", "numpy", "yaml", "ebhpc.model", "ebhpc.config"} & set(loaded)
