"""Gunicorn with thread workers, embedded: the process that calls ``run_api`` becomes its arbiter."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import shutil
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, MutableMapping
from math import ceil
from pathlib import Path
from typing import Any

import psutil
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger
from gunicorn.workers.gthread import ThreadWorker

from ebhpc.config import Config
from ebhpc.local.linux import few_heaps
from ebhpc.systemd import ServiceManager

log = logging.getLogger(__name__)

MakeApp = Callable[[], Any]

_TRIAL = 60.0
"""Seconds that the application has to come up with new settings, in a process that only tries it."""

GRACE = 25
"""Seconds that requests under way have when the service is stopped."""

_SHARED = "PROMETHEUS_MULTIPROC_DIR"
_PREFIX = "ebhpc-metrics-"

# What nginx's combined format has, the time last, in microseconds. No query: nothing secret stands in one, but nobody
# promises that of a client's mistakes.
_ACCESS = '%(h)s %(u)s "%(m)s %(U)s %(H)s" %(s)s %(B)s "%(a)s" %(D)s'


_KEEPALIVE = 20
"""Seconds that an idle connection is kept: longer than the page's scripts pause while they watch a session."""

_COURTESY = 0.001
"""Seconds that a worker with connections leaves a new one to the others."""


class Log(Logger):
    """Gunicorn's log lines, written where and how the process writes its others."""

    def setup(self, cfg: Any) -> None:
        """Let the root logger's handlers write them."""
        super().setup(cfg)
        for logger in (self.error_log, self.access_log):
            logger.handlers.clear()
            logger.propagate = True

    def access(self, resp: Any, req: Any, environ: MutableMapping[str, Any], request_time: Any) -> None:
        """Log a request, unless it only asks whether the service is there: those would drown the others."""
        if not environ.get("PATH_INFO", "").startswith("/health/"):
            super().access(resp, req, environ, request_time)


class Worker(ThreadWorker):
    """A worker that does not wait for ever for a client to finish its request.

    Gunicorn's own threads wait without end once a request has begun: a few clients that send a byte now and then would
    keep all of them. Everything here runs on the worker's main thread.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deadlines: dict[Any, float] = {}

    def accept(self, listener: Any) -> None:
        """Take a new connection; where this worker has some already, the others may be faster.

        Left to itself the first worker to wake takes all connections that come at once, and with kept connections the
        others then idle for as long as they last.
        """
        if self.nr_conns and self.cfg.workers > 1:
            time.sleep(_COURTESY)
        super().accept(listener)

    def enqueue_req(self, conn: Any) -> None:
        """Hand a connection that has something to say to a thread, and note until when it may be read."""
        seconds = struct.pack("ll", self.cfg.timeout, 0)
        conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, seconds)
        self._deadlines[conn] = time.monotonic() + self.cfg.timeout
        super().enqueue_req(conn)

    def finish_request(self, conn: Any, fs: Any) -> None:
        """Take it back when it was answered."""
        self._deadlines.pop(conn, None)
        super().finish_request(conn, fs)

    def murder_keepalived(self, *args: Any, **kwargs: Any) -> None:
        """Once a second, read no more from those whose time is up: to their threads they have ended."""
        now = time.monotonic()
        for conn, deadline in self._deadlines.items():
            if now > deadline:
                with contextlib.suppress(OSError):
                    conn.sock.shutdown(socket.SHUT_RD)
        super().murder_keepalived(*args, **kwargs)


class _Server(BaseApplication):
    """The service as gunicorn sees it."""

    def __init__(self, make_app: MakeApp, config: Config, ready: Callable[[str], None]) -> None:
        self._make_app = make_app
        self._config = config
        self._bind = str(config.api.bind)
        self._ready = ready
        self._signal: tuple[int, int] | None = None
        super().__init__()

    def change(self, make_app: MakeApp, config: Config) -> None:
        """Make workers in another way from the next reload on; where to listen stays."""
        if str(config.api.bind) != self._bind:
            log.warning("api.bind is %s now: that needs a restart; listening at %s", config.api.bind, self._bind)
        self._make_app, self._config = make_app, config

    def load_config(self) -> None:
        api, loglevel = self._config.api, self._config.logging.level
        chosen = {
            "bind": [self._bind],
            "workers": api.workers,
            "threads": api.threads,
            "worker_class": Worker,
            "worker_connections": 1000,
            "timeout": ceil(api.request_timeout),
            "graceful_timeout": GRACE,
            "keepalive": _KEEPALIVE,
            "limit_request_line": 8190,
            "limit_request_fields": 64,
            "limit_request_field_size": 8190,
            "preload_app": False,
            "control_socket_disable": True,
            "proc_name": "ebhpc api",
            "loglevel": loglevel,
            "errorlog": "-",
            "accesslog": "-" if loglevel in ("debug", "info") else None,
            "access_log_format": _ACCESS,
            "logger_class": Log,
            "when_ready": self._when_ready,
            "post_worker_init": self._worker_is_ready,
            "child_exit": _forget_measures,
        }
        for name, value in chosen.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """Make the application, in a worker that was just forked."""
        # A thread that holds the write lock of the database waits for the interpreter after each statement, and all
        # other writers wait for it: so nobody may keep the interpreter for long. Python's own choice is 5 ms.
        sys.setswitchinterval(0.0005)
        app = self._make_app()
        # What was made so far stays; looking through it for garbage again and again finds none.
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 20, 20)
        return app

    def _when_ready(self, arbiter: Arbiter) -> None:
        """Listen, on a thread, for the first worker to say that it serves; then call ``ready``."""
        reading, writing = self._signal = os.pipe()
        address = str(arbiter.LISTENERS[0])
        ready = self._ready

        def wait() -> None:
            if os.read(reading, 1):
                ready(address)
            os.close(reading)
            os.close(writing)
            self._signal = None

        threading.Thread(target=wait, name="ready", daemon=True).start()

    def _worker_is_ready(self, worker: Any) -> None:
        if self._signal is not None:
            os.write(self._signal[1], b"!")


class _Arbiter(Arbiter):
    """Gunicorn's arbiter, which tells systemd how it is, and reloads only what works.

    Each turn of its loop, once a second, is a sign of life: a worker that hangs is the arbiter's own to end.
    """

    def __init__(self, server: _Server, manager: ServiceManager, reread: Callable[[], tuple[MakeApp, Config]]) -> None:
        self._server = server
        self._manager = manager
        self._reread = reread
        super().__init__(server)

    def murder_workers(self) -> None:
        """End workers that hang, and tell that the loop turns."""
        self._manager.alive()
        super().murder_workers()

    def reload(self) -> None:
        """Read the settings again; where an application comes up with them, let workers with it take over."""
        self._manager.reloading()
        try:
            make_app, config = self._reread()
        except Exception as error:  # noqa: BLE001  # whatever is wrong with the new settings, the service goes on with the old
            log.error("the settings stay as they were: %s", error)
            self._manager.ready(f"answers requests, with {self.cfg.workers} workers; the last reload failed")
            return
        if not self._comes_up(make_app):
            log.error("the settings stay as they were: no worker comes up with the new ones")
            self._manager.ready(f"answers requests, with {self.cfg.workers} workers; the last reload failed")
            return
        self._server.change(make_app, config)
        super().reload()
        log.info("reloaded, with %d workers", self.cfg.workers)
        self._manager.ready(f"answers requests, with {self.cfg.workers} workers")

    def _comes_up(self, make_app: MakeApp) -> bool:
        """Make the application in a process that ends with it, as a worker would."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # forking beside our own thread is what gunicorn does
            child = os.fork()
        if child == 0:
            code = 1
            try:
                make_app()
                code = 0
            except BaseException:
                log.exception("the new settings do not work")
            finally:
                os._exit(code)
        deadline = time.monotonic() + _TRIAL
        while time.monotonic() < deadline:
            self._manager.alive()
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status) == 0
            time.sleep(0.05)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return False

    def stop(self, graceful: bool = True) -> None:
        """End the workers; requests that run are answered first where it is graceful."""
        self._manager.stopping("answers the requests that run, and ends")
        super().stop(graceful)


