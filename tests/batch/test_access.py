"""A session's directory is open to its user and to the broker, and to nobody else: with real Unix users."""

from __future__ import annotations

import os
import shutil
import subprocess
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ebhpc import batch
from ebhpc.model import (
    Executable,
    Metadata,
    Session,
    SimpleData,
    SimpleStorage,
    SimpleVolume,
)
from tests.batch.conftest import Site, run_script
from tests.labs import require
from tests.local.webserver import WebServer

BROKER, ALICE, BOB = 71_001, 71_002, 71_003
"""Numbers of users that this host need not know by name."""

SHARED = 71_100
SYSTEM_PYTHON = "/usr/bin/python3"


def as_user(uid: int, do: Callable[[], object], *, gid: int | None = None, groups: tuple[int, ...] = ()) -> None:
    """Do something in a process of another user; it must not raise."""
    child = os.fork()
    if child == 0:
        try:
            os.setgroups(groups)
            os.setgid(gid or uid)
            os.setuid(uid)
            do()
        except BaseException:  # noqa: BLE001  # the last frame of this process
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, f"user {uid} failed; see the captured stderr"


def denied(path: Path) -> None:
    """Fail unless a path can be neither listed, read, nor written below."""
    for attempt in (lambda: os.listdir(path), lambda: path.open("rb").read(), lambda: (path / "x").write_text("x")):
        with pytest.raises(PermissionError):
            attempt()


