"""What this host is able to, as the refusals of ``ebhpc.staging`` want to know it."""

from __future__ import annotations

from ebhpc.local.capacity import Host
from ebhpc.local.engine import EngineSearch
from ebhpc.local.notebooks import NotebookSearch
from ebhpc.local.payload import apptainer
from ebhpc.local.settings import Local
from ebhpc.model import (
    BatchScript,
    ClusterCompute,
    DockerContainer,
    Executable,
    JupyterNotebook,
    ReservedTime,
    Shape,
    SimpleCompute,
    SingularityContainer,
)
from ebhpc.staging.refusals import Abilities


def abilities(
    executable: Executable,
    settings: Local,
    offered: Shape,
    host: Host,
    engines: EngineSearch,
    notebooks: NotebookSearch,
) -> Abilities:
    """Declare what this host is able to; only what ``executable`` needs is looked for."""
    cannot: dict[type, str] = {}
    line_breaks = None
    if isinstance(executable, JupyterNotebook):
        reason = notebooks.reason()
        if reason is not None:
            cannot[JupyterNotebook] = reason
    elif isinstance(executable, DockerContainer):
        engine = engines.engine()
        if engine is None:
            cannot[DockerContainer] = engines.reason
        elif not engine.podman:
            line_breaks = engine.name
    elif isinstance(executable, SingularityContainer) and apptainer(settings) is None:
        cannot[SingularityContainer] = "apptainer is not installed"
    return Abilities(
        executables=(JupyterNotebook, DockerContainer, SingularityContainer, BatchScript, ReservedTime),
        cannot=cannot,
        computes=(SimpleCompute, ClusterCompute),
        most=offered,
        nodes=1,
        architecture=host.architecture,
        system=host.system,
        registries=None if settings.runtime.registries is None else tuple(settings.runtime.registries),
        privileged=settings.runtime.allow_privileged,
        udp=settings.runtime.network == "host",
        line_breaks=line_breaks,
        image_schemes=("oras", "docker", "library"),
        file_roots=tuple(settings.file_roots),
        private_networks=tuple(settings.private_networks),
        storage_gib=settings.storage_gib,
        max_download_gib=settings.max_download_gib,
        scripts=settings.scripts,
    )
