"""What the lab's pool looks like: its machines, and the configuration of condor's daemons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

CONF = "/etc/condor/condor_config"
DOMAIN = "lab"
RESERVATIONS = "/var/lib/condor/reservations"
"""In the root, a link to the directory in which the broker says what is kept on which machine."""


@dataclass(frozen=True)
class Machine:
    """One emulated machine; ``memory`` in MB; ``gpus``: a kind that condor_gpu_discovery simulates, and how many."""

    name: str
    cores: int
    memory: int
    gpus: tuple[int, int] | None = None
    fpgas: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return its lines in the configuration."""
        here = self.name.upper()
        lines = [
            f"STARTD_{here} = $(STARTD)",
            f"STARTD_{here}_ARGS = -local-name {here}",
            f"{here}.STARTD_NAME = {self.name}",
            f"{here}.STARTD_LOG = $(LOG)/StartLog.{self.name}",
            f"{here}.STARTER_LOG = $(LOG)/StarterLog.{self.name}",
            f"{here}.EXECUTE = $(LOCAL_DIR)/execute-{self.name}",
            f"{here}.NUM_CPUS = {self.cores}",
            f"{here}.MEMORY = {self.memory}",
        ]
        if self.gpus is not None:
            kind, count = self.gpus
            discover = f"$(LIBEXEC)/condor_gpu_discovery -simulate:{kind},{count} -properties"
            lines.append(f"{here}.MACHINE_RESOURCE_INVENTORY_GPUs = {discover}")
        if self.fpgas:
            lines.append(f"{here}.MACHINE_RESOURCE_FPGAs = {' '.join(self.fpgas)}")
        return lines


MACHINES = (
    Machine("node1", cores=4, memory=8000),
    Machine("node2", cores=8, memory=16000, fpgas=("FPGA0", "FPGA1")),
    Machine("node3", cores=8, memory=32000, gpus=(4, 4)),
)


