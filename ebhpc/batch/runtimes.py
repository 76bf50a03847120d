"""How each container runtime is told what to run: argument vectors, as pure functions of a request and the settings.

In a word NUL stands for the session's directory (``ebhpc.batch.runner`` puts it in): no word of a user's has one.
Sources: apptainer(1) run, exec and pull; podman-run(1); the README of pyxis; skopeo-copy(1), umoci-unpack(1).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from ebhpc.batch.settings import ContainerRuntime
from ebhpc.model import DockerContainer, MessageKind
from ebhpc.staging.references import Reference, read_reference
from ebhpc.staging.refusals import RESULTS, fits_a_line

IMAGE = "stage/image.sif"
"""Where a Singularity image lies in the session's directory."""

CHOSEN = "\0\0"
"""A word that stands for the image that a step has fetched."""

COMMAND = "\0\0\0"
"""A word that stands for the words of a bundle's command."""

_LAYOUT, _BUNDLE, _VARIABLES = "stage/oci", "stage/bundle", "stage/environment"


class View(Struct, frozen=True, kw_only=True):
    """What a container sees: ``mounts`` as (source below the session's directory, target, read-only)."""

    mounts: tuple[tuple[str, str, bool], ...]
    devices: tuple[str, ...] = ()


class Plan(Struct, frozen=True, kw_only=True):
    """What the runner does for a container; the fields are those of ``job.json``."""

    argv: list[str]
    environment: dict[str, str]
    steps: list[dict[str, Any]] = []
    after: list[list[str]] = []
    files: dict[str, str] = {}
    look: list[str] | None = None
    bundle: dict[str, Any] | None = None


def program(runtime: ContainerRuntime) -> str:
    """Return the runtime's program."""
    return runtime.program or {"apptainer": "apptainer", "podman": "podman", "pyxis": "srun"}.get(
        runtime.kind, "skopeo"
    )


def docker_container(executable: DockerContainer, view: View, runtime: ContainerRuntime, uuid: str) -> Plan:
    """Say how a container runs, its image fetched by digest from the first location that has it."""
    plans: dict[str, Callable[[DockerContainer, View, ContainerRuntime, str], Plan]] = {
        "apptainer": _apptainer,
        "podman": _podman,
        "oci": _oci,
        "pyxis": _pyxis,
    }
    return plans[runtime.kind](executable, view, runtime, uuid)


def singularity_container(
    location: str | None, view: View, runtime: ContainerRuntime, environment: dict[str, str]
) -> Plan:
    """Say how a Singularity image runs; ``location`` is given where apptainer itself fetches it on the node."""
    steps = [] if location is None else [_apptainer_pull([location], runtime, location)]
    argv = [*_apptainer_words("run", view, runtime), f"\0/{IMAGE}"]
    return Plan(argv=argv, environment=_inside(runtime, environment), steps=steps)


def _references(executable: DockerContainer) -> list[Reference]:
    image = executable.image
    found = [read_reference(location) for location in (image.locations if image else None) or ()]
    return [reference for reference in found if reference is not None]


def _names(executable: DockerContainer) -> list[str]:
    """Return the image's names by digest, one for each of its locations."""
    digest = (executable.image.digest if executable.image else None) or ""
    return [reference.by_digest(digest) for reference in _references(executable)]


def _step(
    ways: Sequence[Sequence[str]],
    environment: dict[str, str],
    template: str = "The image {image} cannot be fetched: {why}",
    stdin: str = "",
    images: Sequence[str] = (),
    **values: str,
) -> dict[str, Any]:
    return {
        "ways": [list(way) for way in ways],
        "images": list(images),
        "environment": environment,
        "stdin": stdin,
        "kind": str(MessageKind.RESOURCE_NOT_FOUND),
        "template": template,
        "values": values,
    }


def _command(executable: DockerContainer) -> list[str]:
    """Return the words of an entrypoint that replaces the image's, and of the command."""
    return [*([executable.entrypoint] if executable.entrypoint else []), *(executable.command or ())]


