"""The settings of a platform of kind ``openstack``: what stands under ``settings:`` in its file."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from ebhpc.batch import JobSettings
from ebhpc.batch.ssh import Host, SshSettings
from ebhpc.config import Duration, Seconds

Word = Annotated[
    str,
    Meta(
        pattern=r"\A[A-Za-z0-9_][A-Za-z0-9_.+ @:-]{0,99}\Z",
        description="a name or ID of letters, digits, spaces and . _ + @ : -",
    ),
]
Prefix = Annotated[
    str, Meta(pattern=r"\A[a-z][a-z0-9]{0,15}\Z", description="1 to 16 lower-case letters and digits, a letter first")
]
Count = Annotated[int, Meta(ge=1)]
Address = Annotated[str, Meta(pattern=r"\A[0-9A-Fa-f:.]{2,45}\Z", description="an IP address")]
PortNumber = Annotated[int, Meta(ge=1024, le=65535)]


class Connectors(Struct, frozen=True, kw_only=True):
    """How published ports are reached."""

    through: Literal["none", "address", "floating", "forward"] = "none"
    """``none``: requests with ports are refused; ``address``: by the server's own address; ``floating``: by a floating
    IP; ``forward``: by ports of the broker's host, from which our SSH connection leads to the server."""

    network: Word | None = None
    """The external network of the floating IPs, by name or ID."""

    address: Address | None = None
    """The address of the broker's host on which forwarded ports are listened on; of one of ours, not a name."""

    name: Host | None = None
    """What users are told to connect to instead of ``address``."""

    ports: tuple[PortNumber, PortNumber] = (28000, 28999)
    """The first and the last port of the broker's host that may be taken."""

    def __post_init__(self) -> None:
        if (self.through == "floating") != (self.network is not None):
            raise ValueError(
                "network names where floating IPs come from: expected with through: floating, and only then"
            )
        if (self.through == "forward") != (self.address is not None):
            raise ValueError("address says where forwarded ports are: expected with through: forward, and only then")
        if self.name is not None and self.through != "forward":
            raise ValueError("name is what users are told of forwarded ports: expected with through: forward alone")
        if self.ports[0] > self.ports[1]:
            raise ValueError("ports are a first one and a last one: expected the smaller one first")


class VolumeSettings(Struct, frozen=True, kw_only=True):
    """What becomes of a session's storage."""

    through: Literal["none", "cinder"] = "none"
    """``none``: all of it is the server's own disk; ``cinder``: what a request names the least size of is a volume."""

    type: Word | None = None
    """The volume type, by name or ID; absent: the cloud's default."""

    made_within: Duration = Duration(300)
    """How long the cloud may take to make the volumes of a session."""

    def __post_init__(self) -> None:
        if self.type is not None and self.through == "none":
            raise ValueError("type is one of volumes: expected with through: cinder alone")


class LeaseSettings(Struct, frozen=True, kw_only=True):
    """Hypervisors that are Blazar's, so that nothing but leases begins there."""

    hosts: Annotated[tuple[Word, ...], Meta(min_length=1)]
    """Their names, as placement and Blazar have them."""

    offered: bool = True
    """Whether this platform offers them, by leases, and no others; else it leaves them alone and offers the others."""

    before: Seconds = Seconds(60)
    """How long before its session a lease begins at least: Blazar takes some fifteen seconds to begin one."""

    after: Seconds = Seconds(60)
    """How long after its session a lease ends at least, and the cloud deletes the server with it: for clocks that
    differ, and for what the job leaves."""


class OpenStackSettings(Struct, frozen=True, kw_only=True):
    """All of them."""

    ssh: SshSettings
    """The login host through which the cloud is reached."""

    jobs: JobSettings
    """How jobs run in a server; its ``root`` is a directory of the broker's host, for results."""

    image: Word
    """The image that servers boot, by name or ID; with cloud-init, Python and what ``jobs.runtime`` needs."""

    cloud: Word | None = None
    """The cloud in the login host's clouds.yaml; absent: the OS_… variables of its environment."""

    python: tuple[str, ...] = ("python3",)
    """The words that start the login host's Python which has openstacksdk."""

    answer_within: Duration = Duration(20)
    """How long the cloud may take for one answer."""

    look: Seconds = Seconds(5)
    """The least time between two looks at our servers."""

    prefix: Prefix = "ebhpc"
    """What the names and metadata of our servers begin with; each broker of a project needs its own."""

    capacity: Literal["shared", "own"] = "shared"
    """Whether others may take what is free: ``shared``: starts are expected, not kept; ``own``: nobody but the broker
    launches where it does, so that what it has booked is kept."""

    pin: bool = False
    """Whether a server whose start is kept is created on the hypervisor that was booked; needs microversion 2.74 and
    its policy."""

    flavors: tuple[Word, ...] = ()
    """The flavors to offer; none: all that the project sees."""

    zones: tuple[Word, ...] = ()
    """The availability zones to use, the preferred first; none: the cloud's choice."""

    networks: tuple[Word, ...] | Literal["auto", "none"] = "auto"
    """The networks of a server, by ID."""

    security_groups: tuple[Word, ...] = ()
    key_name: Word | None = None
    """A key pair for the operators' own logins."""

    devices: dict[Word, Word] = field(
        default_factory=lambda: {"CUSTOM_GPU": "gpu", "VGPU": "gpu", "PGPU": "gpu", "PCI_DEVICE": "gpu"}
    )
    """Resource classes of placement, and what a request calls such devices."""

    connectors: Connectors = Connectors()

    volumes: VolumeSettings = VolumeSettings()

    leases: LeaseSettings | None = None
    """Which hypervisors are Blazar's; absent: none."""

    build_within: Duration = Duration(600)
    """How long a server may be in BUILD; then it is deleted."""

    boot_within: Duration = Duration(600)
    """How long from ACTIVE until our program in it has begun."""

    retry: Seconds = Seconds(60)
    """How long after a refusal for lack of room, or of quota, the next try comes, and so long no offer counts on it."""

    report_kib: Annotated[int, Meta(ge=1, le=32)] = 24
    """How much output and results a server's console carries, compressed; nova gives the last 100 KiB of a
    console, which everything is written to twice."""

    def __post_init__(self) -> None:
        if self.jobs.access != "own":
            raise ValueError("jobs.access must be own: what a job leaves comes back to the broker alone")
        if self.jobs.staging != "job":
            raise ValueError("jobs.staging must be job: the server fetches data by itself")
        if self.connectors.through != "none" and self.jobs.runtime.network == "publish":
            raise ValueError("jobs.runtime.network must be host with connectors: nobody is told what podman published")
        if self.jobs.scripts.allowed:
            raise ValueError("jobs.scripts cannot be allowed: a server has no account of the script's user")
        if self.pin and self.capacity != "own":
            raise ValueError("pin is of use only with capacity: own")
        if self.leases is not None and self.leases.offered and (self.pin or self.capacity == "own"):
            raise ValueError("leases keep what they offer: expected without pin and capacity: own")
