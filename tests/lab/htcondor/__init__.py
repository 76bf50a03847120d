"""A real HTCondor pool for tests and measurements: `htcondor_pool` starts one on loopback and takes all of it away.

A Debian root of its own, cached in the lab's cache, carries HTCondor 23.9. A pool has a collector, a negotiator, a
schedd and the startds of three machines in namespaces of its own, writes into memory alone, and ends with the process
that started it.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.lab.htcondor.layout import MACHINES, Machine
from tests.lab.htcondor.pool import CHECKOUT, Pool
from tests.lab.htcondor.roots import HOST_NAME, RECIPE, missing, root, used
from tests.lab.namespace import Bind, namespace
from tests.lab.ports import ports

__all__ = ["htcondor_pool", "Machine", "Pool", "missing", "root"]


@contextlib.contextmanager
def htcondor_pool(machines: tuple[Machine, ...] = MACHINES) -> Iterator[Pool]:
    """Run a pool, ready to use."""
    with contextlib.ExitStack() as stack:
        base = stack.enter_context(used())
        claimed = stack.enter_context(ports(1))
        place = Path(tempfile.mkdtemp(prefix="ebl-condor-"))
        place.chmod(0o755)
        shared = place / "shared"
        shared.mkdir()
        shared.chmod(0o1777)
        binds = (
            Bind(RECIPE, Path("/recipe")),
            Bind(Path(__file__).parents[3], Path(CHECKOUT)),
            Bind(shared, writable=True),
        )
        inside = stack.enter_context(namespace(base, HOST_NAME, binds, place=place))
        pool = Pool(inside, claimed[0], machines)
        try:
            pool.start()
        except BaseException as error:
            error.add_note("\n".join(f"--- {name}\n{text[-2000:]}" for name, text in pool.logs().items()))
            raise
        try:
            yield pool
        finally:
            pool.stop()