# --- apptainer ---------------------------------------------------------------------------------------------------


def _apptainer(executable: DockerContainer, view: View, runtime: ContainerRuntime, uuid: str) -> Plan:
    names = [f"docker://{name}" for name in _names(executable)]
    words = _command(executable)
    # Without --no-eval a shell would have its way with $ and ` in commands and variables
    verb = "exec" if executable.entrypoint is not None and words else "run"
    argv = [*_apptainer_words(verb, view, runtime), "--no-eval", f"\0/{IMAGE}", *words]
    steps = [_apptainer_pull(names, runtime, names[0] if names else "")]
    return Plan(argv=argv, environment=_inside(runtime, executable.environment or {}), steps=steps)


def _apptainer_words(verb: str, view: View, runtime: ContainerRuntime) -> list[str]:
    words = [program(runtime), *runtime.options, verb, "--containall", "--no-home", "--no-umask", "--pwd", "/"]
    words += ["--workdir", "\0/work/.apptainer"]
    if runtime.network == "none":
        words += ["--net", "--network", "none"]
    for source, target, read_only in view.mounts:
        words += ["--bind", f"\0/{source}:{target}:{'ro' if read_only else 'rw'}"]
    return [*words, *_device_options(view, runtime), *runtime.run_options]


def _apptainer_pull(names: Sequence[str], runtime: ContainerRuntime, image: str) -> dict[str, Any]:
    pull = [program(runtime), *runtime.options, "pull", "--force", *runtime.pull_options, f"\0/{IMAGE}"]
    return _step([[*pull, name] for name in names], _apptainer_places(runtime), image=image)


def _apptainer_places(runtime: ContainerRuntime) -> dict[str, str]:
    return {"APPTAINER_TMPDIR": "\0/work/.tmp", "SINGULARITY_TMPDIR": "\0/work/.tmp", **runtime.environment}


def _inside(runtime: ContainerRuntime, environment: dict[str, str]) -> dict[str, str]:
    """Return the environment of apptainer itself, by which it is told the container's."""
    prefix = "SINGULARITYENV_" if Path(program(runtime)).name == "singularity" else "APPTAINERENV_"
    inside = {"EBHPC_RESULTS": RESULTS, **environment}
    return {**_apptainer_places(runtime), **{f"{prefix}{name}": value for name, value in inside.items()}}


def _device_options(view: View, runtime: ContainerRuntime) -> list[str]:
    return [word for device in view.devices for word in runtime.device_options.get(device, ())]


# --- podman ------------------------------------------------------------------------------------------------------


def _podman(executable: DockerContainer, view: View, runtime: ContainerRuntime, uuid: str) -> Plan:
    engine, name, names = [program(runtime), *runtime.options], f"ebhpc-{uuid}", _names(executable)
    platform = executable.image.platform if executable.image else None
    system, built = (platform.os if platform else None), (platform.architecture if platform else None)
    build = f"{system or 'linux'}/{built or 'amd64'}"
    pull = [*engine, "pull", "--quiet", "--platform", build, *runtime.pull_options]
    steps = [_step([[*pull, image] for image in names], runtime.environment, images=names, image="".join(names[:1]))]
    words = [*engine, "run", "--name", name, "--label", f"ebhpc.session={uuid}", "--log-driver", "none"]
    words += ["--env-file", f"\0/{_VARIABLES}"]
    lines, after = [f"EBHPC_RESULTS={RESULTS}\n"], [[*engine, "rm", "--force", "--time", "0", "--volumes", name]]
    for at, (variable, value) in enumerate((executable.environment or {}).items()):
        if fits_a_line(value):
            lines.append(f"{variable}={value}\n")
            continue
        secret = f"{name}-{at}"
        words += ["--secret", f"{secret},type=env,target={variable}"]
        make = [*engine, "secret", "create", secret, "-"]
        failed = "The variable {name} cannot be handed over: {why}"
        steps.append(_step([make], runtime.environment, failed, stdin=value, name=variable))
        after.append([*engine, "secret", "rm", secret])
    if executable.privileged:
        words += ["--privileged"]
    else:
        words += ["--security-opt", "no-new-privileges", "--cap-drop", "all"]
        words += [f"--cap-add={capability}" for capability in runtime.capabilities]
    for source, target, read_only in view.mounts:
        words += ["--mount", f"type=bind,source=\0/{source},target={target}{',readonly' if read_only else ''}"]
    if executable.entrypoint is not None:
        # A list, so that an entrypoint that looks like one is not taken for it
        words += [f"--entrypoint={json.dumps([executable.entrypoint]) if executable.entrypoint else ''}"]
    ports = tuple((executable.network.ports if executable.network else None) or ())
    if runtime.network == "publish":
        numbers = [port.internal.port for port in ports if port.internal is not None and port.access is not False]
        words += [f"--publish={number}" for number in numbers]
    else:
        words += ["--network", runtime.network]
    words += [*_device_options(view, runtime), *runtime.run_options]
    return Plan(
        argv=[*words, "--pull", "never", CHOSEN, *(executable.command or ())],
        environment=dict(runtime.environment),
        steps=steps,
        after=after,
        files={_VARIABLES: "".join(lines)},
        look=[*engine, "port", name] if runtime.network == "publish" else None,
    )


