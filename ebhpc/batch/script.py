"""The script that is handed to a batch system: a few lines of shell, with nothing of a user's in them.

Everything that a user may have chosen stands in ``job.json``, beside the runner or, compressed, within the script.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from ebhpc.batch import runner
from ebhpc.batch.directory import SessionDirectory
from ebhpc.batch.job import job
from ebhpc.batch.settings import JobSettings
from ebhpc.model import Session

_VARIABLE_PATH = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)((?:/[A-Za-z0-9._+-]+)*)")
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9._+/-]*")

_UNPACK = """
import base64, json, os, sys, zlib
top = sys.argv[1]
carried = json.loads(zlib.decompress(base64.b64decode(sys.stdin.read())))
os.umask(0o077)
for folder in ("", "report", "output", "work", "storage", "stage"):
    os.makedirs(os.path.join(top, folder), exist_ok=True)
for name, text in carried.items():
    with open(os.path.join(top, name), "w", encoding="utf-8") as file:
        file.write(text)
os.execv(sys.executable, [sys.executable, "-I", os.path.join(top, "runner.py"), top])
"""


def runner_text() -> str:
    """Return the runner: a program for the nodes' Python."""
    return Path(runner.__file__).read_text(encoding="utf-8")


def job_script(settings: JobSettings, directory: SessionDirectory) -> str:
    """Return the script for a session whose directory the nodes see, and that was prepared."""
    call = shlex.join([settings.python, "-I", str(directory.runner), str(directory.path)])
    return f"#!/bin/sh\n# ebhpc session {directory.uuid}\n{_setup(settings)}exec {call}\n"


def carried_script(session: Session, settings: JobSettings, directory: str, **more: Any) -> str:
    """Return a script that carries all that the job needs, for nodes that share no file system with the broker.

    It makes ``directory`` on its node: an absolute path, or ``$NAME/…`` below what a variable of the node's names. What
    the job needs is fetched there, and what is kept lies in its ``output/``. ``more`` as for ``ebhpc.batch.job.job``.

    Raises:
        ValueError: ``directory`` is none of the two.
        LookupError, LocationError: as ``ebhpc.batch.job.job``.
    """
    settings = msgspec.structs.replace(settings, access="own")
    return _carried(session.uuid, job(session, settings, staging="job", **more), settings, directory)


def brought_script(
    directory: SessionDirectory, settings: JobSettings, place: str, brought: Mapping[str, str] | None = None
) -> str:
    """Return a script that carries what a session that was prepared needs, as `carried_script` does.

    ``place`` is where it makes the session's directory on its node. ``brought`` tells of URLs that the batch system
    brings: the name of each one's file beside ``place``.

    Raises:
        ValueError: ``place`` cannot be one.
        OSError: the session was not prepared.
    """
    wanted = prepared_job(directory)
    for file in wanted["fetch"]:
        file["brought"] = (brought or {}).get(file["url"])
    return _carried(directory.uuid, wanted, settings, place)


def prepared_job(directory: SessionDirectory) -> dict[str, Any]:
    """Return the ``job.json`` of a session that was prepared.

    Raises:
        OSError: it was not.
    """
    wanted: dict[str, Any] = json.loads(directory.job.read_bytes())
    return wanted


def _carried(uuid: str, wanted: dict[str, Any], settings: JobSettings, directory: str) -> str:
    carried = {"job.json": json.dumps(wanted), "runner.py": runner_text()}
    packed = base64.encodebytes(zlib.compress(json.dumps(carried).encode("utf-8"), 9)).decode("ascii")
    call = f"{shlex.join([settings.python, '-I', '-c', _UNPACK])} {_place(directory)}"
    return f"#!/bin/sh\n# ebhpc session {uuid}\n{_setup(settings)}exec {call} <<'END_OF_JOB'\n{packed}END_OF_JOB\n"


def _setup(settings: JobSettings) -> str:
    text = settings.setup.strip("\n")
    return f"{text}\n" if text else ""


def _place(directory: str) -> str:
    match = _VARIABLE_PATH.fullmatch(directory)
    if match is not None:
        return f'"${{{match[1]}:?}}"{match[2]}'
    if not _PLAIN_PATH.fullmatch(directory):
        raise ValueError(f"expected an absolute path, or $NAME/path, of letters, digits and ._+-, got {directory!r}")
    return shlex.quote(directory)
