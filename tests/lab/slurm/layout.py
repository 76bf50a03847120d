"""What the lab's clusters look like: nodes, partitions, and the files in /etc/slurm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

DIRECTORY = "/etc/slurm"
CONF = f"{DIRECTORY}/slurm.conf"
# The same, for clients that soon give up on a controller that does not answer
IMPATIENT_CONF = f"{DIRECTORY}/impatient.conf"
IMPATIENT_SECONDS = 2


@dataclass(frozen=True)
class Node:
    """One emulated node; ``memory`` in MB; ``gpus``: model and number; ``threads`` of each core."""

    name: str
    cores: int
    memory: int
    features: tuple[str, ...] = ()
    gpus: tuple[str, int] | None = None
    threads: int = 1

    def line(self, port: int) -> str:
        """Return its line in slurm.conf."""
        words = [f"NodeName={self.name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port}"]
        words.append(f"CPUs={self.cores * self.threads} Sockets=1 CoresPerSocket={self.cores}")
        words.append(f"ThreadsPerCore={self.threads}")
        words.append(f"RealMemory={self.memory}")
        if self.features:
            words.append(f"Feature={','.join(self.features)}")
        if self.gpus:
            words.append(f"Gres=gpu:{self.gpus[0]}:{self.gpus[1]}")
        return " ".join(words)


@dataclass(frozen=True)
class Ports:
    """The ports of one cluster on loopback."""

    controller: int
    accounting: int
    rest: int
    ssh: int
    nodes: range

    @classmethod
    def of(cls, claimed: range) -> Ports:
        """Deal out claimed ports."""
        return cls(claimed[0], claimed[1], claimed[2], claimed[3], claimed[4:])

    @staticmethod
    def needed(nodes: Sequence[Node]) -> int:
        """Return how many ports a cluster of ``nodes`` needs."""
        return 4 + len(nodes)


@dataclass(frozen=True)
class Layout:
    """A cluster: its nodes, its partitions' lines, and settings beside those that all have."""

    nodes: tuple[Node, ...]
    partitions: tuple[str, ...]
    settings: Mapping[str, str]

    def node(self, name: str) -> Node:
        """Return the node called ``name``; KeyError if there is none."""
        return {node.name: node for node in self.nodes}[name]


_LIMITS = "MaxTime=2-00:00:00 DefaultTime=00:10:00 State=UP"

SMALL = Layout(
    nodes=(
        *(Node(f"n{number}", cores=8, memory=16000) for number in (1, 2, 3, 4)),
        Node("n5", cores=16, memory=64000, features=("bigmem",)),
        *(Node(f"n{number}", cores=8, memory=16000, features=("fast",)) for number in (6, 7)),
        Node("g1", cores=16, memory=64000, features=("gpu",), gpus=("a100", 4)),
        Node("g2", cores=8, memory=32000, features=("gpu",), gpus=("t4", 2)),
    ),
    partitions=(
        f"PartitionName=batch Nodes=n[1-7] Default=YES {_LIMITS}",
        f"PartitionName=gpu Nodes=g[1-2] {_LIMITS}",
        f"PartitionName=restricted Nodes=n[6-7] AllowAccounts=chem {_LIMITS}",
    ),
    settings={
        "GresTypes": "gpu",
        "AccountingStorageTRES": "gres/gpu,gres/gpu:a100,gres/gpu:t4,license/matlab,license/ansys",
        "JobAcctGatherType": "jobacct_gather/linux",
        "JobAcctGatherFrequency": "30",
        "SchedulerParameters": "bf_interval=2,bf_window=20160,bf_resolution=60",
        # Quicker than a centre's, so that tests of nodes that die and of jobs that do not want to end are
        "SlurmdTimeout": "20",
        "KillWait": "5",
    },
)


def large(count: int, threads: int = 1) -> Layout:
    """Return a cluster of ``count`` equal nodes of 64 cores, for measurements; each core has so many ``threads``."""
    return Layout(
        nodes=tuple(Node(f"s{number:04}", cores=64, memory=256000, threads=threads) for number in range(1, count + 1)),
        partitions=(f"PartitionName=batch Nodes=ALL Default=YES {_LIMITS}",),
        settings={
            "AccountingStorageTRES": "license/matlab,license/ansys",
            "SchedulerParameters": "bf_interval=30,bf_window=20160,bf_resolution=60,bf_max_job_test=500",
            "SlurmdTimeout": "300",
            "MaxJobCount": "50000",
            "MaxArraySize": "20001",
            "TreeWidth": str(max(50, count)),
        },
    )


