"""What the runner is to do for a session: the content of ``job.json``, a pure function of session and settings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from ebhpc.batch.access import umask
from ebhpc.batch.runtimes import IMAGE, Plan, View, docker_container, singularity_container
from ebhpc.batch.settings import JobSettings
from ebhpc.model import BatchScript, DockerContainer, JupyterNotebook, Session, SingularityContainer, SourceRule
from ebhpc.staging import notebook_runner, scripts
from ebhpc.staging.elements import NOTEBOOK_SIZE, stated_size
from ebhpc.staging.files import GIBI
from ebhpc.staging.locations import file_name, read_location
from ebhpc.staging.refusals import RESULTS
from ebhpc.staging.volumes import data_url, label, mounts, places, read_only_storage, sizes

NOTEBOOK = "stage/notebook.ipynb"
SCRIPT, LAUNCHER = f"stage/{scripts.SCRIPT}", "stage/launch.sh"
_FOLDERS = ("stage", "work/.tmp", "work/.apptainer", "output/results", "report")
_PROGRAM, _OUTCOME = "stage/notebook_runner.py", "work/.ebhpc-outcome.json"
_RUN_A_FILE = "import runpy, sys; sys.path[:] = sys.path[1:]; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
"""Runs a file without its directory, or the job's, becoming a place that modules are imported from."""

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_MAX_THREADS")


