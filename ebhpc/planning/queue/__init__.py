"""When jobs that wait in a batch system's queue will start: expected starts with confidence.

A :class:`StartEstimator` holds what has been learned of one platform; :func:`observe` teaches it a new snapshot,
:func:`expected_start` asks it about a demand. :class:`Replay` runs it over a trace that :func:`read_jobs` reads, and
:func:`figures` says how well it did.
"""

from ebhpc.planning.queue.estimator import Expectation, NeverStartsError, StartEstimator
from ebhpc.planning.queue.expected import ExpectedStart, expected_start, observe
from ebhpc.planning.queue.figures import Figures, figures
from ebhpc.planning.queue.platform_queue import queue_of
from ebhpc.planning.queue.replay import Replay, Replayed
from ebhpc.planning.queue.state import QueueState
from ebhpc.planning.queue.swf import Trace, TracedJob, TraceError, read_jobs

__all__ = [
    "Expectation",
    "ExpectedStart",
    "Figures",
    "NeverStartsError",
    "QueueState",
    "Replay",
    "Replayed",
    "StartEstimator",
    "Trace",
    "TraceError",
    "TracedJob",
    "expected_start",
    "figures",
    "observe",
    "queue_of",
    "read_jobs",
]
