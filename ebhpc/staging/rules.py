"""The settings that every platform has which runs sessions in directories: what is fetched, and how much is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from ebhpc.config import Network, Seconds
from ebhpc.staging.scripts import ScriptRules

Size = Annotated[float, Meta(gt=0, le=1_000_000)]


class StagingRules(Struct, frozen=True, kw_only=True):
    """A base for a platform's settings."""

    file_roots: list[Path] = []
    """Directories on the broker's host that ``file:`` URLs may name files in; absent: no such URLs."""

    private_networks: list[Network] = []
    """Networks that are not public, as ``10.1.0.0/16``, that URLs may lead to; absent: only public addresses."""

    storage_gib: Size = 100.0
    """The most storage in GiB that one session gets, all its storage elements together."""

    default_storage_gib: Size = 10.0
    """The size in GiB of a storage element that names none."""

    work_gib: Size = 10.0
    """The most that a job may leave in its working directory, or in a container's own file system, in GiB."""

    output_gib: Size = 10.0
    """The most that is kept of one session's output, result files and kept storage, in GiB."""

    max_download_gib: Size = 100.0
    """The largest file in GiB that is fetched from a URL."""

    connect_timeout: Seconds = Seconds(10)
    """How long connecting to a URL's server, or one pause while reading, may take."""

    download_timeout: Seconds = Seconds(6 * 3600)
    """How long fetching one file or image may take in all."""

    keep_storage: bool = True
    """Whether what a job writes to READWRITE storage is kept among its results; staged data is not."""

    grace: Seconds = Seconds(10)
    """How long a job may take to end after SIGTERM, before SIGKILL."""

    scripts: ScriptRules = ScriptRules()
    """What batch scripts may do."""

    def __post_init__(self) -> None:
        for root in self.file_roots:
            if not root.is_absolute():
                raise ValueError(f"file_roots: expected absolute paths, got {root}")