@pytest.fixture(params=["acl", "group"])
def access(request: pytest.FixtureRequest, site: Site, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The two ways to share a directory; root belongs to the broker."""
    require(os.geteuid() == 0, "only root can become other users")
    require(os.access(SYSTEM_PYTHON, os.X_OK), f"there is no {SYSTEM_PYTHON}")
    require(request.param != "acl" or shutil.which("setfacl"), "setfacl (package acl) is not installed")
    site.root.parent.chmod(0o711)
    site.root.mkdir(mode=0o711)
    os.chown(site.root, BROKER, BROKER)
    if request.param == "group":
        # The name service of this host does not know the lab's users
        monkeypatch.setattr("ebhpc.batch.access.shared_group", lambda settings, account: SHARED)
    return {"access": request.param, "python": SYSTEM_PYTHON}


class ShellCommand(Executable, tag="https://example.org/kinds/executable/shell-command.yaml"):
    """A kind of a plugin's own."""


def a_session(site: Site, web: WebServer) -> Session:
    """Return a session with data to read and storage to write, run by a command."""
    url = web.put("/secret.csv", b"secret\n")
    return site.session(
        ShellCommand(),
        storage=(SimpleStorage(meta=Metadata(name="out")), SimpleStorage(meta=Metadata(name="in"))),
        data=(SimpleData(meta=Metadata(name="table"), location=url, storage="in"),),
        volumes=(
            SimpleVolume(path="in", mode="READONLY", resource="in"),
            SimpleVolume(path="out", mode="READWRITE", resource="out"),
        ),
    )


def command(script: str) -> list[str]:
    """Return a shell command as a plugin's own executable would have it."""
    return ["sh", "-c", script]


def broker_groups(access: dict[str, Any]) -> tuple[int, ...]:
    return (SHARED,) if access["access"] == "group" else ()


def test_only_the_user_and_the_broker_see_a_session(site: Site, web: WebServer, access: dict[str, Any]) -> None:
    settings = site.settings(**access, staging="broker")
    session = a_session(site, web)
    alice = batch.Account(name="alice", uid=ALICE)
    directory = batch.session_directory(settings.root, session.uuid)
    groups = broker_groups(access)
    script = (
        'cat "$EBHPC_RESOURCE_TABLE"; echo new > "$EBHPC_RESOURCE_OUT/new"; umask 077; mkdir -p "$EBHPC_RESULTS/deep";'
        ' echo result > "$EBHPC_RESULTS/deep/r"; echo no > "$EBHPC_RESOURCE_IN/x" || echo refused; id -u; sleep 0'
    )

    def prepare() -> None:
        batch.prepare(session, settings, alice, command=command(script))
        batch.prepare(session, settings, alice, command=command(script))

    as_user(BROKER, prepare, groups=groups)
    for path in (
        directory.path,
        directory.job,
        directory.output,
        directory.storage / "1",
        directory.path / "runner.py",
    ):
        as_user(BOB, lambda path=path: denied(path))

    job = run_script(
        batch.job_script(settings, directory),
        user=ALICE,
        group=ALICE,
        extra_groups=[SHARED] if groups else [],
        env={"PATH": "/usr/bin:/bin"},
        cwd="/",
    )
    text, _ = job.communicate(timeout=60)
    assert job.returncode == 0, text

    def broker_reads() -> None:
        seen = batch.observation(session, batch.Native(state="SUCCEEDED"), batch.read_report(directory), settings)
        assert seen.state == "SUCCEEDED", seen
        file = batch.open_output(session, settings, "stdout")
        assert file is not None
        assert file.read().decode() == f"secret\nrefused\n{ALICE}\n"
        deep = batch.open_output(session, settings, "results/deep/r")
        assert deep is not None
        assert deep.read() == b"result\n"

    as_user(BROKER, broker_reads, groups=groups)
    as_user(ALICE, lambda: (directory.output / "stdout").read_bytes(), groups=groups)
    for path in (directory.output, directory.output / "results" / "deep" / "r", directory.path):
        as_user(BOB, lambda path=path: denied(path))

    def broker_ends() -> None:
        batch.cleanup(session, settings)
        assert [one.name for one in batch.outputs(session, settings)] == [
            "stdout",
            "stderr",
            "results/deep/r",
            "storage/out/new",
        ]
        batch.forget(session, settings)
        assert not directory.path.exists()

    as_user(BOB, lambda: denied(directory.path), groups=())
    as_user(BROKER, broker_ends, groups=groups)


def test_a_session_without_storage_is_the_users_as_well(site: Site, access: dict[str, Any]) -> None:
    settings = site.settings(**access)
    session = site.session(ShellCommand())
    alice = batch.Account(name="alice", uid=ALICE)
    groups = broker_groups(access)
    as_user(BROKER, lambda: batch.prepare(session, settings, alice, command=["true"]), groups=groups)
    directory = batch.session_directory(settings.root, session.uuid)
    as_user(ALICE, lambda: (directory.results / "mine").write_text("x"), groups=groups)
    as_user(BOB, lambda: denied(directory.path))
    as_user(BROKER, lambda: batch.forget(session, settings), groups=groups)


def test_links_that_a_user_leaves_lead_the_broker_nowhere(site: Site, web: WebServer, access: dict[str, Any]) -> None:
    settings = site.settings(**access)
    session = a_session(site, web)
    alice = batch.Account(name="alice", uid=ALICE)
    directory = batch.session_directory(settings.root, session.uuid)
    groups = broker_groups(access)
    secret = site.root.parent / "broker.key"
    secret.write_text("key")
    os.chown(secret, BROKER, BROKER)
    secret.chmod(0o600)
    as_user(BROKER, lambda: batch.prepare(session, settings, alice, command=["true"]), groups=groups)

    def mischief() -> None:
        (directory.output / "stdout").symlink_to(secret)
        (directory.output / "results" / "key").symlink_to(secret)
        (directory.report / "status.json").symlink_to(secret)
        (directory.storage / "0" / "key").symlink_to(secret)
        (directory.work / "up").symlink_to(site.root.parent)
        os.mkfifo(directory.output / "results" / "pipe")
        shut = directory.work / "shut"
        (shut / "in").mkdir(parents=True)
        shut.chmod(0o700)

    as_user(ALICE, mischief, groups=groups)

    def broker_looks() -> None:
        # A call that is repeated changes nothing behind the open door
        batch.prepare(session, settings, alice, command=["true"])
        assert batch.open_output(session, settings, "stdout") is None
        assert batch.open_output(session, settings, "results/key") is None
        assert batch.outputs(session, settings) == []
        assert batch.read_report(directory) is None
        batch.cleanup(session, settings)
        assert batch.open_output(session, settings, "storage/out/key") is None
        batch.forget(session, settings)
        # What the user has shut is nobody's but root's to remove: it is out of the way, and the check tells of it
        assert not directory.path.exists()
        assert any("shut" in one.text for one in batch.check(settings, alice))

    as_user(BROKER, broker_looks, groups=groups)
    assert secret.read_text() == "key"
    assert secret.stat().st_mode & 0o777 == 0o600


def test_what_a_killed_job_leaves_can_be_removed(site: Site, web: WebServer, access: dict[str, Any]) -> None:
    settings = site.settings(**access)
    session = a_session(site, web)
    alice = batch.Account(name="alice", uid=ALICE)
    directory = batch.session_directory(settings.root, session.uuid)
    groups = broker_groups(access)
    as_user(BROKER, lambda: batch.prepare(session, settings, alice, command=["true"]), groups=groups)

    def left() -> None:
        os.umask(0o007)
        (directory.work / "a" / "b").mkdir(parents=True)
        (directory.work / "a" / "b" / "file").write_text("left")
        (directory.output / "results" / "half").write_text("half")

    as_user(ALICE, left, gid=SHARED if groups else ALICE, groups=groups)

    def broker_ends() -> None:
        batch.cleanup(session, settings)
        file = batch.open_output(session, settings, "results/half")
        assert file is not None
        assert file.read() == b"half"
        batch.forget(session, settings)

    as_user(BROKER, broker_ends, groups=groups)
    assert not directory.path.exists()


def test_jobs_of_another_user_need_more_than_the_brokers_own_access(site: Site, web: WebServer) -> None:
    settings = site.settings(access="own")
    session = a_session(site, web)
    with pytest.raises(batch.AccessFailed, match="access: own"):
        batch.prepare(session, settings, batch.Account(name="alice", uid=ALICE), command=["true"])


def test_a_group_with_others_in_it_is_not_taken(monkeypatch: pytest.MonkeyPatch, site: Site) -> None:
    import grp
    import pwd

    own = pwd.getpwuid(os.geteuid()).pw_name
    entry = grp.struct_group(("proj", "x", os.getegid(), [own, "alice", "bob"]))
    monkeypatch.setattr(grp, "getgrnam", lambda name: entry)
    from ebhpc.batch.access import shared_group

    settings = site.settings(access="group", group="proj")
    with pytest.raises(batch.AccessFailed, match="other members, who could read along: bob"):
        shared_group(settings, batch.Account(name="alice", uid=ALICE))


def test_the_check_says_what_is_wrong_with_the_root(site: Site) -> None:
    require(os.geteuid() == 0, "only root can become other users")
    settings = site.settings(access="acl")
    site.root.mkdir(mode=0o700)
    os.chown(site.root, BROKER, BROKER)
    alice = batch.Account(name="alice", uid=ALICE)

    def look() -> None:
        found = {(one.level, one.subject) for one in batch.check(settings, alice)}
        assert ("ERROR", "jobs.root") in found
        assert ("INFO", "jobs.access") in found
        assert list(site.root.iterdir()) == []

    as_user(BROKER, look)
    (finding,) = as_list(BOB, lambda: list(batch.check(settings, alice)))
    assert "cannot be written" in finding


def as_list(uid: int, ask: Callable[[], list[Any]]) -> list[str]:
    """Ask as another user, and return the findings' texts."""
    reading, writing = os.pipe()

    def tell() -> None:
        os.write(writing, "\n".join(one.text for one in ask()).encode())

    as_user(uid, tell)
    os.close(writing)
    with open(reading, encoding="utf-8") as file:
        return file.read().splitlines()


def test_the_test_job_tells_of_its_node(site: Site, access: dict[str, Any]) -> None:
    import time

    settings = site.settings(
        **access, notebooks=False, setup="export LAB=1", runtime=batch.ContainerRuntime(program="no-such-runtime")
    )
    alice = batch.Account(name="alice", uid=ALICE)
    groups = broker_groups(access)
    file = site.root / "script"
    as_user(BROKER, lambda: file.write_text(batch.probe_script(settings, alice, "probe-1")), groups=groups)
    began = time.time()
    job = run_script(file.read_text(), user=ALICE, group=ALICE, extra_groups=list(groups), env={}, cwd="/")
    text = job.communicate(timeout=60)[0].decode()
    findings = {one.subject: one for one in batch.probe_findings(text, settings, "probe-1")}
    assert findings["nodes.python"].level == "INFO"
    assert findings["nodes.root"].level == "INFO", findings["nodes.root"]
    assert "no no-such-runtime" in findings["nodes.containers"].text
    skew = batch.clock_skew(text, began, time.time())
    assert skew is not None
    assert skew.level == "INFO"
    late = batch.clock_skew(text, began - 100, began - 90)
    assert late is not None
    assert late.level == "ERROR"
    assert not (site.root / ".probe-1").exists()
    (nothing,) = batch.probe_findings("sh: python3: not found", settings, "probe-1")
    assert nothing.level == "ERROR"
    assert "python3: not found" in nothing.text


def test_setfacl_that_fails_is_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*words: Any, **more: Any) -> subprocess.CompletedProcess[bytes]:
        return subprocess.CompletedProcess(words, 1, b"", b"setfacl: x: Operation not supported\n")

    from ebhpc.batch import access as module

    monkeypatch.setattr(module.subprocess, "run", fails)
    finding = list(batch.check(site.settings(access="acl"), batch.Account(name="alice", uid=ALICE)))
    assert "Operation not supported" in next(one.text for one in finding if one.subject == "jobs.access")
