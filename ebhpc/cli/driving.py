"""The driver's process: its life from its settings to its end, told to systemd."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

from ebhpc import tracing
from ebhpc.cli.assembly import Site
from ebhpc.driver import Driver
from ebhpc.driver.measures import DriverFigures, serve_figures
from ebhpc.systemd import ServiceManager

log = logging.getLogger("ebhpc.driver")

_STATUS = 10.0
"""Seconds between two lines that say what the driver does."""

_TRIAL = 60.0
"""Seconds that platforms have to be built with new settings, in a process that only tries it."""


class _Reports:
    """Tells systemd after each turn of the loop that the driver lives, and now and then what it does."""

    def __init__(self, manager: ServiceManager, platforms: Sequence[str]) -> None:
        self._manager = manager
        self._platforms = ", ".join(platforms) or "no platform"
        self._next = 0.0
        self._ready = False

    def turned(self, driver: Driver) -> None:
        self._manager.alive()
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _STATUS
        count = len(driver.charges)
        status = f"drives {self._platforms}; has {count} session{'' if count == 1 else 's'}"
        if self._ready:
            self._manager.status(status)
        else:
            self._manager.ready(status)
            self._ready = True


def run_driver(
    site: Site, *, name: str, reread: Callable[[], object], options: Sequence[str], manager: ServiceManager
) -> None:
    """Drive until SIGTERM or SIGINT, on the main thread.

    At SIGHUP, where the settings can be read and the platforms built with them, the driver gives its sessions back
    and its process begins anew; else it goes on and says what is wrong.

    Args:
        site: what it drives; closed at the end.
        name: the driver's own.
        reread: raises what is wrong with the settings as they are now.
        options: those of this command that say where the settings are.
        manager: is told of all this.

    Raises:
        DriverRunning: the name belongs to another driver that lives.
        NameTaken: another process took it meanwhile.
        OSError: ``driver.metrics`` cannot be listened at.
    """
    stop, again, asked = threading.Event(), threading.Event(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    def reload() -> None:
        manager.reloading()
        wrong = _what_is_wrong(reread, options)
        if wrong is None:
            again.set()
            stop.set()
        else:
            log.error("the settings stay as they were: %s", wrong)
            manager.ready("drives on with its old settings: the new ones do not work")
        asked.clear()

    def hang_up(*_: object) -> None:
        if not asked.is_set():
            asked.set()
            threading.Thread(target=reload, name="reload", daemon=True).start()

    signal.signal(signal.SIGHUP, hang_up)
    reports, figures = _Reports(manager, list(site.platforms)), DriverFigures()

    def turned(driver: Driver) -> None:
        reports.turned(driver)
        figures.turned(driver)

    try:
        if site.config.driver.metrics is not None:
            serve_figures(site.config.driver.metrics, figures)
        driver = Driver(
            site.store,
            site.platforms,
            site.kinds,
            site.config.driver,
            name=name,
            keep_offers=site.config.offers.keep,
            keep_audit=site.config.audit.keep,
            turned=turned,
        )
        try:
            driver.run(stop)
        finally:
            if not again.is_set():
                manager.stopping("gives its sessions back")
    finally:
        site.close()
        tracing.stop()
    if again.is_set():
        _begin_anew(manager)


def _what_is_wrong(reread: Callable[[], object], options: Sequence[str]) -> str | None:
    """Try the settings as they are now, in a process that builds the platforms and ends."""
    try:
        reread()
        done = subprocess.run(
            [sys.executable, "-m", "ebhpc", "plugins", *options],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TRIAL,
            check=False,
        )
    except Exception as error:  # noqa: BLE001  # whatever it is, the driver goes on
        return str(error)
    return None if done.returncode == 0 else (done.stderr.strip() or done.stdout.strip())[-2000:]


def _begin_anew(manager: ServiceManager) -> NoReturn:
    """Become a new program in the same process: to systemd the service has reloaded."""
    log.info("begins anew with its new settings")
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **manager.environment})
