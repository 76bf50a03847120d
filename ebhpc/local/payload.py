"""Writes job.json: what the supervisor is to do for a session, and nothing that it would have to find out."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import sys
from pathlib import Path
from typing import Any

from ebhpc.local.capacity import Host
from ebhpc.local.engine import Engine
from ebhpc.local.places import SessionDirectory
from ebhpc.local.processes import MARK
from ebhpc.local.settings import Local
from ebhpc.model import BatchScript, DockerContainer, JupyterNotebook, Session, SimpleVolume, SingularityContainer
from ebhpc.staging import notebook_runner, scripts
from ebhpc.staging.files import GIBI, MEBI
from ebhpc.staging.locations import file_name
from ebhpc.staging.refusals import RESULTS, fits_a_line
from ebhpc.staging.volumes import label, mounts, places, sizes

NOTEBOOK = "notebook.ipynb"
IMAGE = "image.sif"
LAUNCHER = "launch.sh"

_RUN_A_FILE = "import runpy, sys; sys.path[:] = sys.path[1:]; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
"""Runs a file without its directory, or the job's, becoming a place that modules are imported from."""

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_MAX_THREADS")


def job(
    session: Session,
    directory: SessionDirectory,
    settings: Local,
    host: Host,
    engine: Engine | None,
    platform: str,
    claims: Path,
) -> dict[str, Any]:
    """Return the content of job.json.

    Raises:
        LookupError: a volume names nothing, or no image was prepared.
    """
    share = session.allocations[0]
    executable = session.executable
    wanted: dict[str, Any] = {
        "uuid": directory.uuid,
        "directory": str(directory.work),
        "cores": share.cores,
        "core_choices": list(host.cores),
        "memory": share.memory * MEBI,
        "processes": settings.processes,
        "devices": {
            kind: {"count": count, "have": settings.devices.get(kind, 0)}
            for kind, count in share.devices.items()
            if ":" not in kind  # those of a model are counted without it too
        },
        "claims": str(claims),
        "end": session.end,
        "grace": float(settings.grace),
        "service": False,
        "group": True,
        "watch_memory": True,
        "work": int(settings.work_gib * GIBI),
        "output": int(settings.output_gib * GIBI),
        "meters": _meters(session, directory, settings),
        "keep": _kept(session, settings),
        "binds": [],
        "user": None,
        "container": None,
        "outcome": None,
    }
    if isinstance(executable, DockerContainer):
        if engine is None:
            raise LookupError("there is no container engine")
        wanted |= _container(session, executable, directory, settings, host, engine, platform)
        return wanted
    environment = _environment(session, directory, settings, share.cores)
    wanted["user"] = account(settings)
    if isinstance(executable, JupyterNotebook):
        outcome = directory.work / ".ebhpc-outcome.json"
        python = settings.python or sys.executable
        name = Path(file_name((executable.location or "").partition("#")[0].partition("?")[0].rpartition("/")[2]))
        wanted |= {
            "argv": [
                python,
                "-c",
                _RUN_A_FILE,
                str(Path(notebook_runner.__file__)),
                str(directory.stage / NOTEBOOK),
                str(directory.results / (name.stem or "notebook")),
                settings.kernel,
                str(outcome),
            ],
            "environment": {
                **environment,
                "PATH": f"{os.path.dirname(python)}:{environment['PATH']}",
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            "outcome": str(outcome),
            "binds": _binds(session, directory) if os.geteuid() == 0 else [],
        }
    elif isinstance(executable, SingularityContainer):
        wanted |= _singularity(session, directory, settings, environment)
    elif isinstance(executable, BatchScript):
        wanted |= {
            "argv": scripts.command(executable, str(directory.work / scripts.SCRIPT), str(directory.stage / LAUNCHER)),
            "environment": {**environment, **(executable.environment or {})},
            "directory": executable.directory or str(directory.work),
            "binds": _binds(session, directory) if os.geteuid() == 0 else [],
        }
    return wanted


def account(settings: Local) -> dict[str, Any] | None:
    """Return the numbers of the user that jobs run as; None: the broker's own.

    Raises:
        KeyError: this host has no such user.
    """
    if settings.user is None:
        return None
    entry = pwd.getpwnam(settings.user)
    groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
    return {"uid": entry.pw_uid, "gid": entry.pw_gid, "groups": groups}


def engine_variables(executable: DockerContainer, engine: Engine) -> tuple[dict[str, str], dict[str, str]]:
    """Split a container's environment: what goes into a file of lines, and what must go in as secrets.

    An engine reads its file line by line, so a value with a line break does not survive there.
    """
    plain: dict[str, str] = {}
    secret: dict[str, str] = {}
    for name, value in (executable.environment or {}).items():
        (plain if fits_a_line(value) else secret)[name] = value
    return plain, secret if engine.podman else {}


def secret_name(directory: SessionDirectory, at: int) -> str:
    """Return the name of a secret of a session."""
    return f"{directory.name}-{at}"


def apptainer(settings: Local) -> str | None:
    """Return the path of apptainer, or of singularity; None where there is none."""
    for name in (settings.apptainer,) if settings.apptainer else ("apptainer", "singularity"):
        program = shutil.which(name)
        if program is not None:
            return program
    return None


def _container(
    session: Session,
    executable: DockerContainer,
    directory: SessionDirectory,
    settings: Local,
    host: Host,
    engine: Engine,
    platform: str,
) -> dict[str, Any]:
    runtime = settings.runtime
    share = session.allocations[0]
    _, secrets = engine_variables(executable, engine)
    by_engine = runtime.limits == "engine" or (runtime.limits == "auto" and not engine.rootless)
    words = [
        *engine.command,
        "run",
        *("--name", directory.name),
        *("--label", f"ebhpc.session={directory.uuid}"),
        *("--label", f"ebhpc.platform={platform}"),
        *("--pull", "never"),
        *("--log-driver", "none"),
        *("--env-file", str(directory.stage / "environment")),
    ]
    for at, name in enumerate(secrets):
        words += ["--secret", f"{secret_name(directory, at)},type=env,target={name}"]
    if by_engine:
        cores = min(share.cores, len(host.cores))
        words += ["--cpus", str(cores), "--pids-limit", str(settings.processes)]
        words += ["--memory", f"{share.memory}m", "--memory-swap", f"{share.memory}m"]
    if executable.privileged:
        words += ["--privileged"]
    else:
        words += ["--security-opt", "no-new-privileges", "--cap-drop", "all"]
        words += [f"--cap-add={capability}" for capability in runtime.capabilities]
    for mount in mounts(session.volumes, session.storage, session.data):
        words += ["--mount", _mount_words(directory.storage / mount.source, mount.target, mount.read_only)]
    words += ["--mount", _mount_words(directory.results, RESULTS, read_only=False)]
    if executable.entrypoint is not None:
        # podman reads a list, and so does not take an entrypoint for one that only looks like it
        entrypoint = executable.entrypoint
        words += [f"--entrypoint={json.dumps([entrypoint]) if engine.podman and entrypoint else entrypoint}"]
    words += runtime.run_options
    networks = {"auto": ["bridge", "none"]}.get(runtime.network, [runtime.network])
    low, high = settings.port_range or (0, 0)
    how = runtime.ports if runtime.ports != "auto" else "forward" if engine.forwards else "publish"
    wanted = _wanted_ports(executable)
    return {
        "argv": words,
        "environment": engine.environment,
        "service": bool(wanted),
        "group": False,
        "watch_memory": not by_engine,
        "container": {
            "engine": engine.command,
            "environment": engine.environment,
            "podman": engine.podman,
            "name": directory.name,
            "secrets": [secret_name(directory, at) for at in range(len(secrets))],
            "networks": networks,
            "tail": [_image(directory), *(executable.command or ())],
            "ports": {
                "wanted": wanted,
                "address": settings.address,
                "advertise": settings.advertise or settings.address,
                "low": low,
                "high": high,
                "how": how,
            },
        },
    }


def _image(directory: SessionDirectory) -> str:
    try:
        return str(json.loads(directory.image.read_text(encoding="utf-8"))["name"])
    except FileNotFoundError:
        raise LookupError("no image was prepared") from None


def _wanted_ports(executable: DockerContainer) -> list[dict[str, Any]]:
    """Return the ports to reach. One that shall not be listed cannot be found, and needs no way in."""
    found = []
    for port in (executable.network.ports if executable.network else None) or ():
        if port.access is not False and port.internal is not None and port.internal.port is not None:
            path = port.path or ""
            found.append(
                {
                    "port": port.internal.port,
                    "protocol": port.protocol or "TCP",
                    "path": path if path.startswith("/") or not path else f"/{path}",
                }
            )
    return found


def _mount_words(source: Path, target: str, read_only: bool) -> str:
    words = f"type=bind,source={source},target={target}"
    return f"{words},readonly" if read_only else words


def _singularity(
    session: Session, directory: SessionDirectory, settings: Local, environment: dict[str, str]
) -> dict[str, Any]:
    program = apptainer(settings)
    if program is None:
        raise LookupError("there is no apptainer")
    words = [program, "run", "--containall", "--no-home", "--pwd", "/"]
    for mount in mounts(session.volumes, session.storage, session.data):
        mode = "ro" if mount.read_only else "rw"
        words += ["--bind", f"{directory.storage / mount.source}:{mount.target}:{mode}"]
    words += ["--bind", f"{directory.results}:{RESULTS}:rw", str(directory.stage / IMAGE)]
    inside = {name: value for name, value in environment.items() if name.startswith(("EBHPC_", "OMP_"))}
    inside |= {**settings.environment, "EBHPC_RESULTS": RESULTS}
    return {
        "argv": words,
        "environment": {**environment, **{f"APPTAINERENV_{name}": value for name, value in inside.items()}},
    }


def _environment(session: Session, directory: SessionDirectory, settings: Local, cores: int) -> dict[str, str]:
    """Return the environment of a job that runs on the host: nothing of the broker's own."""
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    found = {
        "PATH": path,
        "HOME": str(directory.work),
        "TMPDIR": str(directory.work / ".tmp"),
        "LANG": "C.UTF-8",
        **{name: str(cores) for name in _THREADS},
        **settings.environment,
        MARK: directory.uuid,
        "EBHPC_CORES": str(cores),
        "EBHPC_MEMORY_MIB": str(session.allocations[0].memory),
        "EBHPC_RESULTS": str(directory.results),
    }
    for at, element in enumerate(session.storage):
        found[_variable(label(element, f"storage-{at}"))] = str(directory.storage / str(at))
    for place, item in zip(places(session.storage, session.data), session.data, strict=True):
        found[_variable(label(item, place.name))] = str(directory.storage / str(place.storage) / place.name)
    return found


def _variable(name: str) -> str:
    return "EBHPC_RESOURCE_" + "".join(char if char.isascii() and char.isalnum() else "_" for char in name).upper()


def _meters(session: Session, directory: SessionDirectory, settings: Local) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {
            "path": str(directory.work),
            "bytes": int(settings.work_gib * GIBI),
            "what": "its working directory",
        },
        {
            "path": str(directory.output),
            "bytes": int(settings.output_gib * GIBI),
            "what": "its output and results",
        },
    ]
    for at, limit in enumerate(sizes(session.storage, session.data, settings)):
        name = label(session.storage[at], str(at)) if at < len(session.storage) else f"of data {at}"
        found.append({"path": str(directory.storage / str(at)), "bytes": limit, "what": f"the storage {name}"})
    return found


def _kept(session: Session, settings: Local) -> list[dict[str, Any]]:
    """Return the storage elements that some volume may write to: what is there at the end is a result."""
    if not settings.keep_storage:
        return []
    found = []
    for at, element in enumerate(session.storage):
        names = [] if element.meta is None else [element.meta.name, element.meta.uuid]
        if any(
            isinstance(volume, SimpleVolume)
            and volume.mode == "READWRITE"
            and volume.resource is not None
            and volume.resource in names
            for volume in session.volumes
        ):
            found.append({"index": at, "what": f"The storage {label(element, str(at))}"})
    return found


def _binds(session: Session, directory: SessionDirectory) -> list[dict[str, Any]]:
    return [
        {
            "source": str(directory.storage / mount.source),
            "target": str(directory.work / mount.target),
            "read_only": mount.read_only,
        }
        for mount in mounts(session.volumes, session.storage, session.data)
    ]
