"""What the broker, its planner and its plugins say to one another about a request and a session.

All times are POSIX seconds (UTC), durations are seconds, memory is MiB, storage is GiB unless a name says otherwise.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct, field

from ebhpc.model.documents import Connector, ExecutionRequest
from ebhpc.model.elements import Data, Executable, Storage, VolumeMount
from ebhpc.model.messages import Level, Message
from ebhpc.model.phases import Phase
from ebhpc.model.reserved_time import Usage

Promise = Literal["reservation", "queue"]
"""How a platform stands behind a start: it keeps it, or its queue will lead to it."""

PROMISES: tuple[Promise, ...] = ("reservation", "queue")


class Shape(Struct, frozen=True, kw_only=True, gc=False):
    """Resources on one node: cores, memory (MiB), devices by type."""

    cores: int
    memory: int
    devices: dict[str, int] = field(default_factory=dict)


class Allocation(Struct, frozen=True, kw_only=True, gc=False):
    """Resources on one named node: cores, memory (MiB), devices by type."""

    node: str
    cores: int
    memory: int
    devices: dict[str, int] = field(default_factory=dict)


class Demand(Struct, frozen=True, kw_only=True):
    """The quantities of a request, its defaults filled in: what the planner needs to know.

    ``least`` and ``most`` bound each node's share; ``most`` is None for a quantity without an upper bound:
    cores, memory or a device type that is absent from its ``devices``. The start lies in
    [``earliest``, ``latest``]; the duration is at least ``duration``. ``exclusive``: each node is taken whole, whatever
    it has, and must have no more than the most.
    """

    least: Shape
    most_cores: int | None = None
    most_memory: int | None = None
    most_devices: dict[str, int] = field(default_factory=dict)
    duration: int
    earliest: int
    latest: int
    nodes: int = 1
    features: tuple[str, ...] = ()
    partition: str | None = None
    licences: dict[str, int] = field(default_factory=dict)
    exclusive: bool = False


class Identity(Struct, frozen=True, kw_only=True):
    """Who asks: a stable ``uuid``, a ``username``, whether an administrator."""

    uuid: str
    username: str
    admin: bool = False
    groups: tuple[str, ...] = ()


class Request(Struct, frozen=True, kw_only=True):
    """A request that has been read: the document, its elements checked and named, and its demand.

    ``storage`` holds an element for each data element, made where the client gave none. ``costs`` and ``metrics``
    are the client's constraints.
    """

    document: ExecutionRequest
    executable: Executable
    compute: Any
    volumes: tuple[VolumeMount, ...] = ()
    storage: tuple[Storage, ...] = ()
    data: tuple[Data, ...] = ()
    demand: Demand


class Limits(Struct, frozen=True, kw_only=True):
    """What a site allows for one request on one platform; None: no limit.

    ``duration`` seconds, ``memory`` MiB per node, ``horizon`` seconds from now to the latest start.
    """

    cores: int | None = None
    memory: int | None = None
    devices: dict[str, int] = field(default_factory=dict)
    duration: int | None = None
    horizon: int | None = None


class Policy(Struct, frozen=True, kw_only=True):
    """A site's word on a request: reasons to refuse it (none: allowed), and limits to apply to its offers."""

    refusals: tuple[Message, ...] = ()
    limits: Limits = Limits()


class Window(Struct, frozen=True, kw_only=True):
    """Where a request fits.

    The start lies in [``start``, ``latest``]; the resources in ``allocations``, and ``licences``, are kept from
    ``start`` to ``end`` ≥ ``latest`` + ``duration``. ``firm``: the platform guarantees it; else an expectation, with
    the median start in ``expected`` and the probability that the start lies in the interval in ``confidence``.
    ``label`` says what is special about it, as ``earliest``. Of an expectation ``latest`` is the end of its interval,
    ``end`` the latest start that was asked for and the duration after it; nothing is kept, and its allocations name no
    node.
    """

    start: int
    latest: int
    end: int
    duration: int
    allocations: tuple[Allocation, ...]
    licences: dict[str, int] = field(default_factory=dict)
    firm: bool = True
    expected: int | None = None
    confidence: float | None = None
    label: str = ""


