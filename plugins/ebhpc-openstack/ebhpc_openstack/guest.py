"""What a server runs: user data for cloud-init, a pure function of session and settings.

Nothing that a user chose stands in its shell: the job is data, compressed, within the script of ``ebhpc.batch``.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from pathlib import Path

from msgspec.structs import replace

from ebhpc.batch import carried_script
from ebhpc.model import Session
from ebhpc_openstack import reporter
from ebhpc_openstack.settings import OpenStackSettings

HOME = "/var/lib/ebhpc"
JOB = f"{HOME}/job"

LARGEST = 65_535
"""Characters of user data, in base64, that nova takes (nova/api/openstack/compute/schemas/servers.py)."""

_SCRIPT = """#!/bin/sh
# ebhpc session {uuid}
umask 077
mkdir -p /var/lib
# A server that boots again has run its job already
mkdir {home} || exit 0
{mounting}cat >{home}/reporter.py <<'END_OF_REPORTER'
{reporter}END_OF_REPORTER
cat >{home}/job.sh <<'END_OF_SCRIPT'
{job}END_OF_SCRIPT
{python} -I {home}/reporter.py begun {uuid}
mkdir -p {folder}/report
{{ {volumes}sh {home}/job.sh; }} >{home}/batch.log 2>&1
code=$?
cp {home}/batch.log {folder}/report/batch.log
{python} -I {home}/reporter.py ended {uuid} {folder} $code {most}
sync
systemctl poweroff 2>/dev/null || poweroff
"""


_MOUNTING = """# volume ID DIRECTORY: a new file system on a new volume, whose device is named by the volume's number
volume() {{
    for wait in $(seq {patience}); do
        for device in /dev/disk/by-id/*"$1"*; do
            [ -b "$device" ] && break 2
        done
        sleep 1
    done
    if [ ! -b "$device" ]; then
        echo "volume $1 did not come"
        return 1
    fi
    mkdir -p "$2" && mkfs.ext4 -q -F -m 0 "$device" && mount "$device" "$2" && rmdir "$2/lost+found"
}}
"""

_PATIENCE = 120
"""Seconds in which a volume's device has to come."""

_SHOWN = 20
"""Characters of a volume's number that a virtio disk shows; more fit into the names of others."""


class TooLarge(Exception):
    """What the request carries does not fit into the user data of a server."""


class Strange(Exception):
    """The cloud said what cannot stand in user data."""


def user_data(session: Session, settings: OpenStackSettings, volumes: Mapping[int, str] | None = None) -> str:
    """Return the user data, in base64; ``volumes``: the numbers of those that are storage elements, by theirs.

    Raises:
        TooLarge: it is more than nova takes.
        Strange: a volume's number is none.
        LookupError, ebhpc.staging.locations.LocationError: as ``ebhpc.batch.job.job``.
    """
    # A service may have the cloud's own address, and the server is its alone
    jobs = replace(settings.jobs, access="own", staging="job", restart=False)
    job = carried_script(session, jobs, JOB)
    text = _SCRIPT.format(
        uuid=session.uuid,
        home=HOME,
        folder=JOB,
        reporter=Path(reporter.__file__).read_text(encoding="utf-8"),
        job=job,
        python=jobs.python,
        most=settings.report_kib * 1024,
        mounting=_MOUNTING.format(patience=_PATIENCE) if volumes else "",
        volumes="".join(
            f"volume {_number(number)} {JOB}/storage/{at} && " for at, number in sorted((volumes or {}).items())
        ),
    )
    encoded = base64.b64encode(text.encode("utf-8")).decode("ascii")
    if len(encoded) > LARGEST:
        raise TooLarge(
            f"the command, environment and notebook of the request make {len(encoded)} characters of user data; "
            f"a server takes {LARGEST}"
        )
    return encoded


def _number(volume: str) -> str:
    """Return what of a volume's number its device is named by: the cloud's word, which goes into a shell."""
    if not re.fullmatch("[0-9a-f-]{36}", volume):
        raise Strange(f"Cinder calls a volume {volume!r}, which is no UUID")
    return volume[:_SHOWN]
