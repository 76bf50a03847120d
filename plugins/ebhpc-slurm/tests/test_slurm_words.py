"""What Slurm's commands are told: no word is a user's; they run as the right user, for a limited time."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from msgspec.structs import replace
from slurm_lab import session

from ebhpc import batch
from ebhpc.config import read_settings
from ebhpc.model import Allocation, DockerContainer, DockerImage, Identity
from ebhpc_slurm import promises, records
from ebhpc_slurm.commands import Commands, reservation, submission
from ebhpc_slurm.identities import Becoming, mapped
from ebhpc_slurm.processes import Ran, ThisHost
from ebhpc_slurm.settings import Mapped, SlurmSettings
from ebhpc_slurm.transport import NotReached, Unanswered

UUID = "12345678-1234-4321-8765-123456789abc"
WHO = Mapped(user="alice", account="phys", qos="short")
BATCH = records.Partition(name="batch", nodes="n[1-4]", limit=7200, default=True)


def settings(**more: Any) -> SlurmSettings:
    return read_settings(SlurmSettings, {"jobs": {"root": "/scratch/ebhpc"}, **more})


def one(**more: Any) -> Any:
    share = Allocation(node="n1", cores=4, memory=2000, devices={"gpu": 2, "gpu:a100": 2})
    given = {"start": 1000, "latest": 1000, "end": 1600, "duration": 600, "allocations": (share,), **more}
    return replace(session(), uuid=UUID, **given)


def test_a_reservation_names_its_node_its_cores_and_its_user() -> None:
    wish = promises.reserve(one(licences={"matlab": 2}), settings(), WHO, partition="batch")
    assert reservation(wish) == [
        f"reservationname=ebhpc-{UUID}",
        "starttime=uts1000",
        "endtime=uts1720",
        "users=alice",
        "nodes=n1",
        "partition=batch",
        "tres=cpu=4,gres/gpu:a100=2",
        "licenses=matlab:2",
    ]
    ahead = promises.reserve(one(), settings(gap="0s"), WHO, partition=None, skew=30)
    assert (ahead.start, ahead.end, ahead.cpus) == (1030, 1630, 4)


def test_a_job_is_told_all_that_it_was_promised() -> None:
    wish = promises.submit(
        one(licences={"matlab": 2}, features=("fast", "new")),
        settings(),
        WHO,
        script="#!/bin/sh\ntrue\n",
        directory="/scratch/ebhpc/12/x",
        log="/scratch/100%/log",
        limit=12,
        partition="batch",
        reservation="r",
    )
    words = submission(wish)
    assert words[0] == "sbatch"
    told = dict(word.removeprefix("--").partition("=")[::2] for word in words[1:])
    assert told == {
        "parsable": "",
        "job-name": f"ebhpc-{UUID}",
        "comment": f"ebhpc-{UUID}",
        "chdir": "/scratch/ebhpc/12/x",
        "output": "/scratch/100%%/log",
        "error": "/scratch/100%%/log",
        "input": "/dev/null",
        "export": "NIL",
        "no-requeue": "",
        "time": "12",
        "nodes": "1",
        "ntasks": "1",
        "ntasks-per-node": "1",
        "cpus-per-task": "4",
        "mem": "2000M",
        "partition": "batch",
        "account": "phys",
        "qos": "short",
        "reservation": "r",
        "nodelist": "n1",
        "constraint": "fast&new",
        "gres": "gpu:a100:2",
        "licenses": "matlab:2",
    }


@examples(deadline=None)
@given(name=st.text(), text=st.text(), words=st.lists(st.text()), username=st.text(min_size=1))
def test_nothing_that_a_user_writes_is_among_the_words_or_in_the_script(
    name: str, text: str, words: list[str], username: str
) -> None:
    hostile = one(
        name=name,
        owner=Identity(uuid=UUID, username=username),
        executable=DockerContainer(
            image=DockerImage(locations=words), command=words, environment={"A": text}, entrypoint=text
        ),
    )

    def told(which: Any) -> tuple[list[str], list[str], str]:
        directory = batch.session_directory(settings().jobs.root, which.uuid)
        wish = promises.submit(
            which,
            settings(),
            WHO,
            script=batch.job_script(settings().jobs, directory),
            directory=str(directory.path),
            log=str(directory.log),
            limit=12,
            partition="batch",
            reservation=f"ebhpc-{UUID}",
        )
        return submission(wish), reservation(promises.reserve(which, settings(), WHO, partition="batch")), wish.script

    assert told(hostile) == told(one())
    assert "#SBATCH" not in told(hostile)[2]


# --- limits ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "until", "minutes"),
    [
        (1000, None, 11),  # ten minutes, and what the runner needs to end
        (1000, 1720, 11),
        (1003, 1720, 11),
        (1100, 1720, 10),  # late: it must end before the reservation does
        (1700, 1720, 1),
        (1000, 1600, 9),  # no gap behind it
    ],
)
def test_a_jobs_limit_lets_it_have_its_time_and_ends_before_its_reservation(
    now: float, until: float | None, minutes: int
) -> None:
    assert promises.minutes(one(), settings(), now, until=until) == minutes


def test_the_preferred_partition_is_taken_that_can_take_the_session() -> None:
    small = records.Partition(name="small", nodes="n[1-2]", limit=300)
    shut = records.Partition(name="shut", nodes="n[1-4]", state="DOWN")
    chem = records.Partition(name="chem", nodes="n[1-4]", allowed_accounts=("chem",))
    all_of_them = [small, shut, chem, BATCH]
    wanted = ("small", "shut", "chem", "batch")

    def taken(seconds: int, account: str | None = None, node: str = "n1", named: str | None = None) -> str | None:
        shares = [Allocation(node=node, cores=1, memory=1)]
        found = promises.partition_of(shares, all_of_them, wanted, seconds=seconds, account=account, named=named)
        return found.name if found is not None else None

    assert taken(200) == "small"
    assert taken(600, "phys") == "batch"
    assert taken(600, "chem") == "chem"
    assert taken(200, node="n3", account="phys") == "batch"
    assert taken(200, named="batch") == "batch"
    assert taken(9000, "phys") is None
    assert taken(200, node="n9") is None


# --- becoming the user -------------------------------------------------------------------------------------------


def never(words: Any, data: bytes) -> Ran:
    raise AssertionError(words)


def test_sudo_stands_before_the_command() -> None:
    how = Becoming(how="sudo", sudo=settings().sudo)
    assert how.words("alice", ["sbatch", "x"], never) == (["sudo", "-n", "-u", "alice", "--", "sbatch", "x"], "")


@pytest.mark.parametrize("user", ["", "-u", "a b", "root;x", "a\nb", "$(id)", "../x"])
def test_what_is_no_user_name_becomes_nobody(user: str) -> None:
    with pytest.raises(ValueError, match="no Unix user name"):
        Becoming(how="sudo", sudo=settings().sudo).words(user, ["sbatch"], never)
    assert mapped(settings(others="same-name"), user) is None


def test_a_user_is_who_the_settings_say() -> None:
    site = settings(identities={"ada": {"user": "alice", "account": "phys"}}, account="services", qos="normal")
    assert mapped(site, "ada") == Mapped(user="alice", account="phys", qos="normal")
    assert mapped(site, "eve") is None
    same = settings(others="same-name", account="services")
    assert mapped(same, "eve") == Mapped(user="eve", account="services")
    assert mapped(same, "root") is None


class Recorded:
    """Programs that print a token, and note what they were asked; all else is run here."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.ran: list[tuple[list[str], bytes]] = []
        self.here = ThisHost()

    def run(self, words: Any, *, data: bytes = b"", seconds: float) -> Ran:
        self.ran.append((list(words), data))
        if words[0] == "make-token":
            return Ran(0, self.token.encode(), b"")
        return self.here.run(["/bin/sh", "-c", "cat >/dev/null; echo 12", *words], data=data, seconds=seconds)

    def close(self) -> None:
        return None


