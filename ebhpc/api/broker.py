"""What the resources of one worker process work with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from ebhpc.api.accounts import Accounts
from ebhpc.api.auditing import Auditing
from ebhpc.api.combining import Combining
from ebhpc.api.timelines import Timelines
from ebhpc.config import Config
from ebhpc.model.registry import Kinds
from ebhpc.plugins import Platform, Policies
from ebhpc.policy import SiteRules
from ebhpc.store import Store

if TYPE_CHECKING:
    from ebhpc.api.metrics import Measures


class Broker(Struct, frozen=True, kw_only=True):
    """The parts of a worker. ``clock`` gives POSIX seconds, ``new_uuid`` a fresh UUID as text.

    ``planning`` is held while requests are planned and booked. The interpreter runs one thread at a time anyway; but
    a thread that has the database's write lock, and with it all other workers, must not wait for its turn behind
    threads that plan. ``together`` is where requests wait to be booked by one of them for all.
    """

    store: Store
    platforms: Mapping[str, Platform]
    kinds: Kinds
    config: Config
    policies: Policies
    clock: Callable[[], float]
    new_uuid: Callable[[], str]
    timelines: Timelines
    accounts: Accounts
    rules: SiteRules
    audit: Auditing
    measures: Measures
    planning: Lock = field(default_factory=Lock)
    together: Combining[Any] = field(default_factory=Combining)
