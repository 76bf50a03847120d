from __future__ import annotations

import subprocess
import sys

_MANY_THREADS = """
import sys, threading
sys.setswitchinterval(1e-6)
from ebhpc.model.registry import Kinds
from tests.model.requests import full_request
kinds = Kinds()
together = threading.Barrier(8)
def read():
    together.wait()
    assert not kinds.request(full_request()).problems
threads = [threading.Thread(target=read) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


def test_the_first_documents_may_be_read_by_several_threads_at_once():
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", _MANY_THREADS], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
