"""A real OpenStack for tests and measurements: `openstack_cloud` starts one on loopback and takes all of it away.

A Debian root of its own, cached in the lab's cache, carries OpenStack 2025.1: keystone, placement, glance, neutron and
nova with fake hypervisors whose guests run their user data, and a login host's sshd. A cloud writes into memory alone,
and ends with the process that started it.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.lab.namespace import Bind, namespace
from tests.lab.openstack.cloud import Cloud, Ssh
from tests.lab.openstack.layout import HOST_NAME, HOSTS, PORTS, Host, Ports
from tests.lab.openstack.roots import RECIPE, missing, root, used
from tests.lab.ports import ports

__all__ = ["openstack_cloud", "Cloud", "Host", "Ssh", "missing", "root"]


@contextlib.contextmanager
def openstack_cloud(hosts: tuple[Host, ...] = HOSTS) -> Iterator[Cloud]:
    """Run a cloud, ready to use."""
    with contextlib.ExitStack() as stack:
        base = stack.enter_context(used())
        claimed = stack.enter_context(ports(PORTS))
        place = Path(tempfile.mkdtemp(prefix="ebl-stack-"))
        place.chmod(0o755)
        ssh = place / "ssh"
        ssh.mkdir(mode=0o700)
        binds = (Bind(RECIPE, Path("/recipe")), Bind(ssh, writable=True))
        inside = stack.enter_context(namespace(base, HOST_NAME, binds, place=place))
        cloud = Cloud(inside, Ports(claimed[0]), hosts)
        try:
            cloud.start()
        except BaseException as error:
            error.add_note("\n".join(f"--- {name}\n{text[-1500:]}" for name, text in cloud.logs().items()))
            raise
        yield cloud
