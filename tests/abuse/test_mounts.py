"""What a container finds of the host, and what it plants among its results: tried in real containers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ebhpc.model import Metadata, Range, SimpleStorage, SimpleVolume
from tests.lab.containers import Registry
from tests.local.conftest import Workshop, runtime, said, web, workshop
from tests.local.test_containers import container

__all__ = ["runtime", "web", "workshop"]

pytestmark = [pytest.mark.lab, pytest.mark.containers]

ESCAPES = """
try() { name=$1; shift; if "$@" >/dev/null 2>&1; then echo "$name: yes"; else echo "$name: no"; fi; }
try mount-proc mount -t proc proc /mnt
try mount-bind mount --bind / /mnt
try remount mount -o remount,rw /sys
try mknod mknod /tmp/sda b 8 0
try host-root cat "$MARK"
try pid1-root ls "/proc/1/root$MARK"
try kernel sh -c 'echo h >/proc/sys/kernel/core_pattern'
try sysrq sh -c 'echo h >/proc/sysrq-trigger'
try chroot-out sh -c 'mkdir -p /tmp/a && chroot /tmp/a true'
try sockets sh -c 'ls /run/podman/podman.sock /var/run/docker.sock'
try up-from-volume ls "/scratch/../../job.json"
try up-from-results ls "/ebhpc/results/../../job.json"
"""

PLANTED = """
cd /ebhpc/results
ln -s "$MARK" secret.txt; ln -s / root; ln -s ../../.. above
ln -s /scratch/loop loop; ln -s /ebhpc/results/loop /scratch/loop
mkdir deep; ln -s "$MARK" deep/secret.txt; echo mine >mine.txt; mkfifo pipe
ln "$MARK" hard 2>/dev/null
ln -s "$MARK" /scratch/secret.txt; echo kept >/scratch/kept.txt
"""


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """A file of the host's that nobody gave to the session."""
    file = tmp_path / "host-secret"
    file.write_text("a secret of the host\n", encoding="utf-8")
    file.chmod(0o644)
    return file


def scratch() -> dict[str, Any]:
    return {
        "storage": (SimpleStorage(meta=Metadata(name="scratch"), size=Range(min=1)),),
        "volumes": (SimpleVolume(path="/scratch", mode="READWRITE", resource="scratch"),),
    }


def test_no_way_leads_out_of_a_container(
    workshop: Workshop, registry: Registry, runtime: dict[str, Any], mark: Path
) -> None:
    platform = workshop.platform(runtime=runtime)
    executable = container(registry, "sh", "-c", ESCAPES, environment={"MARK": str(mark)})
    session = workshop.session(platform, executable, **scratch())
    seen = workshop.run(platform, session)
    assert seen.state == "SUCCEEDED", said(seen)
    tried = dict(line.split(": ") for line in workshop.output(platform, session).splitlines())
    assert len(tried) == 12
    assert {name for name, came_out in tried.items() if came_out == "yes"} == set()


def test_what_a_container_plants_among_its_results_leads_nowhere(
    workshop: Workshop, registry: Registry, runtime: dict[str, Any], mark: Path
) -> None:
    platform = workshop.platform(runtime=runtime)
    executable = container(registry, "sh", "-c", PLANTED, environment={"MARK": str(mark)})
    session = workshop.session(platform, executable, **scratch())
    seen = workshop.run(platform, session)
    assert seen.state in ("SUCCEEDED", "FAILED"), said(seen)
    platform.ebhpc_cleanup(session=session)
    names = {output.name for output in platform.ebhpc_outputs(session=session)}
    assert names == {"stdout", "stderr", "results/mine.txt", "storage/scratch/kept.txt"}
    for name in (
        "results/secret.txt",
        "results/deep/secret.txt",
        f"results/root{mark}",
        "results/above/job.json",
        "results/loop",
        "results/pipe",
        "results/hard",
        "storage/scratch/secret.txt",
        f"results/../../../..{mark}",
    ):
        assert platform.ebhpc_open_output(session=session, name=name) is None, name
    assert mark.read_text(encoding="utf-8") == "a secret of the host\n"
