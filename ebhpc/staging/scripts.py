"""Batch scripts: what a site lets them do, why one cannot run here, and how it is started."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Annotated

from msgspec import Meta, Struct

from ebhpc.model import BatchScript, Message, MessageKind, message
from ebhpc.model.structure import pointer

SCRIPT = "script"
"""The file of the script, in the directory that takes what a session fetches."""

LARGEST = 4 * 2**20
"""The largest script, in bytes, that is fetched."""

_SHELL_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class ScriptRules(Struct, frozen=True, kw_only=True):
    """What batch scripts may do here."""

    allowed: bool = False
    """Whether batch scripts run at all: they are programs of their users, outside of any container."""

    modules: list[Annotated[str, Meta(min_length=1)]] = []
    """The modules that a script may ask for, as ``gcc/*``; ``*`` and ``?`` stand for letters, ``/`` included."""

    module_setup: str = ". /etc/profile.d/modules.sh"
    """Lines of shell that make ``module load`` work on a node."""

    directories: list[Annotated[str, Meta(pattern=r"\A/")]] | None = None
    """The directories that a script may ask to run in, or below; absent: any that its Unix user can enter."""


def script_refusals(script: BatchScript, rules: ScriptRules) -> Iterator[Message]:
    """Yield every reason why a script cannot run by these rules."""
    if not rules.allowed:
        yield _refusal(MessageKind.POLICY_REFUSED, "/executable/kind", "This platform runs no batch scripts.")
        return
    for place, module in enumerate(script.modules or ()):
        if not any(fnmatchcase(module, pattern) for pattern in rules.modules):
            yield _refusal(
                MessageKind.POLICY_REFUSED,
                pointer("/executable/modules", place),
                "The module {module} is not among those that scripts may load here: {allowed}.",
                module=module,
                allowed=", ".join(rules.modules) or "none",
            )
    if script.directory is not None and rules.directories is not None:
        below = [one.rstrip("/") for one in rules.directories]
        if not any(script.directory == one or script.directory.startswith(f"{one}/") for one in below):
            yield _refusal(
                MessageKind.POLICY_REFUSED,
                "/executable/directory",
                "Scripts do not run in {directory} here; they may in {allowed}.",
                directory=script.directory,
                allowed=", ".join(rules.directories),
            )
    for name in script.environment or {}:
        path = pointer("/executable/environment", name)
        if not _SHELL_VARIABLE.fullmatch(name):
            yield _refusal(MessageKind.INVALID_VALUE, path, "{name} is no name for a variable of a shell.", name=name)
        elif name.startswith("EBHPC_"):
            yield _refusal(MessageKind.POLICY_REFUSED, path, "{name} is the broker's to set.", name=name)
    yield from _unreadable(script)


def _unreadable(script: BatchScript) -> Iterator[Message]:
    """What cannot be written as UTF-8 cannot be handed to a process."""
    texts = [("/executable/script", script.script or "")]
    for name in ("interpreter", "arguments"):
        texts += [(pointer(f"/executable/{name}", at), word) for at, word in enumerate(getattr(script, name) or ())]
    texts += [(pointer("/executable/environment", name), text) for name, text in (script.environment or {}).items()]
    for path, text in texts:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            yield _refusal(MessageKind.INVALID_VALUE, path, "This is no text that can be written as UTF-8.")


def _refusal(kind: MessageKind, path: str, template: str, **values: object) -> Message:
    return message(kind, template, level="ERROR", time=None, path=path, **values)


def checked_location(script: BatchScript) -> str:
    """Return the script's URL with its digest, as ``ebhpc.staging.locations`` reads it."""
    digest = (script.digest or "").partition(":")[2]
    return f"{(script.location or '').partition('#')[0]}#sha256={digest}"


def command(script: BatchScript, file: str, launcher: str) -> list[str]:
    """Return the words that run a script that lies in ``file``; ``launcher`` is where ``launch_text`` lies."""
    return ["/bin/bash", launcher, *(script.interpreter or ()), file, *(script.arguments or ())]


def launch_text(script: BatchScript, rules: ScriptRules) -> str:
    """Return the shell that loads a script's modules and becomes the script: nothing of a user's but module names.

    What the first line names is called here, as execve(2) says it (one program, and what follows is one argument),
    because the file need be neither the job's own nor on a file system that programs may be called from.
    """
    lines = []
    if script.modules:
        names = " ".join(shlex.quote(name) for name in script.modules)
        lines += ['words=("$@"); set --', rules.module_setup.rstrip("\n")]
        lines += [f"module load {names} || exit 1", 'set -- "${words[@]}"']
    if script.interpreter:
        return "\n".join([*lines, 'exec "$@"', ""])
    return "\n".join([*lines, _AS_ITS_FIRST_LINE])


_AS_ITS_FIRST_LINE = """\
IFS= read -r first < "$1" || true
case $first in
'#!'*)
    first=${first%$'\\r'}
    read -r program argument <<< "${first#??}"
    exec "$program" ${argument:+"$argument"} "$@"
    ;;
esac
exec /bin/sh "$@"
"""
