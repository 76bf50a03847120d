"""What is kept no longer goes: results after their time, offers that nobody took. In small portions."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ebhpc.driver.charges import Charge
from ebhpc.driver.writing import Writer
from ebhpc.plugins import Platform, PlatformUnavailable
from ebhpc.store import (
    LeaseLost,
    Store,
    delete_old_audit,
    delete_old_offers,
    expire_offers,
    get_platforms,
    keep_results,
    results_are_gone,
    sessions_with_old_results,
)

log = logging.getLogger("ebhpc.driver")

PORTION = 20
"""How many sessions' results, and a tenth of how many offer sets, are deleted at a time."""

AGAIN = 3600.0
"""Seconds after which results that could not be deleted are tried again."""


def forget_results(store: Store, writer: Writer, platform: Platform, *, clock: Callable[[], float]) -> bool:
    """Delete a portion of a platform's results that are kept no longer. Returns whether there may be more."""
    old = sessions_with_old_results(store, now=clock(), most=PORTION, platform=platform.name)
    for record in old:
        try:
            writer.call(Charge(record), "ebhpc_forget")
        except PlatformUnavailable as error:
            if error.retry_after is not None:
                return False  # it is left alone for a while; so are its results
            _try_later(store, record.uuid, error.reason, clock())
        except LeaseLost:
            return False  # no sign of life got through
        except Exception as error:  # one that cannot be forgotten must not keep the others
            log.exception("session %s: its results stay", record.uuid, extra={"session": record.uuid})
            _try_later(store, record.uuid, str(error), clock())
        else:
            results_are_gone(store, record.uuid)
            log.info("session %s: its results are deleted", record.uuid, extra={"session": record.uuid})
    return len(old) == PORTION


def _try_later(store: Store, uuid: str, reason: str, now: float) -> None:
    log.warning("session %s: its results could not be deleted: %s", uuid, reason, extra={"session": uuid})
    keep_results(store, uuid, until=now + AGAIN)


def end_offers(store: Store, *, now: float) -> int:
    """Expire the offers of all platforms, configured or not, that nobody took in time; return how many."""
    return sum(expire_offers(store, name, now=now) for name in get_platforms(store))


def forget_offers(store: Store, *, before: float) -> bool:
    """Delete a portion of the offers that expired ``before``. Returns whether there may be more."""
    most = PORTION * 10
    return delete_old_offers(store, before=before, most=most) == most


def forget_audit(store: Store, *, before: float) -> bool:
    """Delete a portion of the audit trail from ``before``. Returns whether there may be more."""
    most = PORTION * 10
    return delete_old_audit(store, before=before, most=most) == most
