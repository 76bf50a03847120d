"""All tables. Instants are POSIX seconds: whole where planning counts with them, else with a fraction."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_Instant = Float(53)
_Uuid = String(36)
_Key = BigInteger().with_variant(Integer, "sqlite")

identities = Table(
    "identities",
    metadata,
    Column("uuid", _Uuid, primary_key=True),
    Column("username", String(255), nullable=False, unique=True),
    Column("password", Text, nullable=False, doc="argon2 hash; empty: an issuer's user, who has none here"),
    Column("admin", Boolean, nullable=False),
    Column("created", _Instant, nullable=False),
    Column("issuer", String(512), doc="the URL of the issuer whose user it is; None: a local account"),
    Column("subject", String(255), doc="who it is to the issuer"),
    Column("seen", _Instant, doc="when an issuer's word on it last came"),
    Column("barred", _Instant, doc="since when it may do nothing; None: it is not barred"),
    Index("ux_identities_issuer_subject", "issuer", "subject", unique=True),
)

memberships = Table(
    "memberships",
    metadata,
    Column("identity", _Uuid, ForeignKey("identities.uuid"), primary_key=True),
    Column("name", String(255), primary_key=True, doc="of a group, as its issuer last said, qualified by the issuer"),
    Index(None, "name"),
)

audit = Table(
    "audit",
    metadata,
    Column("id", _Key, primary_key=True, autoincrement=True),
    Column("time", _Instant, nullable=False),
    Column("actor", _Uuid, doc="the identity; None: nobody known, or a process of the site"),
    Column("username", String(255), nullable=False, doc="of the actor then, or what somebody called themselves"),
    Column("address", String(64), nullable=False, doc="where from; a command: the host and its Unix user"),
    Column("action", String(40), nullable=False),
    Column("kind", String(40), nullable=False, doc="what kind of object"),
    Column("object", String(255), nullable=False),
    Column("result", String(16), nullable=False, doc="done, refused or failed"),
    Column("detail", Text, nullable=False),
    Column("count", Integer, nullable=False, doc="how often in a row within moments"),
    Index(None, "time"),
    Index(None, "username", "time"),
    Index(None, "object"),
)

platforms = Table(
    "platforms",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("revision", BigInteger, nullable=False, doc="counts the changes of its bookings"),
    Column("version", BigInteger, nullable=False, doc="counts its snapshots"),
    Column("snapshot", LargeBinary, doc="the newest, as the planner encodes it"),
    Column("taken", _Instant, doc="when the newest snapshot was taken"),
    Column("trouble", Text, doc="a Message as JSON: why there is no answer now"),
    Column("looked", _Instant, doc="when a driver last asked, answered or not"),
    Column("expired", BigInteger, nullable=False, server_default=text("0"), doc="how many of its offers have expired"),
)

offersets = Table(
    "offersets",
    metadata,
    Column("uuid", _Uuid, primary_key=True),
    Column("owner", _Uuid, ForeignKey("identities.uuid"), nullable=False),
    Column("created", _Instant, nullable=False),
    Column("expires", BigInteger, nullable=False),
    Column("document", Text, nullable=False, doc="the offer set as JSON, without its offers"),
    Index(None, "owner", "created"),
    Index(None, "expires"),
)

_has_started = text("started IS NOT NULL")
_has_results = text("kept_until IS NOT NULL")

sessions = Table(
    "sessions",
    metadata,
    Column("uuid", _Uuid, primary_key=True),
    Column("offerset", _Uuid, ForeignKey("offersets.uuid"), nullable=False),
    Column("position", Integer, nullable=False, doc="among the offers of its set"),
    Column("owner", _Uuid, ForeignKey("identities.uuid"), nullable=False),
    Column("platform", String(40), nullable=False),
    Column("phase", String(16), nullable=False),
    Column("created", _Instant, nullable=False),
    Column("modified", _Instant, nullable=False),
    Column("expires", BigInteger, doc="of the offer; None once accepted"),
    Column("start", BigInteger, nullable=False),
    Column("latest", BigInteger, nullable=False),
    Column("finish", BigInteger, nullable=False),
    Column("duration", BigInteger, nullable=False),
    Column("firm", Boolean, nullable=False),
    Column("allocations", Text, nullable=False, doc="JSON list of Allocation"),
    Column("document", Text, nullable=False, doc="the session's fixed part as wire JSON"),
    Column("messages", Text, nullable=False, doc="JSON list of Message"),
    Column("connectors", Text, doc="JSON list of Connector"),
    Column("held", Text, doc="native name of its reservation"),
    Column("native", Text, doc="native identifier of its job"),
    Column("node", Text),
    Column("exit_code", Integer),
    Column("started", _Instant, doc="real start of its job"),
    Column("ended", _Instant, doc="real end of its job"),
    Column("outcome", String(16), doc="the final phase, decided when the job ended"),
    Column("unfinished", Boolean, nullable=False, doc="the driver has work to do for it"),
    Column("submitting", Boolean, nullable=False, doc="something may exist that held or native does not name"),
    Column("attempt", Integer, nullable=False),
    Column("troubled", _Instant, doc="since when the present step has failed; counts where attempt is not 0"),
    Column("due", _Instant, nullable=False, doc="when a driver should look at it; NEVER while one has it"),
    Column("lease", String(80), doc="the driver that works on it"),
    Column("lease_until", _Instant),
    Column("kept_until", _Instant, doc="its results are deleted then"),
    Column("promised", Text, doc="an Outlook as JSON: what its offer said of its start, where that is not firm"),
    Column("wants", Text, doc="Wants as JSON: what it asks for beside its allocations, where that is anything"),
    Column("outlook", Text, doc="an Outlook as JSON: when it is expected to start by now, while its job waits"),
    Column("usage", Text, doc="a Usage as JSON: what ran in it, where it is reserved time"),
    Column("approval", Text, doc="an Approval as JSON, where an operator must approve it"),
    Index(None, "offerset"),
    Index(None, "owner", "created"),
    Index(None, "owner", "phase", "expires"),
    Index(None, "platform", "phase", "expires"),
    # Offers, of which there are many more than sessions, have no entries in these
    Index(None, "lease", "due", sqlite_where=text("unfinished IS 1"), postgresql_where=text("unfinished IS true")),
    Index(None, "kept_until", sqlite_where=_has_results, postgresql_where=_has_results),
    Index(None, "platform", "started", sqlite_where=_has_started, postgresql_where=_has_started),
)

bookings = Table(
    "bookings",
    metadata,
    Column("id", _Key, primary_key=True, autoincrement=True),
    Column("session", _Uuid, ForeignKey("sessions.uuid"), nullable=False),
    Column("platform", String(40), nullable=False),
    Column("node", String(255), nullable=False),
    Column("start", BigInteger, nullable=False),
    Column("finish", BigInteger, nullable=False),
    Column("cores", Integer, nullable=False),
    Column("memory", BigInteger, nullable=False, doc="MiB"),
    Column("devices", Text, nullable=False, doc="JSON: count by type"),
    Column("licences", Text, nullable=False, doc="JSON: count by name, of the whole session, on its first booking"),
    Column("expires", BigInteger),
    Column("changed", BigInteger, nullable=False, doc="the platform's revision that last changed it"),
    Column("freed", _Instant, doc="when it was given back; None while it counts"),
    Index(None, "platform", "changed"),
    Index(None, "session"),
)

events = Table(
    "events",
    metadata,
    Column("id", _Key, primary_key=True, autoincrement=True),
    Column("session", _Uuid, ForeignKey("sessions.uuid"), nullable=False),
    Column("time", _Instant, nullable=False),
    Column("previous", String(16), nullable=False),
    Column("phase", String(16), nullable=False),
    Column("cause", Text, nullable=False),
    Index(None, "session"),
)

drivers = Table(
    "drivers",
    metadata,
    Column("name", String(80), primary_key=True),
    Column("incarnation", _Uuid, nullable=False),
    Column("host", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("pid_started", _Instant, nullable=False),
    Column("heartbeat", _Instant, nullable=False),
)

learned = Table(
    "learned",
    metadata,
    Column("platform", String(40), primary_key=True),
    Column("revision", BigInteger, nullable=False, doc="counts the changes of its state"),
    Column("state", LargeBinary, doc="what was learned of its queue, as the planner packs it"),
    Column("lease", String(80), doc="the driver that learns"),
    Column("lease_until", _Instant),
)

forecasts = Table(
    "forecasts",
    metadata,
    Column("platform", String(40), primary_key=True),
    Column("version", BigInteger, nullable=False, doc="counts its forecasts"),
    Column("forecast", LargeBinary, nullable=False, doc="the newest, as the planner encodes it"),
    Column("taken", _Instant, nullable=False, doc="when its snapshot was taken"),
    Column("seconds", _Instant, nullable=False, doc="processor time that it took"),
    Column("figures", Text, nullable=False, doc="an Accuracy as JSON: how well starts were foreseen"),
    Column("starts", Text, nullable=False, doc="JSON: by session, when its waiting job is expected to start"),
)

calendars = Table(
    "calendars",
    metadata,
    Column("identity", _Uuid, ForeignKey("identities.uuid"), primary_key=True),
    Column("secret", String(64), nullable=False, unique=True, doc="SHA-256 of what stands in the calendar's address"),
    Column("made", _Instant, nullable=False),
)

visits = Table(
    "visits",
    metadata,
    Column("mark", String(64), primary_key=True, doc="hash of the browser's cookie"),
    Column("identity", _Uuid, ForeignKey("identities.uuid"), nullable=False),
    Column("created", _Instant, nullable=False),
    Column("expires", _Instant, nullable=False),
    Index(None, "identity"),
    Index(None, "expires"),
)
