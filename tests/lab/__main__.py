"""Prepare what the tests run against, or take it away: ``python -m tests.lab [--remove]``."""

from __future__ import annotations

import shutil
import sys
import time

from tests.lab import cache, containers, identity_provider
from tests.lab.htcondor.__main__ import build as build_htcondor
from tests.lab.openstack.__main__ import build as build_openstack
from tests.lab.slurm.__main__ import build as build_slurm
from tests.lab.systemd.roots import build as build_systemd


def main() -> int:
    """Prepare the lab; return 1 if something is missing."""
    if sys.argv[1:] == ["--remove"]:
        shutil.rmtree(cache(), ignore_errors=True)
        print(f"lab: {cache()} is removed")
        return 0
    if sys.argv[1:]:
        print("usage: python -m tests.lab [--remove]", file=sys.stderr)
        return 2
    # All are tried, so that one look tells all that is missing
    return max(
        build_slurm(), build_htcondor(), build_openstack(), build_systemd(), identity_provider.build(), _containers()
    )


def _containers() -> int:
    lacking = containers.missing()
    for reason in lacking:
        print(f"lab: containers cannot be tested: {reason}", file=sys.stderr)
    if lacking:
        return 1
    began = time.monotonic()
    layout = containers.image()
    with containers.registry() as registry, containers.podman(registry.registries) as podman:
        name = f"{registry.location.removesuffix(':1')}@{registry.digest}"
        podman.run("pull", "--quiet", name)
        said = podman.run("run", "--rm", "--network=none", name, "echo", "it works")
        assert said == "it works\n", said
    print(f"lab: containers work; image in {layout} ({time.monotonic() - began:.1f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
