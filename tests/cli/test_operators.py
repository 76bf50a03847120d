"""The operators' commands, as processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

from tests.broker import free_port, local_platform

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration with one local platform, on a free port."""
    file = tmp_path / "ebhpc.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "state": str(tmp_path / "state"),
                "api": {"bind": f"127.0.0.1:{free_port()}"},
                "driver": {"interval": "100ms", "lease": "3s"},
                "platforms": [local_platform()],
            }
        )
    )
    return file


@pytest.fixture
def run(config: Path) -> Run:
    def run(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "ebhpc", *words, "--config", str(config)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            **options,
        )

    return run


def url_of(config: Path) -> str:
    return f"http://{yaml.safe_load(config.read_text())['api']['bind']}"


def wait_for(condition: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.1)


def is_ready(config: Path) -> bool:
    try:
        return httpx.get(f"{url_of(config)}/health/ready", trust_env=False, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def part_of(process: subprocess.Popen[bytes], word: str) -> int | None:
    """The PID of the living part of ``ebhpc serve`` whose command has the word."""
    for child in psutil.Process(process.pid).children():
        try:
            if word in child.cmdline():
                return child.pid
        except psutil.ZombieProcess:
            continue
    return None


def test_serve_answers_shows_the_administrators_password_once_and_stops_in_order(config, tmp_path):
    def serve(log: Path) -> subprocess.Popen[bytes]:
        with log.open("wb") as sink:
            command = [sys.executable, "-m", "ebhpc", "serve", "--config", str(config)]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink)
        wait_for(lambda: is_ready(config))
        return process

    first = serve(tmp_path / "first.log")
    parts = psutil.Process(first.pid).children(recursive=True)
    found = re.search(r"the administrator admin with the password (\S+)", (tmp_path / "first.log").read_text())
    assert found is not None
    mine = httpx.get(f"{url_of(config)}/sessions", auth=("admin", found[1]), trust_env=False)
    assert mine.status_code == 200
    first.send_signal(signal.SIGTERM)
    assert first.wait(30) == 0
    assert [part for part in parts if part.is_running()] == []
    second = serve(tmp_path / "second.log")
    second.send_signal(signal.SIGINT)
    assert second.wait(30) == 0
    assert "password" not in (tmp_path / "second.log").read_text()


