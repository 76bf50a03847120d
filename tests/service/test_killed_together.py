"""A thousand sessions run when all of the broker's processes are killed at the same moment."""

from __future__ import annotations

from pathlib import Path

import pytest

from ebhpc.model import Phase
from tests.service.ledgers import LedgerBroker, check_verdict

SESSIONS = 1000


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_thousand_sessions_survive_the_end_of_all_processes_at_once(tmp_path: Path):
    broker = LedgerBroker(tmp_path, cores=SESSIONS, memory_gib=SESSIONS, seconds=3600)
    try:
        broker.run(drivers=2)
        accepted = broker.begin(SESSIONS)
        broker.until(accepted, Phase.RUNNING, seconds=300)
        broker.kill_all()
        broker.start("api")
        for number in (1, 2):
            broker.start("drive", f"driver-{number}")
        broker.wait_ready()
        broker.end_jobs()
        broker.until_over(accepted, seconds=300)
        ended = check_verdict(broker, accepted, SESSIONS)
        assert {ended[uuid] for uuid in accepted} == {Phase.COMPLETED}
        assert len(broker.submissions()) == SESSIONS
    finally:
        broker.stop()