def _security() -> dict[str, str]:
    return {
        "AuthType": "auth/munge",
        "AuthAltTypes": "auth/jwt",
        "AuthAltParameters": f"jwt_key={DIRECTORY}/jwt_hs256.key",
    }


def slurm_conf(layout: Layout, ports: Ports, changes: Mapping[str, str | int | None]) -> str:
    """Return slurm.conf; ``changes`` replaces settings, None takes one away."""
    settings: dict[str, str | int | None] = {
        "ClusterName": "lab",
        "SlurmctldHost": "localhost(127.0.0.1)",
        "SlurmctldPort": ports.controller,
        "SlurmUser": "slurm",
        **_security(),
        "CredType": "cred/munge",
        "StateSaveLocation": "/var/lib/slurm/slurmctld",
        "SlurmdSpoolDir": "/var/lib/slurm/slurmd-%n",
        "SlurmctldPidFile": "/run/slurm/slurmctld.pid",
        "SlurmdPidFile": "/run/slurm/slurmd-%n.pid",
        "SlurmctldLogFile": "/var/log/slurm/slurmctld.log",
        "SlurmdLogFile": "/var/log/slurm/slurmd.log" if len(layout.nodes) > 50 else "/var/log/slurm/slurmd-%n.log",
        "SlurmctldDebug": "info",
        # Loopback alone; on it everything resolves to this host
        "CommunicationParameters": "NoCtldInAddrAny,NoInAddrAny",
        # One host plays all nodes, so nothing may be counted, pinned or limited on it
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "SlurmdParameters": "config_overrides",
        "MpiDefault": "none",
        "MailProg": "/bin/true",
        "PropagateResourceLimits": "NONE",
        "ReturnToService": 2,
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core_Memory",
        "DefMemPerCPU": 100,
        "SchedulerType": "sched/backfill",
        "PriorityType": "priority/multifactor",
        "PriorityWeightAge": 1000,
        "PriorityWeightQOS": 1000,
        "PreemptType": "preempt/qos",
        "PreemptMode": "REQUEUE",
        "AccountingStorageType": "accounting_storage/slurmdbd",
        "AccountingStorageHost": "127.0.0.1",
        "AccountingStoragePort": ports.accounting,
        "AccountingStorageEnforce": "associations,limits,qos",
        "AccountingStoreFlags": "job_comment",
        "Licenses": "matlab:10,ansys:4",
        "MinJobAge": 300,
        **layout.settings,
        **changes,
    }
    lines = [f"{name}={value}" for name, value in settings.items() if value is not None]
    lines += [node.line(port) for node, port in zip(layout.nodes, ports.nodes, strict=True)]
    return "\n".join([*lines, *layout.partitions, ""])


def slurmdbd_conf(ports: Ports) -> str:
    """Return slurmdbd.conf."""
    settings = {
        **_security(),
        "DbdHost": "localhost",
        "DbdAddr": "127.0.0.1",
        "DbdPort": str(ports.accounting),
        "SlurmUser": "slurm",
        "LogFile": "/var/log/slurm/slurmdbd.log",
        "PidFile": "/run/slurm/slurmdbd.pid",
        "DebugLevel": "info",
        "StorageType": "accounting_storage/mysql",
        "StorageHost": "localhost",
        "StorageUser": "slurm",
        "StorageLoc": "slurm_acct_db",
        "CommunicationParameters": "NoInAddrAny",
    }
    return "".join(f"{name}={value}\n" for name, value in settings.items())


def gres_conf(layout: Layout) -> str:
    """Return gres.conf; Slurm counts only GPUs that have device files."""
    return "".join(
        f"NodeName={node.name} Name=gpu Type={node.gpus[0]} File=/var/lib/slurm/gpu[0-{node.gpus[1] - 1}]\n"
        for node in layout.nodes
        if node.gpus
    )


def sshd_config(ports: Ports) -> str:
    """Return a configuration of sshd for the service account, by key alone, with SFTP."""
    return f"""ListenAddress 127.0.0.1
Port {ports.ssh}
HostKey {SSH_DIRECTORY}/host_key
PidFile /run/sshd.pid
AllowUsers ebhpc
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
MaxStartups 100
MaxSessions 100
Subsystem sftp internal-sftp
"""


SSH_DIRECTORY = "/etc/ssh/lab"