# --- OCI bundles -------------------------------------------------------------------------------------------------


def _oci(executable: DockerContainer, view: View, runtime: ContainerRuntime, uuid: str) -> Plan:
    names = [f"docker://{name}" for name in _names(executable)]
    copy = [program(runtime), *runtime.options, "copy", "--quiet", *runtime.pull_options]
    unpack = ["umoci", "unpack", "--rootless", "--image", f"\0/{_LAYOUT}:image", f"\0/{_BUNDLE}"]
    steps = [
        _step(
            [[*copy, name, f"oci:\0/{_LAYOUT}:image"] for name in names], runtime.environment, image="".join(names[:1])
        ),
        _step([unpack], runtime.environment, "The image cannot be unpacked: {why}"),
    ]
    entrypoint = executable.entrypoint
    bundle = {
        "folder": _BUNDLE,
        "layout": _LAYOUT,
        "entrypoint": None if entrypoint is None else [entrypoint] if entrypoint else [],
        "command": list(executable.command or ()),
        "environment": {"EBHPC_RESULTS": RESULTS, **(executable.environment or {})},
        "mounts": [[f"\0/{source}", target, read_only] for source, target, read_only in view.mounts],
        "host_network": runtime.network == "host",
    }
    places = {"bundle": f"\0/{_BUNDLE}", "name": f"ebhpc-{uuid}"}
    argv, end = (
        [
            COMMAND
            if word == "{command}"
            else word.replace("{bundle}", places["bundle"]).replace("{name}", places["name"])
            for word in given
        ]
        for given in (runtime.oci_command, runtime.oci_end)
    )
    after = [end] if end else []
    return Plan(argv=argv, environment=dict(runtime.environment), steps=steps, after=after, bundle=bundle)


# --- pyxis -------------------------------------------------------------------------------------------------------


def _pyxis(executable: DockerContainer, view: View, runtime: ContainerRuntime, uuid: str) -> Plan:
    reference = next(iter(_references(executable)))
    digest = (executable.image.digest if executable.image else None) or ""
    environment = {"EBHPC_RESULTS": RESULTS, **(executable.environment or {})}
    mounts = ",".join(f"\0/{source}:{target}:{'ro' if ro else 'rw'}" for source, target, ro in view.mounts)
    words = [program(runtime), *runtime.options, "--no-container-mount-home", "--container-writable"]
    words += [f"--container-image={reference.registry}#{reference.path}@{digest}"]
    words += [f"--container-mounts={mounts}", f"--container-env={','.join(environment)}"]
    words += ["--container-entrypoint" if executable.entrypoint is None else "--no-container-entrypoint"]
    words += [*_device_options(view, runtime), *runtime.run_options]
    return Plan(argv=[*words, *_command(executable)], environment={**environment, **runtime.environment})
