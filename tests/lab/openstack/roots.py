"""The Debian root with OpenStack, its databases filled."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.lab import cache, debian
from tests.lab.namespace import RECIPE as SHARED
from tests.lab.namespace import Bind, Namespace, namespace
from tests.lab.openstack.layout import HOST_NAME, PORTS, Ports, configuration
from tests.lab.ports import ports

RECIPE = Path(__file__).parent / "recipe"

_RECIPE = debian.Recipe(
    suite="trixie",
    python="3.13",
    packages=(
        *("mariadb-server", "rabbitmq-server", "memcached", "uwsgi-core", "uwsgi-plugin-python3"),
        *("keystone", "placement-api", "glance-api", "neutron-api", "neutron-plugin-ml2"),
        *("nova-api", "nova-conductor", "nova-scheduler", "nova-compute", "genisoimage"),
        # Volumes and leases; neither is started before a test asks for it
        *("cinder-api", "cinder-scheduler", "cinder-volume", "python3-cinderclient"),
        *("blazar-api", "blazar-manager", "python3-blazarnova", "python3-blazarclient"),
        *("openssh-server", "python3-openstackclient", "procps", "iproute2", "ca-certificates"),
        # What guests run: they are copies of this root
        *("python3-venv", "squashfuse", "fuse3", "uidmap", "squashfs-tools"),
    ),
)

# To be counted up where the building changes and neither the recipe nor a script tells
REVISION = 1

_BUILDING = ("lib.sh", "answers.py", "install-drivers.sh", "setup.sh", "content.py")
"""What the root is built with; the other scripts are read at each start."""


def missing() -> list[str]:
    """Return what this machine lacks for the OpenStack lab, in words; nothing: it can be built and run."""
    return debian.missing("OpenStack")


def root() -> Path:
    """Return the root, built where it is not cached yet."""
    return _root().ready()


@contextlib.contextmanager
def used() -> Iterator[Path]:
    """Have the root, kept from `remove_outdated` meanwhile."""
    with _root().used() as place:
        yield place


def remove_outdated() -> list[Path]:
    """Remove the roots that the recipe does not ask for any more and nobody uses, and return them."""
    return debian.remove_outdated(cache() / "openstack", [_root()])


def configure(inside: Namespace, claimed: Ports) -> None:
    """Write the files that the services read."""
    for path, text in configuration(claimed).items():
        place = inside.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")


def _root() -> debian.Root:
    scripts = (SHARED / "install.sh", SHARED / "apptainer.sh", *(RECIPE / name for name in _BUILDING))
    return debian.Root(cache() / "openstack", "root", debian.fingerprint(_RECIPE, REVISION, scripts), _build)


def _build(place: Path) -> None:
    debian.debootstrap(_RECIPE.suite, place)
    with contextlib.ExitStack() as stack:
        claimed = stack.enter_context(ports(PORTS))
        wheels = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ebl-wheels-")))
        binds = (Bind(SHARED, Path("/debian")), Bind(RECIPE, Path("/recipe")), Bind(wheels, Path("/wheels")))
        inside = stack.enter_context(namespace(place, HOST_NAME, binds, writable=True))
        inside.run(["/debian/install.sh", *_RECIPE.packages], timeout=1800)
        inside.run(["/debian/apptainer.sh"], timeout=600)
        debian.download_wheels(_RECIPE, wheels)
        debian.install_wheels(_RECIPE, inside)
        inside.run(["/recipe/install-drivers.sh"], timeout=300)
        (inside.root / "etc/hosts").write_text(f"127.0.0.1 localhost {HOST_NAME}\n", encoding="utf-8")
        configure(inside, Ports(claimed[0]))
        inside.run(["/recipe/setup.sh"], timeout=600)
    (place / "etc/resolv.conf").unlink()
