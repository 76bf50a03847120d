"""The lab's Slurm clusters are what the tests of the plugin take them for."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.lab import containers
from tests.lab.daemons import until
from tests.lab.ports import ports
from tests.lab.slurm import Cluster, missing
from tests.lab.slurm.groups import groups
from tests.labs import require

pytest_plugins = ["tests.lab.slurm.fixtures"]
pytestmark = pytest.mark.lab

HERE = Path(__file__).parents[2]
RESERVATION = ["scontrol", "create", "reservation", "users=alice", "starttime=now+3600", "duration=10", "nodes=n1"]


def test_it_comes_up_idle_with_partitions_gpus_features_and_licences(clean_slurm: Cluster) -> None:
    assert clean_slurm.run(["sinfo", "--version"]).stdout.startswith(f"slurm-wlm {clean_slurm.version}")
    assert set(clean_slurm.node_states().values()) == {"idle"}
    said = clean_slurm.run(["sinfo", "-h", "-N", "-o", "%N %P %G %f"]).stdout.split("\n")
    assert "g1 gpu gpu:a100:4 gpu" in said
    assert "g2 gpu gpu:t4:2 gpu" in said
    assert "n6 batch* (null) fast" in said
    assert "matlab" in clean_slurm.run(["scontrol", "show", "licenses"]).stdout


def test_users_submit_and_history_has_their_jobs(clean_slurm: Cluster) -> None:
    place = clean_slurm.shared / "who"
    job = clean_slurm.submit(f"id -un > {place}", "--comment=a comment", user="bob")
    clean_slurm.until(lambda: clean_slurm.job_state(job) == "COMPLETED", 30, "the job ends")
    assert place.read_text() == "bob\n"
    question = ["sacct", "-X", "-P", "-n", "-j", str(job), "-o", "user,account,state,comment"]
    clean_slurm.until(lambda: clean_slurm.run(question).stdout == "bob|chem|COMPLETED|a comment\n", 30, "history")


def test_a_user_without_an_association_cannot_submit(clean_slurm: Cluster) -> None:
    with pytest.raises(AssertionError, match="Invalid account"):
        clean_slurm.submit("true", user="carol")


def test_the_service_account_reserves_and_users_do_not(clean_slurm: Cluster) -> None:
    assert clean_slurm.run([*RESERVATION, "reservationname=mine"]).stdout == "Reservation created: mine\n"
    refused = clean_slurm.run([*RESERVATION, "reservationname=yours"], user="alice", check=False)
    assert refused.returncode == 1
    assert "Invalid user id" in refused.stderr


def test_the_service_account_submits_as_a_user_by_sudo_and_by_token_but_is_nobody_else(clean_slurm: Cluster) -> None:
    script = "#!/bin/sh\nid -un\n"
    submit = ["sbatch", "--parsable", "--chdir=/tmp", "--output=/dev/null"]
    by_sudo = clean_slurm.run(["sudo", "-n", "-u", "alice", f"/usr/bin/{submit[0]}", *submit[1:]], data=script).stdout
    token = {"SLURM_JWT": clean_slurm.token("bob")}
    by_token = clean_slurm.run(submit, data=script, environment=token).stdout
    owner = ["squeue", "-h", "-t", "all", "-o", "%u", "-j"]
    assert clean_slurm.run([*owner, by_sudo.strip()]).stdout == "alice\n"
    assert clean_slurm.run([*owner, by_token.strip()]).stdout == "bob\n"
    assert clean_slurm.run(["sudo", "-n", "-u", "alice", "/usr/bin/id"], check=False).returncode != 0
    assert clean_slurm.run(["sudo", "-n", "/usr/bin/sbatch"], check=False).returncode != 0


def test_a_job_gets_the_gpus_it_asked_for(clean_slurm: Cluster) -> None:
    words = ["srun", "--partition=gpu", "--gpus=a100:2", "sh", "-c", "echo $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES"]
    assert clean_slurm.run(words, user="alice").stdout == "g1 0,1\n"


def test_a_job_runs_an_image_by_its_digest_with_apptainer(clean_slurm: Cluster) -> None:
    require(not containers.missing(), "; ".join(containers.missing()))
    with containers.registry() as registry:
        name = f"docker://{registry.location.removesuffix(':1')}@{registry.digest}"
        pull = ["srun", "--chdir=/tmp", "apptainer", "-q", "pull", "--no-https", "/tmp/busybox.sif", name]
        clean_slurm.run(pull, user="alice")
        wrong = [*pull[:-2], "/tmp/wrong.sif", name.partition("@")[0] + "@sha256:" + 64 * "0"]
        assert clean_slurm.run(wrong, user="alice", check=False).returncode != 0
    said = clean_slurm.run(["srun", "apptainer", "exec", "--containall", "/tmp/busybox.sif", "id", "-u"], user="alice")
    assert said.stdout == "2001\n"


def test_a_job_runs_an_oci_bundle_with_slurms_own_support(clean_slurm: Cluster) -> None:
    require(not containers.missing(), "; ".join(containers.missing()))
    bundle = clean_slurm.shared / "bundle"
    shutil.rmtree(bundle, ignore_errors=True)
    for folder in ("bin", "dev", "proc", "sys", "etc", "tmp"):
        (bundle / "rootfs" / folder).mkdir(parents=True)
    shutil.copy(containers.BUSYBOX, bundle / "rootfs/bin/busybox")
    (bundle / "rootfs/bin/sh").symlink_to("busybox")
    for path in (bundle, *bundle.rglob("*")):
        os.chown(path, 2001, 2001, follow_symlinks=False)
    clean_slurm.run(["runc", "spec", "--rootless", f"--bundle={bundle}"], user="alice")
    spec = bundle / "config.json"
    spec.write_text(spec.read_text().replace('"terminal": true', '"terminal": false'))
    words = ["srun", f"--container={bundle}", "/bin/sh", "-c", "busybox test ! -e /opt && echo $SLURMD_NODENAME"]
    assert clean_slurm.run(words, user="alice").stdout == "n1\n"


def test_a_notebook_runs_as_a_job(clean_slurm: Cluster) -> None:
    place = clean_slurm.shared / "notebook.ipynb"
    cell = '{"cell_type":"code","execution_count":null,"id":"a","metadata":{},"outputs":[],"source":"print(6*7)"}'
    place.write_text(f'{{"cells":[{cell}],"metadata":{{}},"nbformat":4,"nbformat_minor":5}}')
    words = ["srun", clean_slurm.python, "-m", "nbconvert", "--to", "notebook", "--execute", "--stdout", str(place)]
    assert '"42\\n"' in clean_slurm.run(words, user="alice").stdout


def test_pyslurm_sees_nodes_and_reserves(slurm_2605: Cluster) -> None:
    slurm_2605.clean()
    program = (
        "import pyslurm, time\n"
        "start = int(time.time()) + 3600\n"
        "pyslurm.Reservation(name='py', users=['alice'], start_time=start, duration=10, nodes='n1').create()\n"
        "print(*sorted(pyslurm.Nodes.load()), *pyslurm.Reservations.load())\n"
    )
    said = slurm_2605.run([slurm_2605.python, "-c", program]).stdout.split()
    assert said == [*sorted(node.name for node in slurm_2605.nodes), "py"]


def test_the_service_account_comes_in_by_ssh_with_a_known_host_key(clean_slurm: Cluster) -> None:
    done = subprocess.run(
        [*clean_slurm.ssh.argv, "scontrol ping && id -un"], capture_output=True, text=True, timeout=30, check=True
    )
    assert "is UP" in done.stdout
    assert done.stdout.endswith("ebhpc\n")


def test_jobs_and_reservations_survive_a_controller_that_stops_hangs_and_is_killed(clean_slurm: Cluster) -> None:
    job = clean_slurm.submit("sleep 600", "--nodelist=n2")
    clean_slurm.run([*RESERVATION, "reservationname=mine"])
    clean_slurm.until(lambda: clean_slurm.job_state(job) == "RUNNING", 30, "the job runs")
    clean_slurm.controller.restart()
    impatient = {"SLURM_CONF": clean_slurm.impatient_conf}
    for hurt, mend in (
        (clean_slurm.controller.pause, clean_slurm.controller.resume),
        (clean_slurm.controller.kill, clean_slurm.controller.start),
    ):
        hurt()
        assert clean_slurm.run(["squeue"], check=False, environment=impatient).returncode == 1
        mend()
        assert clean_slurm.job_state(job) == "RUNNING"
        assert "ReservationName=mine " in clean_slurm.run(["scontrol", "show", "reservation", "-o"]).stdout


def test_a_node_that_dies_takes_its_job_along_and_comes_back(clean_slurm: Cluster) -> None:
    job = clean_slurm.submit("sleep 600", "--nodelist=n3", "--no-requeue")
    clean_slurm.until(lambda: clean_slurm.job_state(job) == "RUNNING", 30, "the job runs")
    clean_slurm.kill_node("n3")
    clean_slurm.down("n3")
    clean_slurm.until(lambda: clean_slurm.job_state(job) == "NODE_FAIL", 30, "the job has failed")
    clean_slurm.start_node("n3")
    clean_slurm.wait_idle()


def test_a_full_queue_is_full_only_as_long_as_it_is_configured(clean_slurm: Cluster) -> None:
    known = len(clean_slurm.run(["squeue", "-h", "-t", "all", "-o", "%i"]).stdout.split())
    submit = ["timeout", "2", "sbatch", "--hold"]
    with clean_slurm.configured(MaxJobCount=known + 2):
        tries = [clean_slurm.run(submit, user="alice", data="#!/bin/sh\n", check=False).returncode for _ in range(3)]
        # Instead of an answer sbatch tries again for minutes, until timeout(1) ends it
        assert tries[-1] == 124
    clean_slurm.submit("true", "--hold")


@pytest.fixture
def holder() -> Iterator[subprocess.Popen[str]]:
    """A process of its own that holds a cluster, and has said which directory and first process it has."""
    require(not missing(), "; ".join(missing()))
    program = (
        "import time\n"
        "from tests.lab.slurm import slurm_cluster\n"
        "with slurm_cluster('24.11') as cluster:\n"
        "    print(cluster.namespace.place, cluster.namespace.identity, flush=True)\n"
        "    input()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=HERE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(HERE)},
    )
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL], ids=["in order", "killed"])
def test_it_leaves_no_process_mount_or_directory_however_its_holder_ends(
    holder: subprocess.Popen[str], end: signal.Signals
) -> None:
    assert holder.stdout is not None
    place, identity = holder.stdout.readline().split()
    assert _inside(identity), "the cluster runs"
    holder.send_signal(end)
    left = [Path(place), *groups(Path(place).name).values()]
    until(lambda: not _inside(identity) and not any(one.exists() for one in left), 30, "nothing is left")
    assert place not in Path("/proc/self/mounts").read_text()


def _inside(identity: str) -> list[int]:
    found = []
    for pid in psutil.pids():
        try:
            if os.readlink(f"/proc/{pid}/ns/pid") == identity:
                found.append(pid)
        except OSError:  # it has ended, or is a thread of the kernel
            continue
    return found


def test_two_labs_never_get_the_same_ports() -> None:
    with ports(60) as first, ports(60) as second:
        assert not set(first) & set(second)
