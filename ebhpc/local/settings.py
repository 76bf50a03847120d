"""The settings of a platform of kind ``local``."""

from __future__ import annotations

import os
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from ebhpc.staging.rules import Size, StagingRules

Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Word = Annotated[str, Meta(min_length=1)]


class Runtime(Struct, frozen=True, kw_only=True):
    """The container engine."""

    program: Word | None = None
    """podman or docker, by name or path; absent: whichever is found and works, podman first."""

    options: list[str] = []
    """Options that stand before each of its commands, as ``--root``."""

    run_options: list[str] = []
    """More options of its ``run`` command."""

    environment: dict[str, str] = {}
    """Environment variables for the engine itself, as CONTAINERS_CONF. Containers do not see them."""

    network: Literal["auto", "bridge", "none", "host"] = "auto"
    """``bridge``: the engine's own network. ``none``: no network; published ports work all the same. ``host``: the
    host's, with all that listens there. ``auto``: bridge, and none where the engine cannot make a bridge."""

    ports: Literal["auto", "forward", "publish"] = "auto"
    """How a container's port is reached: ``forward`` by a process of ebhpc, ``publish`` by the engine."""

    limits: Literal["auto", "engine", "watch"] = "auto"
    """Who keeps cores and memory: the engine, or ebhpc by looking, where a rootless engine has no control groups."""

    capabilities: tuple[Word, ...] = (
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "KILL",
        "NET_BIND_SERVICE",
        "SETGID",
        "SETUID",
    )
    """The Linux capabilities that root in a container has; all others are dropped."""

    allow_privileged: bool = False
    """Whether privileged containers run. Such a container owns this host."""

    registries: list[Word] | None = None
    """The registries that images may come from, as ``quay.io``; absent: any."""

    prune_images: bool = False
    """Whether an image is removed when the last session that needs it has ended."""


class Local(StagingRules, frozen=True, kw_only=True):
    """A platform that runs things on this host."""

    node: Word | None = None
    """The name of its one node; absent: the host's name."""

    cores: Count | None = None
    """Cores to offer; absent: all that this process may use."""

    memory_gib: Size | None = None
    """Memory to offer in GiB; absent: the host's, less ``reserve_gib``."""

    reserve_gib: Annotated[float, Meta(ge=0)] = 1.0
    """Memory in GiB that is left to the host; of a small host, at most a quarter."""

    devices: dict[Word, Count] = {}
    """Devices to offer by type, as ``gpu: 2``; where they are all of one model, ``gpu:MODEL: 2`` beside it."""

    overcommit: bool = False
    """Whether more may be offered than the host has: for tests and demonstrations."""

    processes: Count = 4096
    """The most processes and threads of one session, where control groups can keep it."""

    user: Word | None = None
    """The user that notebooks and Singularity containers run as; needs root. Absent: the broker's own."""

    environment: dict[str, str] = {}
    """Environment variables for notebooks and Singularity containers, as proxies."""

    python: Word | None = None
    """The Python interpreter that runs notebooks, with nbclient, nbconvert and ipykernel; absent: ebhpc's own."""

    kernel: Word = "python3"
    """The Jupyter kernel that runs notebooks."""

    address: Word = "127.0.0.1"
    """The address that the ports of containers are reached at."""

    advertise: Word | None = None
    """The host name in the URLs of connectors; absent: ``address``."""

    port_range: tuple[Count, Count] | None = None
    """The lowest and highest port for containers; absent: any that is free."""

    runtime: Runtime = field(default_factory=Runtime)

    apptainer: Word | None = None
    """apptainer or singularity, by name or path; absent: looked for."""

    def __post_init__(self) -> None:
        if self.port_range is not None and not self.port_range[0] <= self.port_range[1] <= 65535:
            raise ValueError("port_range: expected a lowest and a highest port, up to 65535")
        if self.user is not None and os.geteuid() != 0:
            raise ValueError("user: only root can run jobs as another user")
        super().__post_init__()
