"""Every setting of ebhpc: its name, type, default and meaning.

docs/operators/settings.md lists them for operators, conf/ebhpc.yaml shows them; tests hold both to
this module. Durations are in seconds once read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from ebhpc.config.firm_time import FirmTime
from ebhpc.config.identity import Audit, Issuer, Proxy, Rate
from ebhpc.config.problems import Source
from ebhpc.config.reserved_time import ReservedTimeRules
from ebhpc.config.rules import SitePolicy
from ebhpc.config.values import (
    Address,
    DatabaseUrl,
    Duration,
    Seconds,
    WebAddress,
)

Count = Annotated[int, Meta(ge=1, le=1_000_000_000)]
"""An integer from 1."""

Amount = Annotated[float, Meta(ge=0)]
"""A number from 0."""

Name = Annotated[str, Meta(min_length=1)]
"""A string that is not empty."""

PlatformName = Annotated[
    str,
    Meta(pattern=r"\A[a-z0-9-]{1,40}\Z", description="1 to 40 lower-case letters, digits and hyphens"),
]

Username = Annotated[
    str,
    Meta(pattern=r"\A[^:\x00-\x1f\x7f]+\Z", description="a username without colons and control characters"),
]
"""A username that HTTP Basic can carry (RFC 7617)."""


class Database(Struct, frozen=True, kw_only=True):
    """Where offers, sessions, bookings and accounts are kept."""

    url: DatabaseUrl | None = None
    """``sqlite:///PATH`` or ``postgresql://USER@HOST/NAME``; absent: ``ebhpc.sqlite3`` in ``state``."""

    password_file: Path | None = None
    """A file whose first line is the password of the user in ``url``."""


class Api(Struct, frozen=True, kw_only=True):
    """The REST service."""

    bind: Address = Address("127.0.0.1:8080")
    """Where it listens: HOST:PORT, or unix:/PATH."""

    workers: Count = 2
    """Worker processes."""

    threads: Count = 8
    """Threads of each worker; each serves one request at a time."""

    url: WebAddress | None = None
    """The URL by which clients reach the broker, for links in answers; absent: made from ``bind``."""

    public_reads: bool = False
    """Whether anybody may read offer sets and sessions without an account."""

    max_body_bytes: Count = 1_048_576
    """The longest body of a request, bytes."""

    max_depth: Count = 40
    """The deepest nesting of a document."""

    max_aliases: Annotated[int, Meta(ge=0)] = 50
    """The most aliases in a YAML document."""

    max_elements: Count = 200
    """The most elements (storage, data, volumes) in one request."""

    max_outstanding_offers: Count = 50
    """The most offers that one user may have open at a time."""

    request_timeout: Duration = Duration(30)
    """A request that takes longer is given up."""

    rate_per_user: Rate | None = None
    """The most requests of one user, as ``600/1m``; absent: any."""

    rate_per_address: Rate | None = None
    """The most requests from one address (of IPv6, one /64), as ``1200/1m``; absent: any."""

    failed_logins: Rate | None = Rate("60/1m")
    """The most wrong passwords and tokens from one address; further ones are not looked at. Absent: any."""

    trusted_proxies: tuple[Proxy, ...] = ()
    """The proxies whose ``X-Forwarded-For`` is believed: networks, or ``unix`` where ``bind`` is a Unix socket."""


class Offers(Struct, frozen=True, kw_only=True):
    """What is offered."""

    lifetime: Duration = Duration(300)
    """How long an offer can be accepted."""

    per_platform: Count = 3
    """The most offers that one platform makes for a request."""

    keep: Seconds = Seconds(604800)
    """How long offer sets, and offers that nobody accepted, can be read after they expired."""