def test_serve_starts_a_part_again_that_was_killed(config, tmp_path):
    with (tmp_path / "log").open("wb") as sink:
        command = [sys.executable, "-m", "ebhpc", "serve", "--config", str(config)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink)
    try:
        wait_for(lambda: is_ready(config))
        for word in ("drive", "api"):
            gone = part_of(process, word)
            assert gone is not None
            os.killpg(gone, signal.SIGKILL)
            wait_for(lambda word=word, gone=gone: part_of(process, word) not in (None, gone))
            wait_for(lambda: is_ready(config))
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@pytest.mark.parametrize("victim", ["serve", "api"])
def test_what_was_killed_leaves_none_of_its_processes_behind(config, tmp_path, victim):
    with (tmp_path / "log").open("wb") as sink:
        command = [sys.executable, "-m", "ebhpc", "serve", "--config", str(config)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink)
    try:
        wait_for(lambda: is_ready(config))
        number = process.pid if victim == "serve" else part_of(process, victim)
        below = psutil.Process(number).children(recursive=True)
        assert len(below) >= 2
        os.kill(number, signal.SIGKILL)
        wait_for(lambda: not any(map(lives, below)), seconds=90)
        if victim == "serve":  # what ended in order gave its port back, too
            process.wait()
            assert not is_ready(config)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def lives(process: psutil.Process) -> bool:
    """Whether a process has not ended."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_db_upgrade_makes_the_database_and_says_so(run):
    before = run("db", "revision")
    assert before.returncode == 1
    assert "empty" in before.stdout
    done = run("db", "upgrade")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"database: empty -> \w+\n", done.stdout)
    assert run("db", "revision").returncode == 0


@pytest.mark.parametrize("words", [("api",), ("drive",), ("account", "add", "ada")])
def test_what_needs_the_database_refuses_one_that_was_not_upgraded(run, words):
    done = run(*words)
    assert done.returncode == 1
    assert "ebhpc db upgrade" in done.stderr


def test_account_add_makes_up_a_password_or_reads_one(run, tmp_path):
    run("db", "upgrade")
    made_up = run("account", "add", "ada")
    assert re.fullmatch(r"password: \S{16,}\n", made_up.stdout)
    again = run("account", "add", "ada")
    assert again.returncode == 1
    assert "ada" in again.stderr
    secret = tmp_path / "secret"
    secret.write_text("correct horse battery staple\n")
    read = run("account", "add", "grace", "--admin", "--password-file", str(secret))
    assert (read.returncode, read.stdout) == (0, "")
    secret.write_text("x\n")
    short = run("account", "add", "mary", "--password-file", str(secret))
    assert short.returncode == 1
    missing = run("account", "add", "mary", "--password-file", str(tmp_path / "none"))
    assert missing.returncode == 1
    assert "none" in missing.stderr


def test_plugins_lists_the_local_platform_and_its_hooks(run):
    done = run("plugins", "--json")
    assert done.returncode == 0, done.stderr
    plugins = {plugin["name"]: plugin for plugin in json.loads(done.stdout)["plugins"]}
    assert {"ebhpc_submit", "ebhpc_observe", "ebhpc_platform"} <= set(plugins["local"]["hooks"])
    assert plugins["local"]["platforms"] == ["here"]
    text = run("plugins").stdout
    assert "ebhpc_submit" in text


def test_a_broken_plugin_in_the_plugins_dir_is_told_and_left_out(run, tmp_path):
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "broken.py").write_text("import nothing_of_that_name\n")
    done = run("plugins", "--plugins-dir", str(folder), "--json")
    assert done.returncode == 1
    assert any("nothing_of_that_name" in finding["text"] for finding in json.loads(done.stdout)["findings"])


def test_check_looks_at_database_driver_and_platforms(run):
    before = run("check", "--json")
    assert before.returncode == 1
    assert any("ebhpc db upgrade" in finding["advice"] for finding in json.loads(before.stdout))
    run("db", "upgrade")
    after = run("check", "--json")
    findings = json.loads(after.stdout)
    assert after.returncode == (1 if any(finding["level"] == "ERROR" for finding in findings) else 0)
    assert {"database", "driver"} <= {finding["subject"] for finding in findings}
    assert any("none is running" in finding["text"] for finding in findings)
    assert len(findings) > 3


def test_wrong_settings_are_told_with_file_and_line_and_exit_code_2(config, run):
    config.write_text(config.read_text() + "drivr:\n  interval: 1s\n")
    done = run("check")
    assert done.returncode == 2
    line = len(config.read_text().splitlines()) - 1
    assert f"{config}:{line}" in done.stderr
    assert "drivr" in done.stderr


def test_set_overrides_one_setting_and_refuses_nonsense(run):
    assert run("db", "upgrade", "--set", "api.workers=1").returncode == 0
    wrong = run("db", "upgrade", "--set", "api.workers=none")
    assert wrong.returncode == 2
    assert "api.workers" in wrong.stderr
    assert run("db", "upgrade", "--set", "nonsense").returncode == 2


def test_a_second_driver_of_the_same_name_on_this_host_is_refused(config, run):
    run("db", "upgrade")
    command = [sys.executable, "-m", "ebhpc", "drive", "--name", "one", "--config", str(config)]
    first = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: f"pid {first.pid} " in run("check").stdout)
        second = run("drive", "--name", "one")
        assert second.returncode == 1
        assert str(first.pid) in second.stderr
    finally:
        first.send_signal(signal.SIGTERM)
        assert first.wait(30) == 0