def _forget_measures(arbiter: Arbiter, worker: Any) -> None:
    """Drop the gauges of a worker that ended; its counters go on counting."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def _new_folder() -> str:
    """Make a directory for the measures, and remove those of processes that were killed."""
    for old in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        number = old.name.removeprefix(_PREFIX).partition("-")[0]
        with contextlib.suppress(OSError):
            if number.isdecimal() and not psutil.pid_exists(int(number)) and old.stat().st_uid == os.getuid():
                shutil.rmtree(old, ignore_errors=True)
    return tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-")


def run_api(
    make_app: MakeApp,
    config: Config,
    *,
    ready: Callable[[str], None] | None = None,
    reread: Callable[[], tuple[MakeApp, Config]] | None = None,
) -> int:
    """Serve until SIGTERM, SIGINT or SIGQUIT; return the exit code. Call it on the main thread.

    Sockets that systemd hands over are listened at in place of ``api.bind``. systemd is told when a worker serves,
    of reloads, of the end, and that the service lives.

    Args:
        make_app: makes the WSGI application; called in each worker after it was forked, so that nothing of the
            database or of threads is shared.
        config: ``api`` says where to listen, with how many workers and threads, how long a request may take; at the
            level info and below of ``logging`` requests are logged too. Log records go to the handlers of the root
            logger, or to standard error where it has none.
        ready: called once, on a thread of this process, with the address, when a worker serves.
        reread: called at SIGHUP; returns ``make_app`` and ``config`` anew, or raises what is wrong with them. Without
            it workers are replaced by others with the same settings.
    """
    few_heaps()
    given = os.environ.get(_SHARED)
    folder = Path(given or _new_folder())
    os.environ[_SHARED] = str(folder)
    here = os.getpid()
    if given is None and "prometheus_client" in sys.modules:
        log.error("prometheus_client was imported too early: /metrics tells of one worker only")
    manager = ServiceManager.of_process()

    def serves(address: str) -> None:
        manager.ready(f"answers requests at {address}, with {config.api.workers} workers")
        if ready is not None:
            ready(address)

    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        _Arbiter(_Server(make_app, config, serves), manager, reread or (lambda: (make_app, config))).run()
    except SystemExit as end:
        if os.getpid() != here:
            raise  # a worker that ends
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        if os.getpid() == here and given is None:
            os.environ.pop(_SHARED, None)
            shutil.rmtree(folder, ignore_errors=True)
    return 0