class Driver(Struct, frozen=True, kw_only=True):
    """The process that moves accepted sessions through their phases."""

    interval: Duration = Duration(1)
    """The time between two looks at the sessions."""

    lease: Duration = Duration(30)
    """How long a driver has a session to itself; after a crash another driver takes over when it is past."""

    threads: Count = 8
    """Sessions that are worked on at the same time."""

    retry_first: Duration = Duration(1)
    """The wait before a step that failed is tried again; it doubles with each failure."""

    retry_most: Duration = Duration(60)
    """The longest wait between two tries."""

    give_up: Duration = Duration(86400)
    """A session whose platform has not answered for so long has failed."""

    give_up_cleanup: Duration = Duration(3600)
    """Cleaning up after a session that fails for so long, while its platform answers otherwise, is given up."""

    keep_results: Seconds = Seconds(604800)
    """How long output and result files are kept after a session's end."""

    metrics: Address | None = None
    """Where each driver answers its own figures for Prometheus: HOST:PORT; absent: nowhere."""

    def __post_init__(self) -> None:
        if self.metrics is not None and self.metrics.host is None:
            raise ValueError("metrics must be HOST:PORT")
        if self.retry_first > self.retry_most:
            raise ValueError("retry_first is longer than retry_most")
        if self.interval >= self.lease:
            raise ValueError("interval must be shorter than lease, or leases run out between two looks")


class Accounts(Struct, frozen=True, kw_only=True):
    """Local accounts."""

    admin: Username = "admin"
    """The administrator who is made when there is no account yet."""


class Page(Struct, frozen=True, kw_only=True):
    """The page for people, which the API's processes serve at ``/ui/``."""

    enabled: bool = True
    """Whether it is served."""

    lifetime: Duration = Duration(43200)
    """How long a browser stays signed in."""

    others: Literal["occupancy", "jobs"] = "occupancy"
    """What users see of other people's jobs: that something is taken, or each job with its user and account."""


class Logging(Struct, frozen=True, kw_only=True):
    """What is logged, on standard error or in the journal."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least level that is logged."""

    format: Literal["text", "json", "journal"] = "text"
    """Lines for people, a JSON object a line for programs, or systemd's journal with its fields."""


class Tracing(Struct, frozen=True, kw_only=True):
    """Traces for OpenTelemetry; they need the extra ``tracing``."""

    endpoint: WebAddress | None = None
    """The collector that takes spans, by OTLP over HTTP: its URL without ``/v1/traces``; absent: there are no spans."""

    share: Annotated[float, Meta(ge=0, le=1)] = 1.0
    """Which share of all traces is kept, 0 to 1."""


class Rates(Struct, frozen=True, kw_only=True):
    """A cost by what a session occupies, in the cost's unit per hour."""

    per_core_hour: Amount = 0.0
    """For each core."""

    per_gpu_hour: Amount = 0.0
    """For each device; a GPU that is asked for by its model counts once."""

    per_node_hour: Amount = 0.0
    """For each node."""


class Costs(Struct, frozen=True, kw_only=True):
    """What a platform's offers cost."""

    monetary: Rates = Rates()
    """In the currency of the site."""

    energy: Rates | None = None
    """In kWh; absent: not quoted."""

    carbon: Rates | None = None
    """In g of CO2; absent: not quoted."""


class Metrics(Struct, frozen=True, kw_only=True, rename="kebab"):
    """How fast a platform is."""

    compute_performance: Amount = 1.0
    """Its speed, in the measure that the site has agreed on."""

    io_throughput: Amount | None = None
    """In MB/s; absent: not quoted."""


