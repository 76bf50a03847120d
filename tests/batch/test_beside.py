"""A process beside the broker's: asked, silent, gone, talking nonsense."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator

import pytest

from ebhpc.batch.beside import Beside, BesideFault

_ECHO = """
import struct, sys
while True:
    head = sys.stdin.buffer.read(4)
    if len(head) < 4:
        break
    body = sys.stdin.buffer.read(struct.unpack(">I", head)[0])
    sys.stdout.buffer.write(head + body[::-1])
    sys.stdout.buffer.flush()
"""


@pytest.fixture
def started() -> Iterator[list[Beside]]:
    every: list[Beside] = []
    yield every
    for one in every:
        one.end()


def python(started: list[Beside], program: str, **environment: str) -> Beside:
    started.append(Beside([sys.executable, "-I", "-c", program], {"PATH": os.environ["PATH"], **environment}))
    return started[-1]


def soon(seconds: float = 20.0) -> float:
    return time.monotonic() + seconds


@pytest.mark.parametrize("message", [b"", b"abc", bytes(range(256)) * 20_000])
def test_messages_of_any_length_go_through_both_ways(started, message):
    beside = python(started, _ECHO)
    for _ in range(2):
        beside.send(message, soon())
        assert beside.receive(soon()) == message[::-1]
    assert beside.lives


def test_one_that_is_silent_is_given_up_in_time(started):
    beside = python(started, "import time; time.sleep(60)")
    begun = time.monotonic()
    with pytest.raises(BesideFault, match="did not answer in time"):
        beside.receive(soon(0.2))
    with pytest.raises(BesideFault, match="did not take the question in time"):
        beside.send(b"x" * 10_000_000, soon(0.2))
    assert time.monotonic() - begun < 10
    assert beside.lives


def test_one_that_has_ended_says_so(started):
    beside = python(started, "import sys; sys.stdout.buffer.write(b'\\0\\0')")
    with pytest.raises(BesideFault, match="has ended"):
        beside.receive(soon())
    with pytest.raises(BesideFault, match="has ended"):
        beside.send(b"x" * 10_000_000, soon())


def test_one_that_was_killed_says_so(started):
    beside = python(started, _ECHO)
    os.kill(beside.pid, signal.SIGKILL)
    with pytest.raises(BesideFault, match="has ended"):
        beside.receive(soon())
    while beside.lives:  # its pipes are closed a moment before it is gone
        time.sleep(0.01)


def test_nonsense_is_not_waited_for(started):
    beside = python(started, "import sys; sys.stdout.buffer.write(b'Traceback'); sys.stdout.buffer.flush(); input()")
    with pytest.raises(BesideFault, match="answered with 1416782179 bytes"):
        beside.receive(soon())


def test_what_cannot_be_started_is_an_os_error():
    with pytest.raises(OSError, match="nothing-there"):
        Beside(["/nothing-there"])


def test_its_end_is_that_of_what_it_started_and_may_come_twice(started):
    beside = python(
        started,
        "import subprocess, sys; child = subprocess.Popen(['sleep', '60']); pid = str(child.pid).encode();"
        "sys.stdout.buffer.write(len(pid).to_bytes(4, 'big') + pid); sys.stdout.buffer.flush(); input()",
    )
    child = int(beside.receive(soon()))
    beside.end()
    beside.end()
    for _ in range(100):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        with open(f"/proc/{child}/stat") as stat:
            if stat.read().rpartition(")")[2].split()[0] == "Z":
                return
        time.sleep(0.02)
    raise AssertionError("the child lives on")


def test_nothing_of_the_brokers_environment_is_handed_on(started, monkeypatch):
    monkeypatch.setenv("SECRET", "a password")
    program = "import os, sys; text = repr(sorted(os.environ)).encode();"
    program += "sys.stdout.buffer.write(len(text).to_bytes(4, 'big') + text)"
    assert b"SECRET" not in python(started, program, HOME="/").receive(soon())
