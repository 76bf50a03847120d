"""The configured platforms: built by their plugins, called through Platform."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import pluggy

from ebhpc.config import Config, PlatformConfig, SettingsError, SettingsProblem, Source
from ebhpc.model import PROMISES, Finding, Promise
from ebhpc.plugins.calls import REQUIRED, Call, Clock, PluginCalls
from ebhpc.plugins.failures import PlatformUnavailable
from ebhpc.plugins.loading import PluginManager, fault_of
from ebhpc.plugins.threads import CallThreads, CallTimeoutError, RaisedError

log = logging.getLogger(__name__)

BUILD_TIMEOUT = 30.0
"""Seconds that a plugin has for building a platform."""


class Platform(PluginCalls):
    """One configured batch system, and the way to call its hooks: ``name``, ``kind``, ``config``.

    ``implementation`` is the plugin's object. ``promises`` are those that its offers make.

    ``fault`` says why there is no usable object; then every hook is unavailable, and sessions wait until it
    is mended.
    """

    def __init__(
        self,
        pm: pluggy.PluginManager,
        config: PlatformConfig,
        implementation: object,
        *,
        fault: str | None = None,
        promises: Sequence[Promise] = ("reservation",),
        clock: Clock = time.monotonic,
    ) -> None:
        super().__init__(
            pm,
            implementation,
            config.name,
            threads=config.threads,
            timeout=config.timeout,
            long_threads=config.prepare_threads,
            long_timeout=config.prepare_timeout,
            clock=clock,
        )
        self.kind = config.kind
        self.config = config
        self.implementation = implementation
        self.fault = fault
        self.promises = tuple(promises)

    def implements(self, hook: str) -> bool:
        """Whether the platform implements ``hook``; with a fault nobody knows, and it is True."""
        return self.fault is not None or super().implements(hook)

    def call_each(self, calls: Sequence[Call], *, timeout: float | None = None) -> list[Any]:
        if self.fault is not None:
            raise PlatformUnavailable(self.name, calls[0][0], self.fault)
        return super().call_each(calls, timeout=timeout)

    def __repr__(self) -> str:
        return f"Platform({self.name!r}, kind={self.kind!r})"


class Platforms(Mapping[str, Platform]):
    """The platforms by name, in the order of their configuration."""

    def __init__(self, platforms: Sequence[Platform]) -> None:
        self._platforms = {platform.name: platform for platform in platforms}

    def __getitem__(self, name: str) -> Platform:
        return self._platforms[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._platforms)

    def __len__(self) -> int:
        return len(self._platforms)

    @property
    def findings(self) -> list[Finding]:
        """Return what is wrong with platforms that could not be built."""
        return [
            Finding(
                level="ERROR",
                subject=platform.name,
                text=platform.fault,
                advice="mend or update the plugin; until then the platform makes no offers",
            )
            for platform in self._platforms.values()
            if platform.fault is not None
        ]

    def close(self) -> None:
        """Let the platforms' threads end, those that do not hang."""
        for platform in self._platforms.values():
            platform.close()


def build_platforms(pm: PluginManager, config: Config, *, clock: Clock = time.monotonic) -> Platforms:
    """Build every enabled platform by the plugin that serves its kind, and register it under its name.

    A platform whose plugin fails, or gives an object that does not meet the hooks' contract, is in the
    result with a ``fault``. Starts threads: call it after a fork.

    Raises:
        SettingsError: a kind that no plugin serves, or settings that its plugin refuses: all of them, with
            file and line.
    """
    built = []
    problems: list[SettingsProblem] = []
    for wanted in config.platforms:
        if not wanted.enabled:
            continue
        try:
            built.append(_build(pm, config, wanted, clock))
        except SettingsError as error:
            source = wanted.source or Source(file=f"platform {wanted.name}")
            problems += source.locate(error.problems)
    if problems:
        raise SettingsError(*problems)
    return Platforms(built)


class _Nobody:
    """Stands for the object of a platform that could not be built: it implements no hook."""