def configuration(machines: Sequence[Machine], port: int, changes: Mapping[str, str]) -> str:
    """Return the pool's configuration; ``changes`` replaces settings.

    HTCondor changes the host's kernel settings when it starts as root, unless LINUX_KERNEL_TUNING_SCRIPT is empty.
    """
    daemons = [f"STARTD_{machine.name.upper()}" for machine in machines]
    settings = {
        "CONDOR_HOST": "127.0.0.1",
        "COLLECTOR_HOST": f"127.0.0.1:{port}",
        "SHARED_PORT_PORT": str(port),
        "USE_SHARED_PORT": "True",
        "NETWORK_INTERFACE": "127.0.0.1",
        "BIND_ALL_INTERFACES": "False",
        "ENABLE_IPV6": "False",
        "LINUX_KERNEL_TUNING_SCRIPT": "",
        "CONDOR_IDS": "",
        "RELEASE_DIR": "/usr",
        "LOCAL_DIR": "/var/lib/condor",
        "LOG": "/var/log/condor",
        "SPOOL": "$(LOCAL_DIR)/spool",
        "EXECUTE": f"$(LOCAL_DIR)/execute-{machines[0].name}",
        "RUN": "/run/condor",
        "LOCK": "/run/condor/lock",
        "LIBEXEC": "/usr/libexec/condor",
        "BIN": "/usr/bin",
        "SBIN": "/usr/sbin",
        "LIB": "/usr/lib/condor",
        "ETC": "/etc/condor",
        "TRUST_DOMAIN": DOMAIN,
        "UID_DOMAIN": DOMAIN,
        "FILESYSTEM_DOMAIN": DOMAIN,
        # Who may do what
        "SEC_DEFAULT_AUTHENTICATION": "REQUIRED",
        "SEC_DEFAULT_AUTHENTICATION_METHODS": "FS, IDTOKENS",
        "SEC_PASSWORD_DIRECTORY": "/etc/condor/passwords.d",
        "SEC_TOKEN_SYSTEM_DIRECTORY": "/etc/condor/tokens.d",
        "SEC_TOKEN_POOL_SIGNING_KEY_FILE": "/etc/condor/passwords.d/POOL",
        "ALLOW_READ": "*",
        "ALLOW_WRITE": f"*@{DOMAIN}",
        "ALLOW_DAEMON": f"condor@{DOMAIN}, root@{DOMAIN}, condor@family",
        "ALLOW_NEGOTIATOR": f"condor@{DOMAIN}, root@{DOMAIN}, condor@family",
        "ALLOW_ADMINISTRATOR": f"root@{DOMAIN}, condor@{DOMAIN}",
        "QUEUE_SUPER_USERS": "root, condor",
        # Whoever may write to a startd may forge what it says of itself
        "STARTD.ALLOW_WRITE": f"condor@{DOMAIN}, root@{DOMAIN}, condor@family",
        "DAEMON_LIST": f"MASTER COLLECTOR NEGOTIATOR SCHEDD SHARED_PORT {' '.join(daemons)}",
        "DC_DAEMON_LIST": f"+ {' '.join(daemons)}",
        "NUM_SLOTS_TYPE_1": "1",
        "SLOT_TYPE_1": "100%",
        "SLOT_TYPE_1_PARTITIONABLE": "True",
        "COUNT_HYPERTHREAD_CPUS": "True",
        "MACHINE_RESOURCE_FPGAs": "0",
        # Without this line no machine looks for GPUs
        "MACHINE_RESOURCE_INVENTORY_GPUs": "$(LIBEXEC)/condor_gpu_discovery -properties",
        # Quicker than a centre's, so that tests are
        "NEGOTIATOR_INTERVAL": "2",
        "NEGOTIATOR_MIN_INTERVAL": "1",
        "NEGOTIATOR_CYCLE_DELAY": "1",
        "PERIODIC_EXPR_INTERVAL": "2",
        "NEGOTIATOR_UPDATE_INTERVAL": "4",
        "SCHEDD_INTERVAL": "2",
        "SCHEDD_MIN_INTERVAL": "1",
        # The ports that a container publishes come by these to the starter's shadow, and from there into the queue
        "SHADOW_QUEUE_UPDATE_INTERVAL": "3",
        "STARTER_UPDATE_INTERVAL": "3",
        "UPDATE_INTERVAL": "3",
        "MASTER_UPDATE_INTERVAL": "5",
        "CLASSAD_LIFETIME": "20",
        "MASTER_BACKOFF_CONSTANT": "1",
        "MASTER_BACKOFF_CEILING": "2",
        "JOB_START_DELAY": "0",
        # A startd measures its machine when it starts, for half a minute on a busy host, and looks at nothing meanwhile
        "RunBenchmarks": "False",
        # One host plays all machines
        "USE_PROCD": "False",
        # Jobs would have a /tmp of their own, which is where the directory lies that the host shares
        "MOUNT_UNDER_SCRATCH": "",
        "BASE_CGROUP": "",
        "DISCARD_SESSION_KEYRING_ON_STARTUP": "False",
        "DOCKER": "",
        # Neither the image that HTCondor tries it with, nor an init for containers, is in Debian's packages
        "DOCKER_PERFORM_TEST": "False",
        "DOCKER_RUN_UNDER_INIT": "False",
        "SINGULARITY": "/usr/bin/apptainer",
        "SINGULARITY_RUN_TEST_BEFORE_JOB": "False",
        # The lab's registry speaks plain HTTP; words and variables of a job are not for a shell
        "SINGULARITY_EXTRA_ARGUMENTS": "--no-https --no-eval",
        "START": "True",
        "PREEMPT": "False",
        "WANT_SUSPEND": "False",
        "MaxJobRetirementTime": "0",
        "MachineMaxVacateTime": "3",
        "MATLAB_LIMIT": "2",
        "EBHPC_RESERVATIONS_DIRECTORY": RESERVATIONS,
        "EBHPC_DEVICE_1": "FPGAs",
        **changes,
    }
    lines = [f"{name} = {value}" for name, value in settings.items()]
    lines += [line for machine in machines for line in machine.lines()]
    return "\n".join([*lines, "include : /etc/condor/ebhpc-reservations.conf", ""])
