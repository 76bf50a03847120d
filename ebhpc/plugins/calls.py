"""Calling the hooks of one plugin object: on its own threads, with a deadline, the answer checked."""

from __future__ import annotations

import inspect
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pluggy

from ebhpc import hookspecs, tracing
from ebhpc.plugins.answers import NonsenseError, check_answer
from ebhpc.plugins.breaker import Breaker
from ebhpc.plugins.failures import PlatformUnavailable, SessionFailed
from ebhpc.plugins.threads import CallThreads, CallTimeoutError, NoThreadError, RaisedError

log = logging.getLogger(__name__)

Clock = Callable[[], float]

REQUIRED = frozenset(
    {
        "ebhpc_refuses",
        "ebhpc_snapshot",
        "ebhpc_submit",
        "ebhpc_observe",
        "ebhpc_cancel",
        "ebhpc_cleanup",
    }
)
"""Hooks that every platform implements."""

ABSENT: dict[str, Any] = {
    "ebhpc_promises": ("reservation",),
    "ebhpc_check": (),
    "ebhpc_policy": None,
    "ebhpc_windows": None,
    "ebhpc_costs": None,
    "ebhpc_hold": None,
    "ebhpc_release": None,
    "ebhpc_prepare": None,
    "ebhpc_reconcile": None,
    "ebhpc_outputs": (),
    "ebhpc_open_output": None,
    "ebhpc_forget": None,
}
"""What a call of a hook gives that a platform may leave out and does."""

LONG = frozenset({"ebhpc_prepare"})
"""Hooks that may take long: they have threads of their own, and ``prepare_timeout``."""

MAY_FAIL = frozenset({"ebhpc_hold", "ebhpc_prepare", "ebhpc_submit"})
"""Hooks that may raise SessionFailed."""

EXCLUSIVE = frozenset(
    {
        "ebhpc_hold",
        "ebhpc_release",
        "ebhpc_prepare",
        "ebhpc_submit",
        "ebhpc_cancel",
        "ebhpc_cleanup",
        "ebhpc_forget",
    }
)
"""Hooks of which one call for a session runs at a time, one included that was given up and still runs."""

ABOUT_A_REQUEST = frozenset({"ebhpc_refuses", "ebhpc_policy", "ebhpc_windows", "ebhpc_costs"})
"""Hooks whose arguments a user wrote. Where such a one raises, the platform is not left alone for
it: nobody shall take a platform away from others by sending, again and again, a document that its plugin
trips over."""

_ARGUMENTS = {
    name: frozenset(inspect.signature(function).parameters)
    for name, function in inspect.getmembers(hookspecs, inspect.isfunction)
    if name in REQUIRED or name in ABSENT
}

Call = tuple[str, dict[str, Any]]
"""A hook and its arguments by name."""