class PlatformConfig(Struct, frozen=True, kw_only=True):
    """One batch system."""

    name: PlatformName
    """Its name in offers and logs: lower-case letters, digits and hyphens, at most 40."""

    kind: Name
    """The kind of batch system, which says what plugin serves it; ``ebhpc plugins`` lists them."""

    enabled: bool = True
    """Whether it is used at all; false: as if it were not here."""

    refresh: Duration = Duration(10)
    """The time between two snapshots."""

    stale: Duration = Duration(120)
    """With no snapshot younger than this, nothing is offered."""

    timeout: Duration = Duration(10)
    """A hook that has not answered by then is given up."""

    threads: Count = 4
    """Hooks that run at the same time, those included that hang."""

    prepare_timeout: Duration = Duration(7200)
    """Preparing a session (data, images) that takes longer is given up, and tried again."""

    prepare_threads: Count = 4
    """Sessions that are prepared at the same time."""

    lead: Seconds = Seconds(60)
    """How long before a session's start its preparation begins."""

    promise: Literal["reservation", "queue", "both"] | None = None
    """What offers promise: ``reservation``, the start is kept; ``queue``, the job waits in the batch system's queue and
    its start is expected; ``both``, some offers of each; absent: the best that the platform can."""

    delay_queue: bool = False
    """Whether a reservation may push back the planned starts of jobs that wait in the batch system's queue."""

    firm: FirmTime | None = None
    """What users may promise themselves here: rules for windows that are kept; absent: none."""

    reserve_at: Literal["acceptance", "offer"] = "acceptance"
    """When the batch system is asked to reserve a firm window: when its offer is accepted, or before it is shown."""

    reserved_time: ReservedTimeRules = ReservedTimeRules()
    """What users may do with time on nodes in which the broker runs nothing."""

    offers_per_platform: Count | None = None
    """The most offers for one request; absent: ``offers.per_platform``."""

    longest: Duration | None = None
    """The longest duration that is offered; absent: as long as the batch system allows."""

    costs: Costs = Costs()
    """What its offers cost, where the plugin does not say."""

    metrics: Metrics = Metrics()
    """How fast it is, where the plugin does not say."""

    settings: dict[str, Any] = field(default_factory=dict)
    """The plugin's own settings; its documentation lists them."""

    source: Annotated[Source | None, Meta(extra={"internal": True})] = None

    def __post_init__(self) -> None:
        if self.stale <= self.refresh:
            raise ValueError("stale must be longer than refresh, or nothing is ever offered")


class Config(Struct, frozen=True, kw_only=True):
    """All settings."""

    state: Path | None = None
    """The directory for what must last: the database, results, platforms' files; absent: see below.

    ``$STATE_DIRECTORY`` (which systemd sets), else ``$XDG_STATE_HOME/ebhpc``, else ``~/.local/state/ebhpc``.
    """

    database: Database = Database()
    """Where offers, sessions, bookings and accounts are kept."""

    api: Api = Api()
    """The REST service."""

    offers: Offers = Offers()
    """What is offered."""

    driver: Driver = Driver()
    """The process that moves accepted sessions through their phases."""

    accounts: Accounts = Accounts()
    """Local accounts."""

    page: Page = Page()
    """The page for people, which the API's processes serve at ``/ui/``."""

    issuers: tuple[Issuer, ...] = ()
    """OpenID Connect providers whose users may use the broker."""

    policy: SitePolicy = SitePolicy()
    """The site's rules: who may use what, how much of it, and what may run."""

    audit: Audit = Audit()
    """The audit trail: who did what."""

    logging: Logging = Logging()
    """What is logged."""

    tracing: Tracing = Tracing()
    """Traces for OpenTelemetry; they need the extra ``tracing``."""

    platforms_dir: Path | None = None
    """A directory whose ``*.yaml`` each describe a platform; absent: ``platforms.d`` beside this file."""

    platforms: tuple[PlatformConfig, ...] = ()
    """The batch systems, beside those in ``platforms_dir``."""

    def __post_init__(self) -> None:
        for what, those in (("name", [one.name for one in self.issuers]), ("url", [one.url for one in self.issuers])):
            if len(set(those)) < len(those):
                raise ValueError(f"issuers: two have the same {what}")
        if any(one.name == "local" for one in self.issuers):
            raise ValueError("issuers: none can be called local: so rules call the broker's own accounts")

    @property
    def state_directory(self) -> Path:
        """The state directory; set in every configuration that was loaded."""
        assert self.state is not None, "load_config sets the state directory"
        return self.state

    @property
    def database_url(self) -> DatabaseUrl:
        """The database's URL with its password; set in every configuration that was loaded."""
        assert self.database.url is not None, "load_config sets the database's URL"
        return self.database.url
