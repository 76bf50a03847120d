"""The database: tables, migrations, and the few transactions that change bookings.

Every change of a booking goes through a function here, under the lock of its platform (see ``ledger``).
"""

from ebhpc.store.engine import Store
from ebhpc.store.identities import (
    IdentityRecord,
    add_identity,
    count_identities,
    find_identity,
    set_password,
)
from ebhpc.store.leases import (
    NEVER,
    DriverRecord,
    beat,
    claim,
    get_driver,
    give_back,
    leased,
    leave,
    list_drivers,
    register_driver,
)
from ebhpc.store.ledger import Changes, UnknownPlatform, changes_since
from ebhpc.store.offers import (
    Answer,
    Booked,
    NewOffer,
    accept,
    book_offers,
    expire_offers,
    get_offerset,
    moves_of,
    moves_of_sessions,
    reject,
)
from ebhpc.store.records import EventRecord, OfferSetRecord, SessionRecord
from ebhpc.store.restore import BrokenDocument, as_session
from ebhpc.store.retention import (
    delete_old_offers,
    keep_results,
    results_are_gone,
    sessions_with_old_results,
)
from ebhpc.store.schema import current_revision, newest_revision, upgrade
from ebhpc.store.sessions import (
    Change,
    LeaseLost,
    Page,
    cancel,
    count_phases,
    get_session,
    list_sessions,
    live_bookings,
    move,
    select_sessions,
)
from ebhpc.store.snapshots import (
    PlatformRecord,
    ensure_platforms,
    get_platforms,
    get_snapshot,
    publish_snapshot,
    publish_trouble,
    read_platforms,
)

__all__ = [
    "NEVER",
    "Answer",
    "Booked",
    "BrokenDocument",
    "Change",
    "Changes",
    "DriverRecord",
    "EventRecord",
    "IdentityRecord",
    "LeaseLost",
    "NewOffer",
    "OfferSetRecord",
    "Page",
    "PlatformRecord",
    "SessionRecord",
    "Store",
    "UnknownPlatform",
    "accept",
    "add_identity",
    "as_session",
    "beat",
    "book_offers",
    "cancel",
    "changes_since",
    "claim",
    "count_identities",
    "count_phases",
    "current_revision",
    "delete_old_offers",
    "ensure_platforms",
    "expire_offers",
    "find_identity",
    "get_driver",
    "get_offerset",
    "get_platforms",
    "get_session",
    "get_snapshot",
    "give_back",
    "keep_results",
    "leased",
    "leave",
    "list_drivers",
    "list_sessions",
    "live_bookings",
    "move",
    "moves_of",
    "moves_of_sessions",
    "newest_revision",
    "publish_snapshot",
    "publish_trouble",
    "read_platforms",
    "register_driver",
    "reject",
    "results_are_gone",
    "select_sessions",
    "sessions_with_old_results",
    "set_password",
    "upgrade",
]
