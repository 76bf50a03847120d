"""The settings that every batch-system plugin has for its jobs: a block ``jobs:`` within the plugin's own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from ebhpc.staging.rules import StagingRules

Word = Annotated[str, Meta(min_length=1)]

_PLAIN_PATH = re.compile(r"/[A-Za-z0-9._+/-]*")


class ContainerRuntime(Struct, frozen=True, kw_only=True):
    """What runs containers on the nodes."""

    kind: Literal["apptainer", "podman", "oci", "pyxis", "none"] = "apptainer"
    """``apptainer`` (also singularity), ``podman`` (rootless), ``oci``: an unpacked bundle given to ``oci_command``,
    ``pyxis``: srun with NVIDIA's plugin for enroot. ``none``: containers are refused."""

    program: Word | None = None
    """The program, by name or path on the nodes; absent: apptainer, podman, or srun."""

    options: list[str] = []
    """Options that stand before each of its commands."""

    pull_options: list[str] = []
    """More options for fetching an image: of apptainer's and podman's ``pull``, or, for ``oci``, skopeo's ``copy``."""

    run_options: list[str] = []
    """More options for running a container, as ``--writable-tmpfs`` or ``--cgroups=disabled``."""

    device_options: dict[Word, list[str]] = {}
    """More options where a session has devices, by their type, as ``gpu: [--nv]``."""

    environment: dict[str, str] = {}
    """Environment variables for the runtime itself, as APPTAINER_CACHEDIR. Containers do not see them."""

    oci_command: tuple[Word, ...] = ("runc", "run", "--bundle", "{bundle}", "{name}")
    """Runs a bundle: ``{bundle}`` is its directory, ``{name}`` a name of the session's own; a word ``{command}`` stands
    for the container's command, for what wants to be told it although the bundle has it, as srun."""

    oci_end: tuple[Word, ...] = ("runc", "delete", "--force", "{name}")
    """Takes away what ``oci_command`` may have left running, ``{name}`` as there; empty: nothing is left."""

    network: Literal["host", "publish", "none"] = "host"
    """``host``: the node's network; a container's port is the node's. ``publish``: podman's own network, and a free
    port of the node for each of the container's. ``none``: no network."""

    capabilities: tuple[Word, ...] = (
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "KILL",
        "NET_BIND_SERVICE",
        "SETGID",
        "SETUID",
    )
    """The Linux capabilities that root in a container of podman's has; all others are dropped."""

    allow_privileged: bool = False
    """Whether privileged containers run, as far as the job's own user can have them."""

    registries: list[Word] | None = None
    """The registries that images may come from, as ``quay.io``; absent: any."""

    def __post_init__(self) -> None:
        if not self.oci_command:
            raise ValueError("oci_command: expected a program and its arguments")
        if self.network == "publish" and self.kind != "podman":
            raise ValueError("network: only podman can publish ports")
        if self.kind == "pyxis" and self.network == "none":
            raise ValueError("network: pyxis containers have the node's network")


class JobSettings(StagingRules, frozen=True, kw_only=True):
    """How sessions become jobs."""

    root: Path
    """The directory that holds the sessions' directories: the same on the broker's host and on all nodes."""

    access: Literal["acl", "group", "own"] = "acl"
    """How the user whose job it is gets into the session's directory, which is the broker's: ``acl``: an access control
    list that names the user; ``group``: a group that nobody but the user and the broker is in; ``own``: jobs run as the
    broker's own account."""

    group: Word = "{user}"
    """For ``access: group``, the name of that group; ``{user}`` is the user's name."""

    staging: Literal["broker", "job"] = "broker"
    """Who fetches data, notebooks and Singularity images: the broker before the job, or the job on its node."""

    python: Word = "python3"
    """The Python on the nodes that runs jobs: 3.8 or newer, nothing but its standard library."""

    setup: str = ""
    """Lines of shell that each job's script begins with, as ``module load apptainer``."""

    restart: bool = False
    """Whether a job that the batch system starts a second time, as after the loss of a node, runs from its beginning
    once more; absent: it ends with exit code 75."""

    runtime: ContainerRuntime = field(default_factory=ContainerRuntime)

    notebooks: bool = True
    """Whether notebooks run; needs nbclient, nbconvert and ipykernel on the nodes."""

    notebook_python: Word | None = None
    """The Python on the nodes that has these; absent: ``python``."""

    kernel: Word = "python3"
    """The Jupyter kernel that runs notebooks."""

    environment: dict[str, str] = {}
    """Environment variables for notebooks and Singularity containers, as proxies."""

    architecture: Word = "amd64"
    """The nodes' architecture, in the words of container images."""

    domain: str = ""
    """Added to a node's name in the URLs of connectors, as ``.cluster.example.org``."""

    def __post_init__(self) -> None:
        if not _PLAIN_PATH.fullmatch(str(self.root)) or ".." in self.root.parts:
            raise ValueError("root: expected an absolute path of letters, digits and ._+-/")
        super().__post_init__()

    @property
    def margin(self) -> float:
        """Seconds that the batch system's limit should be above the job's own, so that the runner ends it first."""
        return float(self.grace) + 30.0
