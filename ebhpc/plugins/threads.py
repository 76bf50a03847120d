"""A few threads on which a platform's hooks run, so that one which hangs takes no caller with it."""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

log = logging.getLogger(__name__)


class CallTimeoutError(Exception):
    """A call was not done by its deadline. ``stack`` is where its thread was; empty: it had not begun."""

    def __init__(self, seconds: float, stack: str) -> None:
        self.stack = stack
        super().__init__(f"no answer within {seconds:g} s" if stack else f"no thread was free within {seconds:g} s")


class NoThreadError(Exception):
    """Every thread still runs a call that was given up."""


class RaisedError(Exception):
    """The function raised ``error``, which may be a BaseException such as SystemExit."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        super().__init__(repr(error))


class _Call:
    __slots__ = ("abandoned", "begun", "done", "error", "finished", "function", "label", "result", "thread")

    def __init__(self, function: Callable[[], Any], label: str) -> None:
        self.function = function
        self.label = label
        self.done = threading.Lock()
        self.done.acquire()
        self.begun: float | None = None
        self.thread = 0
        self.finished = False
        self.abandoned = False
        self.result: Any = None
        self.error: BaseException | None = None


class CallThreads:
    """Up to ``size`` daemon threads, started when they are needed first.

    They are daemons, and not those of ``concurrent.futures``, because a call that hangs must not keep the
    process from ending. Make it after a fork, not before.
    """

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._queue: SimpleQueue[_Call | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._open = 0
        self._hanging = 0

    def run(self, function: Callable[[], Any], timeout: float, label: str = "") -> Any:
        """Call ``function`` on a thread and return its result; ``timeout`` seconds include waiting for one.

        Raises:
            CallTimeoutError: not done in time. A call that had begun goes on, another never begins.
            NoThreadError: at once, when every thread hangs.
            RuntimeError: no thread could be started.
            RaisedError: the function raised.
        """
        call = _Call(function, label)
        with self._lock:
            if self._open >= self._threads and self._threads < self._size:
                threading.Thread(target=self._work, name=f"{self._name}-{self._threads + 1}", daemon=True).start()
                self._threads += 1
            elif self._hanging >= self._size:
                raise NoThreadError(f"all {self._size} threads hang in calls that were given up")
            self._open += 1
        self._queue.put(call)
        if not call.done.acquire(timeout=timeout):
            self._give_up(call, timeout)
        if call.error is not None:
            error, call.error = call.error, None  # else the call and the traceback hold one another
            raise RaisedError(error)
        return call.result

    def _give_up(self, call: _Call, timeout: float) -> None:
        with self._lock:
            if call.finished:  # between the deadline and the lock
                return
            call.abandoned = True
            if call.begun is None:
                raise CallTimeoutError(timeout, "")
            self._hanging += 1
            frame = sys._current_frames().get(call.thread)
        raise CallTimeoutError(timeout, "".join(traceback.format_stack(frame)))

    def _work(self) -> None:
        while (call := self._queue.get()) is not None:
            with self._lock:
                if call.abandoned:
                    self._open -= 1
                    continue
                call.begun = time.monotonic()
                call.thread = threading.get_ident()
            try:
                call.result = call.function()
            except BaseException as error:  # noqa: BLE001  # SystemExit as well: it must not end the thread
                call.error = error
            self._finish(call, time.monotonic() - call.begun)
            del call

    def _finish(self, call: _Call, seconds: float) -> None:
        with self._lock:
            call.finished = True
            self._open -= 1
            late = call.abandoned
            if late:
                self._hanging -= 1
        call.done.release()
        if late:
            log.warning(
                "%s came back after %.1f s, when it had been given up%s",
                call.label or "a call",
                seconds,
                f": {call.error!r}" if call.error else "",
            )

    def close(self) -> None:
        """Let idle threads end; those that hang end with the process."""
        with self._lock:
            for _ in range(self._threads):
                self._queue.put(None)