def job(
    session: Session,
    settings: JobSettings,
    *,
    seconds: float | None = None,
    node_variable: str | None = None,
    staging: str | None = None,
    command: Sequence[str] | None = None,
    data_schemes: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the content of job.json.

    ``seconds`` is the job's time limit as the runner keeps it; None: the session's duration. A firm session ends at its
    ``end``, too. ``node_variable`` names an environment variable in which the batch system says a node's name.
    ``staging`` in place of the settings'. ``command`` runs on the node itself: for executables of a plugin's own kind.
    ``data_schemes`` are those of URLs, beside http and https, whose files the batch system itself brings.

    Raises:
        LookupError: a volume names nothing.
        LocationError: a URL is none; the platform should have refused it.
    """
    executable = session.executable
    staging = staging or settings.staging
    limits = sizes(session.storage, session.data, settings)
    shut = read_only_storage(session.volumes, session.storage, session.data) if staging == "job" else ()
    wanted: dict[str, Any] = {
        "uuid": session.uuid,
        "umask": umask(settings),
        "restart": settings.restart,
        "node_variable": node_variable,
        "seconds": float(session.duration if seconds is None else seconds),
        "end": session.end if session.firm else None,
        "grace": float(settings.grace),
        "service": False,
        "hand_over": settings.access != "own",
        "transfer": {"connect": float(settings.connect_timeout), "total": float(settings.download_timeout)},
        "folders": [*_FOLDERS, *(f"storage/{at}" for at in range(len(limits)))],
        "fetch": _fetched(session, settings, data_schemes) if staging == "job" else [],
        "files": {},
        "links": [],
        "read_only": [f"storage/{at}" for at in shut],
        "steps": [],
        "after": [],
        "bundle": None,
        "directory": "work",
        "paths": ["PATH"],
        "ports": None,
        "outcome": None,
        "output": int(settings.output_gib * GIBI / 10),
        "measure": 60.0,
        "meters": _meters(session, settings, limits),
    }
    if command is not None:
        return {**wanted, "argv": list(command), "environment": _environment(session, settings)}
    if isinstance(executable, DockerContainer):
        plan = docker_container(executable, _view(session), settings.runtime, session.uuid)
        return {**wanted, **_planned(plan), **_ports(executable, plan)}
    if isinstance(executable, SingularityContainer):
        location = executable.location or ""
        ours = location.partition(":")[0].lower() not in ("http", "https", "file")
        inside = {**_quantities(session), **settings.environment, "EBHPC_RESULTS": RESULTS}
        plan = singularity_container(location if ours else None, _view(session), settings.runtime, inside)
        return {**wanted, **_planned(plan)}
    if isinstance(executable, JupyterNotebook):
        return {**wanted, **_notebook(session, executable, settings)}
    if isinstance(executable, BatchScript):
        return {**wanted, **_script(session, executable, settings)}
    raise LookupError(f"there is no way to run an executable of type {type(executable).__name__}")


def _planned(plan: Plan) -> dict[str, Any]:
    return {
        "argv": plan.argv,
        "environment": plan.environment,
        "steps": plan.steps,
        "after": plan.after,
        "files": plan.files,
        "bundle": plan.bundle,
        "paths": [],
    }


def _ports(executable: DockerContainer, plan: Plan) -> dict[str, Any]:
    """Say which ports shall be reached. One that shall not be listed cannot be found, and needs no way in."""
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
    return {"service": bool(found), "ports": {"wanted": found, "look": plan.look} if found else None}


def _view(session: Session) -> View:
    shown = [
        (f"storage/{mount.source}", mount.target, mount.read_only)
        for mount in mounts(session.volumes, session.storage, session.data)
    ]
    devices = tuple(sorted({kind for share in session.allocations for kind, n in share.devices.items() if n}))
    return View(mounts=(*shown, ("output/results", RESULTS, False)), devices=devices)


def _notebook(session: Session, executable: JupyterNotebook, settings: JobSettings) -> dict[str, Any]:
    python = settings.notebook_python or settings.python
    path = (executable.location or "").partition("#")[0].partition("?")[0]
    name = Path(file_name(path.rpartition("/")[2])).stem or "notebook"
    return {
        "argv": [
            python,
            "-c",
            _RUN_A_FILE,
            f"\0/{_PROGRAM}",
            f"\0/{NOTEBOOK}",
            f"\0/output/results/{name}",
            settings.kernel,
            f"\0/{_OUTCOME}",
        ],
        "environment": {
            **_environment(session, settings),
            "PYTHONDONTWRITEBYTECODE": "1",
            **({"PATH": os.path.dirname(python)} if python.startswith("/") else {}),
        },
        "files": {_PROGRAM: Path(notebook_runner.__file__).read_text(encoding="utf-8")},
        "links": [
            [f"work/{mount.target}", f"storage/{mount.source}"]
            for mount in mounts(session.volumes, session.storage, session.data)
        ],
        "outcome": _OUTCOME,
    }


def _script(session: Session, executable: BatchScript, settings: JobSettings) -> dict[str, Any]:
    """A script has its user's own home, as if it had been submitted by hand."""
    ours = {name: value for name, value in _environment(session, settings).items() if name not in ("HOME", "TMPDIR")}
    files = {LAUNCHER: scripts.launch_text(executable, settings.scripts)}
    if executable.script is not None:
        files[SCRIPT] = executable.script
    return {
        "argv": scripts.command(executable, f"\0/{SCRIPT}", f"\0/{LAUNCHER}"),
        "environment": {**ours, **(executable.environment or {})},
        "files": files,
        "directory": executable.directory or "work",
        "home": True,
        "links": [
            [f"work/{mount.target}", f"storage/{mount.source}"]
            for mount in mounts(session.volumes, session.storage, session.data)
        ],
    }


def _environment(session: Session, settings: JobSettings) -> dict[str, str]:
    """Return what a job that runs on the node itself has in its environment, beside the node's own."""
    return {
        "HOME": "\0/work",
        "TMPDIR": "\0/work/.tmp",
        **settings.environment,
        **_quantities(session),
        **_resources(session),
        "EBHPC_RESULTS": "\0/output/results",
    }


def _quantities(session: Session) -> dict[str, str]:
    share = session.allocations[0]
    return {
        **{name: str(share.cores) for name in _THREADS},
        "EBHPC_SESSION": session.uuid,
        "EBHPC_CORES": str(share.cores),
        "EBHPC_MEMORY_MIB": str(share.memory),
    }


def _resources(session: Session) -> dict[str, str]:
    """Return where storage and data lie, by their names."""
    found = {}
    for at, element in enumerate(session.storage):
        found[_variable(label(element, f"storage-{at}"))] = f"\0/storage/{at}"
    for place, item in zip(places(session.storage, session.data), session.data, strict=True):
        found[_variable(label(item, place.name))] = f"\0/storage/{place.storage}/{place.name}"
    return found


def _variable(name: str) -> str:
    return "EBHPC_RESOURCE_" + "".join(char if char.isascii() and char.isalnum() else "_" for char in name).upper()


def _fetched(session: Session, settings: JobSettings, data_schemes: Sequence[str]) -> list[dict[str, Any]]:
    """Return what the job fetches by URL on its node."""
    most, found = int(settings.max_download_gib * GIBI), []
    bounds = sizes(session.storage, session.data, settings)
    for at, (place, item) in enumerate(zip(places(session.storage, session.data), session.data, strict=True)):
        file, bound = f"storage/{place.storage}/{place.name}", min(most, bounds[place.storage])
        wanted = _fetch(data_url(item) or "", file, f"/data/{at}", bound, stated_size(item), data_schemes)
        found.append({**wanted, "sources": _rules(session.sources.data)})
    executable = session.executable
    if isinstance(executable, JupyterNotebook):
        bound = min(most, NOTEBOOK_SIZE)
        wanted = _fetch(executable.location or "", NOTEBOOK, "/executable/location", bound)
        found.append({**wanted, "sources": _rules(session.sources.notebooks)})
    elif isinstance(executable, SingularityContainer):
        location = executable.location or ""
        if location.partition(":")[0].lower() in ("http", "https"):
            found.append(_fetch(location, IMAGE, "/executable/location", most))
    elif isinstance(executable, BatchScript) and executable.location is not None:
        url = scripts.checked_location(executable)
        wanted = _fetch(url, SCRIPT, "/executable/location", min(most, scripts.LARGEST))
        found.append({**wanted, "sources": _rules(session.sources.notebooks)})
    return found


def _fetch(
    url: str, file: str, path: str, most: int, size: int | None = None, schemes: Sequence[str] = ()
) -> dict[str, Any]:
    location = read_location(url, (), schemes)
    try:
        encoded = str(httpx.URL(location.url))
    except httpx.InvalidURL:
        encoded = location.url  # the runner will say what is wrong with it
    return {
        "url": encoded,
        "file": file,
        "path": path,
        "checksum": location.checksum,
        "size": size,
        "most": most,
        "sources": [],
    }


def _rules(rules: Sequence[SourceRule]) -> list[tuple[str, tuple[str, ...] | None, tuple[str, ...]]]:
    return [(one.rule, one.allow, one.deny) for one in rules]


def _meters(session: Session, settings: JobSettings, limits: tuple[int, ...]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"folder": "work", "bytes": int(settings.work_gib * GIBI), "what": "its working directory"},
        {"folder": "output", "bytes": int(settings.output_gib * GIBI), "what": "its output and results"},
    ]
    for at, limit in enumerate(limits):
        name = label(session.storage[at], str(at)) if at < len(session.storage) else f"of data {at}"
        found.append({"folder": f"storage/{at}", "bytes": limit, "what": f"the storage {name}"})
    return found
