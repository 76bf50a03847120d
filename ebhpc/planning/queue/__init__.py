"""When jobs that wait in a batch system's queue will start: expected starts with confidence.

A :class:`StartEstimator` holds what has been learned of one platform. The driver calls :func:`look` with each
snapshot: it learns, simulates the queue and returns a :class:`Forecast`; :func:`pack_learned` keeps what was learned.
A worker makes :class:`Outlooks` of the two, from which :func:`expected_windows` answers a request. :func:`accuracy`
says how well starts were foreseen.

:class:`Replay` runs the estimator over a trace that :func:`read_jobs` reads, and :func:`figures` says how well it did.
"""

from ebhpc.model.apart import take_apart
from ebhpc.planning.queue.accuracy import Accuracy, Start, accuracy, accuracy_of_starts
from ebhpc.planning.queue.estimator import Expectation, NeverStartsError, Outcome, StartEstimator
from ebhpc.planning.queue.expected import ExpectedStart, expected_start, look, observe
from ebhpc.planning.queue.expected_windows import (
    Outlook,
    expected_windows,
    outlook_message,
    outlook_of,
    why_not_expected,
)
from ebhpc.planning.queue.figures import Figures, figures
from ebhpc.planning.queue.forecast import (
    Expected,
    Forecast,
    ForecastUnreadableError,
    Outlooks,
    decode_forecast,
    encode_forecast,
)
from ebhpc.planning.queue.learned import LearnedUnreadableError, pack_learned, unpack_learned
from ebhpc.planning.queue.platform_queue import queue_of
from ebhpc.planning.queue.replay import Replay, Replayed
from ebhpc.planning.queue.state import QueueState
from ebhpc.planning.queue.swf import Trace, TracedJob, TraceError, read_jobs

take_apart("ebhpc.planning.queue")

__all__ = [
    "Accuracy",
    "Expectation",
    "Expected",
    "ExpectedStart",
    "Figures",
    "Forecast",
    "ForecastUnreadableError",
    "LearnedUnreadableError",
    "NeverStartsError",
    "Outcome",
    "Outlook",
    "Outlooks",
    "QueueState",
    "Replay",
    "Replayed",
    "Start",
    "StartEstimator",
    "Trace",
    "TraceError",
    "TracedJob",
    "accuracy",
    "accuracy_of_starts",
    "decode_forecast",
    "encode_forecast",
    "expected_start",
    "expected_windows",
    "figures",
    "look",
    "observe",
    "outlook_message",
    "outlook_of",
    "pack_learned",
    "queue_of",
    "read_jobs",
    "unpack_learned",
    "why_not_expected",
]
