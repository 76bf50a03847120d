"""Containers that HTCondor itself runs (the container universe): pure functions of a request and the settings.

A container sees its job's scratch directory under the same path as the machine does, with ``results`` in it, and
nothing else of the session's. Sources: condor_submit(1), "Container Universe Applications" of HTCondor's manual.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ebhpc.batch import refusal
from ebhpc.model import DockerContainer, Message, MessageKind, Request, Session
from ebhpc.staging.references import read_reference
from ebhpc_htcondor.names import SERVICES
from ebhpc_htcondor.settings import HTCondorSettings

RESULTS = "results"
"""The directory in a job's scratch directory whose files are kept."""

_KIND = MessageKind.NOT_SUPPORTED
_UNSAYABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]|\$\(DOLLAR\)", re.IGNORECASE)
"""What no submit description can say: control characters, and its own word for ``$``, which it would read twice."""


def is_run_by_pool(executable: object, settings: HTCondorSettings) -> bool:
    """Whether HTCondor itself runs what a session executes."""
    return settings.containers == "universe" and isinstance(executable, DockerContainer)


def refusals(request: Request, settings: HTCondorSettings) -> Iterator[Message]:
    """Yield what of a request a container of the pool's cannot have."""
    executable = request.executable
    if not isinstance(executable, DockerContainer):
        return
    if request.data or request.volumes:
        text = "The pool's containers see the directory of their results, and neither data nor storage."
        yield refusal(_KIND, "/data" if request.data else "/compute/volumes", text)
    if executable.privileged:
        yield refusal(_KIND, "/executable/privileged", "The pool runs no privileged containers.")
    if len(ports(executable)) > len(SERVICES):
        yield refusal(_KIND, "/executable/network/ports", "At most {most} ports are reached here.", most=len(SERVICES))
    texts = {
        "/executable/entrypoint": [executable.entrypoint or ""],
        "/executable/command": executable.command or (),
        "/executable/environment": (executable.environment or {}).values(),
    }
    for path, words in texts.items():
        if any(_UNSAYABLE.search(word) for word in words):
            yield refusal(_KIND, path, "The pool cannot hand over line ends, other control characters, and $(DOLLAR).")


def ports(executable: object) -> list[int]:
    """Return the ports of a container that shall be reached; nothing else has any."""
    if not isinstance(executable, DockerContainer):
        return []
    wanted = (executable.network.ports if executable.network else None) or ()
    return [
        port.internal.port
        for port in wanted
        if port.access is not False and port.internal is not None and port.internal.port is not None
    ]


def publishes(settings: HTCondorSettings) -> bool:
    """Whether containers have a network of their own, and a free port of the machine for each of theirs."""
    return settings.jobs.runtime.network == "publish"


def requirements(executable: object, settings: HTCondorSettings) -> list[str]:
    """Return what a container asks of its machine beside what HTCondor itself does: docker alone publishes ports."""
    if is_run_by_pool(executable, settings) and publishes(settings) and ports(executable):
        return ["(TARGET.HasDocker =?= true)"]
    return []


def lines(session: Session, settings: HTCondorSettings) -> dict[str, str]:
    """Return the lines that say what is run, and how its files come back.

    Raises:
        ValueError: something cannot be said to HTCondor; the platform should have refused it.
    """
    executable = session.executable
    assert isinstance(executable, DockerContainer)
    image = executable.image
    found = [one for place in (image.locations if image else None) or () if (one := read_reference(place)) is not None]
    if not found or image is None or not image.digest:
        raise ValueError("the container has no image that can be named by its digest")
    inside = {"EBHPC_RESULTS": f"{SCRATCH_DIRECTORY}/{RESULTS}"}
    told = {
        "universe": "container",
        "container_image": f"docker://{found[0].by_digest(image.digest)}",
        "transfer_executable": "False",
        "arguments": arguments(executable.command or ()),
        "environment": environment(executable.environment or {}, inside),
        "transfer_input_files": RESULTS,
        "transfer_output_files": RESULTS,
        "output": "stdout",
        "error": "stderr",
        # HTCondor 23.9 does not keep allowed_execute_duration of these
        "periodic_hold": f"JobStatus == 2 && time() - JobCurrentStartExecutingDate > {session.duration}",
        "periodic_hold_reason": '"its time is over"',
        "periodic_hold_subcode": str(TIME_IS_OVER),
        "docker_network_type": settings.jobs.runtime.network,
    }
    if executable.entrypoint:
        told["executable"] = escaped(_plain(executable.entrypoint))
    if publishes(settings):
        del told["docker_network_type"]
    wanted = ports(executable)
    if wanted:
        told["container_service_names"] = " ".join(SERVICES[: len(wanted)])
        told |= {f"{name}_container_port": str(port) for name, port in zip(SERVICES, wanted, strict=False)}
    return told


TIME_IS_OVER = 47
"""The subcode of our own rule (HoldReasonCode 3); the number is that of HTCondor's rule for the same."""

SCRATCH_DIRECTORY = "$$(CondorScratchDir)"
"""What HTCondor puts a job's scratch directory for."""


def arguments(words: Sequence[str]) -> str:
    """Return words as condor_submit's new syntax has them, each quoted.

    Raises:
        ValueError: one cannot be said.
    """
    return f'"{escaped(_doubled(" ".join(_quoted(word) for word in words)))}"'


def environment(variables: dict[str, str], ours: dict[str, str]) -> str:
    """Return variables in condor_submit's new syntax; ``ours`` are plain words that may have macros of HTCondor's.

    Raises:
        ValueError: one cannot be said.
    """
    theirs = [_quoted(f"{name}={value}") for name, value in variables.items() if name not in ours]
    plain = " ".join(f"{name}={value}" for name, value in ours.items())
    return f'"{escaped(_doubled(" ".join(theirs)))}{" " if theirs else ""}{plain}"'


def escaped(text: str) -> str:
    """Return a text in which nothing is a macro, for condor_submit or for who fills in ``$$``."""
    pairs = text.replace("$$", "\0")
    return pairs.replace("$", "$(DOLLAR)").replace("\0", "$$(DOLLARDOLLAR)")


def _doubled(text: str) -> str:
    return text.replace('"', '""')


def _quoted(word: str) -> str:
    quoted = _plain(word).replace("'", "''")
    return f"'{quoted}'"


def _plain(word: str) -> str:
    if _UNSAYABLE.search(word):
        raise ValueError("a word has a control character, or $(DOLLAR)")
    return word
