"""The driver's loop: what is due is claimed and handed to threads; nothing that may hang runs in the loop itself."""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping

from ebhpc.config import Driver as DriverSettings
from ebhpc.driver.charges import Charge, Charges
from ebhpc.driver.forecasting import Forecasting
from ebhpc.driver.learner import LearnerProcess, Learns
from ebhpc.driver.mending import Mending
from ebhpc.driver.phases import Step
from ebhpc.driver.reconciling import Reconciling
from ebhpc.driver.registration import Heartbeat, NameTaken, process_lives, register, this_process
from ebhpc.driver.retention import end_offers, forget_audit, forget_offers, forget_results
from ebhpc.driver.snapshots import Snapshots
from ebhpc.driver.steps import Steps
from ebhpc.driver.waiting import Waiting
from ebhpc.driver.watching import Watch
from ebhpc.driver.workers import Threads, Workers
from ebhpc.driver.writing import Writer
from ebhpc.model import Phase
from ebhpc.model.registry import Kinds
from ebhpc.planning import Snapshot
from ebhpc.plugins import Platform
from ebhpc.store import Store, Waking, claim, ensure_platforms, give_back, leased, leave, leave_learning

log = logging.getLogger("ebhpc.driver")

MOST_CLAIMED = 500
"""How many sessions are claimed in one turn."""

RETENTION = 60.0
"""Seconds between two looks at what is kept no longer."""

STOPPING = 5.0
"""Seconds that running steps have to finish when the driver stops."""

_SLOWEST = 30.0

_SETBACK = 1.0
"""Seconds by which a clock is set back before that is worth a word: below, what is due is only that much later."""

MakeWorkers = Callable[[str, int], Workers]


class _Desk:
    """The threads of one platform (None: of those that are not configured), so that it can only delay itself."""

    def __init__(self, name: str, platform: Platform | None, most: int, make: MakeWorkers) -> None:
        threads = most if platform is None else max(1, min(most, platform.config.threads - 1))
        self.steps = make(f"{name}-steps", threads)
        self.prepares = make(f"{name}-prepares", platform.config.prepare_threads if platform else 1)
        self.watch = make(f"{name}-watch", 1)
        self.snapshots = make(f"{name}-snapshots", 1)
        self.forecasts = make(f"{name}-forecasts", 1)
        self.results = make(f"{name}-results", 1)
        self.reconciling = make(f"{name}-reconciling", 1)
        self.mending = make(f"{name}-mending", 1)

    @property
    def busy(self) -> bool:
        """Whether it has enough to do."""
        return self.steps.load >= 8 * self.steps.size

    @property
    def preparing(self) -> bool:
        """Whether it has enough to prepare."""
        return self.prepares.load >= self.prepares.size

    @property
    def running(self) -> int:
        """How many steps and observations run now."""
        return sum(workers.running for workers in (self.steps, self.prepares, self.watch))

    def close(self) -> None:
        """Begin nothing more."""
        for workers in (
            self.steps,
            self.prepares,
            self.watch,
            self.snapshots,
            self.forecasts,
            self.results,
            self.reconciling,
            self.mending,
        ):
            workers.close()


