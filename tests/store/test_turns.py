"""Writers of one SQLite file take turns."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ebhpc.store import Store, upgrade

PATIENCE = 60


def test_a_writer_that_waits_for_its_turn_may_work_meanwhile(tmp_path: Path):
    url = f"sqlite:///{tmp_path}/ebhpc.db"
    here, there = Store(url), Store(url)
    upgrade(here)
    theirs, done = threading.Event(), threading.Event()

    def other() -> None:
        with there.turn():
            theirs.set()
            assert done.wait(PATIENCE)

    thread = threading.Thread(target=other)
    thread.start()
    assert theirs.wait(PATIENCE)
    asked: list[bool] = []

    def meanwhile() -> bool:
        asked.append(done.is_set())
        if len(asked) == 3:
            done.set()
        return len(asked) < 3  # then there is nothing more to do, and it waits

    with here.turn(meanwhile), here.write("test") as tx:
        assert tx.exec_driver_sql("SELECT 1").scalar_one() == 1
    thread.join(PATIENCE)
    assert asked == [False] * 3
    with here.turn(meanwhile):
        assert len(asked) == 3, "nobody was in the way"
    here.close()
    there.close()


def test_a_turn_that_fails_is_given_back(tmp_path: Path):
    store = Store(f"sqlite:///{tmp_path}/ebhpc.db")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no more"), store.turn(lambda: False):
            raise RuntimeError("no more")
    entered = []
    thread = threading.Thread(target=lambda: entered.append(_enter(store)))
    thread.start()
    thread.join(PATIENCE)
    assert entered == [True]
    store.close()


def _enter(store: Store) -> bool:
    with store.turn():
        return True