def test_a_token_is_in_no_list_of_words() -> None:
    secret = "eyJhbGciOiJIUzI1NiJ9.eyJzdW4iOiJhbGljZSJ9.abcdefghijklmnop"
    programs = Recorded(f"SLURM_JWT={secret}\n")
    how = Becoming(how="token", token_command=("make-token", "{user}"))
    commands = Commands(programs, how, within=5)
    wish = promises.submit(
        one(),
        settings(),
        WHO,
        script="#!/bin/sh\ntrue\n",
        directory="/",
        log="/dev/null",
        limit=1,
        partition=None,
        reservation=None,
    )
    assert commands.submit(wish) == 12
    (asked, _), (submitted, data) = programs.ran
    assert asked == ["make-token", "alice"]
    assert secret not in " ".join(submitted)
    assert data.startswith(secret.encode() + b"\n#!/bin/sh\n")
    # What stands before sbatch takes the first line of stdin for the token, and leaves the rest
    words = [*submitted[: submitted.index("sbatch")], "/bin/sh", "-c", 'printf "%s|" "$SLURM_JWT"; cat']
    ran = ThisHost().run(words, data=data, seconds=5)
    assert ran.out == f"{secret}|{wish.script}".encode()


@pytest.mark.parametrize("printed", ["", "SLURM_JWT=", "short", "two words that are no token at all"])
def test_what_is_no_token_is_none(printed: str) -> None:
    how = Becoming(how="token", token_command=("make-token", "{user}"))
    with pytest.raises(NotReached, match="no token"):
        how.token("alice", lambda words, data: Ran(0, printed.encode(), b""))


# --- programs ----------------------------------------------------------------------------------------------------


def test_a_program_that_takes_too_long_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    begun = time.monotonic()
    with pytest.raises(Unanswered, match="did not answer within"):
        ThisHost().run(["/bin/sh", "-c", f"(sleep 2; touch {mark}) & sleep 30"], seconds=0.5)
    assert time.monotonic() - begun < 10
    time.sleep(2)
    assert not mark.exists()


def test_a_program_sees_nothing_of_the_brokers_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EBHPC_SECRET", "hidden")
    monkeypatch.setenv("SQUEUE_PARTITION", "none")
    ran = ThisHost(environment={"SLURM_CONF": "/etc/x.conf"}).run(["env"], seconds=5)
    names = {line.partition(b"=")[0].decode() for line in ran.out.splitlines()}
    assert names <= {"PATH", "HOME", "USER", "LOGNAME", "TZ", "LC_ALL", "SLURM_CONF", "PWD", "_", "SHLVL"}
    assert b"SLURM_CONF=/etc/x.conf" in ran.out
    assert b"hidden" not in ran.out
    assert os.environ["EBHPC_SECRET"] == "hidden"


def test_a_program_that_is_not_there_was_not_reached() -> None:
    with pytest.raises(NotReached, match="cannot be started"):
        ThisHost(["/nowhere/at-all"]).run(["squeue"], seconds=1)
