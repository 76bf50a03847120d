"""What jobs with these settings are able to, as the refusals of ``ebhpc.staging`` want to know it."""

from __future__ import annotations

from collections.abc import Collection
from importlib.util import find_spec

from ebhpc.batch.settings import JobSettings
from ebhpc.model import (
    BatchScript,
    ClusterCompute,
    DockerContainer,
    JupyterNotebook,
    ReservedTime,
    Shape,
    SimpleCompute,
    SingularityContainer,
)
from ebhpc.staging.refusals import Abilities


def abilities(
    settings: JobSettings,
    *,
    devices: Collection[str] = (),
    computes: tuple[type, ...] = (SimpleCompute, ClusterCompute),
    executables: tuple[type, ...] = (),
    spread: tuple[type, ...] = (),
    most: Shape | None = None,
) -> Abilities:
    """Declare what jobs are able to.

    ``devices`` are the types of devices that the nodes have, ``most`` the largest node (None: not known), ``computes``
    what the plugin understands, ``executables`` what it runs beside the standard's: of those several nodes may be asked
    for, which containers and notebooks could not use; of the others so for those in ``spread``. Time for its user
    (``ReservedTime``) is refused unless it is among ``executables``.
    """
    runtime = settings.runtime
    cannot: dict[type, str] = {}
    if not settings.notebooks:
        cannot[JupyterNotebook] = "its nodes have nothing to run them with"
    elif settings.staging == "broker" and find_spec("nbformat") is None:
        cannot[JupyterNotebook] = "ebhpc[notebook] is not installed beside the broker"
    if runtime.kind == "none":
        cannot[DockerContainer] = "its nodes have no container runtime"
    if runtime.kind != "apptainer":
        cannot[SingularityContainer] = "its nodes have no apptainer"
    if ReservedTime not in executables:
        cannot[ReservedTime] = "it keeps a start for a job, not time for its user"
    return Abilities(
        executables=(DockerContainer, SingularityContainer, JupyterNotebook, BatchScript, ReservedTime, *executables),
        cannot=cannot,
        computes=computes,
        spread=(*spread, *executables),
        most=most,
        architecture=settings.architecture,
        registries=None if runtime.registries is None else tuple(runtime.registries),
        privileged=runtime.allow_privileged and runtime.kind == "podman",
        udp=runtime.network == "host",
        ports="containers here have no network" if runtime.network == "none" else None,
        container_devices=tuple(devices),
        shell_names=runtime.kind in ("apptainer", "pyxis"),
        needs_command=runtime.kind == "pyxis",
        image_schemes=("docker", "oras", "library"),
        file_roots=tuple(settings.file_roots) if settings.staging == "broker" else (),
        private_networks=tuple(settings.private_networks) if settings.staging == "broker" else None,
        storage_gib=settings.storage_gib,
        max_download_gib=settings.max_download_gib,
        scripts=settings.scripts,
    )