def _build(pm: PluginManager, config: Config, wanted: PlatformConfig, clock: Clock) -> Platform:
    state = config.state_directory / "platforms" / wanted.name
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise SettingsError(f"the platform's directory {state} cannot be made: {error.strerror}") from None
    faults = []
    for impl in reversed(pm.hook.ebhpc_platform.get_hookimpls()):
        try:
            answer = _ask(impl, wanted, state)
        except _PluginFaultError as error:
            faults.append(f"the plugin {impl.plugin_name} could not build it: {error}")
            continue
        if answer is not None:
            return _registered(pm, wanted, answer, impl.plugin_name, clock)
    if faults:
        return Platform(pm, wanted, _Nobody(), fault="; ".join(faults), clock=clock)
    serving = sorted({impl.plugin_name for impl in pm.hook.ebhpc_platform.get_hookimpls()})
    raise SettingsError(
        SettingsProblem(
            path=("kind",),
            text=f"no plugin serves the kind {wanted.kind};"
            f" plugins that serve platforms: {', '.join(serving) or 'none'}"
            + "".join(f"; {finding.subject} was not loaded: {finding.text}" for finding in pm.findings),
        )
    )


def _promises(platform: Platform) -> tuple[Promise, ...]:
    """Return the promises that are wanted of a platform.

    Raises:
        SettingsError: it cannot make them.
        PlatformUnavailable: it does not say what it can promise.
    """
    able: tuple[Promise, ...] = platform.call("ebhpc_promises")
    wanted = platform.config.promise
    if wanted is None:
        return able[:1]
    promises = PROMISES if wanted == "both" else (wanted,)
    if not set(promises) <= set(able):
        raise SettingsError(
            SettingsProblem(
                path=("promise",),
                text=f"a platform of the kind {platform.kind} with these settings can promise {', '.join(able)} only",
            )
        )
    return promises


class _PluginFaultError(Exception):
    """A plugin could not build a platform, and not for its settings."""


def _ask(impl: pluggy.HookImpl, wanted: PlatformConfig, state: Path) -> object | None:
    """Ask one plugin for a platform, on a thread of its own.

    Raises:
        SettingsError: raised by the plugin.
        _PluginFaultError: it raised anything else, or did not answer.
    """
    arguments: dict[str, object] = {
        "kind": wanted.kind,
        "name": wanted.name,
        "settings": deepcopy(wanted.settings),
        "state": state,
        "lead": float(wanted.lead),
    }
    given = [arguments[name] for name in impl.argnames]
    threads = CallThreads(f"build-{wanted.name}", 1)
    try:
        return cast(object, threads.run(lambda: impl.function(*given), BUILD_TIMEOUT))
    except CallTimeoutError as error:
        log.warning("plugin %s, platform %s: %s; it is at:\n%s", impl.plugin_name, wanted.name, error, error.stack)
        raise _PluginFaultError(str(error)) from None
    except RaisedError as raised:
        if isinstance(raised.error, SettingsError):
            raise raised.error from None
        log.warning("plugin %s, platform %s", impl.plugin_name, wanted.name, exc_info=raised.error)
        raise _PluginFaultError(f"{type(raised.error).__name__}: {raised.error}") from None
    finally:
        threads.close()


def _registered(pm: PluginManager, wanted: PlatformConfig, answer: object, plugin: str, clock: Clock) -> Platform:
    """Check the object that a plugin built, and register it."""
    fault = fault_of(answer, wanted.name)
    if fault is None and pm.is_registered(answer):
        fault = "it is registered already; ebhpc_platform must build an object of its own for each platform"
    if fault is None:
        # A platform may well have its plugin's name: the manager knows them by different ones.
        registered = f"platform {wanted.name}"
        pm.register(answer, name=registered)
        pm.built[registered] = plugin
        platform = Platform(pm, wanted, answer, clock=clock)
        missing = sorted(hook for hook in REQUIRED if not platform.implements(hook))
        if missing:
            fault = f"it lacks {', '.join(missing)}"
        else:
            try:
                platform.promises = _promises(platform)
            except PlatformUnavailable as error:
                fault = error.reason
            except SettingsError:
                pm.unregister(answer)
                del pm.built[registered]
                raise
        if fault is None:
            return platform
        pm.unregister(answer)
        del pm.built[registered]
    log.warning("plugin %s built an unusable object for platform %s: %s", plugin, wanted.name, fault)
    return Platform(pm, wanted, _Nobody(), fault=f"the plugin {plugin} built an unusable object: {fault}", clock=clock)
