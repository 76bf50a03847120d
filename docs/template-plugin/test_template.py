"""Tests of the plugin alone: real commands, no broker. Run them with pytest."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from ebhpc_template import ShellCommand, TemplatePlatform, TemplateSettings

from ebhpc.model import (
    Allocation,
    Demand,
    ExecutionRequest,
    Identity,
    JupyterNotebook,
    Observation,
    Phase,
    Request,
    Session,
    Shape,
    SimpleCompute,
    SimpleStorage,
)
from ebhpc.plugins import SessionFailed


@pytest.fixture
def platform(tmp_path: Path) -> TemplatePlatform:
    return TemplatePlatform("here", TemplateSettings(cores=2, memory=2048), tmp_path)


def session(command: list[str], *, start: float = 0, seconds: float = 60) -> Session:
    begin = int(time.time() + start)
    return Session(
        uuid=str(uuid4()),
        name=None,
        owner=Identity(uuid=str(uuid4()), username="ada"),
        platform="here",
        phase=Phase.AVAILABLE,
        executable=ShellCommand(command=command),
        compute=SimpleCompute(),
        allocations=(Allocation(node="here", cores=1, memory=512),),
        start=begin,
        latest=begin,
        end=int(begin + seconds),
        duration=int(seconds),
    )


def observe_until(platform: TemplatePlatform, wanted: Session, done: Callable[[Observation], bool]) -> Observation:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        (observation,) = platform.ebhpc_observe([wanted])
        if done(observation):
            return observation
        time.sleep(0.05)
    raise AssertionError(f"still {observation}")


def ended(observation: Observation) -> bool:
    return observation.state in ("SUCCEEDED", "FAILED")


def test_a_command_runs_and_its_output_is_kept(platform: TemplatePlatform) -> None:
    job = session(["sh", "-c", "echo hello; echo oops >&2; echo 42 > answer.txt; ln -s /etc/passwd link"])
    assert platform.ebhpc_submit(job) == job.uuid
    observation = observe_until(platform, job, ended)
    assert (observation.state, observation.exit_code) == ("SUCCEEDED", 0)
    platform.ebhpc_cleanup(job)
    outputs = {output.name: output.size for output in platform.ebhpc_outputs(job)}
    assert outputs == {"stdout": 6, "stderr": 5, "results/answer.txt": 3}
    file = platform.ebhpc_open_output(job, "results/answer.txt")
    assert file is not None
    with file:
        assert file.read() == b"42\n"
    assert platform.ebhpc_open_output(job, "results/link") is None
    assert platform.ebhpc_open_output(job, "../job.json") is None
    platform.ebhpc_forget(job)
    assert list(platform.ebhpc_outputs(job)) == []


def test_a_job_that_is_submitted_again_runs_once(platform: TemplatePlatform) -> None:
    job = session(["sh", "-c", "echo ran; sleep 0.5"])
    for _ in range(3):
        assert platform.ebhpc_submit(job) == job.uuid
    again = TemplatePlatform(platform.name, platform.settings, platform.jobs.parent)
    again.ebhpc_submit(job)
    assert observe_until(again, job, ended).state == "SUCCEEDED"
    again.ebhpc_submit(job)
    assert (platform.jobs / job.uuid / "stdout").read_text() == "ran\n"


def test_a_job_waits_for_its_start_and_is_in_the_snapshot(platform: TemplatePlatform) -> None:
    job = session(["true"], start=2)
    platform.ebhpc_submit(job)
    (observation,) = platform.ebhpc_observe([job])
    assert observation.state == "PENDING"
    (running,) = platform.ebhpc_snapshot(now=1).running
    assert (running.session, running.allocations[0].cores) == (job.uuid, 1)
    observation = observe_until(platform, job, ended)
    assert observation.started is not None
    assert observation.started >= job.start
    assert platform.ebhpc_snapshot(now=1).running == ()


def test_a_job_past_its_end_is_ended_with_all_its_processes(platform: TemplatePlatform) -> None:
    job = session(["sh", "-c", "sleep 60 & sleep 60"], seconds=1)
    platform.ebhpc_submit(job)
    observation = observe_until(platform, job, ended)
    assert observation.state == "FAILED"
    assert "time limit" in str(observation.messages[0])


def test_a_job_is_cancelled_at_any_time(platform: TemplatePlatform) -> None:
    running, waiting, never = session(["sleep", "60"]), session(["sleep", "60"], start=60), session(["true"])
    platform.ebhpc_submit(running)
    platform.ebhpc_submit(waiting)
    observe_until(platform, running, lambda observation: observation.state == "RUNNING")
    for job in (running, waiting, never):
        platform.ebhpc_cancel(job)
        platform.ebhpc_cancel(job)
    assert observe_until(platform, running, ended).state == "FAILED"
    assert observe_until(platform, waiting, ended).state == "FAILED"
    with pytest.raises(SessionFailed):
        platform.ebhpc_submit(never)
    (observation,) = platform.ebhpc_observe([never])
    assert observation.state == "GONE"


def test_a_command_that_is_not_there_fails_with_a_reason(platform: TemplatePlatform) -> None:
    job = session(["/nowhere/at-all"])
    platform.ebhpc_submit(job)
    observation = observe_until(platform, job, ended)
    assert "No such file" in str(observation.messages[0])


def test_what_the_platform_does_not_know_is_refused(platform: TemplatePlatform) -> None:
    def paths(request: Request) -> list[str]:
        return [(refusal.values or {})["path"] for refusal in platform.ebhpc_refuses(request)]

    demand = Demand(least=Shape(cores=1, memory=512), duration=60, earliest=0, latest=0)
    good = ShellCommand(command=["true"])
    document = ExecutionRequest(executable=good)
    assert paths(Request(document=document, executable=good, compute=SimpleCompute(), demand=demand)) == []
    assert paths(
        Request(
            document=document,
            executable=JupyterNotebook(),
            compute=None,
            storage=(SimpleStorage(),),
            demand=demand,
        )
    ) == ["/executable", "/compute", "/storage"]
