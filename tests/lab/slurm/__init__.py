"""Real Slurm clusters for tests and measurements: `slurm_cluster` starts one on loopback and takes all of it away.

Debian roots of their own, cached in the lab's cache, carry Slurm 26.05 (with pyslurm) and 24.11. A cluster has munged,
MariaDB, slurmdbd, slurmctld, slurmds, slurmrestd and sshd in namespaces of its own, writes into memory alone, and ends
with the process that started it.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.lab.daemons import Daemon
from tests.lab.namespace import Bind, namespace
from tests.lab.ports import ports
from tests.lab.slurm.cluster import CHECKOUT, HOST_NAME, Cluster, Ssh
from tests.lab.slurm.groups import groups
from tests.lab.slurm.layout import SMALL, Node, Ports, large
from tests.lab.slurm.roots import RECIPE, RECIPES, missing, root, used

VERSIONS = tuple(RECIPES)

__all__ = ["VERSIONS", "slurm_cluster", "Cluster", "Daemon", "Node", "Ssh", "missing", "root"]


@contextlib.contextmanager
def slurm_cluster(version: str, nodes: int | None = None, threads: int = 1) -> Iterator[Cluster]:
    """Run a cluster, ready to use; ``nodes``: that many equal ones instead of the small layout, for measurements.

    ``threads``: how many each of their cores has.
    """
    layout = SMALL if nodes is None else large(nodes, threads)
    with contextlib.ExitStack() as stack:
        base = stack.enter_context(used(version))
        claimed = stack.enter_context(ports(Ports.needed(layout.nodes)))
        place = Path(tempfile.mkdtemp(prefix="ebl-slurm-"))
        place.chmod(0o755)
        shared, ssh = place / "shared", place / "ssh"
        shared.mkdir()
        shared.chmod(0o1777)
        ssh.mkdir(mode=0o700)
        binds = (
            Bind(RECIPE, Path("/recipe")),
            Bind(Path(__file__).parents[3], Path(CHECKOUT)),
            Bind(shared, writable=True),
            Bind(ssh, writable=True),
        )
        # A thousand nodes are there to be measured, not to keep their jobs
        control = groups(place.name) if nodes is None else {}
        inside = stack.enter_context(namespace(base, HOST_NAME, binds, place=place, groups=control))
        cluster = Cluster(version, inside, layout, Ports.of(claimed), groups=control)
        try:
            cluster.start()
        except BaseException as error:
            error.add_note("\n".join(f"--- {name}\n{text[-2000:]}" for name, text in cluster.logs().items()))
            raise
        yield cluster