class PluginCalls:
    """Calls the hooks of one registered plugin, named ``name``.

    ``threads`` hooks run at a time, and ``long_threads`` of those that may take long. ``clock`` gives
    seconds.
    """

    def __init__(
        self,
        pm: pluggy.PluginManager,
        plugin: object,
        name: str,
        *,
        threads: int = 4,
        timeout: float = 10,
        long_threads: int = 4,
        long_timeout: float = 7200,
        clock: Clock = time.monotonic,
    ) -> None:
        self.name = name
        self._impls = implementations(pm, plugin)
        self._timeout = timeout
        self._long_timeout = long_timeout
        self._short = CallThreads(name, threads)
        self._long = CallThreads(f"{name}-long", long_threads)
        self._breakers = {hook: Breaker(clock) for hook in self._impls}
        self._under_way: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def implements(self, hook: str) -> bool:
        """Whether the plugin implements ``hook``."""
        return hook in self._impls

    def call(self, hook: str, *, timeout: float | None = None, **arguments: Any) -> Any:
        """Call one hook and return its answer: sequences as tuples; None or () for one that is left out.

        ``timeout`` in seconds goes before the configured one.

        Raises:
            PlatformUnavailable: it raised, did not answer in time, answered what its contract does not
                allow, or is left alone for a while because it did so before. It may have been carried out
                all the same.
            SessionFailed: raised by the hook, where it may.
        """
        return self.call_each([(hook, arguments)], timeout=timeout)[0]

    def call_each(self, calls: Sequence[Call], *, timeout: float | None = None) -> list[Any]:
        """Call hooks one after another, with one change of threads and one deadline; return their answers.

        Raises:
            PlatformUnavailable, SessionFailed: as ``call``, from the first that fails; those after it are
                not called.
        """
        wanted = [call for call in calls if self._present(*call)]
        if not wanted:
            return [ABSENT[hook] for hook, _ in calls]
        keys = self._begin(wanted)
        long = any(hook in LONG for hook, _ in wanted)
        seconds = timeout if timeout is not None else self._long_timeout if long else self._timeout
        current = [wanted[0][0]]
        try:
            answers = (self._long if long else self._short).run(
                tracing.carried(lambda: self._run(wanted, keys, current)), seconds, f"{current[0]} of {self.name}"
            )
        except CallTimeoutError as error:
            if not error.stack:
                self._end(keys)
            raise self._failed(current[0], wanted, error, counts=bool(error.stack)) from None
        except (NoThreadError, RuntimeError) as error:  # RuntimeError: no thread could be started
            self._end(keys)
            raise self._failed(current[0], wanted, error, counts=False) from None
        except RaisedError as raised:
            cause, hook = raised.error, current[0]
            if isinstance(cause, SessionFailed) and hook in MAY_FAIL:
                self._breakers[hook].succeeded()
                raise cause from None
            raise self._failed(hook, wanted, cause, counts=hook not in ABOUT_A_REQUEST) from cause
        for hook, _ in wanted:
            self._breakers[hook].succeeded()
        if len(wanted) == len(calls):
            return list(answers)
        given = iter(answers)
        return [next(given) if hook in self._impls else ABSENT[hook] for hook, _ in calls]

    def close(self) -> None:
        """Let the threads end that do not hang."""
        self._short.close()
        self._long.close()

    def _present(self, hook: str, arguments: dict[str, Any]) -> bool:
        """Whether to call the hook; its arguments must be those of the hook's specification."""
        expected = _ARGUMENTS.get(hook)
        if expected is None:
            raise TypeError(f"{hook} is no hook of a platform")
        if arguments.keys() != expected:
            raise TypeError(f"{hook} takes {sorted(expected)}, got {sorted(arguments)}")
        if hook in self._impls:
            return True
        if hook in ABSENT:
            return False
        raise PlatformUnavailable(self.name, hook, "the plugin does not implement it")

    def _begin(self, calls: Sequence[Call]) -> list[tuple[str, str]]:
        """Note what is called for which session, so that it is not called again while it still runs."""
        keys = [(hook, arguments["session"].uuid) for hook, arguments in calls if hook in EXCLUSIVE]
        with self._lock:
            for hook, uuid in keys:
                if (hook, uuid) in self._under_way:
                    reason = f"an earlier call for session {uuid} has not come back yet"
                    raise PlatformUnavailable(self.name, hook, reason)
            for hook, _ in calls:
                if pause := self._breakers[hook].wait():
                    reason = f"failed repeatedly and is left alone for {pause:.1f} s"
                    raise PlatformUnavailable(self.name, hook, reason, pause)
            self._under_way.update(keys)
        return keys

    def _end(self, keys: Sequence[tuple[str, str]]) -> None:
        if keys:
            with self._lock:
                self._under_way.difference_update(keys)

    def _run(self, calls: Sequence[Call], keys: Sequence[tuple[str, str]], current: list[str]) -> list[Any]:
        """Do the calls, on a thread; ``current[0]`` is always the hook that runs."""
        answers = []
        try:
            for hook, arguments in calls:
                current[0] = hook
                function, names = self._impls[hook]
                session = getattr(arguments.get("session"), "uuid", None)
                with tracing.span(hook, platform=self.name, session=session):
                    answer = function(*[arguments[name] for name in names])
                answers.append(check_answer(hook, answer, arguments, self.name))
        finally:
            self._end(keys)
        return answers

    def _failed(self, hook: str, calls: Sequence[Call], error: BaseException, *, counts: bool) -> PlatformUnavailable:
        """Log a failure and return what tells of it; ``counts``: towards leaving the platform alone."""
        match error:
            case CallTimeoutError():
                reason, detail = str(error), f"; it is at:\n{error.stack}" if error.stack else ""
            case NoThreadError():
                reason, detail = str(error), ""
            case NonsenseError():
                reason, detail = f"answered what its contract does not allow: {error}", ""
            case SessionFailed():
                reason, detail = f"raised SessionFailed, which this hook may not: {error}", ""
            case _:
                reason, detail = f"raised {type(error).__name__}: {error}", ""
        pause = self._breakers[hook].failed() if counts else 0.0
        log.log(
            # That threads hang was logged when they were given up
            logging.DEBUG if isinstance(error, NoThreadError) else logging.WARNING,
            "platform %s, %s, session %s: %s%s%s",
            self.name,
            hook,
            _sessions(dict(calls)[hook]),
            reason,
            f"; left alone for {pause:.0f} s" if pause else "",
            detail,
            exc_info=None if isinstance(error, (CallTimeoutError, NoThreadError)) else error,
        )
        return PlatformUnavailable(self.name, hook, reason, pause or None)


def _sessions(arguments: dict[str, Any]) -> str:
    if (session := arguments.get("session")) is not None:
        return str(session.uuid)
    uuids = [session.uuid for session in arguments.get("sessions", ())]
    return ", ".join(uuids[:10]) + (f" and {len(uuids) - 10} more" if len(uuids) > 10 else "") or "-"


def implementations(pm: pluggy.PluginManager, plugin: object) -> dict[str, tuple[Callable[..., Any], tuple[str, ...]]]:
    """Return each hook that a registered plugin implements: its function, and the names of its arguments."""
    return {
        name: (impl.function, tuple(impl.argnames))
        for name, caller in vars(pm.hook).items()
        if isinstance(caller, pluggy.HookCaller)
        for impl in caller.get_hookimpls()
        if impl.plugin is plugin
    }