class Driver:
    """Moves accepted sessions through their phases, publishes snapshots, expires offers, deletes what is old.

    Any number of drivers may share a database; each has a ``name`` of its own. ``keep_offers``: seconds for which
    offers that nobody took can be read after they expired, ``keep_audit``: for which the audit trail goes back.
    ``settle``: seconds for which a batch system must say that it does not know a job before that is believed; absent,
    twice the longest ``timeout`` of a platform. ``clock`` gives POSIX seconds, ``jitter`` numbers in [0, 1),
    ``workers`` makes the threads, ``learner`` learns of the queues (by default in a process of its own), ``process``
    is host, process identifier and start of this process, ``turned`` is called after each turn of the loop, also one
    that failed.
    """

    def __init__(
        self,
        store: Store,
        platforms: Mapping[str, Platform],
        kinds: Kinds,
        settings: DriverSettings,
        *,
        name: str,
        keep_offers: float = 604_800,
        keep_audit: float = 7_776_000,
        settle: float | None = None,
        clock: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
        workers: MakeWorkers = Threads,
        learner: Learns | None = None,
        process: tuple[str, int, float] | None = None,
        lives: Callable[[int, float], bool] = process_lives,
        turned: Callable[[Driver], None] = lambda driver: None,
    ) -> None:
        self.name = name
        self._turned = turned
        self.charges = Charges()
        self._store = store
        self._platforms = platforms
        self._kinds = kinds
        self._settings = settings
        self._keep_offers = keep_offers
        self._keep_audit = keep_audit
        longest = max((float(one.config.timeout) for one in platforms.values()), default=10.0)
        self._settle = settle if settle is not None else 2 * longest
        self._clock = clock
        self._jitter = jitter
        self._make_workers = workers
        self._process = process
        self._lives = lives
        self._heartbeat: Heartbeat | None = None
        self._incarnation = ""
        self._wake = threading.Event()
        self._closing = False
        self._nobody = _Desk("unconfigured", None, 1, workers)
        self._desks = {key: _Desk(key, platform, settings.threads, workers) for key, platform in platforms.items()}
        self._learner = learner if learner is not None else LearnerProcess()
        self._snapshots: dict[str, Snapshots] = {}
        self._forecasts: dict[str, Forecasting] = {}
        self._mending: dict[str, Mending] = {}
        self._reconciling: dict[str, Reconciling] = {}
        self._waiting: dict[str, Waiting] = {}
        self._keeping = workers("retention", 1)
        self._checkpoints = workers("checkpoint", 1)
        self._retention_due = 0.0
        self._compare_due = 0.0
        self._look_due = 0.0
        self._last = 0.0

    # --- its life ------------------------------------------------------------------------------------------------

    def run(self, stop: threading.Event) -> None:
        """Drive until ``stop`` is set; then finish what runs, for a few seconds, and give all sessions back.

        Raises:
            DriverRunning: the name belongs to another driver that lives.
            NameTaken: another process took the name meanwhile. This one has stopped at once.
        """
        self.join()
        assert self._heartbeat is not None
        self._heartbeat.start(self._wake.set)
        log.info("driver %s drives %s", self.name, ", ".join(self._platforms) or "no platform")
        threading.Thread(target=self._wake_at, args=(stop,), name="driver-stop", daemon=True).start()
        try:
            with Waking(self._store, self._incarnation, self._wake.set):
                self._turn_until(stop)
        finally:
            self.stop()

    def _turn_until(self, stop: threading.Event) -> None:
        """Do one turn after the other, each when something is due or somebody wakes this driver."""
        pause = failed = float(self._settings.interval)
        while not stop.is_set():
            try:
                self.step(self._clock())
                failed = pause
                wait = self._until_next(self._clock())
            except NameTaken:
                raise
            except Exception:  # the database, most likely; sessions wait until it is back
                log.exception("driver %s: a turn of the loop failed", self.name)
                failed = min(2 * failed, _SLOWEST)
                wait = failed
            self._turned(self)
            self._wake.wait(wait)
            if not stop.is_set():
                self._wake.clear()

    def _wake_at(self, stop: threading.Event) -> None:
        stop.wait()
        self._wake.set()

    def join(self) -> None:
        """Take the driver's name, and the sessions of the process that had it before.

        Raises:
            DriverRunning: that process lives.
        """
        ensure_platforms(self._store, self._platforms)
        host, pid, started = self._process or this_process()
        now = self._clock()
        record = register(
            self._store,
            self.name,
            host=host,
            pid=pid,
            pid_started=started,
            now=now,
            lease=self._settings.lease,
            lives=self._lives,
        )
        self._incarnation = record.incarnation
        self._heartbeat = Heartbeat(
            self._store, record.incarnation, lease=self._settings.lease, clock=self._clock, now=now
        )
        self._writer = Writer(
            self._store,
            self._platforms,
            self._kinds,
            self._settings,
            self.charges,
            incarnation=record.incarnation,
            clock=self._clock,
            jitter=self._jitter,
            holds=self._heartbeat.holds,
        )
        self._steps = Steps(self._store, self._writer, settle=self._settle)
        self._watch = Watch(self._writer, self._platforms, settle=self._settle)
        for name, platform in self._platforms.items():
            forecasting = Forecasting(self._store, platform, self.name, self._learner, clock=self._clock)
            self._forecasts[name] = forecasting
            mending = Mending(self._store, platform, self._kinds, clock=self._clock)
            self._mending[name] = mending
            self._snapshots[name] = Snapshots(
                self._store,
                platform,
                self._learner,
                clock=self._clock,
                published=_to_both(forecasting.offer, mending.offer),
            )
            self._reconciling[name] = Reconciling(self._store, platform, self._kinds, clock=self._clock)
            self._waiting[name] = Waiting(self._store, self._writer, name, self._incarnation)
        self._compare_due = now + self._settings.lease

    def stop(self) -> None:
        """Begin nothing more, wait a few seconds for what runs, give up the name and all leases."""
        self._closing = True
        for desk in (*self._desks.values(), self._nobody):
            desk.close()
        self._keeping.close()
        self._checkpoints.close()
        assert self._heartbeat is not None
        if not self._heartbeat.taken.is_set():
            deadline = time.monotonic() + STOPPING
            while time.monotonic() < deadline and any(desk.running for desk in (*self._desks.values(), self._nobody)):
                time.sleep(0.02)
        self._heartbeat.stop()
        self._learner.close()
        try:
            leave(self._store, self._incarnation)
            leave_learning(self._store, self.name)
        except Exception:  # then the leases run out by themselves
            log.exception("driver %s could not give its sessions back", self.name)
        log.info("driver %s has stopped", self.name)

    def loads(self) -> dict[str, dict[str, int]]:
        """How much work each platform's threads have, by platform and what for."""
        return {
            name: {"steps": desk.steps.load, "prepares": desk.prepares.load, "watch": desk.watch.load}
            for name, desk in self._desks.items()
        }

    def snapshot_seconds(self) -> dict[str, float]:
        """How long each platform took for its newest snapshot, where this driver asked for it."""
        return {name: one.seconds for name, one in self._snapshots.items() if one.seconds is not None}

    # --- a turn --------------------------------------------------------------------------------------------------

    def step(self, now: float) -> None:
        """Do one turn of the loop: hand all that is due at ``now`` (POSIX seconds) to the workers.

        Raises:
            NameTaken: another process has the driver's name.
        """
        assert self._heartbeat is not None, "join comes first"
        if now < self._last - _SETBACK:
            self._clock_went_back(now)
        self._last = now
        self._heartbeat.beat_if_due()
        if self._heartbeat.taken.is_set():
            raise NameTaken(f"another process has taken the driver's name {self.name}")
        if not self._heartbeat.holds():
            self._compare_due = 0.0
            return  # until a sign of life gets through, the sessions may be another's
        if now >= self._compare_due:
            self._compare_due = now + self._settings.lease
            self._compare(now)
        self._claim(now)
        for charge in self.charges.where(lambda charge: charge.due <= now):
            self._dispatch(charge)
        self._refresh(now)
        if now >= self._look_due:
            self._look_due = now + self._settings.interval
            self._look()
            end_offers(self._store, now=now)
            if not self._checkpoints.load:
                self._checkpoints.submit(self._store.checkpoint)
        if now >= self._retention_due and not self._keeping.load:
            self._retention_due = now + RETENTION
            self._keep(now)

    def _clock_went_back(self, now: float) -> None:
        """Have nothing wait for the old time to come again."""
        log.warning("driver %s: the clock was set back by %.0f s", self.name, self._last - now)
        self._compare_due = self._look_due = self._retention_due = now
        for name in self._platforms:
            self._snapshots[name].due = min(self._snapshots[name].due, now)
            self._forecasts[name].due = min(self._forecasts[name].due, now)
            self._reconciling[name].due = min(self._reconciling[name].due, now)
        for charge in self.charges.where(lambda charge: now < charge.due < math.inf):
            charge.due = now

    def _until_next(self, now: float) -> float:
        """Seconds until something is due that the driver knows of; at most ``interval``."""
        soon = max(now, self._look_due)
        known: Iterable[float] = (charge.due for charge in self.charges.where(lambda one: one.due < soon))
        return min(max(0.0, min((soon, *known)) - now), self._settings.interval)

    def _claim(self, now: float) -> None:
        claimed = claim(
            self._store,
            self._incarnation,
            now=now,
            lease=self._settings.lease,
            most=MOST_CLAIMED,
            busy=[name for name, desk in self._desks.items() if desk.busy],
            preparing=[name for name, desk in self._desks.items() if desk.preparing],
        )
        for record in claimed:
            if self.charges.admit(record) is Step.PREPARE and record.phase is Phase.CANCELLED:
                desk = self._desks.get(record.platform, self._nobody)
                desk.steps.submit(lambda record=record: self._steps.interrupt(record))  # type: ignore[misc]

    def _desk(self, charge: Charge) -> _Desk:
        return self._desks.get(charge.record.platform, self._nobody)

    def _dispatch(self, charge: Charge) -> None:
        """Have a charge's step run, and the one after it where that is due at once."""
        if self._closing or not self.charges.take(charge):
            return
        desk = self._desk(charge)
        workers = desk.prepares if charge.step is Step.PREPARE else desk.steps
        workers.submit(lambda: self._work(charge))

    def _work(self, charge: Charge) -> None:
        self._steps.run(charge)
        self._go_on(charge)

    def _go_on(self, charge: Charge) -> None:
        if charge.record.uuid not in self.charges:
            return
        now = self._clock()
        if charge.due <= now:
            self._dispatch(charge)
        elif charge.due < now + self._settings.interval:
            self._wake.set()  # it is due before the next turn

    def _look(self) -> None:
        watched: dict[str, list[Charge]] = {}
        for charge in self.charges.where(lambda charge: charge.observed):
            watched.setdefault(charge.record.platform, []).append(charge)
        for name, charges in watched.items():
            if name not in self._desks:
                for charge in charges:
                    charge.due = min(charge.due, self._clock()) if charge.record.attempt == 0 else charge.due
            elif not self._desks[name].watch.load:
                self._desks[name].watch.submit(lambda name=name, charges=charges: self._observe(name, charges))  # type: ignore[misc]

    def _observe(self, name: str, charges: list[Charge]) -> None:
        self._watch.look(name, charges)
        self._waiting[name].refresh(charges)
        for charge in charges:
            self._go_on(charge)

    def _refresh(self, now: float) -> None:
        for name, snapshots in self._snapshots.items():
            workers = self._desks[name].snapshots
            if now >= snapshots.due and not workers.load:
                workers.submit(snapshots.refresh)
        for name, forecasting in self._forecasts.items():
            workers = self._desks[name].forecasts
            if forecasting.waits and now >= forecasting.due and not workers.load:
                workers.submit(forecasting.run)
        for name, mending in self._mending.items():
            workers = self._desks[name].mending
            if mending.waits and not workers.load:
                workers.submit(mending.run)
        for name, reconciling in self._reconciling.items():
            workers = self._desks[name].reconciling
            if now >= reconciling.due and not workers.load:
                workers.submit(reconciling.run)

    def _compare(self, now: float) -> None:
        """Compare what the database says is ours with what we know of.

        Leases are lost to another driver while this process sleeps; and one that nobody here works on would keep
        its session from everybody.
        """
        known = self.charges.uuids()
        ours = leased(self._store, self._incarnation)
        self.charges.drop(known - ours)
        unknown = [uuid for uuid in ours - known if uuid not in self.charges]
        if unknown:
            log.warning("driver %s: %d leases that nobody here works on", self.name, len(unknown))
            give_back(self._store, self._incarnation, unknown, due=now)

    def _keep(self, now: float) -> None:
        self._keeping.submit(lambda: self._forget_old(now))
        for name, platform in self._platforms.items():
            workers = self._desks[name].results
            if not workers.load:
                workers.submit(lambda platform=platform: self._forget_results(platform))  # type: ignore[misc]

    def _forget_old(self, now: float) -> None:
        while forget_offers(self._store, before=now - self._keep_offers) and not self._closing:
            pass
        while forget_audit(self._store, before=now - self._keep_audit) and not self._closing:
            pass

    def _forget_results(self, platform: Platform) -> None:
        while forget_results(self._store, self._writer, platform, clock=self._clock) and not self._closing:
            pass


def _to_both(
    one: Callable[[Snapshot, bytes], None], other: Callable[[Snapshot, bytes], None]
) -> Callable[[Snapshot, bytes], None]:
    def take(snapshot: Snapshot, packed: bytes) -> None:
        one(snapshot, packed)
        other(snapshot, packed)

    return take
