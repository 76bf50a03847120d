"""A wall clock that a test steps: Python imports this module by its name at its start, where its folder is on the path.

``time.time`` and ``time.time_ns`` are ahead of the real ones by the seconds in the file that EBHPC_TEST_CLOCK names, as
if somebody had set the machine's clock; what the kernel keeps by its other clocks goes on. Left out is what C code asks
the kernel for: SQLite, PostgreSQL and the times of files do not see the step, and nothing here depends on them.
"""

import os
import time

_file = os.environ.get("EBHPC_TEST_CLOCK")

if _file:
    _descriptor = os.open(_file, os.O_RDONLY | os.O_CLOEXEC)
    _time, _time_ns = time.time, time.time_ns

    def _ahead() -> int:
        return int(os.pread(_descriptor, 32, 0) or b"0")

    time.time = lambda: _time() + _ahead()
    time.time_ns = lambda: _time_ns() + _ahead() * 1_000_000_000