class SourceRule(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """From where one of the site's rules lets something be fetched: URLs that begin as one of ``allow`` (None: any) and
    as none of ``deny``. ``rule`` is its name, for refusals."""

    rule: str
    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] = ()


class Sources(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """From where a session's data, and its notebook or script, may be fetched: all these rules hold at each hop."""

    data: tuple[SourceRule, ...] = ()
    notebooks: tuple[SourceRule, ...] = ()


class Session(Struct, frozen=True, kw_only=True):
    """A session as a plugin sees it: who, what, where, when. It is a copy: changing it changes nothing.

    ``uuid`` marks every native object. ``native`` is what ``ebhpc_submit`` returned, ``held`` what ``ebhpc_hold``
    returned; each None until then. ``start``, ``latest``, ``end`` and ``duration`` as in :class:`Window`.
    ``attempt`` counts from 1 the times that the present step has been tried. Where it is not ``firm`` its job waits in
    the platform's queue: it must not begin before ``start``, is of no use when it has not begun by ``latest``, and its
    allocations name no node. ``licences``, ``features``, ``partition`` and ``exclusive`` (whole nodes) are what the
    request asks for beside them. ``extends`` names what was held for a session whose reserved time this one goes on
    with, on the same nodes: ``ebhpc_hold`` lengthens that, and returns its name. ``sources`` are the site's rules on
    what is fetched for it: who follows a redirect compares where it leads.
    """

    uuid: str
    name: str | None
    owner: Identity
    platform: str
    phase: Phase
    executable: Executable
    compute: Any
    volumes: tuple[VolumeMount, ...] = ()
    storage: tuple[Storage, ...] = ()
    data: tuple[Data, ...] = ()
    allocations: tuple[Allocation, ...]
    start: int
    latest: int
    end: int
    duration: int
    firm: bool = True
    licences: dict[str, int] = field(default_factory=dict)
    features: tuple[str, ...] = ()
    partition: str | None = None
    exclusive: bool = False
    native: str | None = None
    held: str | None = None
    attempt: int = 1
    started: int | None = None
    extends: str | None = None
    sources: Sources = Sources()


class Quote(Struct, frozen=True, kw_only=True):
    """Costs and metrics of an offer, as wire elements (CostItem and MetricItem)."""

    costs: tuple[Any, ...] = ()
    metrics: tuple[Any, ...] = ()


class Prepared(Struct, frozen=True, kw_only=True):
    """What became of ``ebhpc_prepare``: messages for the user."""

    messages: tuple[Message, ...] = ()


class Observation(Struct, frozen=True, kw_only=True):
    """What became of a submitted session.

    ``state``: PENDING it waits in the batch system; RUNNING; SUCCEEDED; FAILED; GONE: the batch system answers and
    knows nothing of it. ``started`` and ``ended`` are POSIX seconds, ``node`` a name, ``messages`` are added to the
    session's, once each. ``connectors`` replace the session's when not None.

    Of reserved time: PENDING until something has run in it, RUNNING from then on, SUCCEEDED when it is over; ``usage``
    is what ran in it, and replaces the session's when not None.
    """

    uuid: str
    state: Literal["PENDING", "RUNNING", "SUCCEEDED", "FAILED", "GONE"]
    exit_code: int | None = None
    node: str | None = None
    started: float | None = None
    ended: float | None = None
    messages: tuple[Message, ...] = ()
    connectors: tuple[Connector, ...] | None = None
    usage: Usage | None = None


class Output(Struct, frozen=True, kw_only=True):
    """One file of a session's results: its ``name`` (a relative path with ``/``), ``size`` in bytes, media type."""

    name: str
    size: int
    media_type: str


class Finding(Struct, frozen=True, kw_only=True):
    """One line of ``ebhpc check``: what was looked at, how it is, and what to do about it."""

    level: Level
    subject: str
    text: str
    advice: str = ""
